package buffer

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// mapFS returns what a card holds as an fs.FS.
func (m *memFS) mapFS() fstest.MapFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := fstest.MapFS{}
	for n, f := range m.files {
		out[strings.TrimPrefix(n, "q/")] = &fstest.MapFile{Data: slices.Clone(f.data), Mode: 0o640}
	}
	return out
}

// surveyed returns what a survey of fsys reads, by epoch and number, and what
// the queue would send again.
func surveyed(t *testing.T, fsys fs.FS) (*Survey, map[uint64]map[uint64]string, map[uint64]int) {
	t.Helper()
	s, err := Look(fsys)
	if err != nil {
		t.Fatal(err)
	}
	got, held := map[uint64]map[uint64]string{}, map[uint64]int{}
	for _, e := range s.Epochs {
		got[e.Epoch] = map[uint64]string{}
		err := s.Records(e.Epoch, 1, func(r Record) error {
			got[e.Epoch][r.Seq] = string(r.Payload)
			if !r.Freed {
				held[e.Epoch]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if uint64(held[e.Epoch]) != e.Records {
			t.Errorf("epoch %d: %d records not freed, the survey says %d", e.Epoch, held[e.Epoch], e.Records)
		}
	}
	return s, got, held
}

// TestSurvey looks at a card with two epochs and finds what an opening finds.
func TestSurvey(t *testing.T) {
	m, first, second := written(t)
	q := open(t, tiny(m))
	if err := q.Free(first, 20, [][2]uint64{{31, 40}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	s, got, held := surveyed(t, m.mapFS())
	if len(s.Epochs) != 3 || s.Epochs[0].Epoch != first || s.Epochs[1].Epoch != second || !s.Epochs[2].Current {
		t.Fatalf("epochs %+v", s.Epochs)
	}
	e := s.Epochs[0]
	if e.First != 21 || e.Last != 60 || e.Freed != 20 || !slices.Equal(e.Also, []span{{31, 40}}) || e.Records != 30 || e.Label != "label" || e.Ended != reasonCut {
		t.Errorf("first epoch: %+v", e)
	}
	if s.Epochs[2].Ended != reasonClean || s.Cursor.IsZero() {
		t.Errorf("newest epoch %+v, cursor %v", s.Epochs[2], s.Cursor)
	}
	if held[first] != 30 || held[second] != 61 {
		t.Errorf("held %v", held)
	}
	for n, p := range got[first] {
		if p != string(payload(first, n, 100)) {
			t.Errorf("%d is %q", n, p)
		}
	}
	if f := s.Check(); len(f) != 0 {
		t.Errorf("a sound card has %+v", f)
	}
	// The opening finds the same.
	want := map[uint64]int{}
	for _, e := range all(t, open(t, tiny(m))) {
		want[e.Epoch]++
	}
	for ep, n := range held {
		if want[ep] != n {
			t.Errorf("epoch %d: the survey has %d, the opening %d", ep, n, want[ep])
		}
	}
}

// TestSurveyEmpty looks at directories without a buffer.
func TestSurveyEmpty(t *testing.T) {
	s, err := Look(fstest.MapFS{})
	if err != nil || len(s.Epochs) > 0 || len(s.Files) > 0 || len(s.Check()) > 0 {
		t.Errorf("an empty directory: %+v, %v", s, err)
	}
	if _, err := Look(os.DirFS(filepath.Join(t.TempDir(), "none"))); err == nil {
		t.Error("a directory that is not there is no error")
	}
}

// TestSurveyWritesNothing leaves every byte of a directory, and its lock.
func TestSurveyWritesNothing(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, Max: 8 << 20})
	add(t, q, 100, 100)
	commit(t, q)
	for q.Stats().Spares == 0 { // the committer makes one for the next opening
		runtime.Gosched()
	}
	before := map[string]string{}
	read := func(into map[string]string) {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			into[n] = string(b)
		}
	}
	read(before)
	s, _, held := surveyed(t, os.DirFS(dir))
	if held[q.Epoch()] != 100 || len(s.Check()) != 0 {
		t.Errorf("held %v, findings %+v", held, s.Check())
	}
	after := map[string]string{}
	read(after)
	if len(after) != len(before) {
		t.Fatalf("%d files, before %d", len(after), len(before))
	}
	for n, b := range before {
		if after[n] != b {
			t.Errorf("%s changed", n)
		}
	}
	add(t, q, 1, 100)
	commit(t, q) // the queue has its directory still
}

// TestSurveyLive looks again and again at a directory whose segments are
// written, freed and used again: never anything that was not written, never
// damage.
func TestSurveyLive(t *testing.T) {
	m := newMemFS()
	o := tiny(m)
	o.Max = 64 << 10
	q := open(t, o)
	e := q.Epoch()
	for i := range 300 {
		last := add(t, q, 10, 100)[9]
		commit(t, q)
		if i%3 == 0 {
			if err := q.Free(e, last-25, nil); err != nil && last > 25 {
				t.Fatal(err)
			}
		}
		s, got, _ := surveyed(t, m.mapFS())
		for n := q.Holds()[0].First; n <= last; n++ {
			if p := got[e][n]; p != string(payload(e, n, 100)) {
				t.Fatalf("round %d: committed %d is %q", i, n, p)
			}
		}
		for _, f := range s.Check() {
			if !f.Harmless {
				t.Fatalf("round %d: %+v", i, f)
			}
		}
	}
}

// TestCheck names what is damaged, where, and what it costs: exactly what the
// opening then declares as lost.
func TestCheck(t *testing.T) {
	m, first, second := written(t)
	r := seeded(t)
	segs := m.segments()
	slices.Sort(segs)
	for i := range 400 {
		c := m.clone()
		name := segs[r.IntN(len(segs))]
		b := slices.Clone(c.file(name).data)
		switch i % 4 {
		case 0:
			b = b[:sector+r.IntN(len(b)-sector)]
		case 1:
			b[r.IntN(len(b))] ^= 1
		case 2:
			at := sector + r.IntN(len(b)-2*sector)
			copy(b[at:], make([]byte, 300))
		case 3:
			name = cursorName
			b = slices.Clone(c.file(name).data)
			b[r.IntN(100)] ^= 1
		}
		c.file(name).set(b)
		s, err := Look(c.mapFS())
		if err != nil {
			t.Fatal(err)
		}
		told := map[uint64]map[uint64]bool{first: {}, second: {}}
		for _, f := range s.Check() {
			if f.What == "" || f.File == "" || (f.First == 0) != f.Harmless {
				t.Fatalf("finding %+v", f)
			}
			for n := f.First; n <= f.Last && n > 0; n++ {
				if told[f.Epoch][n] {
					t.Fatalf("%d/%d is told twice", f.Epoch, n)
				}
				told[f.Epoch][n] = true
			}
		}
		q, err := Open(tiny(c))
		if err != nil {
			t.Fatal(err)
		}
		es := all(t, q)
		for ep := range told {
			named := gapsOf(es, ep)
			if len(named) != len(told[ep]) {
				t.Fatalf("case %d of %s: check names %d of epoch %d, the opening %d", i, name, len(told[ep]), ep, len(named))
			}
			for n := range named {
				if !told[ep][n] {
					t.Fatalf("case %d of %s: %d/%d is declared lost and check does not know it", i, name, ep, n)
				}
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSurveyGolden reads the committed bytes of version 1: a board's card of
// today must be readable by every later gatewayctl.
func TestSurveyGolden(t *testing.T) {
	card := fstest.MapFS{}
	for name, golden := range map[string]string{"seg-000007.q": "segment.hex", cursorName: "cursor.hex"} {
		text, err := os.ReadFile(filepath.Join("testdata", golden))
		if err != nil {
			t.Fatal(err)
		}
		card[name] = &fstest.MapFile{Data: undump(t, string(text))}
	}
	s, err := Look(card)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Files) != 1 || s.Files[0] != (SurveyFile{"seg-000007.q", 4 << 10, "records", 4837201, 1200, 1203}) {
		t.Errorf("files %+v", s.Files)
	}
	var got []string
	for _, e := range s.Epochs {
		if err := s.Records(e.Epoch, 1, func(r Record) error {
			got = append(got, fmt.Sprintf("%d/%d %s freed=%v %d %s", r.Epoch, r.Seq, r.Kind, r.Freed, r.Time.UnixNano(), r.Payload))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"4837201/1200 reading freed=true 1763850000123456789 heat_meter flow_temp=84.2",
		"4837201/1201 gap freed=false 1763850000123456789 gateway_gap",
		"4837201/1202 event freed=false 1763850001123456789 alarm",
		"4837201/1203 end freed=false 1763850001123456789 gateway_epoch",
	}
	if !slices.Equal(got, want) {
		t.Errorf("read\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// undump is the inverse of hex.Dump.
func undump(t *testing.T, text string) (b []byte) {
	t.Helper()
	for line := range strings.Lines(text) {
		words, _, _ := strings.Cut(line[min(10, len(line)):], "|")
		part, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(words), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, part...)
	}
	return b
}
