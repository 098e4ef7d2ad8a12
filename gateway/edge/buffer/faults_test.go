package buffer

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestCrash5Faults lets the k-th operation fail, once or from then on for a while,
// for every k of a run, and has a power cut at the end.
func TestCrash5Faults(t *testing.T) {
	run := func(t *testing.T, k, length int, what error, short bool) (ops int) {
		m := newMemFS()
		o := tiny(m)
		m.fault = func(op int, name string) error {
			if name == "read" || op < k || op >= k+length {
				return nil
			}
			if short && name == "write" {
				return errShort{syscall.EIO}
			}
			return what
		}
		q, err := Open(o)
		if err != nil {
			t.Fatalf("k=%d: open: %v", k, err)
		}
		e := q.Epoch()
		var acked uint64
		for i := range 12 {
			last := add(t, q, 10, 100)[9]
			if q.Commit(context.Background()) == nil {
				acked = last
			}
			if i == 6 {
				if err := q.Free(e, 20, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		// A full card drops the oldest; nothing else loses anything.
		lost := q.Stats().Lost
		if what != syscall.ENOSPC && lost > 0 {
			t.Fatalf("k=%d: %d lost", k, lost)
		}
		es := all(t, q)
		held, named := check(t, es)[e], gapsOf(es, e)
		for s := uint64(21); s <= acked; s++ {
			if held[s] == named[s] {
				t.Fatalf("k=%d: in the running queue %d is held: %v, named: %v", k, s, held[s], named[s])
			}
		}
		if length < 1000 { // the card is well again
			last := q.Holds()[0].Last
			err := q.Commit(context.Background())
			for n := 0; err != nil; n++ {
				if err = q.Commit(context.Background()); n == length {
					t.Fatalf("k=%d: commit on a card that works again: %v", k, err)
				}
			}
			acked = last
		} else if s := q.Stats(); k <= 5 && (!s.Failing || s.WriteErrors == 0 || s.LastError == "") {
			t.Fatalf("k=%d: a card that fails for good is not told: %+v", k, s)
		}
		ops = m.ops
		c := m.clone()
		_ = q.Close()
		o.FS = c
		q, err = Open(o)
		if err != nil {
			t.Fatalf("k=%d: reopen: %v", k, err)
		}
		defer q.Close()
		es = all(t, q)
		held, named = check(t, es)[e], gapsOf(es, e)
		for s := uint64(21); s <= acked; s++ {
			if !held[s] && !named[s] {
				t.Fatalf("k=%d length=%d: committed %d is gone (acked %d)", k, length, s, acked)
			}
		}
		if what != syscall.ENOSPC && len(named) > 0 { // a full card may take a file before the cursor lists it
			t.Fatalf("k=%d: %q", k, notes(es))
		}
		return ops
	}
	for _, c := range []struct {
		name  string
		err   error
		short bool
	}{{"EIO", syscall.EIO, false}, {"ENOSPC", syscall.ENOSPC, false}, {"EROFS", syscall.EROFS, false}, {"short write", syscall.EIO, true}} {
		for _, length := range []int{1, 2, 3, 7, 1 << 30} {
			t.Run(fmt.Sprintf("%s/%d", c.name, length), func(t *testing.T) {
				for k, ops := 1, 1; k <= ops; k++ {
					ops = max(ops, run(t, k, length, c.err, c.short))
					if length == 1<<30 && k > 60 {
						break
					}
				}
			})
		}
	}
}

// TestFailingCard keeps records in a bounded ring while the card refuses, and
// names what the ring loses.
func TestFailingCard(t *testing.T) {
	m := newMemFS()
	o := tiny(m)
	o.ramMax = 64 << 10
	q := open(t, o)
	e := q.Epoch()
	add(t, q, 20, 100)
	commit(t, q)
	bad := true
	m.mu.Lock()
	m.fault = func(_ int, what string) error {
		if bad && what != "read" {
			return syscall.EROFS
		}
		return nil
	}
	m.mu.Unlock()
	for range 40 {
		add50(t, q)
		if err := q.Commit(context.Background()); err == nil {
			t.Fatal("a commit on a read-only card succeeded")
		}
	}
	s := q.Stats()
	if !s.Failing || s.Lost == 0 || s.Uncommitted == 0 {
		t.Fatalf("stats: %+v", s)
	}
	m.mu.Lock()
	bad = false
	m.mu.Unlock()
	commit(t, q)
	if s := q.Stats(); s.Failing || s.Uncommitted != 0 {
		t.Fatalf("after the card is well: %+v", s)
	}
	c := m.clone()
	o.FS = c
	q = open(t, o)
	es := all(t, q)
	got, named := check(t, es)[e], gapsOf(es, e)
	for s := uint64(1); s <= 2020; s++ {
		if got[s] == named[s] {
			t.Fatalf("%d: held %v, named %v", s, got[s], named[s])
		}
	}
	if len(named) == 0 || len(got) < 300 {
		t.Fatalf("%d held, %d named", len(got), len(named))
	}
}

// TestFailingCardFreed does not lose, nor name as lost, what the hub takes
// while the card refuses.
func TestFailingCardFreed(t *testing.T) {
	m := newMemFS()
	o := tiny(m)
	o.ramMax = 64 << 10
	q := open(t, o)
	e := q.Epoch()
	add(t, q, 20, 100)
	commit(t, q)
	bad := true
	m.mu.Lock()
	m.fault = func(_ int, what string) error {
		if bad && what != "read" {
			return syscall.EIO
		}
		return nil
	}
	m.mu.Unlock()
	for range 100 {
		last := add(t, q, 50, 100)[49]
		_ = q.Commit(context.Background())
		if err := q.Free(e, last-10, nil); err != nil {
			t.Fatal(err)
		}
	}
	m.mu.Lock()
	bad = false
	m.mu.Unlock()
	commit(t, q)
	if s := q.Stats(); s.Lost != 0 || s.Entries != 10 {
		t.Fatalf("stats: %+v", s)
	}
	o.FS = m.clone()
	q = open(t, o)
	es := all(t, q)
	got := check(t, es)[e]
	for s := uint64(5011); s <= 5020; s++ {
		if !got[s] {
			t.Fatalf("%d is gone", s)
		}
	}
	for _, n := range notes(es) {
		if strings.HasPrefix(n, "gap") {
			t.Fatalf("freed records are named as lost: %s", n)
		}
	}
}

// TestRetry tries a failing card every 30 s by itself.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		q, err := Open(tiny(m))
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		bad := true
		m.mu.Lock()
		m.fault = func(int, string) error {
			if bad {
				return syscall.EIO
			}
			return nil
		}
		m.mu.Unlock()
		add(t, q, 5, 100)
		if q.Commit(context.Background()) == nil {
			t.Fatal("committed")
		}
		m.mu.Lock()
		n := m.ops
		m.mu.Unlock()
		time.Sleep(95 * time.Second)
		m.mu.Lock()
		if k := m.ops - n; k < 3 || k > 12 {
			t.Fatalf("%d operations in 95 s, want two or so every 30 s", k)
		}
		bad = false
		m.mu.Unlock()
		time.Sleep(31 * time.Second)
		if s := q.Stats(); s.Failing || s.Uncommitted != 0 {
			t.Fatalf("stats: %+v", s)
		}
	})
}

// TestUnreadable gives up a segment that cannot be read and names it, but not
// at the first error.
func TestUnreadable(t *testing.T) {
	m, first, _ := written(t)
	q := open(t, tiny(m))
	m.mu.Lock()
	m.fault = func(_ int, what string) error {
		if what == "read" {
			return syscall.EIO
		}
		return nil
	}
	m.mu.Unlock()
	for range maxLoadErrors - 1 {
		if es, err := q.Read(first, 1, 0, 0); err == nil || len(es) > 0 {
			t.Fatalf("read of a card that refuses: %d records, %v", len(es), err)
		}
	}
	m.mu.Lock()
	m.fault = nil
	m.mu.Unlock()
	if es, err := q.Read(first, 1, 0, 0); err != nil || len(es) != 60 {
		t.Fatalf("after it is well: %d records, %v", len(es), err)
	}
}

// gapsOf returns the numbers of an epoch that the gap records name.
func gapsOf(es []Entry, epoch uint64) map[uint64]bool {
	named := map[uint64]bool{}
	for _, n := range notes(es) {
		var ep, a, b uint64
		if k, _ := fmt.Sscanf(n, "gap %d %d %d", &ep, &a, &b); k == 3 && ep == epoch {
			for ; a <= b; a++ {
				named[a] = true
			}
		}
	}
	return named
}
