package ingest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/hub/ledger"
)

// TestImport: what is imported is stored once, judged never, and answered only
// when it is durable.
func TestImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Sites = []string{"s"} })
		r.run()
		r.send(1, 3)
		pass(time.Second)
		const topic = "luquan/v1/s/g/live"
		imp := func(first, last uint64, want Imported) {
			t.Helper()
			got, err := r.Import(t.Context(), topic, payload(t, first, last))
			if err != nil || got != want {
				t.Fatalf("%+v, %v, want %+v", got, err, want)
			}
		}
		imp(2, 6, Imported{Records: 5, New: 3, Known: 2})
		imp(2, 6, Imported{Records: 5, Known: 5})
		if len(r.seen) != 3 {
			t.Errorf("the sink saw %v: an import is judged by nobody", r.seen)
		}
		for seq := uint64(1); seq <= 6; seq++ {
			if r.stored[seq] != 1 {
				t.Errorf("seq %d stored %d times", seq, r.stored[seq])
			}
		}
		account := func() ledger.Row {
			t.Helper()
			rows, err := r.ledger.Account(t.Context(), ledger.Query{})
			if err != nil || len(rows) != 1 {
				t.Fatalf("%+v, %v", rows, err)
			}
			return rows[0]
		}
		if a := account(); a.Stored != 6 || a.Duplicates != 0 || a.Expected != 6 {
			t.Errorf("%+v", a)
		}
		r.send(4, 4) // the board comes back to life
		pass(time.Second)
		if a := account(); a.Stored != 6 || a.Duplicates != 1 || r.stored[4] != 1 || len(r.seen) != 3 {
			t.Errorf("%+v, seen %v", a, r.seen)
		}

		r.set(func() { r.fail = errors.New("the store is away") })
		if got, err := r.Import(t.Context(), topic, payload(t, 7, 8)); err == nil || got != (Imported{}) {
			t.Fatalf("%+v, %v", got, err)
		}
		if a := account(); a.Stored != 6 || a.Waiting != 0 || a.Missing != 2 {
			t.Errorf("%+v", a)
		}
		r.set(func() { r.fail = nil; r.reject[8] = "no" })
		imp(7, 8, Imported{Records: 2, New: 1, Quarantined: 1})
		imp(7, 8, Imported{Records: 2, Known: 2})

		// What the board sent itself and only waits in memory is not safe yet.
		r.set(func() { r.fail = errors.New("the store is away") })
		r.send(9, 10)
		pass(time.Second)
		if got, err := r.Import(t.Context(), topic, payload(t, 9, 10)); err == nil || got != (Imported{}) {
			t.Errorf("records in memory count as imported: %+v, %v", got, err)
		}
		time.AfterFunc(5*time.Second, func() { r.set(func() { r.fail = nil }) })
		if got, err := r.Import(t.Context(), topic, payload(t, 9, 10)); err != nil || got != (Imported{Records: 2, Known: 2}) || r.stored[10] != 1 {
			t.Errorf("%+v, %v, stored %d times", got, err, r.stored[10])
		}

		var no interface{ Refused() }
		if _, err := r.Import(t.Context(), "luquan/v1/other/g/live", payload(t, 1, 1)); !errors.As(err, &no) {
			t.Errorf("a site of another hub: %v", err)
		}
		if _, err := r.Import(t.Context(), topic, []byte("#luquan 1 nonsense\n")); !errors.As(err, &no) {
			t.Errorf("a broken payload: %v", err)
		}
		r.stop()
	})
}

// TestBookAfterKills kills the hub again and again, at any write of store,
// quarantine and ledger, while a board sends what is not committed. At the end
// the book says what the store has, and nothing is missing.
func TestBookAfterKills(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			stored := map[uint64]int{}
			const n = 60
			for life := range 12 {
				r := newRig(t, nil)
				r.ledger.Close()
				l, err := ledger.Open(dir+"/ledger.db", "hub-1/boot", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.ledger, r.cfg.Ledger = l, l
				r.stored = stored // what the store has outlives the hub
				r.reject[7] = "no"
				r.run()
				upto := uint64(0)
				if c, ok := l.Committed("s", "g", time.Now()); ok {
					upto = c.Epochs[9].Upto
				}
				// What the book says is stored, the store has.
				rows, err := l.Account(t.Context(), ledger.Query{})
				if err != nil {
					t.Fatal(err)
				}
				if len(rows) == 1 && int(rows[0].Stored) > len(stored) {
					t.Fatalf("seed %d: the book says %d, the store has %d", seed, rows[0].Stored, len(stored))
				}
				for s := uint64(1); s <= upto; s++ {
					if s != 7 && stored[s] == 0 {
						t.Fatalf("seed %d: seq %d is committed and not stored", seed, s)
					}
				}
				for s := upto + 1; s <= n; s += 10 {
					r.send(s, min(s+9, n))
					if (seed*31+uint64(life)*7+s)%5 == 0 {
						r.set(func() { r.fail = errors.New("away") })
					}
					pass(time.Duration((seed*13+uint64(life)*17+s)%400) * time.Millisecond)
				}
				switch (seed + uint64(life)) % 3 {
				case 0:
					if life == 11 {
						break
					}
					// The ledger's disk fails: what is stored is not in the book.
					l.Close()
					pass(300 * time.Millisecond)
				case 1:
					pass(time.Second)
				}
				if life == 11 {
					r.set(func() { r.fail = nil })
					pass(time.Minute)
					rows, err := l.Account(t.Context(), ledger.Query{})
					if err != nil || len(rows) != 1 {
						t.Fatalf("seed %d: %+v, %v", seed, rows, err)
					}
					if a := rows[0]; int(a.Stored) != len(stored) || a.Quarantined != 1 || a.Stored+a.Quarantined != n || a.Missing+a.Waiting+a.Lost != 0 {
						t.Fatalf("seed %d: %+v, the store has %d", seed, a, len(stored))
					}
				}
				r.set(func() { r.fail = errors.New("killed") }) // stop writes nothing more
				r.stop()
			}
		})
	}
}

// TestComeAgainIsKept: what only comes again is in the book after a kill too.
func TestComeAgainIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.send(1, 5)
		pass(time.Second)
		r.send(1, 5)
		pass(time.Second)
		rows, err := r.ledger.Account(t.Context(), ledger.Query{})
		if err != nil || rows[0].Duplicates != 5 {
			t.Errorf("%+v, %v", rows, err)
		}
		path := r.path
		r.ledger.Close() // killed
		again, err := ledger.Open(path, "hub-1/boot", nil)
		if err != nil {
			t.Error(err)
		} else {
			rows, err := again.Account(t.Context(), ledger.Query{})
			if err != nil || rows[0].Duplicates != 5 || rows[0].Stored != 5 {
				t.Errorf("after a kill: %+v, %v", rows, err)
			}
			again.Close()
		}
		r.stop()
	})
}
