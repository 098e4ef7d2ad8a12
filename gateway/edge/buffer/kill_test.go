package buffer

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

const childEnv = "LUQUAN_BUFFER_CHILD"

// child is what the test binary does when it is run again by TestCrash6Kill: append
// and commit until it is killed, telling on stdout what is committed.
func child(dir string) {
	q, err := Open(Options{Dir: dir, Max: 64 << 20, CommitEvery: time.Millisecond, segSize: 64 << 10, firstSize: 16 << 10,
		EncodeGap: encodeGap, EncodeEnd: encodeEnd})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	e := q.Epoch()
	var last uint64
	for {
		for range 1 + rand.IntN(50) {
			q.mu.Lock()
			next := q.cur.ep.last + 1
			q.mu.Unlock()
			if last, err = q.Append(Reading, payload(e, next, 20+rand.IntN(300))); err != nil || last != next {
				fmt.Println("append:", last, err)
				os.Exit(1)
			}
		}
		if err := q.Commit(context.Background()); err != nil {
			fmt.Println("commit:", err)
			os.Exit(1)
		}
		fmt.Println(e, last)
		if rand.IntN(10) == 0 { // as if the hub had them: the newest first
			_ = q.Free(e, 0, [][2]uint64{{max(1, last-20), last}})
			fmt.Println("freed", e, max(1, last-20), last)
		}
	}
}

// TestCrash6Kill kills a process that writes, again and again, and looks each time
// whether everything that was reported as committed is there.
func TestCrash6Kill(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	committed := map[uint64]uint64{} // by epoch
	freed := map[uint64]map[uint64]bool{}
	for range rounds {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		// Killed after so many lines, at whatever instant that is for the child.
		for n := 1 + rand.IntN(60); lines.Scan(); n-- {
			if n == 0 {
				_ = cmd.Process.Kill()
			}
			var e, a, b uint64
			if k, _ := fmt.Sscanf(lines.Text(), "%d %d", &e, &a); k == 2 {
				committed[e] = a
			} else if k, _ := fmt.Sscanf(lines.Text(), "freed %d %d %d", &e, &a, &b); k == 3 {
				if freed[e] == nil {
					freed[e] = map[uint64]bool{}
				}
				for ; a <= b; a++ {
					freed[e][a] = true
				}
			} else {
				t.Fatalf("child: %s", lines.Text())
			}
		}
		_ = cmd.Wait() // it was killed
	}
	q := open(t, Options{Dir: dir, Max: 64 << 20, EncodeGap: encodeGap, EncodeEnd: encodeEnd})
	got := check(t, all(t, q))
	total := 0
	for e, last := range committed {
		for s := uint64(1); s <= last; s++ {
			if !got[e][s] && !freed[e][s] {
				t.Fatalf("%d/%d of %d was committed and is gone", e, s, last)
			}
			total++
		}
	}
	if len(committed) != rounds || total < rounds*50 {
		t.Fatalf("%d epochs, %d records: too little to mean anything", len(committed), total)
	}
	if s := q.Stats(); s.Lost > 0 || s.SetAside > 0 {
		t.Errorf("stats: %+v", s)
	}
	t.Logf("%d kills, %d committed records, all there", rounds, total)
}
