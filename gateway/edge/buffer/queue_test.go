package buffer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// small returns options for a queue of 16 KiB segments.
func small(f FS) Options {
	return Options{
		Dir: "q", FS: f, Max: 1 << 20, CommitEvery: time.Hour, segSize: 16 << 10, firstSize: 16 << 10,
		Label: "label", EncodeGap: encodeGap, EncodeEnd: encodeEnd,
	}
}

func encodeGap(l Lost) []byte {
	return fmt.Appendf(nil, "gap %d %d %d %s", l.Epoch, l.First, l.Last, l.Reason)
}

func encodeEnd(e EpochEnd) []byte {
	return fmt.Appendf(nil, "end %d %d %s", e.Epoch, e.Last, e.Reason)
}

func open(t testing.TB, o Options) *Queue {
	t.Helper()
	q, err := Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// payload is a text that names its record and fills it to n bytes or so.
func payload(epoch, i uint64, n int) []byte {
	b := fmt.Appendf(nil, "reading %d/%d ", epoch, i)
	for x := i*2654435761 + epoch; len(b) < n; x = x*6364136223846793005 + 1442695040888963407 {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

// add appends n records that name their own number. It looks the number up and
// appends under one lock: the committer may append a gap record at any time.
func add(t testing.TB, q *Queue, n, size int) (seqs []uint64) {
	t.Helper()
	for range n {
		q.mu.Lock()
		next := q.cur.ep.last + 1
		s, err := q.take(Reading, payload(q.cur.ep.id, next, size))
		q.mu.Unlock()
		if err != nil {
			t.Fatalf("append: %v", err)
		}
		if s != next {
			t.Fatalf("append: seq %d, want %d", s, next)
		}
		seqs = append(seqs, s)
	}
	return seqs
}

func commit(t testing.TB, q *Queue) {
	t.Helper()
	if err := q.Commit(context.Background()); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// all reads everything the queue holds, epoch by epoch, what is held back
// until it is on flash included.
func all(t testing.TB, q *Queue) []Entry {
	t.Helper()
	ends := func() [2]uint64 {
		q.mu.Lock()
		defer q.mu.Unlock()
		return [2]uint64{q.ready(), q.cur.ep.last}
	}
	for {
		before := ends()
		out := readable(t, q)
		if after := ends(); after == before && after[0] == after[1] {
			return out
		}
		if err := q.Commit(context.Background()); errors.Is(err, errWaits) {
			return out // it waits in RAM for room
		}
	}
}

// readable reads everything that may be read now.
func readable(t testing.TB, q *Queue) (out []Entry) {
	t.Helper()
	for _, h := range q.Holds() {
		from := uint64(0)
		for errs := 0; ; {
			es, err := q.Read(h.Epoch, from, 100, 0)
			if err != nil {
				if errs++; errs > 5 {
					t.Fatalf("read: %v", err)
				}
			}
			if len(es) == 0 && err == nil {
				break
			}
			for _, e := range es {
				if e.Epoch != h.Epoch || e.Seq < from {
					t.Fatalf("read epoch %d from %d: got %d/%d", h.Epoch, from, e.Epoch, e.Seq)
				}
				from = e.Seq + 1
			}
			out = append(out, es...)
		}
	}
	return out
}

// check verifies that every reading is what was appended under its number and
// nothing else, and returns the numbers read of each epoch.
func check(t testing.TB, es []Entry) map[uint64]map[uint64]bool {
	t.Helper()
	got := map[uint64]map[uint64]bool{}
	for _, e := range es {
		if got[e.Epoch] == nil {
			got[e.Epoch] = map[uint64]bool{}
		}
		if got[e.Epoch][e.Seq] {
			t.Fatalf("%d/%d was read twice", e.Epoch, e.Seq)
		}
		got[e.Epoch][e.Seq] = true
		if e.Kind == Reading && string(e.Payload) != string(payload(e.Epoch, e.Seq, len(e.Payload)-7)) &&
			string(e.Payload) != string(payload(e.Epoch, e.Seq, len(e.Payload))) {
			t.Fatalf("phantom: %d/%d is %q", e.Epoch, e.Seq, e.Payload)
		}
	}
	return got
}

// notes returns the texts of the gap and end records.
func notes(es []Entry) (out []string) {
	for _, e := range es {
		if e.Kind == Gap || e.Kind == End {
			out = append(out, string(e.Payload))
		}
	}
	return out
}

func TestAppendReadFree(t *testing.T) {
	q := open(t, small(newMemFS()))
	if got := q.Holds(); len(got) != 1 || got[0] != (Held{q.Epoch(), 1, 0, "label", true}) {
		t.Fatalf("holds of an empty queue: %+v", got)
	}
	add(t, q, 1000, 100)
	if n := len(check(t, all(t, q))[q.Epoch()]); n != 1000 {
		t.Fatalf("read %d before the commit, want 1000", n)
	}
	commit(t, q)
	es, err := q.Read(q.Epoch(), 500, 3, 0)
	if err != nil || len(es) != 3 || es[0].Seq != 500 || es[2].Seq != 502 {
		t.Fatalf("read from 500: %v %v", es, err)
	}
	if es, _ := q.Read(q.Epoch(), 1, 0, 250); len(es) != 2 {
		t.Fatalf("read of 250 bytes: %d records, want 2", len(es))
	}
	if es, _ := q.Read(q.Epoch(), 1, 0, 1); len(es) != 1 {
		t.Fatalf("read of 1 byte: %d records, want 1", len(es))
	}
	if es, err := q.Read(q.Epoch()+1, 1, 0, 0); len(es) != 0 || err != nil {
		t.Fatalf("read of a strange epoch: %v %v", es, err)
	}
	if err := q.Free(q.Epoch(), 10, [][2]uint64{{20, 29}, {900, 950}}); err != nil {
		t.Fatal(err)
	}
	if n := len(check(t, all(t, q))[q.Epoch()]); n != 1000-10-10-51 {
		t.Fatalf("read %d after freeing", n)
	}
	if s := q.Stats(); s.Entries != 1000-71 || s.Uncommitted != 0 {
		t.Fatalf("stats: %+v", s)
	}
	if got := q.Holds()[0]; got.First != 11 || got.Last != 1000 {
		t.Fatalf("holds: %+v", got)
	}
	if err := q.Free(q.Epoch(), 1001, nil); err == nil {
		t.Fatal("freeing what was never drawn is no error")
	}
	if err := q.Free(q.Epoch(), 5, [][2]uint64{{999, 1001}}); err == nil {
		t.Fatal("freeing a range that was never drawn is no error")
	}
	if n := q.Stats().Entries; n != 1000-71 {
		t.Fatalf("a refused free freed: %d held", n)
	}
	if err := q.Free(q.Epoch(), 1000, nil); err != nil {
		t.Fatal(err)
	}
	if got := q.Holds()[0]; got.First != 1001 || got.Last != 1000 {
		t.Fatalf("holds: %+v", got)
	}
	if s := q.Stats(); s.Entries != 0 || !s.Oldest.IsZero() || s.Segments != 1 {
		t.Fatalf("stats: %+v", s)
	}
}

func TestAppendRefuses(t *testing.T) {
	q := open(t, small(newMemFS()))
	for _, c := range []struct {
		kind Kind
		n    int
	}{{Reading, 0}, {Reading, MaxPayload + 1}, {Gap, 1}, {End, 1}, {0, 1}, {mark, 1}} {
		if _, err := q.Append(c.kind, make([]byte, c.n)); err == nil {
			t.Errorf("append of kind %v with %d bytes is no error", c.kind, c.n)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Append(Reading, []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := q.Read(q.Epoch(), 1, 0, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestLargest(t *testing.T) {
	o := small(newMemFS())
	o.segSize, o.firstSize = 0, 0
	o.Max = 8 << 20
	q := open(t, o)
	want := make([]byte, MaxPayload)
	for i := range want {
		want[i] = frameByte
	}
	for i := range 40 {
		want[0] = byte(i)
		if _, err := q.Append(Reading, want); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, q)
	first := q.Epoch()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, o)
	n := 0
	for from := uint64(1); ; {
		es, err := q.Read(first, from, 0, 100<<10)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			want[0] = byte(n)
			if !slices.Equal(e.Payload, want) {
				t.Fatalf("record %d differs", e.Seq)
			}
			n++
			from = e.Seq + 1
		}
	}
	if n != 40 {
		t.Fatalf("read %d, want 40", n)
	}
}

func TestReopen(t *testing.T) {
	m := newMemFS()
	var epochs []uint64
	for i := range 5 {
		o := small(m)
		o.Label = fmt.Sprint("opening ", i)
		q := open(t, o)
		epochs = append(epochs, q.Epoch())
		add(t, q, 300, 100)
		commit(t, q)
		if i%2 == 0 {
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			m.locked = false
			continue
		}
		m = m.crash(nil, 0)
	}
	q := open(t, small(m))
	held := q.Holds()
	if len(held) != 6 {
		t.Fatalf("holds %+v", held)
	}
	for i, h := range held[:5] {
		want := Held{epochs[i], 1, 300, fmt.Sprint("opening ", i), false}
		if i > 0 {
			want.Last++ // the end record
		}
		if h != want {
			t.Errorf("holds[%d] = %+v, want %+v", i, h, want)
		}
	}
	var want []string
	for i, e := range epochs {
		n := 301
		if i == 0 {
			n = 300
		}
		want = append(want, fmt.Sprintf("end %d %d %s", e, n, []string{"clean stop", "power cut"}[i%2]))
	}
	if got := notes(all(t, q)); !slices.Equal(got, want) {
		t.Errorf("notes\n%q, want\n%q", got, want)
	}
	check(t, all(t, q))
	// A higher upto frees all of an ended epoch.
	for i, e := range epochs {
		if err := q.Free(e, 1<<40, nil); err != nil {
			t.Fatal(err)
		}
		if n := len(q.Holds()); n != 5-i {
			t.Fatalf("holds %d epochs after freeing %d", n, i+1)
		}
	}
	if err := q.Free(epochs[0], 1<<40, nil); err != nil {
		t.Fatal("freeing again:", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, small(m.crash(nil, 0)))
	if h := q.Holds(); len(h) != 2 || h[0].Last-h[0].First != 0 {
		t.Fatalf("after freeing and reopening: %+v", h)
	}
}

func TestFreedStaysFreed(t *testing.T) {
	m := newMemFS()
	q := open(t, small(m))
	e := q.Epoch()
	add(t, q, 1000, 100)
	commit(t, q)
	if err := q.Free(e, 400, [][2]uint64{{500, 599}, {700, 899}}); err != nil {
		t.Fatal(err)
	}
	before := check(t, all(t, q))[e]
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	m = m.crash(nil, 0)
	q = open(t, small(m))
	after := check(t, all(t, q))[e]
	if len(before) != 300 || len(after) != 300 {
		t.Fatalf("held %d before and %d after, want 300", len(before), len(after))
	}
	for s := range before {
		if !after[s] {
			t.Fatalf("%d is gone", s)
		}
	}
	if n := notes(all(t, q)); len(n) != 1 {
		t.Fatalf("freed records were declared lost: %q", n)
	}
}

func TestRecycle(t *testing.T) {
	m := newMemFS()
	q := open(t, small(m))
	e := q.Epoch()
	for i := range 200 {
		add(t, q, 100, 100)
		commit(t, q)
		if err := q.Free(e, uint64(100*i+80), nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := q.Stats(); s.Bytes > 8*16<<10 || s.Lost != 0 || s.Damaged != 0 {
		t.Fatalf("stats after 200 rounds: %+v", s)
	}
	q2 := open(t, small(m.crash(nil, 0)))
	got := check(t, all(t, q2))
	for s := uint64(19981); s <= 20000; s++ {
		if !got[e][s] {
			t.Fatalf("%d is gone", s)
		}
	}
	for _, n := range notes(all(t, q2)) {
		if strings.HasPrefix(n, "gap") {
			t.Fatalf("freed records were declared lost: %q", n)
		}
	}
}

func TestQuota(t *testing.T) {
	m := newMemFS()
	o := small(m)
	o.Max = 10 * 16 << 10
	q := open(t, o)
	e := q.Epoch()
	const n = 10000
	for range n / 50 {
		add50(t, q)
		commit(t, q)
		if s := q.Stats(); s.Bytes > o.Max {
			t.Fatalf("%d bytes, quota %d", s.Bytes, o.Max)
		}
	}
	verify := func(q *Queue) {
		t.Helper()
		// Every reading is held or named, none is both, none is named twice.
		es := all(t, q)
		held, named, gaps := check(t, es)[e], map[uint64]bool{}, 0
		for _, s := range notes(es) {
			var ge, a, b uint64
			if k, _ := fmt.Sscanf(s, "gap %d %d %d", &ge, &a, &b); k == 3 && ge == e {
				gaps++
				for ; a <= b; a++ {
					if named[a] {
						t.Fatalf("%d is named twice", a)
					}
					named[a] = true
				}
			}
		}
		for s := uint64(1); s <= n; s++ {
			if held[s] == named[s] {
				t.Fatalf("%d: held %v, named %v", s, held[s], named[s])
			}
		}
		if len(held) < 800 || gaps > 10*16 {
			t.Fatalf("%d held, %d gap records", len(held), gaps)
		}
	}
	verify(q)
	s := q.Stats()
	if s.Lost == 0 || s.LostFull != s.Lost {
		t.Fatalf("stats: %+v", s)
	}
	m = m.crash(nil, 0)
	o.FS = m
	q = open(t, o)
	verify(q)
	// Another round drops all of the first epoch and its gap records: what
	// they said must be said again.
	for range n / 50 {
		add50(t, q)
		commit(t, q)
	}
	named := gapsOf(all(t, q), e)
	for s := uint64(1); s <= n; s++ {
		if !named[s] {
			t.Fatalf("%d of the first epoch is gone and no longer named", s)
		}
	}
	if !slices.ContainsFunc(notes(all(t, q)), func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("end %d ", e)) }) {
		t.Error("the end of the first epoch is no longer told")
	}
}

// add50 appends 50 readings under the numbers they get, which gap records may
// have shifted since the last call.
func add50(t testing.TB, q *Queue) {
	t.Helper()
	for range 50 {
		q.mu.Lock()
		next := q.cur.ep.last + 1
		q.mu.Unlock()
		if s, err := q.Append(Reading, payload(q.Epoch(), next, 100)); err != nil || s != next {
			t.Fatalf("append: seq %d, want %d: %v", s, next, err)
		}
	}
}
