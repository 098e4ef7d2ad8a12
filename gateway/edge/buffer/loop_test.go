package buffer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCrash7LoopImage copies the image of a mounted ext4 while a process
// writes a buffer on it, mounts the copy, which is what a power cut at that
// moment leaves of what had reached the drive, and looks whether everything that was
// reported as committed before the copy began is there. Each copy is mounted and
// opened twice, with a cut between.
func TestCrash7LoopImage(t *testing.T) {
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	real := os.Getenv("LUQUAN_REAL") == "1"
	if real {
		rounds = 12
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 96<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(mnt, syscall.MNT_DETACH) }) // when the test ended early
	unmount := func() {
		if err := syscall.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	mount := func(file string) error {
		out, err := exec.Command("mount", "-o", "loop", file, mnt).CombinedOutput()
		if err != nil {
			return fmt.Errorf("mount -o loop: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	}
	out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", image).CombinedOutput()
	if err == nil {
		err = mount(image)
	}
	if err != nil {
		if real {
			t.Fatalf("LUQUAN_REAL=1 and no image can be made or mounted: %v\n%s", err, out)
		}
		t.Skipf("no image can be made or mounted: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+filepath.Join(mnt, "q"))
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	var epoch, committed uint64
	freed := map[uint64]bool{}
	hear := func(n int) {
		for ; n > 0; n-- {
			if !lines.Scan() {
				t.Fatal("the writing process is gone")
			}
			var a, b uint64
			if k, _ := fmt.Sscanf(lines.Text(), "freed %d %d %d", &epoch, &a, &b); k == 3 {
				for ; a <= b; a++ {
					freed[a] = true
				}
			} else if k, _ := fmt.Sscanf(lines.Text(), "%d %d", &epoch, &a); k == 2 {
				committed = a
			} else {
				t.Fatalf("child: %s", lines.Text())
			}
		}
	}
	type copied struct {
		file      string
		committed uint64
	}
	var copies []copied
	for i := range rounds {
		hear(120)
		c := copied{filepath.Join(dir, fmt.Sprint("copy", i)), committed}
		if err := copySparse(image, c.file); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, c)
	}
	// Freed after a copy counts as freed: the copies are verified with all of it.
	_ = cmd.Process.Kill() // it is there still
	for lines.Scan() {
		var a, b uint64
		if k, _ := fmt.Sscanf(lines.Text(), "freed %d %d %d", &epoch, &a, &b); k == 3 {
			for ; a <= b; a++ {
				freed[a] = true
			}
		}
	}
	_ = cmd.Wait() // it was killed
	unmount()

	o := Options{Dir: filepath.Join(mnt, "q"), Max: 64 << 20, segSize: 64 << 10, firstSize: 16 << 10, EncodeGap: encodeGap, EncodeEnd: encodeEnd}
	for i, c := range copies {
		for range 2 { // the second time after what the first opening wrote
			if mount(c.file) != nil { // the copy is not of one instant: as a board's start would, repair the file system
				_ = exec.Command("e2fsck", "-fy", c.file).Run() // its status says what it repaired
				if err := mount(c.file); err != nil {
					t.Fatal(err)
				}
			}
			q, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			es := all(t, q)
			got := check(t, es)[epoch]
			for s := uint64(1); s <= c.committed; s++ {
				if !got[s] && !freed[s] {
					t.Errorf("copy %d: %d of %d was committed and is gone", i, s, c.committed)
				}
			}
			for _, n := range notes(es) {
				if strings.HasPrefix(n, "gap") && !strings.Contains(n, reasonCut) {
					t.Errorf("copy %d: %s", i, n)
				}
			}
			add(t, q, 10, 100)
			commit(t, q)
			next := c.file + "x"
			if err := copySparse(c.file, next); err != nil {
				t.Fatal(err)
			}
			_ = q.Close()
			unmount()
			if err := os.Rename(next, c.file); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d copies of a live image, the last with %d committed records", len(copies), committed)
}

// copySparse copies a file, its zeros as holes.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	for off := int64(0); off < st.Size(); off += int64(len(b)) {
		n, err := in.ReadAt(b, off)
		if err != nil && err != io.EOF {
			return err
		}
		if zero(b[:n]) {
			continue
		}
		if _, err := out.WriteAt(b[:n], off); err != nil {
			return err
		}
	}
	return out.Truncate(st.Size())
}
