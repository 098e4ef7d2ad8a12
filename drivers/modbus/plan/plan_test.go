package plan

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func hold(address, count uint16) Span { return Span{Holding, address, count} }

func TestPlan(t *testing.T) {
	line := RTU(9600, false, 1, DefaultTurnaround) // a request costs 20 ms + 7 ms + 13.5 ms, a register 2.1 ms
	f := func(name string, spans []Span, limits Limits, line Line, want ...Request) {
		t.Helper()
		if got := Plan(spans, limits, line); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	f("nothing", nil, Limits{}, line)
	f("touching spans need no gap", []Span{hold(2, 2), hold(0, 2)}, Limits{}, line, hold(0, 4))
	f("a gap is never crossed where that is not known to work", []Span{hold(0, 1), hold(2, 1)}, Limits{}, line, hold(0, 1), hold(2, 1))
	f("a short gap is cheaper than a request", []Span{hold(0, 1), hold(10, 1)}, Limits{Gaps: true}, line, hold(0, 11))
	f("a long gap is not", []Span{hold(0, 1), hold(40, 1)}, Limits{Gaps: true}, line, hold(0, 1), hold(40, 1))
	f("on a network the limit decides", []Span{hold(0, 1), hold(124, 1), hold(125, 1)}, Limits{Gaps: true}, TCP(5*time.Millisecond), hold(0, 1), hold(124, 2))
	f("tables do not mix", []Span{{Input, 0, 1}, hold(1, 1), {Coil, 0, 3}}, Limits{Gaps: true}, line, Span{Coil, 0, 3}, hold(1, 1), Span{Input, 0, 1})
	f("a device's own limit", []Span{hold(1, 1), hold(2, 1), hold(3, 1)}, Limits{MaxRegisters: 2}, line, hold(1, 2), hold(3, 1))
	f("overlap and repetition", []Span{hold(2, 3), hold(4, 1), hold(3, 1), hold(2, 3), hold(4, 2)}, Limits{}, line, hold(2, 4))
	f("bits", []Span{{Discrete, 0, 1}, {Discrete, 1999, 1}}, Limits{Gaps: true}, TCP(time.Millisecond), Span{Discrete, 0, 2000})
	f("the last address", []Span{hold(65535, 1), hold(65534, 1)}, Limits{}, line, hold(65534, 2))
}

// TestPlanIsBest compares with every partition of random small cases, and
// checks what must hold for every plan.
func TestPlanIsBest(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	lines := []Line{RTU(9600, true, 1, 5*time.Millisecond), RTU(115200, false, 2, 0), TCP(3 * time.Millisecond), {PerByte: time.Millisecond}}
	for n := range 4000 {
		limits := Limits{MaxRegisters: 4 + rng.IntN(20), MaxBits: 4 + rng.IntN(20), Gaps: rng.IntN(2) == 0}
		line := lines[rng.IntN(len(lines))]
		table := Table(1 + rng.IntN(4))
		spans := make([]Span, 1+rng.IntN(6))
		for i := range spans {
			spans[i] = Span{table, uint16(rng.IntN(40)), uint16(1 + rng.IntN(4))}
		}
		got := Plan(spans, limits, line)
		if why := wrong(got, spans, limits); why != "" {
			t.Fatalf("seed %d, case %d: %v %+v: %v: %s", seed, n, spans, limits, got, why)
		}
		if cost, best := line.Poll(got, 0), bruteForce(spans, limits, line); cost != best {
			t.Fatalf("seed %d, case %d: %v %+v: %v takes %s, the best is %s", seed, n, spans, limits, got, cost, best)
		}
	}
}

func wrong(requests []Request, spans []Span, limits Limits) string {
	wanted := map[int]bool{}
	for _, s := range spans {
		whole := false
		for a := int(s.Address); a < s.end(); a++ {
			wanted[a] = true
		}
		for _, r := range requests {
			whole = whole || (r.Table == s.Table && r.Address <= s.Address && r.end() >= s.end())
		}
		if !whole {
			return "a span is split or missing"
		}
	}
	for i, r := range requests {
		if int(r.Count) > limits.most(r.Table) {
			return "a request is too long"
		}
		if i > 0 && requests[i-1].Address >= r.Address {
			return "out of order"
		}
		for a := int(r.Address); a < r.end(); a++ {
			if !limits.Gaps && !wanted[a] {
				return "a gap is crossed"
			}
		}
	}
	return ""
}

// bruteForce assigns every span to one of as many requests, in every way.
func bruteForce(spans []Span, limits Limits, line Line) time.Duration {
	best := time.Duration(math.MaxInt64)
	group := make([]int, len(spans))
	var try func(i, groups int)
	try = func(i, groups int) {
		if i < len(spans) {
			for g := range groups + 1 {
				group[i] = g
				try(i+1, max(groups, g+1))
			}
			return
		}
		var requests []Request
		for g := range groups {
			lo, hi := 1<<16, 0
			for k, s := range spans {
				if group[k] == g {
					lo, hi = min(lo, int(s.Address)), max(hi, s.end())
				}
			}
			requests = append(requests, Request{spans[0].Table, uint16(lo), uint16(hi - lo)})
		}
		for _, r := range requests {
			if why := wrong([]Request{r}, nil, limits); why == "a request is too long" {
				return
			}
		}
		if !limits.Gaps && crossesGap(requests, spans) {
			return
		}
		best = min(best, line.Poll(requests, 0))
	}
	try(0, 0)
	return best
}

func crossesGap(requests []Request, spans []Span) bool {
	wanted := map[int]bool{}
	for _, s := range spans {
		for a := int(s.Address); a < s.end(); a++ {
			wanted[a] = true
		}
	}
	for _, r := range requests {
		for a := int(r.Address); a < r.end(); a++ {
			if !wanted[a] {
				return true
			}
		}
	}
	return false
}

func TestPlanRefusesWhatCannotBeRead(t *testing.T) {
	for _, s := range []Span{hold(0, 0), hold(65535, 2), hold(0, 126), {Table(9), 0, 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v was planned", s)
				}
			}()
			Plan([]Span{s}, Limits{}, Line{})
		}()
	}
}

func TestTimes(t *testing.T) {
	f := func(name string, got, want time.Duration) {
		t.Helper()
		if d := got - want; d < -20*time.Microsecond || d > 20*time.Microsecond {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	// 9600 8E1: 11 bits are 1.1458 ms; 8 + 5 + 20 bytes and two silences of 3.5 characters are 40 characters
	f("10 registers at 9600 8E1", RTU(9600, true, 1, 0).Time(hold(0, 10)), 45833*time.Microsecond)
	// 115200 8N1: 10 bits are 86.8 us; 15 bytes, two silences of 1.75 ms, 4 ms of turnaround
	f("1 register at 115200", RTU(115200, false, 1, 4*time.Millisecond).Time(hold(0, 1)), 1302*time.Microsecond+7500*time.Microsecond)
	f("9 coils are two bytes", RTU(9600, true, 1, 0).Time(Span{Coil, 0, 9}), 22*1145833*time.Nanosecond)
	f("pauses", TCP(10*time.Millisecond).Poll([]Request{hold(0, 1), hold(9, 1)}, 250*time.Millisecond), 520*time.Millisecond)
	share := Share([]Load{{Poll: 250 * time.Millisecond, Every: time.Second}, {Poll: time.Second, Every: 2 * time.Second}})
	if share != 0.75 {
		t.Errorf("share is %v, want 0.75", share)
	}
}
