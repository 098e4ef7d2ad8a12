package buffer

import (
	"context"
	"errors"
	"testing"
)

// TestModel does what a board's life does, at random, against a model: appends,
// commits, frees of every shape, reads, power cuts, clean stops, a quota that is
// too small. What was committed is there, or freed, or named; what was freed
// is not named as lost (where there is room); nothing is ever read that was not written.
func TestModel(t *testing.T) {
	r := seeded(t)
	runs := 150
	if testing.Short() {
		runs = 15
	}
	for run := range runs {
		m := newMemFS()
		o := tiny(m)
		roomy := run%3 > 0
		if !roomy {
			o.Max = 6 * 4 << 10
		}
		acked := map[uint64]uint64{}
		released := map[uint64]map[uint64]bool{}
		named := map[uint64]map[uint64]bool{}
		q, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		// hear is the hub's: it takes what gap records say before it frees them.
		hear := func() []Entry {
			t.Helper()
			es := all(t, q)
			for e := range acked {
				for s := range gapsOf(es, e) {
					if roomy && released[e][s] {
						t.Fatalf("run %d: %d/%d was freed and is named as lost", run, e, s)
					}
					if named[e] == nil {
						named[e] = map[uint64]bool{}
					}
					named[e][s] = true
				}
			}
			return es
		}
		verify := func() {
			t.Helper()
			es := hear()
			got := check(t, es)
			for e, top := range acked {
				for s := uint64(1); s <= top; s++ {
					if !got[e][s] && !released[e][s] && !named[e][s] {
						t.Fatalf("run %d: %d/%d is gone; committed to %d", run, e, s, top)
					}
				}
			}
			if s := q.Stats(); roomy && s.Lost > 0 {
				t.Fatalf("run %d: %d lost: %q", run, s.Lost, notes(es))
			} else if s.Bytes > o.Max {
				t.Fatalf("run %d: %d bytes of %d", run, s.Bytes, o.Max)
			}
		}
		for range 60 {
			switch n := r.IntN(20); {
			case n < 9:
				add(t, q, 1+r.IntN(30), 10+r.IntN(200))
			case n < 12:
				if err := q.Commit(context.Background()); err != nil && !errors.Is(err, errWaits) {
					t.Fatal(err)
				}
				q.mu.Lock()
				acked[q.cur.ep.id] = q.durable
				q.mu.Unlock()
			case n < 17:
				hs := q.Holds()
				h := hs[r.IntN(len(hs))]
				if h.First > h.Last {
					continue
				}
				hear()
				a := h.First + r.Uint64N(h.Last-h.First+1)
				b := a + r.Uint64N(h.Last-a+1)
				upto, also := a, [][2]uint64(nil)
				if n == 14 {
					upto, also = 0, [][2]uint64{{a, b}}
				} else if n == 15 {
					upto = h.Last
				}
				if err := q.Free(h.Epoch, upto, also); err != nil {
					t.Fatal(err)
				}
				f := released[h.Epoch]
				if f == nil {
					f = map[uint64]bool{}
					released[h.Epoch] = f
				}
				for s := uint64(1); s <= upto; s++ {
					f[s] = true
				}
				for _, r := range also {
					for s := r[0]; s <= r[1]; s++ {
						f[s] = true
					}
				}
			case n == 17:
				verify()
			case n == 18: // power cut
				m = m.crash(r, r.Float64())
				_ = q.Close()
				o.FS = m
				if q, err = Open(o); err != nil {
					t.Fatal(err)
				}
				verify()
			case n == 19:
				e := q.Epoch()
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
				acked[e] = max(acked[e], q.durable)
				if q, err = Open(o); err != nil {
					t.Fatal(err)
				}
				verify()
			}
		}
		verify()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
