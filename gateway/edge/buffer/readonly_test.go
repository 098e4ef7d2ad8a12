package buffer

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReadOnlyFileSystem: a card that the kernel has made read-only is opened,
// what it holds is read, what comes stays in RAM, and nothing is lost when it
// takes writes again.
func TestReadOnlyFileSystem(t *testing.T) {
	dir := smallFileSystem(t)
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=16m"); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Dir: filepath.Join(dir, "buffer"), Max: 64 << 20, EncodeGap: encodeGap, EncodeEnd: encodeEnd}
	q := open(t, o)
	first := q.Epoch()
	add(t, q, 500, 1000)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	remount(syscall.MS_RDONLY)
	q = open(t, o)
	second := q.Epoch()
	add(t, q, 20, 1000)
	if err := q.Commit(t.Context()); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a commit on a read-only card: %v", err)
	}
	if s := q.Stats(); !s.Failing || s.Lost > 0 {
		t.Errorf("nobody is told that the card refuses, or something is lost: %+v", s)
	}
	if _, err := Open(o); err == nil {
		t.Error("a read-only directory was opened twice")
	}
	seen := func(q *Queue) {
		t.Helper()
		es := all(t, q)
		held := check(t, es)
		if len(held[first]) != 500 || len(held[second]) < 20 || len(gapsOf(es, first))+len(gapsOf(es, second)) > 0 {
			t.Errorf("%d of 500 and %d of 20 records, gaps %v %v", len(held[first]), len(held[second]), gapsOf(es, first), gapsOf(es, second))
		}
	}
	seen(q)
	remount(0)
	add(t, q, 1, 1000)
	commit(t, q)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, o)
	seen(q)
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}
