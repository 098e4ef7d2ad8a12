package alarm

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"luquan/gateway/telemetry"
)

// TestInvariants plays random readings and restarts, and checks what must
// always hold.
func TestInvariants(t *testing.T) {
	set := rules(t, `
rules:
  - {id: hh, points: '*/*/*', high_high: 95, page: duty, on_delay: 20s}
  - {id: high, points: '*/*/*', high: 85, deadband: 2, off_delay: 20s, page: duty, priority: critical}
  - {id: low, points: '*/*/*', low: 60, late: list, on_bad: hold}
  - {id: gone, points: '*/*/*', absent: 1m, page: duty}
`)
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		e := New(set)
		e.Points(t0, []PointInfo{{Name: pt, Period: 10 * time.Second}})
		state := map[string]State{} // by alarm id
		seen := map[string]bool{}
		mem := map[string]Memory{}
		check := func(ev []Event) {
			for _, x := range ev {
				if seen[x.Key()] {
					t.Fatalf("seed %d: %s happened twice", seed, x.Key())
				}
				seen[x.Key()] = true
				was, known := state[x.Alarm.ID]
				if known == (x.Transition == Raised) {
					t.Fatalf("seed %d: %s of an alarm known: %v", seed, x.Transition, known)
				}
				if known && was == Normal {
					t.Fatalf("seed %d: %s after the end", seed, x.Key())
				}
				if x.Tell == Cleared && !seen[x.Alarm.ID+"!raised"] {
					t.Fatalf("seed %d: resolved note for what nobody was told: %s", seed, x.Key())
				}
				if x.Tell != "" {
					k := x.Alarm.ID + "!" + string(x.Tell)
					if seen[k] {
						t.Fatalf("seed %d: %s told twice", seed, k)
					}
					seen[k] = true
				}
				if x.Alarm.Start.After(x.At) || !x.Alarm.Cleared.IsZero() && x.Alarm.Cleared.Before(x.Alarm.Start) {
					t.Fatalf("seed %d: times of %+v", seed, x)
				}
				state[x.Alarm.ID] = x.Alarm.State
				mem[x.Memory.Rule] = x.Memory
			}
			listed := map[string]bool{}
			for _, a := range e.Alarms() {
				if listed[a.Rule] || state[a.ID] != a.State || a.State == Normal {
					t.Fatalf("seed %d: list %+v, journal %s", seed, a, state[a.ID])
				}
				listed[a.Rule] = true
			}
			for id, s := range state {
				if s != Normal && e.byID[id] == nil {
					t.Fatalf("seed %d: %s is %s in the journal and not on the list", seed, id, s)
				}
			}
		}
		now := t0
		for range 400 {
			now = now.Add(time.Duration(r.IntN(20_000)) * time.Millisecond)
			switch r.IntN(12) {
			case 0:
				check(e.Tick(now))
			case 1:
				if a := e.Alarms(); len(a) > 0 {
					ev, _ := e.Ack(now, a[r.IntN(len(a))].ID, "wang")
					check(ev)
				}
			case 2:
				now = now.Add(time.Duration(r.IntN(600)) * time.Second)
			case 3: // killed: what the journal has is what is known
				e = New(set)
				e.Points(now, []PointInfo{{Name: pt, Period: 10 * time.Second}})
				var m []Memory
				for _, x := range mem {
					m = append(m, x)
				}
				check(e.Restore(now, m))
			default:
				late := time.Duration(0)
				if r.IntN(4) == 0 {
					late = time.Duration(r.IntN(300)) * time.Second
				}
				rd := Reading{Point: pt, Time: now.Add(-late), Received: now, Lateness: late, Value: telemetry.FloatValue(50 + float64(r.IntN(60)))}
				if r.IntN(6) == 0 {
					rd.Value, rd.Quality = telemetry.Value{}, telemetry.NoReply
				}
				check(e.Observe(now, rd))
			}
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	set := rules(b, "rules: [{id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold}]")
	e := New(set)
	const n = 10_000
	rs := make([]Reading, n)
	for i := range rs {
		rs[i] = Reading{Point: fmt.Sprintf("site-%d/device-%d/temp", i%10, i), Value: telemetry.FloatValue(float64(i % 80)), Period: 10 * time.Second}
	}
	b.ReportAllocs()
	now := t0
	for i := 0; b.Loop(); i++ {
		if i%n == 0 {
			now = now.Add(10 * time.Second)
		}
		r := &rs[i%n]
		r.Time, r.Received = now, now
		e.Observe(now, *r)
	}
}
