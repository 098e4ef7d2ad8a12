package seqs

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func TestSetAgainstMap(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		random := func() (Set, map[uint64]bool) {
			var s Set
			m := map[uint64]bool{}
			for range 60 {
				a := uint64(rng.IntN(40)) + 1
				b := a + uint64(rng.IntN(6))
				put := rng.IntN(3) != 0
				if put {
					s.Add(a, b)
				} else {
					s.Remove(a, b)
				}
				for x := a; x <= b; x++ {
					m[x] = put
				}
			}
			return s, m
		}
		s, m := random()
		o, om := random()
		check := func(what string, got Set, want func(uint64) bool) {
			t.Helper()
			after, n := uint64(0), uint64(0)
			for _, x := range got {
				if x[0] <= after+1 && after > 0 || x[1] < x[0] {
					t.Fatalf("seed %d: %s is not canonical: %v", seed, what, got)
				}
				after = x[1]
			}
			for x := uint64(1); x <= 60; x++ {
				if got.Has(x) != want(x) {
					t.Fatalf("seed %d: %s: %d: %v, want %v", seed, what, x, got, want(x))
				}
				if want(x) {
					n++
				}
			}
			if got.Count() != n {
				t.Fatalf("seed %d: %s: count %d, want %d", seed, what, got.Count(), n)
			}
		}
		check("set", s, func(x uint64) bool { return m[x] })
		check("holes", s.Holes(1, 60), func(x uint64) bool { return !m[x] })
		check("within", s.Within(7, 22), func(x uint64) bool { return m[x] && x >= 7 && x <= 22 })
		check("union", s.Union(o), func(x uint64) bool { return m[x] || om[x] })
		check("minus", s.Minus(o), func(x uint64) bool { return m[x] && !om[x] })
		check("and", s.And(o), func(x uint64) bool { return m[x] && om[x] })
		check("set after all that", s, func(x uint64) bool { return m[x] })
		back, err := Decode(s.Encode())
		if err != nil || !reflect.DeepEqual(append(Set{}, back...), append(Set{}, s...)) {
			t.Fatalf("seed %d: %v came back as %v, %v", seed, s, back, err)
		}
	}
}

func TestPlace(t *testing.T) {
	for _, c := range []struct {
		at     string
		hour   int64
		minute int
	}{
		{"1970-01-01T00:00:00Z", 0, 0}, {"1970-01-01T01:59:59.999999999Z", 1, 59}, {"1969-12-31T23:59:59.5Z", -1, 59},
		{"1969-12-31T23:00:00Z", -1, 0}, {"1969-12-31T22:59:00Z", -2, 59}, {"2026-01-05T08:07:00Z", 491000, 7},
	} {
		at, err := time.Parse(time.RFC3339Nano, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if h, m := Place(at.UnixNano()); h != c.hour || m != c.minute {
			t.Errorf("%s: hour %d minute %d, want %d %d", c.at, h, m, c.hour, c.minute)
		}
	}
}

func TestHourComesBack(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var a, b, both Hour
		for range rng.IntN(200) {
			m, first := rng.IntN(60), rng.Uint64N(1<<uint(1+rng.IntN(60)))+1
			h := &a
			if rng.IntN(2) == 0 {
				h = &b
			}
			last := first + uint64(rng.IntN(50))
			h.Minutes[m].Add(first, last)
			both.Minutes[m].Add(first, last)
			if rng.IntN(3) == 0 {
				h.Again[m]++
				both.Again[m]++
			}
		}
		back, err := DecodeHour(a.Encode())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		back.Merge(&b)
		if !reflect.DeepEqual(back.Encode(), both.Encode()) {
			t.Fatalf("seed %d: %v, want %v", seed, back, both)
		}
		first, last := back.Span()
		if all := back.All(); all.Top() != last || len(all) > 0 && all[0][0] != first {
			t.Fatalf("seed %d: span %d to %d of %v", seed, first, last, all)
		}
		enc := both.Encode()
		if len(enc) > 4 {
			enc[rng.IntN(len(enc))] ^= 1 << rng.IntN(8)
			if _, err := DecodeHour(enc); err == nil {
				t.Fatalf("seed %d: a flipped bit was not noticed", seed)
			}
		}
	}
}

// TestHourIsSmall holds the size that docs/ledger.md tells: a board with ten
// records a second, in order.
func TestHourIsSmall(t *testing.T) {
	var h Hour
	for i := range uint64(36000) {
		h.Minutes[i/600].Add(5_000_000+i, 5_000_000+i)
	}
	if n := len(h.Encode()); n > 260 {
		t.Fatalf("%d bytes", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Set{{1, 5}, {9, 9}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(s.Encode())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%v came back as %v, %v", s, again, err)
		}
	})
}

func FuzzDecodeHour(f *testing.F) {
	h := Hour{}
	h.Minutes[3], h.Again[3], h.Again[7] = Set{{1, 5}, {9, 9}}, 2, 1
	f.Add(h.Encode()[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(make([]byte, 4), b...)
		sum(b)
		h, err := DecodeHour(b)
		if err != nil {
			return
		}
		again, err := DecodeHour(h.Encode())
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%v came back as %v, %v", h, again, err)
		}
	})
}
