package poll

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/drivers"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dev is a device whose polls take time and answer as told.
type dev struct {
	name    string
	periods []time.Duration
	takes   func() time.Duration
	status  func() telemetry.Quality
	polls   []time.Time // when polls began
	groups  []int
}

func (d *dev) Info() telemetry.DeviceInfo {
	info := telemetry.DeviceInfo{Name: d.name, Kind: "meter"}
	for i, p := range d.periods {
		info.Groups = append(info.Groups, telemetry.Group{Index: i, Every: p})
	}
	return info
}

func (d *dev) Poll(ctx context.Context, group int) (telemetry.Sample, bool) {
	d.polls = append(d.polls, time.Now())
	d.groups = append(d.groups, group)
	select {
	case <-time.After(d.takes()):
	case <-ctx.Done():
		return telemetry.Sample{}, false
	}
	return telemetry.Sample{Device: d.name, Group: group, Time: time.Now(), Status: d.status()}, true
}

func always[T any](v T) func() T { return func() T { return v } }

func newDev(name string, every, takes time.Duration) *dev {
	return &dev{name: name, periods: []time.Duration{every}, takes: always(takes), status: always(telemetry.Good)}
}

type line struct {
	name string
	devs []drivers.Device
}

func (l line) Name() string              { return l.name }
func (l line) Devices() []drivers.Device { return l.devs }
func (l line) Close() error              { return nil }

type sink struct {
	mu      sync.Mutex
	samples map[string][]telemetry.Sample
}

func (s *sink) Sample(bus string, x telemetry.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.samples == nil {
		s.samples = map[string][]telemetry.Sample{}
	}
	s.samples[bus+"/"+x.Device] = append(s.samples[bus+"/"+x.Device], x)
}

// run polls the devices as one bus for d of fake time.
func run(t *testing.T, d time.Duration, devs ...drivers.Device) (*sink, Stats) {
	t.Helper()
	s := &sink{}
	p := New([]drivers.Bus{line{"b", devs}}, s, nil)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := p.Run(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return s, p.Stats()[0]
}

// TestGrid: every device keeps its period without drift, though each poll
// takes time, and devices of one period do not start together.
func TestGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var devs []drivers.Device
		var all []*dev
		for i := range 8 {
			d := newDev(fmt.Sprintf("meter-%d", i), 2*time.Second, 70*time.Millisecond)
			all, devs = append(all, d), append(devs, d)
		}
		s, st := run(t, 100*time.Second, devs...)
		for _, d := range all {
			if n := len(d.polls); n < 49 || n > 52 {
				t.Errorf("%s: %d polls in 100 s at 2 s", d.name, n)
			}
			for i, at := range d.polls[2:] { // the first comes early
				if gap := at.Sub(d.polls[i+1]); gap != 2*time.Second {
					t.Fatalf("%s: poll %d came %v after the one before", d.name, i, gap)
				}
			}
			if got := len(s.samples["b/"+d.name]); got < len(d.polls)-1 {
				t.Errorf("%s: %d samples of %d polls", d.name, got, len(d.polls))
			}
		}
		for i, d := range all { // evenly over the period
			if got, want := d.polls[20].Sub(all[0].polls[20]), time.Duration(i)*250*time.Millisecond; got != want {
				t.Errorf("%s comes %v after the first, want %v", d.name, got, want)
			}
		}
		if st.Skipped != 0 || st.Failed != 0 || st.Dead != 0 || st.Busy == 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// network is a line whose polls are gathered.
type network struct{ line }

func (network) Gathers() bool { return true }

// TestGathers: on a network polls come in bursts, a quarter of a second apart,
// and each device keeps its period.
func TestGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, takes = 40, time.Millisecond
		b := network{line{name: "lan"}}
		var all []*dev
		for i := range n {
			d := newDev(fmt.Sprintf("meter-%d", i), time.Second, takes)
			all, b.devs = append(all, d), append(b.devs, d)
		}
		p := New([]drivers.Bus{b}, &sink{}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		for i, d := range all {
			burst, place := i/(n/gatherShare), i%(n/gatherShare)
			want := time.Duration(burst)*gatherMost + time.Duration(place)*takes
			if got := d.polls[20].Sub(all[0].polls[20]); got != want {
				t.Errorf("%s comes %v after the first, want %v", d.name, got, want)
			}
			for k := 2; k < len(d.polls); k++ { // the first comes early
				if gap := d.polls[k].Sub(d.polls[k-1]); gap != time.Second {
					t.Fatalf("%s: %v between two polls", d.name, gap)
				}
			}
		}
	})
}

// TestMissedSlotsAreSkipped: a poll of 3.5 periods is followed by one poll at
// the next place of the grid, not by the missed ones.
func TestMissedSlotsAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDev("slow", time.Second, 0)
		n := 0
		d.takes = func() time.Duration {
			if n++; n == 5 {
				return 3500 * time.Millisecond
			}
			return 10 * time.Millisecond
		}
		_, st := run(t, 20*time.Second, d)
		if gap := d.polls[5].Sub(d.polls[4]); gap != 4*time.Second {
			t.Errorf("the poll after the long one came %v later, want 4s", gap)
		}
		if gap := d.polls[6].Sub(d.polls[5]); gap != time.Second {
			t.Errorf("then %v, want 1s", gap)
		}
		if st.Skipped != 3 {
			t.Errorf("%d slots counted as skipped, want 3", st.Skipped)
		}
	})
}

// TestEarliestDeadlineFirst: on a busy line the short period goes first.
func TestEarliestDeadlineFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast := newDev("fast", time.Second, 100*time.Millisecond)
		slow := newDev("slow", 20*time.Second, 700*time.Millisecond)
		other := newDev("other", 20*time.Second, 700*time.Millisecond)
		_, st := run(t, 60*time.Second, slow, other, fast)
		if st.Skipped > 6 {
			t.Errorf("%d slots skipped", st.Skipped)
		}
		if n := len(fast.polls); n < 54 {
			t.Errorf("fast was polled %d times in 60 s", n)
		}
		if len(slow.polls) < 3 || len(other.polls) < 3 {
			t.Errorf("slow %d other %d: starved", len(slow.polls), len(other.polls))
		}
	})
}

// TestDeadDeviceCostsItsOwnShare: a dead device backs off to 30 s, yields a
// row at each probe and none between, leaves the others their period, and
// returns to its own the moment it answers.
func TestDeadDeviceCostsItsOwnShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		dead := newDev("dead", 2*time.Second, 0)
		dead.periods = append(dead.periods, 10*time.Second)
		gone := func() bool { s := time.Since(start); return s > 20*time.Second && s < 300*time.Second }
		dead.takes = func() time.Duration {
			if gone() {
				return time.Second
			}
			return 20 * time.Millisecond
		}
		dead.status = func() telemetry.Quality {
			if gone() {
				return telemetry.NoReply
			}
			return telemetry.Good
		}
		var devs []drivers.Device
		var live []*dev
		for i := range 5 {
			d := newDev(fmt.Sprintf("live-%d", i), 2*time.Second, 100*time.Millisecond)
			live, devs = append(live, d), append(devs, d)
		}
		s, st := run(t, 400*time.Second, append(devs, dead)...)
		for _, d := range live {
			if n := len(d.polls); n < 195 {
				t.Errorf("%s was polled %d times of 200", d.name, n)
			}
		}
		var during, after int
		for _, at := range dead.polls {
			switch since := at.Sub(start); {
			case since > 60*time.Second && since < 290*time.Second:
				during++
			case since > 345*time.Second:
				after++
			}
		}
		if during < 6 || during > 12 {
			t.Errorf("%d probes of the dead device in 230 s, want one every 30 s", during)
		}
		if after < 30 { // 55 s: 27 of one group, 5 of the other
			t.Errorf("%d polls in the 55 s after it came back", after)
		}
		// A row says that the device was asked: as many as polls, but for the one cut short at the end.
		if n := len(s.samples["b/dead"]); n != len(dead.polls) && n != len(dead.polls)-1 {
			t.Errorf("%d rows of %d polls", n, len(dead.polls))
		}
		if st.Dead != 0 || st.Failed == 0 {
			t.Errorf("stats %+v", st)
		}
		if st.Skipped > 30 {
			t.Errorf("%d slots of living devices skipped", st.Skipped)
		}
	})
}

// TestRefusalsAreAnswers: a device that answers badly is alive and not backed off.
func TestRefusalsAreAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, q := range []telemetry.Quality{telemetry.Refused, telemetry.Garbled} {
			d := newDev("d", time.Second, 10*time.Millisecond)
			d.status = always(q)
			if _, st := run(t, 60*time.Second, d); len(d.polls) < 59 || st.Dead != 0 {
				t.Errorf("%v: %d polls in 60 s, stats %+v", q, len(d.polls), st)
			}
		}
	})
}

// TestBusesAreIndependent: a line that hangs for minutes does not hold another.
func TestBusesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, fine := newDev("stuck", time.Second, 5*time.Minute), newDev("fine", time.Second, 10*time.Millisecond)
		s := &sink{}
		p := New([]drivers.Bus{line{"a", []drivers.Device{stuck}}, line{"b", []drivers.Device{fine}}, line{"empty", nil}}, s, nil)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		start := time.Now()
		p.Run(ctx)
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("Run ended %v after the start, want 30s: a poll under way ends with the context", took)
		}
		if n := len(s.samples["b/fine"]); n < 29 {
			t.Errorf("%d samples of the fine bus", n)
		}
		if n := len(s.samples["a/stuck"]); n != 0 {
			t.Errorf("a poll that was cut short yielded %d samples", n)
		}
	})
}
