package alarm

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

type testYAML struct {
	Name   string            `yaml:"name"`
	Points map[string]string `yaml:"points"`
	Every  time.Duration     `yaml:"every"`
	Expect []expectYAML      `yaml:"expect"`
}

type expectYAML struct {
	At    time.Duration `yaml:"at"`
	Alarm string        `yaml:"alarm"`
	Point string        `yaml:"point"`
	State string        `yaml:"state"`
	Pages *int          `yaml:"pages"`
}

// ruleTest is one entry under tests: of a rule file.
type ruleTest struct {
	name   string
	every  time.Duration
	points map[string]series
	expect []expectYAML
}

// TestResult is the outcome of one test of a rule file.
type TestResult struct {
	Name     string
	Failures []string // empty: passed
}

const maxTestTime = 8 * 24 * time.Hour

func buildTest(doc *conffile.Doc, p conffile.Path, y *testYAML, ids map[string]int) ruleTest {
	t := ruleTest{name: y.Name, every: y.Every, points: map[string]series{}, expect: y.Expect}
	if y.Name == "" {
		doc.Errorf(p.With("name"), "the test has no name; write what it shows, such as: a pump trip pages once")
	}
	if y.Every < time.Millisecond || y.Every > maxTestTime {
		doc.Errorf(p.With("every"), "every is how often the points are polled; write for example every: 10s; 1ms to %s", maxTestTime)
		return t
	}
	if len(y.Points) == 0 {
		doc.Errorf(p.With("points"), "the test has no points; write a full name and its series")
	}
	for _, name := range slices.Sorted(maps.Keys(y.Points)) {
		s, err := parseSeries(y.Points[name], y.Every)
		if err != nil {
			doc.Fail(p.With("points", name), err)
		}
		if len(s.polls) > int(maxTestTime/y.Every) {
			doc.Errorf(p.With("points", name), "the series lasts over %s", maxTestTime)
		}
		t.points[name] = s
	}
	if len(y.Expect) == 0 {
		doc.Errorf(p.With("expect"), "the test expects nothing; write for example expect: [{at: 5m, alarm: ID, state: unacknowledged}]")
	}
	for i, x := range y.Expect {
		px := p.With("expect", i)
		if _, ok := ids[x.Alarm]; !ok {
			doc.Errorf(px.With("alarm"), "alarm %q is no rule of this file", x.Alarm)
		}
		if x.At < 0 || x.At > maxTestTime {
			doc.Errorf(px.With("at"), "at %s is not within 0s and %s", x.At, maxTestTime)
		}
		if x.State == "" && x.Pages == nil {
			doc.Errorf(px, "expect a state, a number of pages, or both")
		}
		switch State(x.State) {
		case "", Normal, Suppressed, Unacknowledged, Acknowledged, ReturnedUnacknowledged:
		default:
			doc.Errorf(px.With("state"), "state %q is none of normal, suppressed, unacknowledged, acknowledged, returned_unacknowledged", x.State)
		}
		if _, ok := y.Points[x.Point]; x.Point != "" && !ok {
			doc.Errorf(px.With("point"), "point %q is not under points: of this test", x.Point)
		}
	}
	return t
}

// RunTests runs the tests that stand in the rule files, each on an engine of
// its own with a clock of its own.
func (s *RuleSet) RunTests() []TestResult {
	var out []TestResult
	for _, t := range s.tests {
		out = append(out, TestResult{Name: t.name, Failures: newBench(s, t.every).run(&t)})
	}
	return out
}

// bench is a hub small enough for a test: an engine, the memory and the pages
// a journal would hold.
type bench struct {
	rules  *RuleSet
	every  time.Duration
	start  time.Time
	engine *Engine
	memory map[[2]string]Memory
	seen   map[string]bool // keys of events
	events []Event
	pages  map[string]int // by rule, resolved and acknowledged notes not counted
}

func newBench(rules *RuleSet, every time.Duration) *bench {
	return &bench{
		rules: rules, every: every, start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		engine: New(rules), memory: map[[2]string]Memory{}, seen: map[string]bool{}, pages: map[string]int{},
	}
}

// apply does what the journal does with events: it keeps each key once.
func (b *bench) apply(events []Event) {
	for _, ev := range events {
		b.memory[[2]string{ev.Memory.Rule, ev.Memory.Point}] = ev.Memory
		if b.seen[ev.Key()] {
			continue
		}
		b.seen[ev.Key()] = true
		b.events = append(b.events, ev)
		if ev.Tell == Raised {
			b.pages[ev.Alarm.Rule]++
		}
	}
}

func (b *bench) restart(now time.Time, points []PointInfo) {
	b.engine = New(b.rules)
	b.engine.Points(now, points)
	b.apply(b.engine.Restore(now, slices.Collect(maps.Values(b.memory))))
}

func (b *bench) observe(now time.Time, point string, p poll, stamp time.Time) {
	r := Reading{Point: point, Time: stamp, Received: now, Lateness: now.Sub(stamp), Period: b.every}
	if p.none {
		r.Quality = telemetry.NoReply
	} else {
		r.Value = telemetry.FloatValue(p.value)
	}
	b.apply(b.engine.Observe(now, r))
}

// run plays the test and returns what was not as expected.
func (b *bench) run(t *ruleTest) (failures []string) {
	names := slices.Sorted(maps.Keys(t.points))
	var infos []PointInfo
	var last time.Duration
	for _, n := range names {
		infos = append(infos, PointInfo{Name: n, Period: t.every})
		last = max(last, time.Duration(len(t.points[n].polls))*t.every)
	}
	for _, x := range t.expect {
		last = max(last, x.At)
	}
	b.engine.Points(b.start, infos)
	expect := slices.Clone(t.expect)
	slices.SortStableFunc(expect, func(x, y expectYAML) int { return int(x.At - y.At) })
	tick := min(t.every, time.Second)
	for at := time.Duration(0); at <= last; at += tick {
		now := b.start.Add(at)
		if at%t.every == 0 {
			b.slot(t, names, infos, int(at/t.every), now)
		}
		b.apply(b.engine.Tick(now))
		for len(expect) > 0 && expect[0].At < at+tick {
			failures = append(failures, b.check(&expect[0])...)
			expect = expect[1:]
		}
	}
	return failures
}

// slot plays one poll of every point.
func (b *bench) slot(t *ruleTest, names []string, infos []PointInfo, i int, now time.Time) {
	for _, n := range names {
		if slices.Contains(t.points[n].restarts, i) {
			b.restart(now, infos)
		}
	}
	for _, n := range names {
		polls := t.points[n].polls
		if i < len(polls) && !polls[i].absent && !polls[i].cut {
			b.observe(now, n, polls[i], now)
		}
		if i == 0 || i > len(polls) || !polls[i-1].cut || i < len(polls) && polls[i].cut {
			continue
		}
		from := i - 1 // the link is back: the live reading came first, now what the board kept
		for from > 0 && polls[from-1].cut {
			from--
		}
		for j := from; j < i; j++ {
			b.observe(now, n, polls[j], b.start.Add(time.Duration(j)*t.every))
		}
	}
}

func (b *bench) check(x *expectYAML) (failures []string) {
	if x.State != "" {
		var got []string
		match := false
		for _, a := range b.engine.Alarms() {
			if a.Rule == x.Alarm && (x.Point == "" || a.Point == x.Point) {
				got = append(got, string(a.State))
				match = match || string(a.State) == x.State
			}
		}
		if len(got) == 0 {
			got, match = []string{string(Normal)}, x.State == string(Normal)
		}
		if !match {
			failures = append(failures, fmt.Sprintf("at %s: alarm %s is %s, expected %s", x.At, x.Alarm, got, x.State))
		}
	}
	if x.Pages != nil && b.pages[x.Alarm] != *x.Pages {
		failures = append(failures, fmt.Sprintf("at %s: alarm %s has paged %d times, expected %d", x.At, x.Alarm, b.pages[x.Alarm], *x.Pages))
	}
	return failures
}
