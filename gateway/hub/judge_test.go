package hub

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/live"
	"luquan/gateway/page"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// fakeBook is a journal that can refuse.
type fakeBook struct {
	mu          sync.Mutex
	broken      error
	transitions []alarm.Transition
	pages       int
	checkpoints int
	ahead       bool // a checkpoint came while an event was not journalled
}

func (b *fakeBook) Apply(_ context.Context, events []alarm.Event, pages []page.Page) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	for _, e := range events {
		b.transitions = append(b.transitions, e.Transition)
	}
	b.pages += len(pages)
	return nil
}

func (b *fakeBook) Checkpoint(_ context.Context, mem []alarm.Memory) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.checkpoints++
	for _, m := range mem {
		if m.Alarm != nil && len(b.transitions) == 0 {
			b.ahead = true
		}
	}
	return nil
}

func (b *fakeBook) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

func (b *fakeBook) told() []alarm.Transition {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.transitions)
}

// bench is a judge with one meter of one gateway.
type bench struct {
	*judge
	book  *fakeBook
	seq   uint64
	start time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	rules, err := alarm.ParseFile("r.yaml", []byte(rule))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := page.ParseFile[channels]("p.yaml", []byte("channels: {a: {webhook: {url: \"http://127.0.0.1:1/\"}}}\nrotas: {duty: {notify: [a]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{book: &fakeBook{}, start: time.Now()}
	b.judge = newJudge(alarm.New(rules), live.New(live.Options{}), b.book, discard())
	b.judge.plan = plan
	b.judge.keep = func(wire.Meta) error { return nil }
	b.judge.meta(wire.Meta{Site: "s", Gateway: "g", Devices: []telemetry.DeviceInfo{{
		Name: "meter", Kind: "heat_meter", Groups: []telemetry.Group{{Every: time.Second, Points: []telemetry.Point{
			{Name: "temp", Class: telemetry.Float, Unit: "degC"}, {Name: "flow", Class: telemetry.Float, Unit: "L/s"},
		}}},
	}}})
	return b
}

// poll observes one record, as if it took a millisecond to come.
func (b *bench) poll(stamp time.Time, lane wire.What, status telemetry.Quality, readings ...telemetry.Reading) {
	b.seq++
	now := time.Now()
	b.observe(wire.Record{Epoch: 1, Seq: b.seq, Kind: wire.Reading, Sample: telemetry.Record{
		Site: "s", Gateway: "g", Epoch: 1, Seq: b.seq,
		Sample: telemetry.Sample{Device: "meter", Kind: "heat_meter", Time: stamp, Status: status, Readings: readings},
	}}, wire.Header{Epoch: 1, Lane: lane, Session: "a", Sent: now.Add(-time.Millisecond).UnixNano()}, now)
}

func temp(v float64) telemetry.Reading {
	return telemetry.Reading{Point: "temp", Value: telemetry.FloatValue(v)}
}

func TestJudgePagesOnceTheJournalHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		woken := 0
		b.wake = func() { woken++ }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()

		b.book.set(errors.New("disk full"))
		b.poll(time.Now(), wire.Live, telemetry.Good, temp(60))
		time.Sleep(90 * time.Second) // past a checkpoint
		synctest.Wait()
		if list := b.Alarms(); len(list) != 1 || list[0].State != alarm.Unacknowledged {
			t.Fatalf("the alarm must stand on the screen although the journal is full: %+v", list)
		}
		if woken != 0 || len(b.book.told()) != 0 || b.Failing() == nil {
			t.Fatalf("woken %d, journal %v, failing %v", woken, b.book.told(), b.Failing())
		}
		if b.book.ahead {
			t.Error("a checkpoint went ahead of the journal")
		}
		b.book.set(nil)
		time.Sleep(journalRetry + time.Millisecond)
		synctest.Wait()
		if got := b.book.told(); len(got) != 1 || got[0] != alarm.Raised || b.book.pages != 1 || woken != 1 {
			t.Errorf("journal %v, %d pages, woken %d; want one raised, one page", got, b.book.pages, woken)
		}
		if b.Failing() != nil {
			t.Error("it still says that the journal fails")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if b.book.checkpoints == 0 {
			t.Error("no checkpoint at the stop")
		}
	})
}

func TestJudgeAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		b.poll(time.Now(), wire.Live, telemetry.Good, temp(60))
		synctest.Wait()
		id := b.Alarms()[0].ID
		if err := b.Ack(t.Context(), id, "operator"); err != nil {
			t.Fatal(err)
		}
		if got := b.book.told(); len(got) != 2 || got[1] != alarm.AckedEvent {
			t.Errorf("acknowledged, and the journal has %v", got)
		}
		if err := b.Ack(t.Context(), "no such", "operator"); !errors.Is(err, alarm.ErrUnknown) {
			t.Errorf("got %v", err)
		}
		cancel()
		<-done
	})
}

func TestJudgeUnchangedAndBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		tick := func() { time.Sleep(time.Second) }
		b.poll(time.Now(), wire.Live, telemetry.Good, temp(60), telemetry.Reading{Point: "flow", Value: telemetry.FloatValue(1)})
		tick()
		b.poll(time.Now(), wire.Live, telemetry.Good) // both unchanged: confirmed
		e, _ := b.feed.Get("s/meter/temp")
		if a := b.Alarms(); len(a) != 1 || e.Quality != telemetry.Good || !e.Time.Equal(time.Now()) {
			t.Errorf("a confirmed value: %+v, %+v", a, e)
		}
		tick()
		b.poll(time.Now(), wire.Live, telemetry.NoReply)
		a := b.Alarms()
		if len(a) != 1 || a[0].State != alarm.Unacknowledged || a[0].Quality != telemetry.NoReply {
			t.Errorf("silence must not clear, and must show: %+v", a)
		}
		tick()
		b.seq++ // a record is missing: what "unchanged" refers to is not known
		b.poll(time.Now(), wire.Live, telemetry.Good)
		if e, _ := b.feed.Get("s/meter/temp"); !e.Unconfirmed && e.Quality == telemetry.Good && e.Time.Equal(time.Now()) {
			t.Errorf("a value was confirmed over a hole: %+v", e)
		}
		if a := b.Alarms(); len(a) == 0 || a[0].State != alarm.Unacknowledged {
			t.Errorf("the alarm was changed by a record that says nothing sure: %+v", a)
		}
	})
}

func TestJudgeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.poll(time.Now(), wire.Live, telemetry.Good, temp(40))
		time.Sleep(10 * time.Minute)
		for i := range 5 { // five minutes ago it was hot for a while
			b.poll(time.Now().Add(-5*time.Minute+time.Duration(i)*time.Second), wire.Backfill, telemetry.Good, temp(60))
		}
		b.poll(time.Now().Add(-4*time.Minute), wire.Backfill, telemetry.Good, temp(40))
		b.poll(time.Now(), wire.Live, telemetry.Good, temp(40))
		time.Sleep(10 * time.Minute)
		b.mu.Lock()
		b.add(b.engine.Tick(time.Now()), nil)
		b.mu.Unlock()
		b.write(t.Context())
		if b.book.pages != 0 {
			t.Errorf("%d pages for what was over before it was heard of", b.book.pages)
		}
	})
}

func TestQueueing(t *testing.T) {
	at := func(sent, received time.Duration) (wire.Header, time.Time) {
		epoch := time.Unix(1e9, 0)
		return wire.Header{Session: "a", Sent: epoch.Add(sent).UnixNano()}, epoch.Add(received)
	}
	d := &delay{}
	for _, tt := range []struct{ sent, received, want time.Duration }{
		{0, time.Hour + 3*time.Second, 0},                             // the clocks differ by an hour
		{time.Second, time.Hour + 3*time.Second, 0},                   // quicker: the new smallest
		{2 * time.Second, time.Hour + 9*time.Second, 5 * time.Second}, // queued behind something
	} {
		h, r := at(tt.sent, tt.received)
		if got := d.queueing(h, r); got != tt.want {
			t.Errorf("sent %v received %v: %v, want %v", tt.sent, tt.received, got, tt.want)
		}
	}
	h, r := at(0, 50*time.Second)
	h.Step = 1
	if got := d.queueing(h, r); got != 0 {
		t.Errorf("after a step of the board's clock the smallest of before still counts: %v", got)
	}
}

func TestMetasSurvive(t *testing.T) {
	s, err := openMetas(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := wire.Meta{Site: "s", Gateway: "g", Devices: []telemetry.DeviceInfo{{Name: "d", Kind: "k", Groups: []telemetry.Group{
		{Every: time.Second, Points: []telemetry.Point{{Name: "p", Class: telemetry.Float, Unit: "W"}}}}}}}
	for range 2 { // the second replaces the first
		if err := s.Keep(m); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Load()
	if err != nil || len(list) != 1 || list[0].Devices[0].Groups[0].Points[0].Unit != "W" {
		t.Errorf("%+v, %v", list, err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
