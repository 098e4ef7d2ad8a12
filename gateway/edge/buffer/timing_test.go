package buffer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCommitTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		o := small(m)
		o.CommitEvery = 5 * time.Second
		q, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		synctest.Wait()
		base := q.Stats()
		expect := func(commits uint64, uncommitted uint64) {
			t.Helper()
			synctest.Wait()
			if s := q.Stats(); s.Commits-base.Commits != commits || s.Uncommitted != uncommitted {
				t.Fatalf("%d commits, %d uncommitted; want %d, %d", s.Commits-base.Commits, s.Uncommitted, commits, uncommitted)
			}
		}
		add(t, q, 10, 100)
		expect(0, 10)
		time.Sleep(4900 * time.Millisecond)
		expect(0, 10)
		time.Sleep(200 * time.Millisecond)
		expect(1, 0)
		time.Sleep(time.Hour)
		expect(1, 0)
		if _, err := q.Append(Event, []byte("alarm")); err != nil {
			t.Fatal(err)
		}
		expect(2, 0)
		// 32 KiB are committed at once.
		add(t, q, 200, 200)
		synctest.Wait()
		if s := q.Stats(); s.Commits == base.Commits+2 {
			t.Fatal("32 KiB wait for the clock")
		}
	})
}

func TestCursorTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small(newMemFS())
		o.CommitEvery = 5 * time.Second
		q, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		before := q.Stats().CursorWrites
		for i := range 600 {
			add(t, q, 1, 100)
			if err := q.Free(q.Epoch(), uint64(i+1), nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := q.Stats().CursorWrites - before; n < 8 || n > 14 {
			t.Fatalf("%d cursors in ten minutes, want 10 or so (and one for each segment used again)", n)
		}
	})
}

// TestHurry: what is freed is on flash soon after the link is lost, and a link
// that comes and goes costs a cursor every ten seconds at most.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := Open(small(newMemFS()))
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		add(t, q, 1000, 100)
		free := func(upto uint64) {
			t.Helper()
			if err := q.Free(q.Epoch(), upto, nil); err != nil {
				t.Fatal(err)
			}
		}
		free(1)
		time.Sleep(2 * time.Minute) // nothing is due any more
		before := q.Stats().CursorWrites
		q.Hurry()
		time.Sleep(2 * time.Minute)
		if n := q.Stats().CursorWrites; n != before {
			t.Errorf("%d cursors with nothing new in them", n-before)
		}
		free(2)
		synctest.Wait()
		before = q.Stats().CursorWrites
		free(3)
		q.Hurry()
		time.Sleep(hurryEvery)
		synctest.Wait()
		if n := q.Stats().CursorWrites - before; n != 1 {
			t.Errorf("%d cursors ten seconds after the link was lost, want 1", n)
		}
		before = q.Stats().CursorWrites
		for i := range uint64(600) { // a link that flaps
			free(4 + i)
			q.Hurry()
			time.Sleep(100 * time.Millisecond)
		}
		if n := q.Stats().CursorWrites - before; n < 5 || n > 7 {
			t.Errorf("%d cursors in a minute of a link that comes and goes, want 6", n)
		}
	})
}

func TestNotify(t *testing.T) {
	q := open(t, small(newMemFS()))
	add(t, q, 3, 10)
	<-q.Notify()
	select {
	case <-q.Notify():
		t.Fatal("told twice")
	default:
	}
	add(t, q, 1, 10)
	<-q.Notify()
}

func TestRealFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	o := Options{Dir: dir, Max: 8 << 20, EncodeGap: encodeGap, EncodeEnd: encodeEnd}
	q := open(t, o)
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("second open: %v", err)
	}
	e := q.Epoch()
	add(t, q, 20000, 100)
	commit(t, q)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, o)
	got := check(t, all(t, q))
	if len(got[e]) != 20000 {
		t.Fatalf("%d records, want 20000", len(got[e]))
	}
	var size int64
	des, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, de := range des {
		i, err := de.Info()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(de.Name(), "seg-") {
			size += i.Size()
		}
	}
	if s := q.Stats(); s.Bytes != size {
		t.Errorf("stats say %d bytes, the directory has %d", s.Bytes, size)
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"no directory": {},
		"a file":       {Dir: file},
		"tiny quota":   {Dir: t.TempDir(), Max: 1 << 20},
		"long label":   {Dir: t.TempDir(), Label: strings.Repeat("x", 129)},
		"negative":     {Dir: t.TempDir(), CommitEvery: -1},
	} {
		if q, err := Open(o); err == nil {
			t.Errorf("%s: no error", name)
			_ = q.Close()
		}
	}
	var pe *fs.PathError
	if _, err := Open(Options{Dir: file}); !errors.As(err, &pe) {
		t.Errorf("the path is not told: %v", err)
	}
}
