package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"luquan/gateway/hub/live"
)

// look is how often a stream looks whether the alarms changed.
const look = 500 * time.Millisecond

// delta is the data of the events snapshot and delta. Points that are new or
// were announced anew are given whole, others by what changed.
type delta struct {
	Now     time.Time `json:"now"`
	Points  []any     `json:"points"`
	Removed []string  `json:"removed,omitempty"`
}

// live streams server-sent events: snapshot, then delta, at most four a
// second; heartbeat when nothing was sent for so long; alarms when the list
// of alarms changed; dropped before a slow reader is cut. A client that comes
// back with Last-Event-ID gets what it missed.
func (s *server) live(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "match", "last_event_id")
	if err != nil {
		return err
	}
	g, err := glob(p)
	if err != nil {
		return err
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return refuse(http.StatusServiceUnavailable, "too many event streams are open", "close some, or try again later")
	}
	cursor := r.Header.Get("Last-Event-ID")
	if cursor == "" {
		cursor = p["last_event_id"]
	}
	sub := s.opt.Feed.Resume(g, cursor)
	defer sub.Close()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return nil // it asks for the head alone: a stream would hold it for ever
	}
	st := &stream{server: s, w: w, ctl: http.NewResponseController(w), sent: time.Now()}
	if err := st.raw([]byte("retry: 2000\n\n")); err != nil {
		return nil
	}
	if err := st.run(r.Context(), sub); errors.Is(err, live.ErrSlow) || errors.Is(err, os.ErrDeadlineExceeded) {
		// The response has begun, so no status can tell.
		s.cut.Inc()
		s.log.Info("event stream cut", "remote", r.RemoteAddr, "error", err)
	}
	return nil
}

type stream struct {
	*server
	w    http.ResponseWriter
	ctl  *http.ResponseController
	buf  bytes.Buffer
	sent time.Time
}

func (st *stream) run(ctx context.Context, sub *live.Subscription) error {
	var alarms uint64
	for first := true; ; first = false {
		if st.opt.Alarms != nil && !first {
			if v := st.opt.Alarms.Version(); v != alarms {
				alarms = v
				if err := st.event("alarms", "", struct {
					Version uint64 `json:"version"`
				}{v}); err != nil {
					return err
				}
			}
		}
		d, err := st.next(ctx, sub)
		switch {
		case err == nil:
			kind := "delta"
			if d.Whole {
				kind = "snapshot"
			}
			if err := st.event(kind, d.Cursor, st.encode(&d)); err != nil {
				return err
			}
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			if time.Since(st.sent) >= st.opt.Heartbeat {
				if err := st.event("heartbeat", "", delta{Now: time.Now().UTC(), Points: []any{}}); err != nil {
					return err
				}
			}
		case errors.Is(err, live.ErrSlow):
			_ = st.event("dropped", "", struct {
				Error string `json:"error"`
				Hint  string `json:"hint"`
			}{"this reader is too slow", "reconnect; Last-Event-ID continues where it stopped"})
			return err
		default:
			return err
		}
	}
}

func (st *stream) next(ctx context.Context, sub *live.Subscription) (live.Delta, error) {
	ctx, cancel := context.WithTimeout(ctx, min(look, st.opt.Heartbeat))
	defer cancel()
	return sub.Next(ctx)
}

func (st *stream) encode(d *live.Delta) delta {
	out := delta{Now: time.Now().UTC(), Points: make([]any, len(d.Entries)), Removed: d.Removed}
	for i := range d.Entries {
		if e := &d.Entries[i]; e.Described > d.Since {
			out.Points[i] = st.fullPoint(e)
		} else {
			out.Points[i] = pointState(e)
		}
	}
	return out
}

// event writes one event; data is one line of JSON.
func (st *stream) event(kind, id string, data any) error {
	st.buf.Reset()
	st.buf.WriteString("event: " + kind + "\n")
	if id != "" {
		st.buf.WriteString("id: " + id + "\n")
	}
	st.buf.WriteString("data: ")
	enc := json.NewEncoder(&st.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil { // ends with the data line's newline
		return err
	}
	st.buf.WriteByte('\n')
	return st.raw(st.buf.Bytes())
}

// raw writes and flushes within WriteLimit. A reader that does not take it in
// that time is cut: it must not hold a stream for ever.
func (st *stream) raw(b []byte) error {
	if err := st.ctl.SetWriteDeadline(time.Now().Add(st.opt.WriteLimit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := st.w.Write(b); err != nil {
		return err
	}
	if err := st.ctl.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	st.sent = time.Now()
	st.written.Inc()
	return nil
}
