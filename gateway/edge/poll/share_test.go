package poll

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers"
	"luquan/gateway/telemetry"
)

func TestLevel(t *testing.T) {
	f := func(demands []float64, want, wantUsed float64) {
		t.Helper()
		if got := level(demands); math.Abs(got-want) > 1e-9 {
			t.Errorf("level of %v is %v, want %v", demands, got, want)
		}
		if got := used(demands); math.Abs(got-wantUsed) > 1e-9 {
			t.Errorf("of %v %v is used, want %v", demands, got, wantUsed)
		}
	}
	f(nil, 1, 0)
	f([]float64{0.5, 0.5}, 1, 1)
	f([]float64{0.2, 1.5, 0.1}, 0.6, 0.9)
	f([]float64{0.6, 0.6}, 0.45, 0.9)
	f([]float64{0.1, 0.5, 0.8}, 0.4, 0.9)
	for used, want := range map[float64]float64{0: 0.5, 0.5: 0.25, 0.8: 0.1, 0.99: 0.05} {
		if got := failingShare(used); math.Abs(got-want) > 1e-9 {
			t.Errorf("of a line used %v those that fail have %v, want %v", used, got, want)
		}
	}
}

// site is 20 devices that together need 70 % of the line, some of them odd.
type site struct {
	devs   []*dev
	loads  []Load
	period time.Duration
}

const limit = time.Second

func newSite(period time.Duration) *site {
	s := &site{period: period}
	for i := range 20 {
		takes := period * 7 / 10 / 20
		d := newDev(fmt.Sprintf("meter-%02d", i), period, takes)
		s.devs = append(s.devs, d)
		s.loads = append(s.loads, Load{Device: d.name, Every: period, Takes: takes, Slow: takes + limit, Silent: limit + 20*time.Millisecond})
	}
	return s
}

// kill makes the device answer with q after took, from the time from on.
func (s *site) odd(i int, q telemetry.Quality, took, from time.Duration) {
	start, usual := time.Now(), s.loads[i].Takes
	d := s.devs[i]
	is := func() bool { return time.Since(start) >= from }
	d.takes = func() time.Duration {
		if is() {
			return took
		}
		return usual
	}
	began := is()
	d.status = func() telemetry.Quality {
		if is() || began {
			return q
		}
		return telemetry.Good
	}
}

func (s *site) run(t *testing.T, d time.Duration, log *slog.Logger) Stats {
	t.Helper()
	var devs []drivers.Device
	for _, d := range s.devs {
		devs = append(devs, d)
	}
	p := New([]drivers.Bus{line{"b", devs}}, &sink{}, log)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	p.Run(ctx)
	return p.Stats()[0]
}

// kept tells the worst of the devices from the index on, between two times:
// the mean of its period and the single interval that is furthest off, both as
// a part of the period.
func (s *site) kept(from int, start time.Time, since, until time.Duration) (mean, single float64) {
	for _, d := range s.devs[from:] {
		var at []time.Time
		for _, x := range d.polls {
			if x.Sub(start) >= since && x.Sub(start) < until {
				at = append(at, x)
			}
		}
		if len(at) < 3 {
			return math.Inf(1), math.Inf(1)
		}
		m := float64(at[len(at)-1].Sub(at[0])) / float64(len(at)-1)
		mean = max(mean, math.Abs(m/float64(s.period)-1))
		for i := range at[1:] {
			single = max(single, math.Abs(float64(at[i+1].Sub(at[i]))/float64(s.period)-1))
		}
	}
	return mean, single
}

// TestOthersKeepTheirPeriod: at 70 % of the line, three of twenty devices may
// be dead, or garble everything, each costing a second at a time.
func TestOthersKeepTheirPeriod(t *testing.T) {
	for name, tt := range map[string]struct {
		period time.Duration
		q      telemetry.Quality
		took   time.Duration
		from   time.Duration // odd from then on
		single float64       // no single interval is further off than that; 0: at most the line is held by one time-out
	}{
		"dead, 2 s":                {2 * time.Second, telemetry.NoReply, 1020 * time.Millisecond, 0, 0},
		"dead, 5 s":                {5 * time.Second, telemetry.NoReply, 1020 * time.Millisecond, 0, 0},
		"dead, 30 s":               {30 * time.Second, telemetry.NoReply, 1020 * time.Millisecond, 0, 0.05},
		"dead, 60 s":               {60 * time.Second, telemetry.NoReply, 1020 * time.Millisecond, 0, 0.05},
		"dying, 5 s":               {5 * time.Second, telemetry.NoReply, 1020 * time.Millisecond, time.Minute, 0},
		"garbled, 5 s":             {5 * time.Second, telemetry.Garbled, 1100 * time.Millisecond, 0, 0},
		"garbled, a second a part": {5 * time.Second, telemetry.Garbled, 3 * time.Second, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := newSite(tt.period)
				for i := range 3 {
					s.odd(i, tt.q, tt.took, tt.from)
				}
				whole := max(10*time.Minute, 12*tt.period)
				st := s.run(t, whole, nil)
				mean, single := s.kept(3, start, tt.from+2*tt.period, whole)
				t.Logf("mean off by %.2f %%, a single interval by %.1f %%; skipped %d, rested %d", 100*mean, 100*single, st.Skipped, st.Rested)
				if mean > 0.05 {
					t.Errorf("the mean period is off by %.1f %%", 100*mean)
				}
				bound := tt.single
				if bound == 0 {
					bound = float64(tt.took+2*s.loads[0].Takes) / float64(tt.period)
				}
				if single > bound {
					t.Errorf("a single interval is off by %.1f %%, more than %.1f %%", 100*single, 100*bound)
				}
			})
		})
	}
}

// TestSlowDevice: a device that answers in the last millisecond of its limit
// costs itself its period, as Predict says, and no other.
func TestSlowDevice(t *testing.T) {
	for _, period := range []time.Duration{2 * time.Second, 5 * time.Second, 30 * time.Second} {
		t.Run(period.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := newSite(period)
				slow := s.loads[0].Slow
				s.odd(0, telemetry.Good, slow, 0)
				whole := max(10*time.Minute, 12*period)
				var out bytes.Buffer
				st := s.run(t, whole, slog.New(slog.NewTextHandler(&out, nil)))
				f := PredictSlow(s.loads, "meter-00")
				mean, _ := s.kept(1, start, 2*period, whole)
				if f.Every[1] != period || mean > 0.05 {
					t.Errorf("the others keep %v, said Predict; they are off by %.1f %%", f.Every[1], 100*mean)
				}
				polls := s.devs[0].polls
				got := polls[len(polls)-1].Sub(polls[2]) / time.Duration(len(polls)-3)
				t.Logf("load %.0f %%: every %v, predicted %v; the others off by %.2f %%; skipped %d", 100*f.Share, got, f.Every[0], 100*mean, st.Skipped)
				if d := float64(got)/float64(f.Every[0]) - 1; math.Abs(d) > 0.05 {
					t.Errorf("the slow one is polled every %v, said Predict %v", got, f.Every[0])
				}
				told := strings.Count(out.String(), "periods cannot be kept")
				want := 0
				if f.Every[0] > period {
					want = 1
				}
				if told != want || int(st.Episodes) != want || (st.Devices[0].Skipped > 0) != (want > 0) {
					t.Errorf("told %d times, want %d; %+v\n%s", told, want, st.Devices[0], out.String())
				}
			})
		})
	}
}

// TestPredictSilent: how often a dead device is asked, and how late it makes the others.
func TestPredictSilent(t *testing.T) {
	for _, period := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 60 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			s := newSite(period)
			s.odd(0, telemetry.NoReply, s.loads[0].Silent, 0)
			whole := 20 * max(period, time.Minute)
			s.run(t, whole, nil)
			f := PredictSilent(s.loads, "meter-00")
			var asked []time.Time
			for _, x := range s.devs[0].polls {
				if x.Sub(start) > 3*time.Minute {
					asked = append(asked, x)
				}
			}
			got := asked[len(asked)-1].Sub(asked[0]) / time.Duration(len(asked)-1)
			if d := float64(got)/float64(f.Every[0]) - 1; math.Abs(d) > 0.05 {
				t.Errorf("%v: asked every %v, said Predict %v", period, got, f.Every[0])
			}
			mean, single := s.kept(1, start, 3*time.Minute, whole)
			if said := float64(f.Every[1])/float64(period) - 1; math.Abs(mean-said) > 0.05 {
				t.Errorf("%v: the others are off by %.1f %%, said Predict %.1f %%", period, 100*mean, 100*said)
			}
			if late := time.Duration(single * float64(period)); late > f.Late+period*time.Duration(f.Late/period) {
				t.Errorf("%v: late by %v, said Predict at most %v", period, late, f.Late)
			}
		})
	}
}

// TestOverload: a line of which twice too much is wanted gives each device the
// same part, and says so once.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := newSite(time.Second)
		for i := range s.devs {
			s.loads[i].Takes = 100 * time.Millisecond
			s.devs[i].takes = always(100 * time.Millisecond)
		}
		st := s.run(t, 10*time.Minute, slog.New(slog.NewTextHandler(&out, nil)))
		f := Predict(s.loads)
		for i, d := range s.devs {
			got := 10 * time.Minute / time.Duration(len(d.polls))
			if r := float64(got)/float64(f.Every[i]) - 1; math.Abs(r) > 0.05 {
				t.Errorf("%s every %v, said Predict %v", d.name, got, f.Every[i])
			}
			if n := st.Devices[i].Skipped; n < 300 || n > 350 {
				t.Errorf("%s: %d slots of 600 counted as skipped", d.name, n)
			}
		}
		if f.Share != 2 && math.Abs(f.Share-2) > 1e-9 {
			t.Errorf("share %v, want 2", f.Share)
		}
		if n := strings.Count(out.String(), "periods cannot be kept"); n != 1 || !strings.Contains(out.String(), "load_percent=") {
			t.Errorf("told %d times:\n%s", n, out.String())
		}
	})
}

// TestFirstAnswerRestores: the moment a device answers it is polled at its period again, in all of its groups.
func TestFirstAnswerRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		d := newDev("meter", time.Second, 10*time.Millisecond)
		d.periods = append(d.periods, 5*time.Second)
		d.status = func() telemetry.Quality {
			if s := time.Since(start); s > 10*time.Second && s < 200*time.Second {
				return telemetry.NoReply
			}
			return telemetry.Good
		}
		run(t, 260*time.Second, d)
		back, second := -1, time.Time{}
		for i, at := range d.polls {
			if at.Sub(start) < 200*time.Second {
				continue
			}
			if back < 0 {
				back = i
			}
			if second.IsZero() && d.groups[i] == 1 {
				second = at
			}
		}
		first := d.polls[back]
		if first.Sub(start) > 231*time.Second {
			t.Errorf("found again %v after it came back", first.Sub(start)-200*time.Second)
		}
		if second.Sub(first) > 20*time.Millisecond {
			t.Errorf("its other group was read %v later, want at once", second.Sub(first))
		}
		n := 0
		for _, at := range d.polls[back:] {
			if at.Sub(first) < 10*time.Second {
				n++
			}
		}
		if n < 12 {
			t.Errorf("%d polls in the 10 s after it came back", n)
		}
	})
}

// TestLineComesBack: devices that were unreachable because the line was are
// all asked again when the first of them answers.
func TestLineComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newSite(time.Second)
		for _, d := range s.devs {
			d.takes = always(time.Millisecond)
			d.status = func() telemetry.Quality {
				if x := time.Since(start); x > 10*time.Second && x < 200*time.Second {
					return telemetry.NotConnected
				}
				return telemetry.Good
			}
		}
		st := s.run(t, 240*time.Second, nil)
		var first, last time.Time
		for _, d := range s.devs {
			for _, at := range d.polls {
				if at.Sub(start) > 200*time.Second {
					if first.IsZero() || at.Before(first) {
						first = at
					}
					if at.After(last) {
						last = at
					}
					break
				}
			}
		}
		if last.Sub(first) > time.Second {
			t.Errorf("the last device was found %v after the first", last.Sub(first))
		}
		if away := first.Sub(start) - 200*time.Second; away > 5*time.Second+10*time.Millisecond {
			t.Errorf("the line was found back after %v, want at most 5 s", away)
		}
		if st.Dead != 0 {
			t.Errorf("%d are still backed off", st.Dead)
		}
	})
}

// TestHalfDead: with ten of twenty dead the other ten keep their period, and
// each dead one is still asked.
func TestHalfDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newSite(5 * time.Second)
		for i := range 10 {
			s.odd(i, telemetry.NoReply, 1020*time.Millisecond, 30*time.Second)
		}
		s.run(t, 20*time.Minute, nil)
		mean, _ := s.kept(10, start, 10*time.Second, 20*time.Minute)
		if mean > 0.05 {
			t.Errorf("the others are off by %.1f %%", 100*mean)
		}
		for _, d := range s.devs[:10] {
			for i := range d.polls[1:] {
				gap, most := d.polls[i+1].Sub(d.polls[i]), 45*time.Second
				if d.polls[i].Sub(start) < 3*time.Minute {
					most = 90 * time.Second // all ten are still found to be dead
				}
				if gap > most {
					t.Errorf("%s was not asked for %v", d.name, gap)
				}
			}
		}
	})
}

// TestLostAnswers: on a bad line, where one answer in a hundred is lost, no
// device is taken for dead and nearly every slot is kept.
func TestLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(5 * time.Second)
		for i, d := range s.devs {
			n, lost := 0, false
			usual := s.loads[i].Takes
			d.takes = func() time.Duration {
				if n++; (n+7*i)%100 == 50 {
					lost = true
					return limit + 20*time.Millisecond
				}
				lost = false
				return usual
			}
			d.status = func() telemetry.Quality {
				if lost {
					return telemetry.NoReply
				}
				return telemetry.Good
			}
		}
		st := s.run(t, 30*time.Minute, nil)
		for _, d := range st.Devices {
			if d.Polls < 355 || d.Failed == 0 || d.Silent {
				t.Errorf("%+v, want nearly 360 polls", d)
			}
		}
		if st.Skipped > 0 || st.Dead > 0 {
			t.Errorf("%d skipped, %d dead", st.Skipped, st.Dead)
		}
	})
}
