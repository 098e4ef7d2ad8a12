package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/hub/history"
	"luquan/gateway/hub/history/historytest"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("LUQUAN_HISTORY_CHILD"); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var ctx = context.Background()

// later is when every hour of the tests is over and at rest.
func later() time.Time { return time.Now().Add(3 * time.Hour) }

func settle(t testing.TB, s *Store, now time.Time) {
	t.Helper()
	for {
		more, err := s.maintain(ctx, now)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

func TestConformance(t *testing.T) {
	dirs := map[string]string{}
	historytest.Test(t, func(t *testing.T) history.Store { return reopen(t, dirs) })
}

func reopen(t *testing.T, dirs map[string]string) *Store {
	t.Helper()
	if dirs[t.Name()] == "" {
		dirs[t.Name()] = t.TempDir()
	}
	s, err := Open(Config{Dir: dirs[t.Name()], Keep: 400 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eager seals after every write, so that everything is read from blocks and
// every late sample is joined to one.
type eager struct {
	*Store
	t *testing.T
}

func (e eager) Write(ctx context.Context, rows []history.Row) error {
	err := e.Store.Write(ctx, rows)
	settle(e.t, e.Store, later())
	return err
}

func TestConformanceSealed(t *testing.T) {
	dirs := map[string]string{}
	historytest.Test(t, func(t *testing.T) history.Store { return eager{reopen(t, dirs), t} })
}

func TestDurableSettings(t *testing.T) {
	s := reopen(t, map[string]string{})
	defer s.Close()
	var sync int
	var mode string
	if err := errors.Join(s.wdb.QueryRow("PRAGMA synchronous").Scan(&sync), s.wdb.QueryRow("PRAGMA journal_mode").Scan(&mode)); err != nil {
		t.Fatal(err)
	}
	if sync != 2 || mode != "wal" {
		t.Fatalf("synchronous %d (want 2, FULL), journal mode %s", sync, mode)
	}
}

func count(t testing.TB, s *Store, point string) (n int) {
	t.Helper()
	b, err := s.Query(ctx, history.Query{Point: point, Kind: "meter", From: time.Unix(0, 0), To: time.Now().Add(48 * time.Hour), Buckets: 7})
	if err != nil {
		t.Error(err)
	}
	for _, x := range b {
		n += x.Count
	}
	return n
}

// TestQueryWhileSealing asks at every step of sealing: nothing may be missing
// or counted twice.
func TestQueryWhileSealing(t *testing.T) {
	s, err := open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := historytest.Base()
	write := func(from, to int) {
		var rows []history.Row
		for i := from; i < to; i++ {
			for d := range 450 { // more points than one step
				rows = append(rows, historytest.Row("s", "m"+strconv.Itoa(d), "meter", uint64(i+1), at.Add(time.Duration(i)*time.Second), historytest.F("x", float64(i))))
			}
		}
		if err := s.Write(ctx, rows); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 4)
	for step := 0; ; step++ {
		for _, d := range []string{"s/m0/x", "s/m449/x"} {
			if n := count(t, s, d); n != 4+step {
				t.Fatalf("step %d: %d samples of %s", step, n, d)
			}
		}
		more, err := s.maintain(ctx, later())
		if err != nil {
			t.Fatal(err)
		}
		write(4+step, 5+step) // late samples while it seals
		if !more || step > 20 {
			break
		}
	}
	var hot, blocks int
	if err := s.rdb.QueryRow("SELECT (SELECT count(*) FROM hot), (SELECT count(*) FROM blocks)").Scan(&hot, &blocks); err != nil {
		t.Fatal(err)
	}
	if blocks != 450 {
		t.Fatalf("%d blocks", blocks)
	}
	settle(t, s, later().Add(time.Hour))
	if err := s.rdb.QueryRow("SELECT count(*) FROM hot").Scan(&hot); err != nil || hot != 0 || s.samples != 0 || len(s.hot) != 0 {
		t.Fatalf("%d hot rows, %d hot samples left, %v", hot, s.samples, err)
	}
}

func TestKeep(t *testing.T) {
	s, err := open(Config{Dir: t.TempDir(), Keep: 72 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := historytest.Base()
	old := historytest.Row("s", "m", "meter", 1, time.Now().Add(-100*time.Hour), historytest.F("x", 1))
	err = s.Write(ctx, []history.Row{old, historytest.Row("s", "m", "meter", 2, at, historytest.F("x", 1)), historytest.Row("s", "m", "meter", 3, at.Add(30*time.Hour), historytest.F("x", 1))})
	var re *history.RejectedError
	if !errors.As(err, &re) || len(re.Rows) != 1 || re.Rows[0].Index != 0 || !strings.Contains(re.Rows[0].Reason, "older") {
		t.Fatalf("got %v", err)
	}
	settle(t, s, later())
	if n := count(t, s, "s/m/x"); n != 2 {
		t.Fatalf("%d samples within keep", n)
	}
	settle(t, s, later().Add(30*time.Hour))
	if n := count(t, s, "s/m/x"); n != 1 {
		t.Fatalf("%d samples after the first grew old", n)
	}
}

// TestDamage: a damaged block costs its hour and nothing else, and is kept.
func TestDamage(t *testing.T) {
	s, err := open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := historytest.Base()
	row := func(i int) history.Row {
		return historytest.Row("s", "m", "meter", uint64(i+1), at.Add(time.Duration(i)*30*time.Minute), historytest.F("x", float64(i)))
	}
	if err := s.Write(ctx, []history.Row{row(0), row(1), row(2), row(3)}); err != nil {
		t.Fatal(err)
	}
	settle(t, s, later())
	key := int64(1)<<hourBits | at.UnixNano()/hourNs
	if _, err := s.wdb.Exec("UPDATE blocks SET data = substr(data,1,length(data)-1) || x'7f' WHERE key=?", key); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "s/m/x"); n != 2 || s.Damaged() == 0 {
		t.Fatalf("%d samples, %d damaged", n, s.Damaged())
	}
	if err := s.Write(ctx, []history.Row{row(0)}); err != nil {
		t.Fatal(err)
	}
	settle(t, s, later())
	var kept int
	if err := s.rdb.QueryRow("SELECT count(*) FROM damaged WHERE key=?", key).Scan(&kept); err != nil || kept != 1 {
		t.Fatalf("%d damaged blocks kept, %v", kept, err)
	}
	if n := count(t, s, "s/m/x"); n != 3 {
		t.Fatalf("%d samples", n)
	}
}

// TestFailedWrite: what failed is neither shown nor half there, and goes in
// when tried again.
func TestFailedWrite(t *testing.T) {
	s, err := open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	row := historytest.Row("s", "m", "meter", 1, historytest.Base(), historytest.F("x", 1), historytest.F("y", 2))
	if _, err := s.wdb.Exec("CREATE TRIGGER full BEFORE INSERT ON hot BEGIN SELECT RAISE(ABORT, 'disk full'); END"); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, []history.Row{row}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("got %v", err)
	}
	if n := count(t, s, "s/m/x"); n != 0 {
		t.Fatalf("%d samples of a failed write", n)
	}
	if _, err := s.wdb.Exec("DROP TRIGGER full"); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Write(cancelled, []history.Row{row}); err == nil {
		t.Fatal("written though cancelled")
	}
	if err := s.Write(ctx, []history.Row{row}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, "s/m/y"); n != 1 {
		t.Fatalf("%d samples", n)
	}
}

// child writes rows and prints the seq of each that Write has made durable,
// until it is killed.
func child(dir string) {
	s, err := open(Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	first, _ := strconv.Atoi(os.Getenv("LUQUAN_HISTORY_FIRST"))
	base := historytest.Base()
	for i := first; ; i++ {
		at := base.Add(time.Duration(i) * 20 * time.Second)
		if err := s.Write(ctx, []history.Row{historytest.Row("s", "m", "meter", uint64(i+1), at, historytest.F("x", float64(i)), historytest.F("y"+strconv.Itoa(i%50), 1))}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(i)
		if _, err := s.maintain(ctx, later()); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
}

// TestKill ends a writing and sealing process with SIGKILL: what it reported
// durable is there, once, with its value.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	next := 0
	for round := range 12 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "LUQUAN_HISTORY_CHILD="+dir, "LUQUAN_HISTORY_FIRST="+strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stopAfter := next + 1 + rng.IntN(60)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatal(lines.Text())
			}
			next = n + 1
			if n >= stopAfter {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s, err := open(Config{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		b, err := s.Query(ctx, history.Query{Point: "s/m/x", Kind: "meter", From: historytest.Base(), To: historytest.Base().Add(time.Duration(next) * 20 * time.Second), Buckets: next})
		if err != nil || len(b) != next || s.Damaged() != 0 {
			t.Fatalf("round %d: %d samples of %d, %v, %d damaged", round, len(b), next, err, s.Damaged())
		}
		for i, x := range b {
			if x.Count != 1 || x.Last != float64(i) {
				t.Fatalf("round %d: sample %d is %+v", round, i, x)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if next < 12 {
		t.Fatalf("only %d rows were written", next)
	}
}

// TestSizeAndSpeed proves the choice of blocks: bytes a sample, and a month's
// trend of one point.
func TestSizeAndSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 500,000 samples")
	}
	dir := t.TempDir()
	s, err := open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 30 * 24 * 720 // 30 days at 5 s
	start := time.Now().Truncate(time.Hour).Add(-40 * 24 * time.Hour)
	rng := rand.New(rand.NewPCG(1, 1))
	v, begun := 600.0, time.Now()
	var rows []history.Row
	for i := range n {
		v += float64(rng.IntN(7) - 3)
		rows = append(rows, history.Row{Record: telemetry.Record{Site: "s", Gateway: "g", Epoch: 1, Seq: uint64(i + 1),
			Sample: telemetry.Sample{Device: "m", Kind: "meter", Time: start.Add(time.Duration(i) * 5 * time.Second), Readings: []telemetry.Reading{historytest.F("x", v/10)}}}})
		if len(rows) == 1000 {
			if err := s.Write(ctx, rows); err != nil {
				t.Fatal(err)
			}
			rows = rows[:0]
		}
	}
	if err := s.Write(ctx, rows); err != nil {
		t.Fatal(err)
	}
	wrote := time.Since(begun)
	settle(t, s, later())
	var bytes int64
	if err := s.rdb.QueryRow("SELECT sum(length(data)) FROM blocks").Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	q := history.Query{Point: "s/m/x", Kind: "meter", From: start, To: start.Add(30 * 24 * time.Hour), Buckets: 1000}
	best := time.Hour
	for range 5 {
		t0 := time.Now()
		if b, err := s.Query(ctx, q); err != nil || len(b) != 1000 {
			t.Fatalf("%d buckets, %v", len(b), err)
		}
		best = min(best, time.Since(t0))
	}
	per := float64(bytes) / n
	t.Logf("%.0f samples/s written in batches of 1000, %.2f bytes a sample, 30 day trend in %v", n/wrote.Seconds(), per, best)
	if per > 1.0 {
		t.Errorf("%.2f bytes a sample of a slow decimal value at even stamps", per)
	}
	if fi, err := os.Stat(filepath.Join(dir, "history.db")); err != nil || fi.Size() == 0 {
		t.Fatalf("%v", err)
	}
}
