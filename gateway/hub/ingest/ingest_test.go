package ingest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/hub/ledger"
	"luquan/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a Consumer between fakes, with a real ledger.
type rig struct {
	*Consumer
	t      *testing.T
	ledger *ledger.Ledger
	path   string // of its file
	cancel context.CancelFunc
	done   chan error

	mu        sync.Mutex
	seen      []uint64 // seqs the sink saw
	states    []wire.State
	metas     []wire.Meta
	stored    map[uint64]int
	writes    [][]uint64
	fail      error
	reject    map[uint64]string
	published []wire.Committed
	pubAt     []time.Time
	pubFail   error
}

func (r *rig) Observe(rec wire.Record, _ wire.Header, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, rec.Seq)
}

type sink struct{ *rig }

func (s sink) State(_, _ string, st wire.State, _ time.Time) { s.states = append(s.states, st) }
func (s sink) Meta(m wire.Meta)                              { s.metas = append(s.metas, m) }

type store struct{ *rig }

func (s store) Write(_ context.Context, rows []Row) (map[int]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var seqs []uint64
	rejected := map[int]string{}
	for i, r := range rows {
		seqs = append(seqs, r.Record.Seq)
		if why := s.reject[r.Record.Seq]; why != "" {
			rejected[i] = why
		} else if s.fail == nil {
			s.stored[r.Record.Seq]++
		}
	}
	s.writes = append(s.writes, seqs)
	return rejected, s.fail
}

func (r *rig) Publish(_ context.Context, topic string, b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pubFail != nil {
		return r.pubFail
	}
	c, err := wire.ParseCommitted(b)
	if err != nil || topic != "luquan/v1/s/g/committed" {
		r.t.Errorf("published on %s: %v", topic, err)
	}
	r.published = append(r.published, c)
	r.pubAt = append(r.pubAt, time.Now())
	return nil
}

func (r *rig) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *rig) upto() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.published) == 0 {
		return 0
	}
	return r.published[len(r.published)-1].Epochs[9].Upto
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, stored: map[uint64]int{}, reject: map[uint64]string{}, done: make(chan error, 1)}
	dir := t.TempDir()
	l, err := ledger.Open(filepath.Join(dir, "ledger.db"), "hub-1/boot", nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := OpenQuarantine(filepath.Join(dir, "q"))
	if err != nil {
		t.Fatal(err)
	}
	r.ledger, r.path = l, filepath.Join(dir, "ledger.db")
	cfg := Config{Hub: "hub-1", Sink: sink{r}, Store: store{r}, Ledger: l, Publisher: r, Quarantine: q}
	if change != nil {
		change(&cfg)
	}
	r.Consumer = New(cfg)
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- r.Run(ctx) }()
}

func (r *rig) stop() {
	r.cancel()
	if err := <-r.done; !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run returned %v", err)
	}
	r.ledger.Close()
	r.cfg.Quarantine.Close()
}

// payload of seqs first to last.
func payload(t *testing.T, first, last uint64) []byte {
	t.Helper()
	var lines [][]byte
	for s := first; s <= last; s++ {
		lines = append(lines, fmt.Appendf(nil, "meter,site=s,gateway=g,device=m x=1.5,status=0i,group=0i,epoch=9i,seq=%di %d", s, 1763850000000000000+int64(s)))
	}
	return encode(t, first, lines)
}

func encode(t *testing.T, first uint64, lines [][]byte) []byte {
	t.Helper()
	b, err := wire.Encode(wire.Header{Epoch: 9, First: first, Count: len(lines), Lane: wire.Live, Session: "se", Sent: 1, Boot: "bo", Cfg: "9f86d081"}, lines, false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pass lets time pass, and everything come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) send(first, last uint64) {
	r.t.Helper()
	r.Handle("luquan/v1/s/g/live", payload(r.t, first, last), time.Now())
}

func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.send(1, 5)
		if len(r.seen) != 5 {
			t.Fatalf("the sink saw %v before Handle returned", r.seen)
		}
		pass(time.Second)
		synctest.Wait()
		if r.upto() != 5 || len(r.writes) != 1 {
			t.Fatalf("committed to %d after %d writes", r.upto(), len(r.writes))
		}
		r.send(4, 8) // a resend that overlaps
		pass(time.Second)
		if r.upto() != 8 || !reflect.DeepEqual(r.seen, []uint64{1, 2, 3, 4, 5, 6, 7, 8}) {
			t.Fatalf("committed to %d, seen %v", r.upto(), r.seen)
		}
		for s, n := range r.stored {
			if n != 1 {
				t.Errorf("seq %d was written %d times", s, n)
			}
		}
		n := len(r.published)
		r.send(1, 8) // the board did not hear: it is told again
		pass(time.Second)
		if len(r.published) != n+1 || r.upto() != 8 {
			t.Errorf("%d more committed after a resend", len(r.published)-n)
		}
		if s := r.Stats(); s.Duplicates != 10 || s.Stored != 8 || s.QueueLines != 0 || s.QueueBytes != 0 || !s.OldestWaiting.IsZero() {
			t.Errorf("%+v", s)
		}
		r.stop()
	})
}

// TestStoreDown: nothing is committed, everything is shown, the order is kept,
// and when the store is back each line is there once.
func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail = errors.New("down")
		r.run()
		for s := uint64(1); s <= 600; s += 10 {
			r.send(s, s+9)
			pass(time.Second)
		}
		if len(r.seen) != 600 || r.upto() != 0 {
			t.Fatalf("%d seen, committed to %d", len(r.seen), r.upto())
		}
		st := r.Stats()
		if st.FailingSince.IsZero() || st.Why != "down" || time.Since(st.OldestWaiting) < 59*time.Second {
			t.Errorf("%+v", st)
		}
		if len(r.writes) > 20 {
			t.Errorf("%d attempts in a minute: no back-off", len(r.writes))
		}
		r.set(func() { r.fail = nil; r.writes = nil })
		pass(time.Minute)
		if r.upto() != 600 || len(r.stored) != 600 {
			t.Fatalf("committed to %d, %d stored", r.upto(), len(r.stored))
		}
		next := uint64(1)
		for _, w := range r.writes {
			for _, s := range w {
				if s != next {
					t.Fatalf("seq %d written where %d was due", s, next)
				}
				next++
			}
		}
		if st := r.Stats(); !st.FailingSince.IsZero() || st.Why != "" {
			t.Errorf("%+v", st)
		}
		r.stop()
	})
}

type asksFor time.Duration

func (asksFor) Error() string               { return "slow down" }
func (a asksFor) RetryAfter() time.Duration { return time.Duration(a) }

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail = fmt.Errorf("write: %w", asksFor(40*time.Second))
		r.run()
		r.send(1, 1)
		pass(39 * time.Second)
		if len(r.writes) != 1 {
			t.Fatalf("%d attempts before Retry-After", len(r.writes))
		}
		r.set(func() { r.fail = nil })
		pass(15 * time.Second)
		if r.upto() != 1 {
			t.Fatal("not written after it")
		}
		r.stop()
	})
}

// TestQueueFull drops from the queue, never from the sink, and takes the
// record when the board sends it again.
func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.QueueBytes = 40 * 600 })
		r.fail = errors.New("down")
		r.run()
		for s := uint64(1); s <= 100; s += 5 {
			r.send(s, s+4)
		}
		st := r.Stats()
		if len(r.seen) != 100 || st.Dropped == 0 || st.QueueBytes > 40*600/2 {
			t.Fatalf("%d seen, %+v", len(r.seen), st)
		}
		r.set(func() { r.fail = nil })
		pass(time.Minute)
		first := r.upto() + 1
		if first < 5 || len(r.stored) == 100 {
			t.Fatalf("%d stored, committed to %d", len(r.stored), first-1)
		}
		for s := first; s <= 100; s += 5 {
			r.send(s, min(s+4, 100))
			pass(time.Second)
		}
		if r.upto() != 100 || len(r.seen) != 100 {
			t.Fatalf("after the resend: committed to %d, seen %d", r.upto(), len(r.seen))
		}
		r.stop()
	})
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.reject[2] = "field type conflict"
		r.run()
		lines := strings.Split(strings.TrimSpace(string(payload(t, 1, 4))), "\n")[1:]
		lines[2] = "meter,site=s,gateway=g x=\xff"
		var raw [][]byte
		for _, l := range lines {
			raw = append(raw, []byte(l))
		}
		r.Handle("luquan/v1/s/g/live", encode(t, 1, raw), time.Now())
		pass(time.Second)
		if r.upto() != 4 || len(r.stored) != 2 {
			t.Fatalf("committed to %d, stored %v: a bad line must hold nothing up", r.upto(), r.stored)
		}
		es, total, err := r.cfg.Quarantine.Find(Filter{}, 10)
		if err != nil || len(es) != 2 || total != 2 {
			t.Fatalf("%+v, %v", es, err)
		}
		if es[0].Seq != 2 || es[0].Reason != "field type conflict" || es[0].Line != lines[1] {
			t.Errorf("newest: %+v", es[0])
		}
		if es[1].Seq != 3 || string(es[1].Raw) != lines[2] || es[1].Reason == "" {
			t.Errorf("oldest: %+v", es[1])
		}
		rs, err := r.ledger.Account(t.Context(), ledger.Query{ByEpoch: true})
		if err != nil || rs[0].Stored != 2 || rs[0].Quarantined != 2 || rs[0].Missing != 0 {
			t.Errorf("%+v, %v", rs, err)
		}
		if !reflect.DeepEqual(r.seen, []uint64{1, 2, 4}) {
			t.Errorf("the sink saw %v", r.seen)
		}
		r.stop()
	})
}

// TestNothingCommittedWithoutQuarantine: a line that can be kept nowhere is
// not freed on the board.
func TestNothingCommittedWithoutQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.reject[1] = "no"
		dir := r.cfg.Quarantine.dir
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		r.run()
		r.send(1, 2)
		pass(10 * time.Second)
		if r.upto() != 0 {
			t.Fatalf("committed to %d", r.upto())
		}
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second)
		if r.upto() != 2 || r.stored[2] != 1 {
			t.Fatalf("committed to %d, stored %v", r.upto(), r.stored)
		}
		r.stop()
	})
}

func TestCommitThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		for s := uint64(1); s <= 100; s++ {
			r.send(s, s)
			pass(100 * time.Millisecond)
		}
		pass(2 * time.Second)
		if r.upto() != 100 {
			t.Fatalf("committed to %d", r.upto())
		}
		for i := 1; i < len(r.pubAt); i++ {
			if d := r.pubAt[i].Sub(r.pubAt[i-1]); d < 500*time.Millisecond {
				t.Errorf("committed %d came %v after the one before", i, d)
			}
		}
		r.set(func() { r.pubFail = errors.New("no broker") })
		r.send(101, 101)
		pass(10 * time.Second)
		r.set(func() { r.pubFail = nil })
		pass(2 * time.Second)
		if r.upto() != 101 {
			t.Fatal("a committed that could not be published was forgotten")
		}
		r.stop()
	})
}

// TestStop writes what waits before Run returns, and Run returns in time even
// when the store hangs.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.send(1, 7)
		synctest.Wait()
		r.stop()
		if len(r.stored) != 7 || r.upto() != 7 {
			t.Fatalf("stored %v, committed to %d", r.stored, r.upto())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Store = hanging{} })
		r.run()
		r.send(1, 7)
		pass(5 * time.Second)
		t0 := time.Now()
		r.stop()
		if d := time.Since(t0); d > 2*time.Second {
			t.Fatalf("Run took %v to return", d)
		}
		if st := r.Stats(); st.QueueLines != 7 || r.upto() != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

type hanging struct{}

func (hanging) Write(ctx context.Context, _ []Row) (map[int]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
