package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// seeded returns a random source whose seed is printed when the test fails;
// LUQUAN_SEED repeats it.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("LUQUAN_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("LUQUAN_SEED=%d", seed)
		}
	})
	return rand.New(&shared{src: rand.NewPCG(seed, 0)})
}

// shared is a source that faults, on the queue's goroutines, and the test draw from.
type shared struct {
	mu  sync.Mutex
	src rand.Source
}

func (s *shared) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.src.Uint64()
}

// tiny returns options for a queue of 4 KiB segments, for tests that open it
// thousands of times.
func tiny(f FS) Options {
	o := small(f)
	o.segSize, o.firstSize, o.Max = 4<<10, 4<<10, 1<<20
	return o
}

// clone copies a card whose unsynced bytes do not matter.
func (m *memFS) clone() *memFS { return m.crash(nil, 0) }

// file returns the node of a file on a card.
func (m *memFS) file(name string) *memNode { return m.files["q/"+name] }

func (n *memNode) set(b []byte) {
	n.data, n.durable, n.shared = append([]byte(nil), b...), append([]byte(nil), b...), false
}

// frames returns the end offsets of the readings in a segment's bytes.
func frames(t testing.TB, b []byte) (ends []int) {
	h, ok := decodeHeader(b)
	if !ok {
		t.Fatal("no header")
	}
	scan(b, &h, sector, func(f frame) {
		if f.kind.isRecord() {
			ends = append(ends, f.off+frameHead+len(f.body))
		}
	})
	return ends
}

// written returns a card with two epochs, 60 and 60 readings in several
// segments and several commits, and the first epoch's number.
func written(t testing.TB) (m *memFS, first, second uint64) {
	m = newMemFS()
	q := open(t, tiny(m))
	first = q.Epoch()
	for range 6 {
		add(t, q, 10, 100)
		commit(t, q)
	}
	m = m.clone()
	q = open(t, tiny(m))
	second = q.Epoch()
	for range 6 {
		add(t, q, 10, 100)
		commit(t, q)
	}
	return m.clone(), first, second
}

// survives opens a damaged card, checks that there is no phantom and that all
// that is missing of the two epochs is named; with twice it then writes, has
// another power cut and checks that it is still so. It returns how many records
// are missing.
func survives(t *testing.T, m *memFS, first, second uint64, twice, named bool) (lost int) {
	t.Helper()
	q, err := Open(tiny(m))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	lost, got := missing(t, q, first, second, named)
	if twice {
		e := q.Epoch()
		add(t, q, 5, 100)
		commit(t, q)
		m = m.clone()
		defer func(q *Queue) { _ = q.Close() }(q)
		if q, err = Open(tiny(m)); err != nil {
			t.Fatalf("open again: %v", err)
		}
		_, again := missing(t, q, first, second, named)
		for _, ep := range []uint64{first, second, e} {
			for s := range got[ep] {
				if !again[ep][s] {
					t.Fatalf("%d/%d was recovered and is gone after a second power cut", ep, s)
				}
			}
		}
		if len(again[e]) != len(got[e])+5 {
			t.Fatalf("of the epoch after the damage %d records are left, want %d", len(again[e]), len(got[e])+5)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return lost
}

// missing reads all, returns what was read and how many records of the two
// epochs were not; with named these must be in gap records.
func missing(t *testing.T, q *Queue, first, second uint64, named bool) (lost int, got map[uint64]map[uint64]bool) {
	t.Helper()
	es := all(t, q)
	got = check(t, es)
	ends := map[uint64]uint64{}
	for _, n := range notes(es) {
		var ep, last uint64
		if k, _ := fmt.Sscanf(n, "end %d %d", &ep, &last); k == 2 {
			ends[ep] = last
		}
	}
	for ep, top := range map[uint64]uint64{first: 60, second: 61} {
		if len(got[ep]) == int(top) {
			continue
		}
		told := gapsOf(es, ep)
		for s := uint64(1); s <= top; s++ {
			if got[ep][s] {
				continue
			}
			lost++
			if named && !told[s] && s <= ends[ep] {
				t.Fatalf("%d/%d is gone and not named", ep, s)
			}
		}
	}
	return lost, got
}

func (m *memFS) segments() (out []string) {
	for n := range m.files {
		if strings.Contains(n, "seg-") {
			out = append(out, strings.TrimPrefix(n, "q/"))
		}
	}
	return out
}

func TestCrash1Truncated(t *testing.T) {
	r := seeded(t)
	m, first, second := written(t)
	for _, name := range m.segments() {
		b := m.file(name).data
		ends := frames(t, b)
		for n := len(b) - 1 - r.IntN(step()); n >= 0; n -= step() {
			c := m.clone()
			c.file(name).set(b[:n])
			want := 0
			for _, e := range ends {
				if e > n {
					want++
				}
			}
			// Without its first 512 bytes a file says nothing.
			if n < sector {
				want = len(ends)
			}
			if lost := survives(t, c, first, second, n%7 == 0, n >= sector); lost != want {
				t.Fatalf("%s cut at %d: %d lost, want %d", name, n, lost, want)
			}
		}
	}
	b := m.file(cursorName).data
	for _, n := range []int{0, 1, 39, 40, 100, 511, 512, slotSize - 1, slotSize, slotSize + 1, slotSize + 100, 2*slotSize - 1} {
		c := m.clone()
		c.file(cursorName).set(b[:n])
		if lost := survives(t, c, first, second, true, true); lost != 0 {
			t.Fatalf("cursor cut at %d: %d lost", n, lost)
		}
	}
}

// step is how far a loop over every byte goes at once: to the next one under
// LUQUAN_REAL=1, elsewhere, and under the race detector, a little further,
// beginning anywhere.
func step() int {
	switch {
	case testing.Short() || raced:
		return 37
	case os.Getenv("LUQUAN_REAL") == "1":
		return 1
	}
	return 5
}

func TestCrash2Flipped(t *testing.T) {
	r := seeded(t)
	m, first, second := written(t)
	worst := 0
	for _, name := range append(m.segments(), cursorName) {
		b := m.file(name).data
		for i := r.IntN(step()); i < len(b); i += step() {
			if name == cursorName && i%slotSize > 600 {
				continue // nothing is written there
			}
			c := m.clone()
			d := append([]byte(nil), b...)
			d[i] ^= byte(1 + r.IntN(255))
			c.file(name).set(d)
			lost := survives(t, c, first, second, i%7 == 0, true)
			if (i < sector || name == cursorName) && lost > 0 {
				t.Fatalf("%s: a flip at %d in the header cost %d records", name, i, lost)
			}
			worst = max(worst, lost)
		}
	}
	if worst != 1 {
		t.Fatalf("a flipped byte costs %d records at worst, want 1", worst)
	}
}

func TestCrash3GarbageTail(t *testing.T) {
	r := seeded(t)
	m, first, second := written(t)
	for _, name := range m.segments() {
		b := m.file(name).data
		ends := frames(t, b)
		end := alignUp(ends[len(ends)-1])
		for i := range 200 {
			c := m.clone()
			d := append([]byte(nil), b...)
			tail := d[end:]
			switch i % 4 {
			case 0:
				for j := range tail {
					tail[j] = byte(r.Uint32())
				}
			case 1:
				for j := range tail {
					tail[j] = 0xFF
				}
			case 2: // stale: frames of another place
				copy(tail, b[sector+r.IntN(ends[0]):])
			case 3: // a hundred frames' beginnings
				for j := range tail {
					tail[j] = []byte{frameByte, byte(Reading), 0, 0}[j%4]
				}
			}
			if i%8 < 4 { // also beyond the file's end
				d = append(d, tail...)
			}
			c.file(name).set(d)
			if lost := survives(t, c, first, second, true, true); lost != 0 {
				t.Fatalf("%s, tail %d: %d lost", name, i%4, lost)
			}
		}
	}
}

// TestRubbish opens directories that hold nothing sensible.
func TestRubbish(t *testing.T) {
	r := seeded(t)
	for i := range 300 {
		m := newMemFS()
		for _, name := range []string{"seg-000001.q", "seg-000002.q", "seg-x.q", "seg-.q", "seg-99999999999999999999.q", cursorName, "other"} {
			if r.IntN(3) == 0 {
				continue
			}
			b := make([]byte, r.IntN(9000))
			if r.IntN(3) > 0 {
				for j := range b {
					b[j] = byte(r.Uint32())
				}
			}
			if r.IntN(2) == 0 {
				h := header{size: 4096 << r.IntN(8), gen: r.Uint64() >> r.IntN(64), epoch: 1 + r.Uint64N(3), base: 1 + r.Uint64()>>r.IntN(64),
					prevEpoch: r.Uint64N(3), prevLast: r.Uint64() >> r.IntN(64)}
				b = append(h.encode(), b...)
			}
			n := &memNode{dirty: map[int]bool{}}
			n.set(b)
			m.files["q/"+name], m.dir["q/"+name] = n, n
		}
		q, err := Open(tiny(m))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		e := q.Epoch()
		add(t, q, 50, 100)
		commit(t, q)
		if es, _ := q.Read(e, 1, 0, 0); len(es) < 50 {
			t.Fatalf("%d: %d records read", i, len(es))
		}
		_ = all(t, q)
		_ = q.Stats()
		_ = q.Close()
	}
}

func TestCrash4TornCommit(t *testing.T) {
	r := seeded(t)
	trials := 1500
	if testing.Short() {
		trials = 100
	}
	for i := range trials {
		m := newMemFS()
		o := tiny(m)
		o.segSize = []int{4 << 10, 16 << 10}[i%2]
		q, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		e := q.Epoch()
		acked := uint64(0)
		for range r.IntN(8) {
			add(t, q, 1+r.IntN(20), 20+r.IntN(200))
			commit(t, q)
			q.mu.Lock()
			acked = q.durable
			q.mu.Unlock()
			if r.IntN(3) == 0 { // recycled files have stale bytes where the torn commit goes
				if err := q.Free(e, acked-min(acked, uint64(r.IntN(20))), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		low := q.Holds()[0].First
		// The power goes during the sync of the last commit.
		var cut *memFS
		m.mu.Lock()
		m.fault = func(_ int, what string) error {
			if what == "sync" && cut == nil {
				cut = &memFS{}
				m.mu.Unlock()
				cut = m.crash(r, r.Float64())
				m.mu.Lock()
			}
			return nil
		}
		m.mu.Unlock()
		add(t, q, 1+r.IntN(40), 20+r.IntN(200))
		commit(t, q)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		o.FS = cut
		for range 2 { // the second time after another power cut
			q, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			got := check(t, all(t, q))
			for s := low; s <= acked; s++ {
				if !got[e][s] {
					t.Fatalf("trial %d: %d of %d to %d is gone", i, s, low, acked)
				}
			}
			add(t, q, 3, 50)
			commit(t, q)
			c := o.FS.(*memFS).crash(r, 0.5)
			_ = q.Close()
			o.FS = c
		}
	}
}
