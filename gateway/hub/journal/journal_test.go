package journal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/alarm"
	"luquan/gateway/page"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("JOURNAL_TEST_WRITER"); dir != "" {
		writeUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var (
	ctx = context.Background()
	t0  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

const ruleFile = `
rules:
  - {id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold, on_delay: 10s}
  - {id: gone, points: '*/*/*', absent: 1h, on_bad: hold}
`

func engine(t testing.TB) *alarm.Engine {
	set, err := alarm.ParseFile("r.yaml", []byte(ruleFile))
	if err != nil {
		t.Fatal(err)
	}
	return alarm.New(set)
}

type none struct{}

func (none) Open(name, dir string) (page.Channel, error) { return nil, nil }

func plan(t testing.TB) *page.Plan {
	p, err := page.ParseFile[none]("page.yaml", []byte("channels: {hook: {}}\nrotas: {duty: {notify: [hook]}}"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func open(t testing.TB, dir string) *Journal {
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func apply(t testing.TB, j *Journal, p *page.Plan, ev []alarm.Event) {
	t.Helper()
	pages, err := p.Pages(ev, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Apply(ctx, ev, pages); err != nil {
		t.Fatal(err)
	}
}

// steps is an alarm's life: each value comes ten seconds after the one before.
func steps(e *alarm.Engine, from int, values ...float64) []alarm.Event {
	var ev []alarm.Event
	for i, v := range values {
		at := t0.Add(time.Duration(from+i) * 10 * time.Second)
		ev = append(ev, e.Observe(at, alarm.Reading{Point: "a/b/c", Value: telemetry.FloatValue(v), Time: at, Received: at, Period: 10 * time.Second})...)
	}
	return ev
}

func list(e *alarm.Engine) string {
	var out []string
	for _, a := range e.Alarms() {
		out = append(out, fmt.Sprintf("%s %s", a.ID, a.State))
	}
	return strings.Join(out, "; ")
}

func TestRestartFindsTheSame(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	e, p := engine(t), plan(t)
	apply(t, j, p, steps(e, 0, 80, 90, 90))
	if len(e.Alarms()) != 1 {
		t.Fatalf("list %q", list(e))
	}
	want := list(e)
	j.Close()

	j = open(t, dir)
	mem, err := j.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e = engine(t)
	apply(t, j, p, e.Restore(t0, mem))
	if got := list(e); got != want {
		t.Errorf("after the restart: got %q, want %q", got, want)
	}
	// The board sends again what was not committed: nothing new comes of it.
	apply(t, j, p, steps(e, 0, 80, 90, 90))
	if got := list(e); got != want {
		t.Errorf("after the resend: got %q, want %q", got, want)
	}
	pending, err := j.Pending(ctx, "hook")
	if err != nil || len(pending) != 1 {
		t.Errorf("pending %v, %v", pending, err)
	}
	apply(t, j, p, steps(e, 3, 80))
	entries, err := j.Journal(ctx, time.Time{}, time.Time{}, 10)
	if err != nil || len(entries) != 2 || entries[0].Transition != alarm.Cleared || entries[1].Transition != alarm.Raised {
		t.Fatalf("journal %+v, %v", entries, err)
	}
	if r := entries[1]; !r.Time.Equal(t0.Add(10*time.Second)) || !r.At.Equal(t0.Add(20*time.Second)) || r.Alarm.Value.Float() != 90 || r.Kind != KindAlarm {
		t.Errorf("raised %+v", r)
	}
	if got, err := j.Journal(ctx, t0.Add(11*time.Second), t0.Add(time.Hour), 10); err != nil || len(got) != 1 {
		t.Errorf("from 11 s: %v, %v", got, err)
	}
	if got, err := j.Journal(ctx, time.Time{}, t0.Add(11*time.Second), 10); err != nil || len(got) != 1 {
		t.Errorf("to 11 s: %v, %v", got, err)
	}
}

func TestApplyTwiceIsOnce(t *testing.T) {
	j := open(t, t.TempDir())
	ev := steps(engine(t), 0, 90, 90, 80)
	for range 3 {
		apply(t, j, plan(t), ev)
	}
	entries, err := j.Journal(ctx, time.Time{}, time.Time{}, 100)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v; want 2", len(entries), err)
	}
	if pending, err := j.Pending(ctx, ""); err != nil || len(pending) != 2 {
		t.Errorf("%d pages, %v; want 2", len(pending), err)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	j := open(t, t.TempDir())
	if _, err := j.write.Exec("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'disk full'); END"); err != nil {
		t.Fatal(err)
	}
	ev := steps(engine(t), 0, 90, 90)
	pages, _ := plan(t).Pages(ev, nil)
	err := j.Apply(ctx, ev, pages)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("got %v", err)
	}
	entries, _ := j.Journal(ctx, time.Time{}, time.Time{}, 10)
	mem, _ := j.Load(ctx)
	if len(entries) != 0 || len(mem) != 0 {
		t.Errorf("half stored: %v, %v", entries, mem)
	}
	if _, err := j.write.Exec("DROP TRIGGER full"); err != nil {
		t.Fatal(err)
	}
	apply(t, j, plan(t), ev)
	if entries, _ := j.Journal(ctx, time.Time{}, time.Time{}, 10); len(entries) != 1 {
		t.Errorf("applied again: %v", entries)
	}
}

func TestCheckpointKeepsRunsThatHaveBegun(t *testing.T) {
	j := open(t, t.TempDir())
	e := engine(t)
	steps(e, 0, 90) // holds, on_delay not over
	if err := j.Checkpoint(ctx, e.Snapshot()); err != nil {
		t.Fatal(err)
	}
	mem, err := j.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e = engine(t)
	e.Restore(t0.Add(5*time.Second), mem)
	ev := steps(e, 1, 90)
	if len(ev) != 1 || !ev[0].Time.Equal(t0) {
		t.Errorf("got %+v; want an alarm from %s", ev, t0)
	}
}

func TestOutbox(t *testing.T) {
	j := open(t, t.TempDir())
	apply(t, j, plan(t), steps(engine(t), 0, 90, 90))
	get := func() page.Entry {
		t.Helper()
		p, err := j.Pending(ctx, "hook")
		if err != nil || len(p) != 1 {
			t.Fatalf("pending %v, %v", p, err)
		}
		return p[0]
	}
	mark := func(o page.Outcome, answer string, next time.Time) {
		t.Helper()
		e := get()
		if err := j.Mark(ctx, page.Attempt{Key: e.Key(), At: t0.Add(time.Minute), Outcome: o, Answer: answer, Next: next}); err != nil {
			t.Fatal(err)
		}
	}
	if e := get(); e.Attempts != 0 || e.Begun || e.Rota != "duty" || string(e.Message.Value) != "90" || !e.Message.Start.Equal(t0) {
		t.Errorf("new: %+v", e)
	}
	mark(page.Sending, "", time.Time{})
	if e := get(); e.Attempts != 1 || !e.Begun {
		t.Errorf("begun: %+v", e)
	}
	mark(page.Failed, "503", t0.Add(2*time.Minute))
	if e := get(); e.Attempts != 1 || e.Begun || !e.Next.Equal(t0.Add(2*time.Minute)) {
		t.Errorf("failed, its answer is known: %+v", e)
	}
	mark(page.Sending, "", time.Time{}) // killed here
	mark(page.Sending, "", time.Time{})
	mark(page.Failed, "503", t0)
	if e := get(); e.Attempts != 3 || !e.Begun {
		t.Errorf("one answer is unknown for ever: %+v", e)
	}
	key := get()
	mark(page.Delivered, "", time.Time{})
	if p, err := j.Pending(ctx, ""); err != nil || len(p) != 0 {
		t.Errorf("delivered: %v, %v", p, err)
	}
	if err := j.Mark(ctx, page.Attempt{Key: key.Key(), Outcome: page.Sending}); err == nil {
		t.Error("a delivered page was begun again")
	}
	entries, err := j.Journal(ctx, t0.Add(time.Minute), time.Time{}, 10)
	if err != nil || len(entries) != 6 {
		t.Fatalf("%d attempts in the journal, %v; want 6", len(entries), err)
	}
	if p := entries[4].Page; p == nil || p.Outcome != page.Failed || p.Answer != "503" || p.Attempt != 1 || p.AlarmID == "" {
		t.Errorf("attempt %+v", p)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	if _, err := j.write.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "later version") {
		t.Errorf("got %v", err)
	}
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, File), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bad); err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("got %v", err)
	}
	odd := filepath.Join(t.TempDir(), "100% odd?dir#1")
	j = open(t, odd)
	if err := j.Checkpoint(ctx, []alarm.Memory{{Rule: "r", Point: "p"}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(odd, File)); err != nil {
		t.Error(err)
	}
}

// life is the n-th alarm of the kill test: raised with its page.
func life(n int) alarm.Event {
	a := alarm.Alarm{ID: fmt.Sprintf("r|p%d|1", n), Rule: "r", Point: fmt.Sprintf("p%d", n), State: alarm.Unacknowledged, Start: t0, Page: "duty"}
	return alarm.Event{Transition: alarm.Raised, Time: t0, At: t0, Alarm: a, Tell: alarm.Raised,
		Memory: alarm.Memory{Rule: "r", Point: a.Point, Alarm: &a}}
}

// writeUntilKilled stores alarm after alarm and says so, as a process of its own.
func writeUntilKilled(dir string) {
	j, err := Open(dir)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	for n := 0; ; n++ {
		ev := life(n)
		p := page.Page{Rota: "duty", Channel: "hook", Message: page.Message{ID: ev.Alarm.ID, Transition: alarm.Raised}}
		if err := j.Apply(ctx, []alarm.Event{ev}, []page.Page{p}); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("stored", n)
	}
}

func TestKilledWriterLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	dir := t.TempDir()
	for round := range 5 {
		os.RemoveAll(dir)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JOURNAL_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, told := bufio.NewScanner(out), 0
		for told < 20+7*round && lines.Scan() {
			if lines.Text() != fmt.Sprintf("stored %d", told) {
				t.Fatal(lines.Text())
			}
			told++
		}
		cmd.Process.Kill()
		for lines.Scan() {
			told++
		}
		io.Copy(io.Discard, out)
		cmd.Wait()

		j, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		mem, err1 := j.Load(ctx)
		entries, err2 := j.Journal(ctx, time.Time{}, time.Time{}, 1e6)
		pages, err3 := j.Pending(ctx, "")
		var check string
		err4 := j.read.QueryRow("PRAGMA integrity_check").Scan(&check)
		j.Close()
		if err1 != nil || err2 != nil || err3 != nil || err4 != nil || check != "ok" {
			t.Fatal(err1, err2, err3, err4, check)
		}
		if len(mem) < told || len(mem) != len(entries) || len(mem) != len(pages) {
			t.Errorf("told %d; %d alarms, %d entries, %d pages", told, len(mem), len(entries), len(pages))
		}
	}
}

func BenchmarkApply(b *testing.B) {
	j := open(b, b.TempDir())
	n := 0
	for b.Loop() {
		ev := life(n)
		n++
		p := page.Page{Rota: "duty", Channel: "hook", Message: page.Message{ID: ev.Alarm.ID, Transition: alarm.Raised}}
		if err := j.Apply(ctx, []alarm.Event{ev}, []page.Page{p}); err != nil {
			b.Fatal(err)
		}
	}
}
