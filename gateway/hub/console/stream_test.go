package console

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"luquan/gateway/hub/live"
	"luquan/gateway/telemetry"
)

type event struct {
	kind, id string
	data     struct {
		Now     time.Time
		Points  []map[string]any
		Removed []string
		Version uint64
	}
}

type reader struct {
	t    testing.TB
	scan *bufio.Scanner
	body io.ReadCloser
}

func (b *bench) stream(t testing.TB, path string, header ...string) *reader {
	t.Helper()
	resp := b.get(t, path, header...)
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("%s: %d %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, 8<<20)
	return &reader{t, s, resp.Body}
}

func (r *reader) next() event {
	r.t.Helper()
	e, ok := r.read()
	if !ok {
		r.t.Fatalf("stream ended: %v", r.scan.Err())
	}
	return e
}

func (r *reader) read() (e event, ok bool) {
	for r.scan.Scan() {
		line := r.scan.Text()
		switch {
		case line == "":
			if e.kind != "" {
				return e, true
			}
		case strings.HasPrefix(line, "event: "):
			e.kind = line[7:]
		case strings.HasPrefix(line, "id: "):
			e.id = line[4:]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[6:]), &e.data); err != nil {
				r.t.Errorf("%v in %s", err, line)
				return e, false
			}
		}
	}
	return e, false
}

// until skips events until one of the kind.
func (r *reader) until(kind string) event {
	r.t.Helper()
	for {
		if e := r.next(); e.kind == kind {
			return e
		}
	}
}

func TestStream(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Heartbeat = 60 * time.Millisecond })
	r := b.stream(t, "/api/v1/live?match=sewage-west/*/*")
	snap := r.next()
	if snap.kind != "snapshot" || len(snap.data.Points) != 10 || snap.id == "" {
		t.Fatalf("%s with %d points, id %q", snap.kind, len(snap.data.Points), snap.id)
	}
	if p := snap.data.Points[0]; p["unit"] == nil || p["label"] == nil || p["period"] == nil {
		t.Errorf("a point of the snapshot is not whole: %v", p)
	}
	if e := r.until("heartbeat"); e.data.Now.IsZero() || time.Since(e.data.Now) > time.Minute {
		t.Errorf("heartbeat %v", e)
	}
	b.poll(b.find("sump-level"), time.Now(), telemetry.NoReply)
	b.poll(b.find("heat-meter-1"), time.Now(), telemetry.Good) // not asked for
	d := r.until("delta")
	if len(d.data.Points) != 1 || d.data.Points[0]["quality"] != "no reply" || d.data.Points[0]["value"] != nil {
		t.Errorf("delta %v", d.data.Points)
	}
	if _, whole := d.data.Points[0]["unit"]; whole {
		t.Error("a delta repeats what did not change")
	}
	b.alarms.fill(time.Now())
	if e := r.until("alarms"); e.data.Version == 0 {
		t.Errorf("alarms %v", e.data)
	}

	// Away, and back with the last id: only what was missed.
	_ = r.body.Close()
	b.poll(b.find("aeration-probe"), time.Now(), telemetry.Good)
	for _, h := range [][]string{{"", "Last-Event-ID", d.id}, {"&last_event_id=" + d.id}} {
		again := b.stream(t, "/api/v1/live?match=sewage-west/*/*"+h[0], h[1:]...)
		if e := again.next(); e.kind != "delta" || len(e.data.Points) != 4 {
			t.Errorf("resumed with %s of %d points, want a delta of 4", e.kind, len(e.data.Points))
		}
		_ = again.body.Close()
	}
	// An id of another run: everything again.
	other := b.stream(t, "/api/v1/live?match=sewage-west/*/*", "Last-Event-ID", "feedbeef-3")
	if e := other.next(); e.kind != "snapshot" || len(e.data.Points) != 10 {
		t.Errorf("foreign id: %s of %d points", e.kind, len(e.data.Points))
	}
	// A changed announcement: what is gone is told.
	b.feed.Describe("sewage-west", "pump-station-1", []telemetry.DeviceInfo{b.devs[b.find("sump-level")].info})
	if e := other.until("delta"); len(e.data.Removed) != 9 || len(e.data.Points) != 1 || e.data.Points[0]["unit"] != "m" {
		t.Errorf("removed %v, points %v", e.data.Removed, e.data.Points)
	}
	// The hub stops: the stream ends.
	b.stop()
	for {
		if _, ok := other.read(); !ok {
			break
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxStreams = 1 })
	r := b.stream(t, "/api/v1/live")
	r.next()
	resp := b.get(t, "/api/v1/live")
	if body := decode[map[string]string](t, resp); resp.StatusCode != 503 || body["hint"] == "" {
		t.Errorf("%d %v, want 503", resp.StatusCode, body)
	}
}

// TestStalledReaderIsCut: a client that stops reading loses its stream within
// the limit, and the others notice nothing.
func TestStalledReaderIsCut(t *testing.T) {
	b := newBench(t, func(o *Options) { o.WriteLimit = 300 * time.Millisecond })
	var names []telemetry.Point
	for i := range 400 {
		names = append(names, float(fmt.Sprintf("p%d", i), "W", strings.Repeat("长", 2000), "long"))
	}
	info := telemetry.DeviceInfo{Name: "big", Kind: "pump", Groups: []telemetry.Group{{Every: time.Second, Points: names}}}
	conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := io.WriteString(conn, "GET /api/v1/live HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	good := b.stream(t, "/api/v1/live")
	good.next()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				b.feed.Describe("big", "g", []telemetry.DeviceInfo{info}) // every point whole, each time
			}
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for b.feed.Stats().Readers > 1 && time.Now().Before(deadline) {
		good.next()
	}
	close(stop)
	wg.Wait()
	if n := b.feed.Stats().Readers; n != 1 {
		t.Errorf("%d streams open, want the good one only", n)
	}
	body, _ := io.ReadAll(b.get(t, "/metrics").Body)
	if !strings.Contains(string(body), "luquan_console_streams_cut_total 1") {
		t.Errorf("the cut is not counted:\n%s", body)
	}
}

// TestSlowReaderIsTold: a reader behind for longer than the feed's patience
// is told before its stream ends.
func TestSlowReaderIsTold(t *testing.T) {
	opt := Options{Feed: live.New(live.Options{Patience: 20 * time.Millisecond, Interval: time.Millisecond}), WriteLimit: 5 * time.Second, Heartbeat: time.Second}
	info := benchDevices()[0].info
	opt.Feed.Describe("s", "g", []telemetry.DeviceInfo{info})
	pipe := newStuckWriter()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "/api/v1/live", nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Handler(opt).ServeHTTP(pipe, req)
	}()
	<-pipe.stuck // the handler stands in its first write
	for range 20 {
		opt.Feed.Describe("s", "g", []telemetry.DeviceInfo{info})
		time.Sleep(5 * time.Millisecond) // real time passes: that is what is tested
	}
	close(pipe.release)
	<-done
	if got := pipe.text(); !strings.Contains(got, "event: dropped") {
		t.Errorf("not told: %.400s", got)
	}
}

// stuckWriter blocks in its second write until released.
type stuckWriter struct {
	mu             sync.Mutex
	b              strings.Builder
	n              atomic.Int32
	stuck, release chan struct{}
	header         http.Header
}

func newStuckWriter() *stuckWriter {
	return &stuckWriter{stuck: make(chan struct{}), release: make(chan struct{}), header: http.Header{}}
}

func (w *stuckWriter) Header() http.Header { return w.header }
func (w *stuckWriter) WriteHeader(int)     {}
func (w *stuckWriter) Flush()              {}
func (w *stuckWriter) Write(p []byte) (int, error) {
	if w.n.Add(1) == 2 {
		close(w.stuck)
		<-w.release
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *stuckWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// BenchmarkStreams is 200 browsers on 2,000 points with 200 changes a second;
// one operation is one second of that.
func BenchmarkStreams(b *testing.B) {
	bn := newBench(b, nil)
	var devs []telemetry.DeviceInfo
	var points []telemetry.Point
	for i := range 20 {
		points = append(points, float(fmt.Sprintf("p%02d", i), "W", "功率", "Power"))
	}
	for i := range 100 {
		devs = append(devs, telemetry.DeviceInfo{Name: fmt.Sprintf("d%d", i), Kind: "pump", Groups: []telemetry.Group{{Every: time.Second, Points: points}}})
	}
	bn.feed.Describe("big", "g", devs)
	var events atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		r := bn.stream(b, "/api/v1/live?match=big/*/*")
		wg.Go(func() {
			for r.scan.Scan() {
				if strings.HasPrefix(r.scan.Text(), "event: ") {
					events.Add(1)
				}
			}
		})
	}
	seq := uint64(0)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	for range b.N {
		for range 10 { // one record of 20 points each
			<-tick.C
			seq++
			rec := telemetry.Record{Site: "big", Gateway: "g", Epoch: 1, Seq: seq, Sample: telemetry.Sample{Device: devs[seq%100].Name, Kind: "pump", Time: time.Now()}}
			for i := range points {
				rec.Readings = append(rec.Readings, telemetry.Reading{Point: points[i].Name, Value: telemetry.FloatValue(float64(seq) + float64(i)/7)})
			}
			bn.feed.Apply(rec, time.Now())
		}
	}
	b.StopTimer()
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/s")
	b.ReportMetric(float64(events.Load())/float64(b.N), "events/s")
	bn.stop()
	wg.Wait()
}

// TestHeadOfAStream wants the head and nothing that goes on behind it.
func TestHeadOfAStream(t *testing.T) {
	b := newBench(t, nil)
	for range 2 { // on one connection
		resp := b.do(t, "HEAD", "/api/v1/live")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
			t.Errorf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
	body, err := io.ReadAll(b.get(t, "/metrics").Body)
	if err != nil || !strings.Contains(string(body), "luquan_console_streams 0\n") {
		t.Errorf("a stream is held open: %v\n%s", err, body)
	}
}
