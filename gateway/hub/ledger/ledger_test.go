package ledger

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

var now = time.Unix(1_763_850_000, 0).UTC()

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(path, "hub/boot", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func reading(epoch, seq uint64) wire.Record {
	return wire.Record{Epoch: epoch, Seq: seq, Kind: wire.Reading,
		Sample: telemetry.Record{Sample: telemetry.Sample{Time: now.Add(time.Duration(seq) * time.Second)}}}
}

func mustSync(t *testing.T, l *Ledger) {
	t.Helper()
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
}

func committed(t *testing.T, l *Ledger, epoch uint64) (wire.CommitEpoch, bool) {
	t.Helper()
	c, ok := l.Committed("s", "g", now)
	if !ok {
		t.Fatal("board not known")
	}
	if _, err := c.Marshal(); err != nil {
		t.Fatalf("committed breaks the contract: %v", err)
	}
	e, ok := c.Epochs[epoch]
	return e, ok
}

// one is the account of a whole epoch.
func one(t *testing.T, l *Ledger, epoch uint64) Row {
	t.Helper()
	for _, r := range mustAccount(t, l, Query{Site: "s", Gateway: "g", ByEpoch: true}) {
		if r.Epoch == epoch {
			return r
		}
	}
	t.Fatalf("no account of epoch %d", epoch)
	return Row{}
}

func mustAccount(t *testing.T, l *Ledger, q Query) []Row {
	t.Helper()
	rows, err := l.Account(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		for _, x := range r.Reasons {
			r.Lost -= x.Count
		}
		if r.Lost != 0 {
			t.Fatalf("the reasons do not add up: %+v", r)
		}
	}
	return rows
}

func TestReceive(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "l.db"))
	check := func(step string, fresh, wanted bool) {
		t.Helper()
		if f, w := l.Receive("s", "g", reading(9, 1), now); f != fresh || w != wanted {
			t.Fatalf("%s: fresh %v wanted %v, want %v %v", step, f, w, fresh, wanted)
		}
	}
	check("first", true, true)
	check("while it waits", false, false)
	l.Release("s", "g", 9, 1)
	check("after the queue was full", false, true)
	l.Settle("s", "g", reading(9, 1), false)
	check("when stored", false, false)
	if r := one(t, l, 9); r.Duplicates != 3 || r.Stored != 1 {
		t.Fatalf("%+v", r)
	}
}

// TestNothingToldBeforeSync is the promise behind committed.
func TestNothingToldBeforeSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	l := open(t, path)
	l.Receive("s", "g", reading(9, 1), now)
	l.Settle("s", "g", reading(9, 1), false)
	if c, ok := committed(t, l, 9); ok {
		t.Fatalf("told before it was on disk: %+v", c)
	}
	mustSync(t, l)
	l.Settle("s", "g", reading(9, 2), false)
	if c, _ := committed(t, l, 9); c.Upto != 1 {
		t.Fatalf("%+v", c)
	}
	l.db.Close() // the disk fails
	if l.Sync() == nil {
		t.Fatal("no error from a closed file")
	}
	if c, _ := committed(t, l, 9); c.Upto != 1 {
		t.Fatalf("told though it failed: %+v", c)
	}
	l = open(t, path)
	if c, _ := committed(t, l, 9); c.Upto != 1 {
		t.Fatalf("after a restart: %+v", c)
	}
	if f, w := l.Receive("s", "g", reading(9, 1), now); f || w {
		t.Fatalf("what was stored before the restart is fresh %v wanted %v", f, w)
	}
	if f, w := l.Receive("s", "g", reading(9, 2), now); !f || !w {
		t.Fatalf("what was not is fresh %v wanted %v", f, w)
	}
}

func TestGapsAndEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	l := open(t, path)
	for _, s := range []uint64{1, 2, 6, 9} {
		l.Receive("s", "g", reading(9, s), now)
		l.Settle("s", "g", reading(9, s), false)
	}
	if m := one(t, l, 9).MissingRanges; !reflect.DeepEqual(m, [][2]uint64{{3, 5}, {7, 8}}) {
		t.Fatalf("missing %v", m)
	}
	gap := wire.Record{Epoch: 9, Seq: 10, Kind: wire.Gap, Gap: telemetry.Gap{LostEpoch: 9, First: 3, Last: 5, From: now, To: now, Reason: "buffer full"}}
	l.Receive("s", "g", reading(9, 10), now)
	if m := one(t, l, 9).MissingRanges; len(m) != 2 {
		t.Fatalf("a gap record counts before it is stored: %v", m)
	}
	l.Settle("s", "g", gap, false)
	l.Settle("s", "g", gap, false) // again, after a resend
	end := wire.Record{Epoch: 11, Seq: 1, Kind: wire.EpochEnd, End: telemetry.EpochEnd{Ended: 9, Last: 7, Reason: "power cut"}}
	l.Settle("s", "g", end, false)
	bad := reading(9, 7)
	l.Settle("s", "g", bad, true)
	mustSync(t, l)
	for range 2 {
		// 8 was lost with the power: past the end it is settled, so that the
		// board, which knows 1 to 7, may free all.
		if c, _ := committed(t, l, 9); c.Upto != 10 || len(c.Also) != 0 {
			t.Fatalf("committed %+v", c)
		}
		r := one(t, l, 9)
		if r.Stored != 5 || r.Quarantined != 1 || r.Lost != 3 || r.Missing != 0 || r.Expected != 9 || r.Ended != "power cut" ||
			len(r.Reasons) != 1 || r.Reasons[0] != (Reason{"buffer full", 3}) {
			t.Fatalf("report %+v", r)
		}
		l.Close()
		l = open(t, path)
	}
}

// TestGapInQuarantine: a gap that the store refuses, because it is too old say, is
// the board's word all the same; one that cannot be read is nobody's.
func TestGapInQuarantine(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "l.db"))
	l.Settle("s", "g", reading(9, 1), false)
	l.Settle("s", "g", reading(9, 8), false)
	gap := wire.Record{Epoch: 9, Seq: 9, Kind: wire.Gap, Gap: telemetry.Gap{LostEpoch: 9, First: 2, Last: 4, From: now, To: now, Reason: "buffer full"}}
	l.Settle("s", "g", gap, true)
	gap.Seq, gap.Gap.First, gap.Gap.Last, gap.Err = 10, 5, 7, errors.New("garbled")
	l.Settle("s", "g", gap, true)
	if r := one(t, l, 9); r.Lost != 3 || r.Quarantined != 2 || r.Missing != 3 || r.Stored != 2 {
		t.Fatalf("%+v", r)
	}
	mustSync(t, l)
	if c, _ := committed(t, l, 9); c.Upto != 4 {
		t.Fatalf("committed %+v", c)
	}
}

func TestHolds(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "l.db"))
	st := wire.State{Online: true, Epoch: 12, Holds: map[uint64][2]uint64{9: {101, 150}, 12: {1, 0}}}
	l.State("s", "g", st, now)
	l.Settle("s", "g", reading(9, 101), false)
	mustSync(t, l)
	if c, _ := committed(t, l, 9); c.Upto != 101 {
		t.Fatalf("a hub that begins late must take the board's word for what is settled: %+v", c)
	}
	if c, ok := committed(t, l, 12); !ok || c.Upto != 0 {
		t.Fatalf("current epoch: %+v %v", c, ok)
	}
	if m := one(t, l, 9).MissingRanges; !reflect.DeepEqual(m, [][2]uint64{{102, 150}}) {
		t.Fatalf("missing %v", m)
	}
	will := wire.State{Online: false, Epoch: 12, Holds: map[uint64][2]uint64{}}
	l.State("s", "g", will, now)
	mustSync(t, l)
	if _, ok := committed(t, l, 9); !ok {
		t.Fatal("a will removed an epoch")
	}
	st.Holds = map[uint64][2]uint64{12: {1, 3}}
	l.State("s", "g", st, now)
	mustSync(t, l)
	if _, ok := committed(t, l, 9); ok {
		t.Fatal("an epoch no longer held stays in committed")
	}
	if r := one(t, l, 9); r.Stored != 1 || r.Cleared != 100 || r.Missing != 49 || r.Held {
		t.Fatalf("the report forgot it: %+v", r)
	}
	if f, w := l.Receive("s", "g", reading(9, 101), now); f || w {
		t.Fatalf("stored before it left: fresh %v wanted %v", f, w)
	}
	l.Receive("s", "g", reading(9, 102), now)
	l.Settle("s", "g", reading(9, 102), false)
	mustSync(t, l)
	if c, ok := committed(t, l, 9); !ok || c.Upto != 102 {
		t.Fatalf("who sends an epoch holds it: %+v %v", c, ok)
	}
}

// TestRandomOrders settles the same records in random orders, with resends,
// syncs and restarts between, against a map.
func TestRandomOrders(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 7))
		path := filepath.Join(t.TempDir(), "l.db")
		l := open(t, path)
		const n = 120
		settled, durable, upto := map[uint64]bool{}, map[uint64]bool{}, uint64(0)
		snap := func() map[uint64]bool {
			m := map[uint64]bool{}
			for k := range settled {
				m[k] = true
			}
			return m
		}
		for _, i := range rng.Perm(n * 2) {
			seq := uint64(i%n) + 1
			switch rng.IntN(4) {
			case 0:
				l.Settle("s", "g", reading(9, seq), true)
			case 1:
				hi := min(seq+uint64(rng.IntN(3)), n)
				l.mu.Lock()
				l.lose(Gateway{"s", "g"}, telemetry.Gap{LostEpoch: 9, First: seq, Last: hi})
				l.mu.Unlock()
				for s := seq; s <= hi; s++ {
					settled[s] = true
				}
			default:
				l.Settle("s", "g", reading(9, seq), false)
			}
			settled[seq] = true
			switch rng.IntN(12) {
			case 0:
				mustSync(t, l)
				durable = snap()
			case 1:
				l.Close() // what was not synced is forgotten, and comes again
				l = open(t, path)
				settled = map[uint64]bool{}
				for k := range durable {
					settled[k] = true
				}
			}
			if len(durable) == 0 {
				continue
			}
			c, _ := committed(t, l, 9)
			if c.Upto < upto {
				t.Fatalf("seed %d: upto went back from %d to %d", seed, upto, c.Upto)
			}
			upto = c.Upto
			told := map[uint64]bool{}
			for s := uint64(1); s <= c.Upto; s++ {
				told[s] = true
			}
			for _, r := range c.Also {
				for s := r[0]; s <= r[1]; s++ {
					told[s] = true
				}
			}
			if !reflect.DeepEqual(told, durable) && len(c.Also) < maxAlso {
				t.Fatalf("seed %d: told %v, durable %v", seed, told, durable)
			}
		}
		mustSync(t, l)
		if r := one(t, l, 9); r.Stored+r.Quarantined < 1 || r.Stored > n {
			t.Fatalf("%+v", r)
		}
		l.Close()
	}
}
