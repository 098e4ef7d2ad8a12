package modbus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"luquan/drivers/drivertest"
	"luquan/drivers/modbus/plan"
	"luquan/gateway/telemetry"
)

// holes is a device of eight values with holes between them, in two groups.
const holes = `
name: lan
tcp: {address: plc}
devices:
  - name: m1
    unit: 3
    every: 1s
    points: [a, b, c, d, e, f, {name: a2, every: 10s}, {name: f2, every: 10s}]
    profile:
      kind: probe
      label: {en: Probe}
      source: {where: test, confidence: high}
      limits: {gaps: ok}
      points:
        - {name: a, label: {en: A}, table: holding, address: 0, type: u16}
        - {name: b, label: {en: B}, table: holding, address: 2, type: u16}
        - {name: c, label: {en: C}, table: holding, address: 3, type: u16}
        - {name: d, label: {en: D}, table: holding, address: 6, type: u32}
        - {name: e, label: {en: E}, table: holding, address: 10, type: u16}
        - {name: f, label: {en: F}, table: holding, address: 13, type: u16}
        - {name: a2, label: {en: A2}, table: holding, address: 1, type: u16}
        - {name: f2, label: {en: F2}, table: holding, address: 14, type: u16}
`

// TestHoleToBlame: the hole that errors is found in the poll that meets it,
// every value comes in that poll all the same, and from the next one on the
// sides of the hole are read joined, in every group of the device.
func TestHoleToBlame(t *testing.T) {
	for name, tt := range map[string]struct {
		missing []uint16
		values  string
		then    []string
	}{
		"none":           {nil, "a=0 b=2 c=3 d=393223 e=10 f=13", []string{"0+14"}},
		"one hole":       {[]uint16{8}, "a=0 b=2 c=3 d=393223 e=10 f=13", []string{"0+8", "10+4"}},
		"the first hole": {[]uint16{1}, "a=0 b=2 c=3 d=393223 e=10 f=13", []string{"0+1", "2+12"}},
		"two holes":      {[]uint16{4, 12}, "a=0 b=2 c=3 d=393223 e=10 f=13", []string{"0+4", "6+5", "13+1"}},
		"a value":        {[]uint16{6}, "a=0 b=2 c=3 d=/refused e=10 f=13", []string{"0+4", "6+2", "10+4"}},
		"the last value": {[]uint16{13}, "a=0 b=2 c=3 d=393223 e=10 f=/refused", []string{"0+11", "13+1"}},
		"value and hole": {[]uint16{2, 9}, "a=0 b=/refused c=3 d=393223 e=10 f=13", []string{"0+1", "2+1", "3+5", "10+4"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, holes)
				defer r.close()
				r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, !slices.Contains(tt.missing, a) }
				poll := func(group int) (telemetry.Sample, []string) {
					before := len(r.requests())
					s, ok := r.Devices()[0].Poll(t.Context(), group)
					if !ok {
						t.Fatal("called off")
					}
					return s, r.requests()[before:]
				}
				var asked []string
				for i := range 6 {
					var s telemetry.Sample
					s, asked = poll(0)
					if got, want := text(s), "good: "+tt.values; got != want {
						t.Fatalf("poll %d: %q, want %q", i, got, want)
					}
				}
				if !slices.Equal(asked, tt.then) {
					t.Errorf("asked %v at the end, want %v", asked, tt.then)
				}
				for range 6 {
					_, asked = poll(1)
				}
				if name == "none" {
					return
				}
				if len(asked) > 2 {
					t.Errorf("the other group asked %v at the end, want at most the two sides", asked)
				}
			})
		})
	}
}

// TestReplanSettles: whatever a device refuses, every value that it has comes
// in every poll, after a few polls nothing is tried any more, and the plan is
// then the best there is around what is missing.
func TestReplanSettles(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for n := range 150 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, holes)
			defer r.close()
			var missing []uint16
			for range rng.IntN(4) {
				missing = append(missing, uint16(rng.IntN(16)))
			}
			gone := func(from, count uint16) bool {
				return slices.ContainsFunc(missing, func(a uint16) bool { return a >= from && a < from+count })
			}
			r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, !gone(a, 1) }
			var last []string
			most := 0
			for i := range 8 {
				for group := range 2 {
					before := len(r.requests())
					s, _ := r.Devices()[0].Poll(t.Context(), group)
					if s.Status != telemetry.Good && s.Status != telemetry.Refused {
						t.Fatalf("case %d, missing %v: %v", n, missing, s.Status)
					}
					all := true
					d := r.Devices()[0].(*device)
					for _, p := range d.groups[group].points {
						need := p.def.Needs()[0]
						have := slices.ContainsFunc(s.Readings, func(x telemetry.Reading) bool { return x.Point == p.def.Name && x.Quality == telemetry.Good })
						all = all && gone(need.Address, need.Count)
						if have == gone(need.Address, need.Count) {
							t.Fatalf("case %d, missing %v, poll %d: %s is good: %v; %v", n, missing, i, p.def.Name, have, text(s))
						}
					}
					most = max(most, len(r.requests())-before)
					if i == 7 && !all {
						last = append(last, r.requests()[before:]...)
					}
				}
			}
			for _, q := range last {
				var from, count uint16
				fmt.Sscanf(q, "%d+%d", &from, &count)
				d := r.Devices()[0].(*device)
				single := slices.ContainsFunc(append(slices.Clone(d.groups[0].spans), d.groups[1].spans...), func(s plan.Span) bool { return s.Address == from && s.Count == count })
				if gone(from, count) && !single {
					t.Errorf("case %d, missing %v: the join %s is still tried: %v", n, missing, q, last)
				}
			}
			if most > 14 {
				t.Errorf("case %d, missing %v: a poll took %d requests", n, missing, most)
			}
		})
	}
}

// TestHopeless: a device that refuses everything is divided more and more seldom.
func TestHopeless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, holes)
		defer r.close()
		refuses := true
		r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, !refuses }
		for range 200 {
			if got := text(r.poll(t)); got != "refused:" {
				t.Fatal(got)
			}
		}
		if n := len(r.requests()); n > 200+10*11 {
			t.Errorf("%d requests in 200 polls", n)
		}
		refuses = false
		n := len(r.requests())
		if got := text(r.poll(t)); got != "good: a=0 b=2 c=3 d=393223 e=10 f=13" {
			t.Error(got)
		}
		if got := r.requests()[n:]; !slices.Equal(got, []string{"0+14"}) {
			t.Errorf("then asked %v", got)
		}
	})
}

// TestGarblesEverything: after two damaged answers in a row the rest of the poll is not asked for.
func TestGarblesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, strings.Replace(holes, "gaps: ok", "max_registers: 2", 1))
		defer r.close()
		damaged, n := map[int]bool{1: true, 3: true, 4: true}, 0
		r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
			if n++; damaged[n] { // counted here: damage ends a connection over TCP
				ans = append([]byte(nil), ans...)
				ans[7] |= 0x40 // a function code that nobody asked for
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		if got, want := text(r.poll(t)), "good: a=/garbled b=2 c=3 d=/garbled e=/garbled f=/garbled"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if n := len(r.requests()); n != 4 {
			t.Errorf("%d requests, want 4", n)
		}
	})
}
