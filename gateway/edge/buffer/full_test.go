package buffer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// full returns a card with an epoch of many segments that is full: the file
// system by other programs or by the queue itself, or the quota. Epochs begin with small
// segments. It returns the epoch and how many readings it has.
func full(t *testing.T, by string) (m *memFS, o Options, epoch uint64, n uint64) {
	t.Helper()
	m = newMemFS()
	o = small(m)
	o.firstSize = 4 << 10
	o.Max = 1 << 20
	if by == "quota" {
		o.Max = 12 * 16 << 10
	}
	q := open(t, o)
	for range 200 { // until the next segment would drop the first one
		n = add(t, q, 10, 100)[9]
		commit(t, q)
		if s := q.Stats(); s.Lost > 0 {
			t.Fatalf("the card was full too early: %+v", s)
		}
		if by == "quota" && q.Stats().Bytes+2*16<<10 > o.Max-16<<10 {
			break
		}
	}
	if by == "other programs" {
		m.fill(0)
	}
	return m, o, q.Epoch(), n
}

// TestOpenFull starts a board again and again on a full card: starting alone
// costs no record, whatever is full.
func TestOpenFull(t *testing.T) {
	for _, by := range []string{"other programs", "quota"} {
		t.Run(by, func(t *testing.T) {
			m, o, e, n := full(t, by)
			for i := range 40 {
				m = m.clone()
				o.FS = m
				q := open(t, o)
				es := all(t, q)
				if got := check(t, es)[e]; uint64(len(got)) != n {
					t.Fatalf("start %d: %d of %d readings left", i, len(got), n)
				}
				if s := q.Stats(); s.Lost > 0 || s.Failing || s.WriteErrors > 0 || s.Bytes > o.Max {
					t.Fatalf("start %d: %+v", i, s)
				}
				for _, x := range notes(es) {
					if strings.HasPrefix(x, "gap") {
						t.Fatalf("start %d: %s", i, x)
					}
				}
			}
		})
	}
}

// TestOpenFullAndWrite starts a board again and again on a full card and writes
// a little each time: what must go for it goes oldest first, is named once,
// and is not much more than what was written.
func TestOpenFullAndWrite(t *testing.T) {
	for _, by := range []string{"other programs", "quota"} {
		t.Run(by, func(t *testing.T) {
			m, o, e, n := full(t, by)
			epochs := []uint64{e}
			count := map[uint64]uint64{e: n}
			for i := range 24 {
				m = m.clone()
				o.FS = m
				q := open(t, o)
				last := add(t, q, 5, 100)[4]
				commit(t, q)
				epochs, count[q.Epoch()] = append(epochs, q.Epoch()), last
				es := all(t, q)
				got := check(t, es)
				lost := 0
				for _, e := range epochs {
					named := gapsOf(es, e)
					lost += len(named)
					for s := uint64(1); s <= count[e]; s++ {
						if got[e][s] == named[s] {
							t.Fatalf("start %d: %d/%d is there: %v, named as lost: %v", i, e, s, got[e][s], named[s])
						}
					}
				}
				// A segment of 16 KiB has about 130 readings, and room for four starts.
				if most := 130 * (1 + i/3); lost > most {
					t.Fatalf("start %d: %d readings lost, at most %d", i, lost, most)
				}
				if s := q.Stats(); s.Failing || s.Uncommitted > 0 || s.Bytes > o.Max {
					t.Fatalf("start %d: %+v", i, s)
				}
			}
		})
	}
}

// TestOpenFullFreed uses what the hub has taken before it drops anything.
func TestOpenFullFreed(t *testing.T) {
	m, o, e, n := full(t, "other programs")
	o.FS = m.clone()
	q := open(t, o)
	if err := q.Free(e, n/2, nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		o.FS = o.FS.(*memFS).clone()
		q = open(t, o)
		add(t, q, 100, 100)
		commit(t, q)
		if got := check(t, all(t, q))[e]; uint64(len(got)) != n-n/2 {
			t.Fatalf("start %d: %d readings of %d left", i, len(got), n-n/2)
		}
		if s := q.Stats(); s.Lost > 0 || s.Failing || s.Uncommitted > 0 {
			t.Fatalf("start %d: %+v", i, s)
		}
	}
}

// TestOpenFullOnFailingCard waits between its tries, also when the card is well
// again and only full.
func TestOpenFullOnFailingCard(t *testing.T) {
	m, o, _, _ := full(t, "other programs")
	o.CommitEvery = 5 * time.Second
	for range 12 { // the room kept for openings is used up
		m = m.clone()
		o.FS = m
		_ = open(t, o)
	}
	synctest.Test(t, func(t *testing.T) {
		m := m.clone()
		o.FS = m
		bad := true
		m.fault = func(_ int, what string) error {
			if bad && what != "read" {
				return syscall.EIO
			}
			return nil
		}
		q, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		time.Sleep(time.Minute)
		m.mu.Lock()
		bad = false
		before := m.ops
		m.mu.Unlock()
		time.Sleep(10 * time.Minute)
		m.mu.Lock()
		if n := m.ops - before; n > 600 {
			t.Errorf("%d operations in ten minutes", n)
		}
		m.mu.Unlock()
		if s := q.Stats(); s.Lost > 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestNamedOnce has power cuts at random operations of a queue that is always
// full, with a hub that hears whatever may be read: nothing is named as lost
// twice, nothing is delivered after it was named, and nothing is gone unnamed.
func TestNamedOnce(t *testing.T) {
	r := seeded(t)
	runs := 60
	if testing.Short() {
		runs = 6
	}
	type id struct{ epoch, seq uint64 }
	dropped := 0
	for run := range runs {
		m := newMemFS()
		o := small(m)
		o.segSize, o.firstSize, o.Max = 8<<10, 2<<10, 7*8<<10
		if run%2 == 1 {
			o.Max = 1 << 20
			m.space = 2*slotSize + 7*8<<10
		}
		acked := map[uint64]uint64{}
		taken := map[id]bool{} // freed by the hub
		when := map[id]string{}
		sess, hears := 0, 0
		by := map[id]id{} // named as lost by which record
		heard := map[id]bool{}
		for range 25 {
			sess++
			hears = 0
			q, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			var cut *memFS
			left := 1 + r.IntN(60)
			m.mu.Lock()
			m.fault = func(int, string) error {
				if left--; left == 0 {
					m.mu.Unlock()
					c := m.crash(r, r.Float64())
					m.mu.Lock()
					cut = c
				}
				return nil
			}
			m.mu.Unlock()
			over := func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return cut != nil
			}
			hear := func() {
				hears++
				es := readable(t, q)
				if over() {
					return // heard by nobody: the power was gone
				}
				check(t, es)
				for _, e := range es {
					k := id{e.Epoch, e.Seq}
					if g, ok := by[k]; ok {
						t.Fatalf("run %d: %v is delivered and was named as lost by %v", run, k, g)
					}
					heard[k] = true
					var ep, a, b uint64
					if n, _ := fmt.Sscanf(string(e.Payload), "gap %d %d %d", &ep, &a, &b); n != 3 || e.Kind != Gap {
						continue
					}
					for ; a <= b; a++ {
						x := id{ep, a}
						if g, ok := by[x]; ok && g != k {
							t.Fatalf("run %d: %v is named by %v and by %v", run, x, g, k)
						}
						// What was published from RAM and is missing from the commit that the cut
						// interrupted may be at the hub: the board cannot know.
						if taken[x] && x.seq <= acked[ep] {
							t.Fatalf("run %d: %v is named as lost, and the hub has it: %s; gap %v; taken %s; now session %d hear %d; cur %d", run, x, e.Payload, k, when[x], sess, hears, q.Epoch())
						}
						by[x] = k
						dropped++
					}
				}
				// The hub takes what names losses, and says again what it has. What the
				// board has just given up it hears too late: that race nobody wins.
				q.mu.Lock()
				for _, e := range es {
					ep := q.epoch(e.Epoch)
					if ep == nil || e.Kind == Reading && r.IntN(40) > 0 || len(q.heldOf(ep, e.Seq, e.Seq)) == 0 {
						continue
					}
					taken[id{e.Epoch, e.Seq}] = true
					when[id{e.Epoch, e.Seq}] = fmt.Sprint("session ", sess, " hear ", hears, " over ", over())
				}
				for k := range taken {
					if ep := q.epoch(k.epoch); ep != nil && k.seq <= ep.last && ep.freed.add(k.seq, k.seq) {
						q.curDirty = true
					}
				}
				q.reclaim()
				q.mu.Unlock()
			}
			hear()
			for range 30 {
				if over() {
					break
				}
				add(t, q, 1+r.IntN(20), 20+r.IntN(200))
				if r.IntN(2) == 0 {
					_ = q.Commit(context.Background()) // a full card refuses for a while
				}
				q.mu.Lock()
				e, durable := q.cur.ep.id, q.durable
				q.mu.Unlock()
				if !over() {
					acked[e] = max(acked[e], durable)
				}
				hear()
			}
			m.mu.Lock()
			m.fault = nil
			m.mu.Unlock()
			if cut == nil {
				cut = m.crash(r, r.Float64())
			}
			_ = q.Close()
			m = cut
			o.FS = m
		}
		q, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		add(t, q, 1, 50) // before that nothing is dropped for what the opening has to say
		es := all(t, q)
		got := check(t, es)
		for e, last := range acked {
			named := gapsOf(es, e)
			for s := uint64(1); s <= last; s++ {
				if _, before := by[id{e, s}]; !got[e][s] && !named[s] && !before && !taken[id{e, s}] {
					t.Fatalf("run %d: %d/%d was committed and is gone without a word", run, e, s)
				}
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if dropped < 100*runs {
		t.Fatalf("%d records were dropped: too few to mean anything", dropped)
	}
}

// TestLongOutage drops the whole quota many times over: the gap records that
// are said again and again stay few, and still name everything.
func TestLongOutage(t *testing.T) {
	o := small(newMemFS())
	o.Max = 8 * 16 << 10
	q := open(t, o)
	for range 3000 {
		add(t, q, 20, 100)
		commit(t, q)
	}
	es := all(t, q)
	held, named := check(t, es)[q.Epoch()], gapsOf(es, q.Epoch())
	gaps := 0
	for _, e := range es {
		if e.Kind == Gap {
			gaps++
		}
	}
	last := q.Holds()[0].Last
	for s := uint64(1); s <= last; s++ {
		if !held[s] && !named[s] {
			t.Fatalf("%d of %d is gone and not named", s, last)
		}
	}
	if gaps > 8*17 || len(held)-gaps < 400 {
		t.Fatalf("of %d held %d are gap records", len(held), gaps)
	}
}

// smallFileSystem mounts a real file system of 16 MiB for the test.
func smallFileSystem(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		if os.Getenv("LUQUAN_REAL") == "1" {
			t.Fatalf("LUQUAN_REAL=1 and no file system can be mounted: %v", err)
		}
		t.Skipf("no file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestSmallFileSystem fills a real file system of 16 MiB, the queue's share
// first and then every byte by another program, and starts again and again.
func TestSmallFileSystem(t *testing.T) {
	dir := smallFileSystem(t)
	o := Options{Dir: filepath.Join(dir, "buffer"), Max: 64 << 20, EncodeGap: encodeGap, EncodeEnd: encodeEnd}
	q := open(t, o)
	e := q.Epoch()
	var n uint64
	for q.Stats().Lost == 0 { // until it is full and drops
		n = add(t, q, 100, 1000)[99]
		commit(t, q)
	}
	s := q.Stats()
	if s.Failing || s.WriteErrors > 0 || s.Bytes < 13<<20 {
		t.Fatalf("a file system of 16 MiB is full: %+v", s)
	}
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	for b := make([]byte, 4096); err == nil; {
		_, err = hog.Write(b)
	}
	es := all(t, q)
	held, named := check(t, es)[e], gapsOf(es, e)
	if err := q.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	for i := range 20 {
		q := open(t, o)
		es := all(t, q)
		got, again := check(t, es)[e], gapsOf(es, e)
		for x := uint64(1); x <= n; x++ {
			if got[x] != held[x] || again[x] != named[x] || got[x] == again[x] {
				t.Fatalf("start %d: %d is there: %v, before: %v; named: %v, before: %v", i, x, got[x], held[x], again[x], named[x])
			}
		}
		if s := q.Stats(); s.Lost > 0 {
			t.Fatalf("start %d: %+v", i, s)
		}
		_ = q.Close() // its own end record may find no room
	}
	q = open(t, o)
	add(t, q, 100, 1000)
	commit(t, q)
	_ = all(t, q) // commits what gap records the first commit made
	if s := q.Stats(); s.Failing || s.Uncommitted > 0 || s.Lost > 2000 {
		t.Fatalf("writing on a full file system: %+v", s)
	}
}
