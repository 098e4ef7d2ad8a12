package plan

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func hold(address, count uint16) Span { return Span{0, Holding, address, count} }

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
	f("tables do not mix", []Span{{0, Input, 0, 1}, hold(1, 1), {0, Coil, 0, 3}}, Limits{Gaps: true}, line, Span{0, Coil, 0, 3}, hold(1, 1), Span{0, Input, 0, 1})
	f("a device's own limit", []Span{hold(1, 1), hold(2, 1), hold(3, 1)}, Limits{MaxRegisters: 2}, line, hold(1, 2), hold(3, 1))
	f("overlap and repetition", []Span{hold(2, 3), hold(4, 1), hold(3, 1), hold(2, 3), hold(4, 2)}, Limits{}, line, hold(2, 4))
	f("units do not mix", []Span{{1, Holding, 2, 2}, {0, Holding, 0, 4}, {1, Holding, 0, 2}, {0, Holding, 2, 2}}, Limits{Gaps: true}, line, hold(0, 4), Span{1, Holding, 0, 4})
	f("what one unit refuses another may have", []Span{hold(0, 1), hold(1, 1), {1, Holding, 0, 1}, {1, Holding, 1, 1}}, Limits{Bad: []Span{{1, Holding, 1, 0}}}, line,
		hold(0, 2), Span{1, Holding, 0, 1}, Span{1, Holding, 1, 1})
	f("a border of one unit", []Span{{1, Holding, 0, 1}, {1, Holding, 1, 1}, hold(0, 1), hold(1, 1)}, Limits{Bad: []Span{{1, Holding, 1, 1}}}, line,
		hold(0, 2), Span{1, Holding, 0, 1}, Span{1, Holding, 1, 1})
	f("bits", []Span{{0, Discrete, 0, 1}, {0, Discrete, 1999, 1}}, Limits{Gaps: true}, TCP(time.Millisecond), Span{0, Discrete, 0, 2000})
	f("the last address", []Span{hold(65535, 1), hold(65534, 1)}, Limits{}, line, hold(65534, 2))
}

// TestPlanIsBest compares with the best of all partitions of random cases of
// up to twelve registers, and checks what must hold for every plan.
func TestPlanIsBest(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	lines := []Line{RTU(9600, true, 1, 5*time.Millisecond), RTU(115200, false, 2, 0), TCP(3 * time.Millisecond), {PerByte: time.Millisecond}}
	barred := 0
	for n := range 3000 {
		limits := Limits{MaxRegisters: 4 + rng.IntN(20), MaxBits: 4 + rng.IntN(20), Gaps: rng.IntN(3) > 0}
		line := lines[rng.IntN(len(lines))]
		table := Table(1 + rng.IntN(4))
		var spans []Span
		together := rng.IntN(2) == 0 // up to four registers are one span
		for left := 1 + rng.IntN(12); left > 0; {
			count := 1
			if together {
				count = min(left, 1+rng.IntN(4))
			}
			left -= count
			spans = append(spans, Span{0, table, uint16(rng.IntN(60)), uint16(count)})
		}
		for range rng.IntN(4) {
			limits.Bad = append(limits.Bad, Span{0, table, uint16(rng.IntN(60)), uint16(rng.IntN(3))})
		}
		got := Plan(spans, limits, line)
		if why := wrong(got, spans, limits); why != "" {
			t.Fatalf("case %d: %v %+v: %v: %s", n, spans, limits, got, why)
		}
		cost := line.Poll(got, 0)
		if best := bruteForce(spans, limits, line); cost != best {
			t.Fatalf("case %d: %v %+v: %v takes %s, the best is %s", n, spans, limits, got, cost, best)
		}
		if len(limits.Bad) > 0 {
			barred++
			limits.Bad = nil
			cost = line.Poll(Plan(spans, limits, line), 0)
		}
		if simple := line.Poll(contiguous(spans, limits), 0); cost > simple {
			t.Fatalf("case %d: %v %+v: takes %s, merging what touches takes %s", n, spans, limits, cost, simple)
		}
	}
	if barred < 100 {
		t.Errorf("only %d cases had refused registers", barred)
	}
}

// contiguous is the usual plan: what touches or overlaps is one request, as far as it fits.
func contiguous(spans []Span, limits Limits) (out []Request) {
	for _, s := range normalise(spans, limits) {
		if n := len(out); n > 0 && int(s.Address) <= out[n-1].end() && s.end()-int(out[n-1].Address) <= limits.most(s.Table) {
			out[n-1].Count = uint16(s.end() - int(out[n-1].Address))
			continue
		}
		out = append(out, s)
	}
	return out
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
		if forbidden(r, spans, limits) {
			return "a request joins what was refused"
		}
		for a := int(r.Address); a < r.end(); a++ {
			if !limits.Gaps && !wanted[a] {
				return "a gap is crossed"
			}
		}
	}
	return ""
}

// forbidden says, register by register, whether r is a join over something bad.
func forbidden(r Request, spans []Span, limits Limits) bool {
	for _, s := range spans {
		if s == r {
			return false
		}
	}
	for _, b := range limits.Bad {
		if b.Count == 0 && int(b.Address) > int(r.Address) && int(b.Address) < r.end() {
			return true
		}
		covered := 0
		for a := int(r.Address); a < r.end(); a++ {
			if a >= int(b.Address) && a < b.end() {
				covered++
			}
		}
		if b.Count > 0 && covered == int(b.Count) && b != r {
			return true
		}
	}
	return false
}

// bruteForce is the least time of all ways to divide the spans among requests,
// each as long as its spans: best[set] is the least for a set of them, tried
// with every subset as one request.
func bruteForce(spans []Span, limits Limits, line Line) time.Duration {
	wanted := map[int]bool{}
	for _, s := range spans {
		for a := int(s.Address); a < s.end(); a++ {
			wanted[a] = true
		}
	}
	const never = time.Duration(math.MaxInt64 / 4)
	one := make([]time.Duration, 1<<len(spans)) // the set as one request
	best := make([]time.Duration, 1<<len(spans))
	for set := 1; set < len(one); set++ {
		lo, hi := 1<<16, 0
		for k, s := range spans {
			if set>>k&1 != 0 {
				lo, hi = min(lo, int(s.Address)), max(hi, s.end())
			}
		}
		r := Request{0, spans[0].Table, uint16(lo), uint16(hi - lo)}
		one[set] = line.Time(r)
		if int(r.Count) > limits.most(r.Table) || forbidden(r, spans, limits) {
			one[set] = never
		}
		for a := lo; a < hi && !limits.Gaps; a++ {
			if !wanted[a] {
				one[set] = never
			}
		}
		best[set] = never
		for sub := set; sub > 0; sub = (sub - 1) & set {
			best[set] = min(best[set], one[sub]+best[set&^sub])
		}
	}
	return best[len(best)-1]
}

// TestBad: what was refused is left out of joins, what is sound stays joined.
func TestBad(t *testing.T) {
	line := RTU(9600, false, 1, DefaultTurnaround)
	want := []Span{hold(0, 2), hold(3, 1), hold(6, 2), hold(8, 2)}
	f := func(bad []Span, plan ...Request) {
		t.Helper()
		if got := Plan(want, Limits{Gaps: true, Bad: bad}, line); !reflect.DeepEqual(got, plan) {
			t.Errorf("without %v: %v, want %v", bad, got, plan)
		}
	}
	f(nil, hold(0, 10))
	f([]Span{hold(4, 2)}, hold(0, 4), hold(6, 4))
	f([]Span{hold(2, 1)}, hold(0, 2), hold(3, 7))
	f([]Span{hold(3, 1)}, hold(0, 2), hold(3, 1), hold(6, 4)) // a value that is not there
	f([]Span{hold(8, 0)}, hold(0, 8), hold(8, 2))             // a border
	f([]Span{{0, Input, 4, 2}}, hold(0, 10))
}

func TestPlanRefusesWhatCannotBeRead(t *testing.T) {
	for _, s := range []Span{hold(0, 0), hold(65535, 2), hold(0, 126), {0, Table(9), 0, 1}} {
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
	// 9600 8E1: 11 bits are 1.1458 ms; 8 + 5 + 20 bytes and a silence of 3.5 characters are 36.5 characters
	f("10 registers at 9600 8E1", RTU(9600, true, 1, 0).Time(hold(0, 10)), 41823*time.Microsecond)
	// 115200 8N1: 10 bits are 86.8 us; 15 bytes, a silence of 1.75 ms, 4 ms of turnaround
	f("1 register at 115200", RTU(115200, false, 1, 4*time.Millisecond).Time(hold(0, 1)), 1302*time.Microsecond+5750*time.Microsecond)
	f("9 coils are two bytes", RTU(9600, true, 1, 0).Time(Span{0, Coil, 0, 9}), 21188*time.Microsecond)
	f("pauses", TCP(10*time.Millisecond).Poll([]Request{hold(0, 1), hold(9, 1)}, 250*time.Millisecond), 270*time.Millisecond)
	f("a pause runs with the silence", RTU(9600, true, 1, 0).Poll([]Request{hold(0, 1), hold(9, 1)}, 10*time.Millisecond), 2*21200*time.Microsecond+5990*time.Microsecond)
	share := Share([]Load{{Poll: 250 * time.Millisecond, Every: time.Second}, {Poll: time.Second, Every: 2 * time.Second}})
	if share != 0.75 {
		t.Errorf("share is %v, want 0.75", share)
	}
}
