package uplink

import (
	"encoding/base64"
	"time"

	"luquan/gateway/wire"
)

// live publishes what was appended since, as far as the window allows, and
// returns how long until it wants to be called again. Draining, it does not
// linger.
func (s *session) live(now time.Time, draining bool) time.Duration {
	wait := time.Duration(1 << 62)
	lanes := s.u.cfg.Lanes
	for len(s.marks) > 0 {
		last := s.marks[len(s.marks)-1].last
		// What waits for the time is not what the link holds up.
		if lag := now.Sub(s.marks[0].at); lag > lanes.MaxLag+s.u.cfg.Linger && !draining && !s.timeless {
			s.skip(last)
			return wait
		}
		if len(s.flight) >= lanes.Window || len(s.flight) > 0 && now.Sub(s.flight[0].at) > stuck {
			return wait // a PUBACK wakes us, or the lag
		}
		due := later(s.marks[0].at.Add(s.u.cfg.Linger), s.liveAt.Add(gather)).Sub(now)
		if due > 0 && s.unfilled == last && !draining {
			return due
		}
		p, ok := s.pack(s.epoch, s.liveNext, last, lanes.Pack)
		s.timeless = ok && p.timeless && p.span.len() == 0
		if s.timeless {
			return tick / 10
		}
		if !ok {
			return wait
		}
		if p.span.len() == 0 { // freed or lost in the meantime
			s.liveDone(last)
			continue
		}
		if due > 0 && !p.full && !draining {
			s.unfilled = last
			return due
		}
		s.liveAt = now
		s.send(now, wire.Live, p, true)
		s.liveDone(p.span.last)
	}
	return wait
}

// liveDone moves the live cursor behind last.
func (s *session) liveDone(last uint64) {
	s.liveNext = last + 1
	for len(s.marks) > 0 && s.marks[0].last <= last {
		s.marks = s.marks[1:]
	}
}

// skip leaves what live could not send in time to the backlog, so that what
// is new goes first again.
func (s *session) skip(last uint64) {
	s.u.log.Warn("live lags and moves to the newest record", "skipped", last-s.liveNext+1, "in_flight", len(s.flight))
	if n := len(s.backlog); n > 0 && s.backlog[n-1].epoch == s.epoch && s.backlog[n-1].last+1 == s.liveNext {
		s.backlog[n-1].last = last
	} else {
		s.backlog = append(s.backlog, span{s.epoch, s.liveNext, last})
	}
	s.liveDone(last)
	s.skips++
	s.u.refresh("live skip")
}

// backfill publishes from the backlog, oldest first, while nothing live waits
// and the link keeps up, and returns how long until it wants to be called again.
func (s *session) backfill(now time.Time) time.Duration {
	lanes := s.u.cfg.Lanes
	rate := float64(lanes.Rate)
	s.tokens = min(burst(lanes), s.tokens+rate*now.Sub(s.tokensAt).Seconds())
	s.tokensAt = now
	// A few at a time: between them live has its turn.
	for range 2 {
		switch {
		case len(s.backlog) == 0,
			now.Before(s.readAt),
			!s.linkPace.room(now),
			!s.hubKeepsUp(now),
			len(s.flight) >= max(1, lanes.Window-reserve),
			len(s.flight) > 0 && now.Sub(s.flight[0].at) > stuck:
			return tick
		case s.tokens <= 0:
			return max(time.Millisecond, time.Duration(-s.tokens/rate*float64(time.Second)))
		}
		b := &s.backlog[0]
		p, ok := s.pack(b.epoch, b.first, b.last, min(lanes.Pack, s.backPack))
		if !ok {
			return tick
		}
		if p.span.len() == 0 && p.timeless {
			return tick / 10
		}
		if p.span.len() == 0 {
			s.backlog = s.backlog[1:]
			continue
		}
		s.backAt = now
		s.tokens -= float64(s.send(now, wire.Backfill, p, true))
		if b.first = p.span.last + 1; b.len() == 0 {
			s.backlog = s.backlog[1:]
		}
	}
	return 0
}

// burst is how many bytes the backlog may send at once.
func burst(l Lanes) float64 { return max(float64(l.Rate)/8, 128<<10) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// packed are the lines of consecutive records of one epoch.
type packed struct {
	span  span
	lines [][]byte
	full  bool // there is no room for more
	// timeless: the record after these has no stamp yet.
	timeless bool
}

// pack reads the first consecutive records of an epoch from from to last, as
// many as fill a payload of room bytes. The zero span means that there are none. With an
// error of the queue ok is false, and nothing is read for a second.
func (s *session) pack(epoch, from, last uint64, room int) (p packed, ok bool) {
	now := time.Now()
	if now.Before(s.readAt) {
		return packed{}, false
	}
	entries, err := s.u.queue.Read(epoch, from, 0, room)
	if err != nil && len(entries) == 0 {
		s.u.warn("records cannot be read from the buffer", "epoch", epoch, "from", from, "error", err)
		s.readAt = now.Add(tick)
		return packed{}, false
	}
	p.span.epoch = epoch
	size := 0
	boot := s.u.cfg.Boot
	if epoch != s.epoch {
		boot, _ = s.label(epoch)
	}
	for _, e := range entries {
		if e.Seq < from || e.Seq > last || e.Epoch != epoch {
			break
		}
		if p.span.first != 0 && e.Seq != p.span.last+1 {
			p.full = true // what follows cannot be in this payload
			break
		}
		line, ok := s.line(e, boot)
		if !ok {
			p.timeless, p.full = true, true
			break
		}
		if size += len(line) + 1; size > room && p.span.first != 0 {
			p.full = true
			break
		}
		p.lines = append(p.lines, line)
		if p.span.first == 0 {
			p.span.first = e.Seq
		}
		p.span.last = e.Seq
		p.full = size >= room
	}
	return p, true
}

// line returns the record's line. A stored form that cannot be read, of a
// newer version of this program, goes up as a comment: the hub puts it in
// quarantine, where it can be seen, and the records behind it are not held up.
// Not ok: the record has no stamp yet.
func (s *session) line(e Entry, boot string) (line []byte, ok bool) {
	_, stamp, err := wire.StampOf(e.Payload)
	if err == nil && stamp.Raw && s.u.cfg.Stamp != nil {
		if stamp, ok = s.u.cfg.Stamp(boot, e.Epoch, e.Seq, stamp); !ok {
			return nil, false
		}
	}
	if err == nil {
		line, err = wire.AppendLineAt(nil, e.Payload, stamp, e.Epoch, e.Seq)
	}
	if err == nil {
		return line, true
	}
	s.u.warn("a stored record cannot be read; it goes to the hub's quarantine", "epoch", e.Epoch, "seq", e.Seq, "error", err)
	const most = 30 << 10 // of raw bytes, so that the line keeps to its limit
	return []byte("#unreadable " + base64.StdEncoding.EncodeToString(e.Payload[:min(len(e.Payload), most)])), true
}

// send publishes one payload and returns its size. tracked records wait for
// the hub's word; a repetition is tracked already.
func (s *session) send(now time.Time, lane wire.What, p packed, tracked bool) int {
	u := s.u
	boot, cfg := u.cfg.Boot, u.cfg.Cfg
	if p.span.epoch != s.epoch {
		boot, cfg = s.label(p.span.epoch)
	}
	sentAt, step := u.now()
	h := wire.Header{Epoch: p.span.epoch, First: p.span.first, Count: len(p.lines), Lane: lane, Session: s.name,
		Step: step, Sent: sentAt, Boot: boot, Cfg: cfg}
	payload, err := wire.Encode(h, p.lines, u.cfg.Compress)
	if err != nil && p.span.epoch != s.epoch {
		// A label that is no label must not hold up its records.
		h.Boot, h.Cfg = parseLabel("")
		payload, err = wire.Encode(h, p.lines, u.cfg.Compress)
	}
	if err != nil {
		panic("BUG: uplink: a payload of our own making: " + err.Error())
	}
	t := wire.Topic{Site: u.cfg.Site, Gateway: u.cfg.Gateway, What: lane, Zstd: u.cfg.Compress}
	f := flight{span: p.span}
	if lane == wire.Backfill {
		f.back = len(payload)
	}
	s.publish(now, t.String(), false, payload, f)
	s.published += p.span.len()
	if tracked && u.cfg.Commit == CommitHub {
		s.track(now, p.span)
	}
	return len(payload)
}

func (s *session) label(epoch uint64) (boot, cfg string) {
	for _, h := range s.held {
		if h.Epoch == epoch {
			return parseLabel(h.Label)
		}
	}
	return parseLabel("")
}
