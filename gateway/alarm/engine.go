package alarm

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"luquan/gateway/telemetry"
)

// Reading is one point of a record, as the hub received it.
type Reading struct {
	Point string // full name
	// Value is the zero Value when Quality carries none.
	Value   telemetry.Value
	Quality telemetry.Quality
	// Confirmed says that the point was polled and found unchanged within its
	// deadband: Value, or when it is zero the last value since New, is judged
	// again; Alarm.ValueAt stays. The caller vouches that it holds every
	// record since the one with the value; if not, it passes a bad Quality.
	Confirmed bool
	Time      time.Time // the record's stamp
	Received  time.Time // by the hub's clock
	// Lateness is the contract's: sent - stamp plus the queueing. What exceeds
	// a rule's max_late is late for it.
	Lateness time.Duration
	Period   time.Duration // of the point's group; 0 keeps what is known
}

// PointInfo announces a point that a board will send.
type PointInfo struct {
	Name   string // full name
	Period time.Duration
	Unit   string
}

const (
	never = math.MinInt64 // no such time yet

	// future is how far a stamp may be ahead of its receipt before it is taken
	// for a wrong clock: above the drift of a board between two looks at NTP.
	future = 10 * time.Second
	// setBack is how far under the watermark a reading in time must stand to
	// tell a clock set back from a payload sent twice.
	setBack = 2 * time.Minute
	// badPolls is how many polls without a usable value raise NoGood.
	badPolls = 3
)

// Engine judges readings. It is not safe for concurrent use: its caller
// serialises. It never looks at a clock; every method takes the hub's time.
type Engine struct {
	rules  []*Rule
	points map[string]*point
	timed  []*instance // of types that look at silence
	byID   map[string]*instance
	held   map[*instance]struct{} // suppressed as late
	open   map[*gap]*point        // gaps under replay
	events []Event                // of the call in progress
	stats  Stats
}

// Stats counts what an Engine did since New.
type Stats struct {
	Readings uint64 // judged
	Replayed uint64 // from within a gap below the watermark, judged in the shadow
	History  uint64 // at or below the watermark and judged before, dropped
	SetBack  uint64 // watermarks moved back because a board's clock was
	Future   uint64 // stamps taken as the time of receipt
}

// point is what the engine knows of one point.
type point struct {
	name      string
	unit      string
	period    time.Duration
	watermark int64 // latest stamp judged
	judged    int64 // stamp of the last usable reading, for gaps
	value     telemetry.Value
	valueAt   int64
	seen      bool // value came since New
	quality   telemetry.Quality
	insts     []*instance
	hidden    int    // instances that are Suppressed
	gaps      []*gap // jumped over and not replayed, the oldest first
}

// instance is one rule at one point. Times are ns UTC.
type instance struct {
	rule  *Rule
	point *point
	alarm Alarm // State Normal: none
	mem   struct{ holding, returning int64 }
	until int64 // held as late: when it is announced without a reading in time

	// For silence and NoGood, of readings in time only:
	heard    int64 // receipt of the last usable one, or when the point became known
	usable   bool  // one came at all
	bad      int   // polls in a row without a usable value
	badSince int64 // stamp of the first of them
}

// New returns an engine with no points. Silence of a point is counted from
// when it is announced, restored or first read.
func New(rules *RuleSet) *Engine {
	return &Engine{
		rules:  rules.rules,
		points: map[string]*point{},
		byID:   map[string]*instance{},
		held:   map[*instance]struct{}{},
		open:   map[*gap]*point{},
	}
}

// Points announces points, so that absent works for one that never sends.
// Known ones keep their state and take the new period and unit.
func (e *Engine) Points(now time.Time, infos []PointInfo) {
	for _, in := range infos {
		p := e.point(now.UnixNano(), in.Name)
		p.period, p.unit = in.Period, in.Unit
	}
}

// Withdraw forgets points that no board has any more; their alarms close with
// a Removed event.
func (e *Engine) Withdraw(now time.Time, names []string) []Event {
	for _, name := range names {
		p := e.points[name]
		if p == nil {
			continue
		}
		for _, in := range p.insts {
			e.remove(now.UnixNano(), in)
		}
		for _, g := range p.gaps {
			delete(e.open, g)
		}
		e.timed = slices.DeleteFunc(e.timed, func(in *instance) bool { return in.point == p })
		delete(e.points, name)
	}
	return e.take()
}

// point returns the named point, matching it against the rules when it is new.
func (e *Engine) point(now int64, name string) *point {
	if p := e.points[name]; p != nil {
		return p
	}
	p := &point{name: name, watermark: never, judged: never, valueAt: never}
	for _, r := range e.rules {
		if !telemetry.Match(r.Points, name) {
			continue
		}
		in := &instance{rule: r, point: p, heard: now, badSince: never}
		in.alarm.State = Normal
		in.mem.holding, in.mem.returning = never, never
		p.insts = append(p.insts, in)
		if r.Type.timed() {
			e.timed = append(e.timed, in)
		}
	}
	slices.SortStableFunc(p.insts, func(a, b *instance) int {
		return cmp.Compare(a.rule.Type.order(), b.rule.Type.order())
	})
	e.points[name] = p
	return p
}

// take returns the events of the call in progress.
func (e *Engine) take() []Event {
	ev := e.events
	e.events = nil
	return ev
}

// Alarms returns what is on the list or suppressed, the oldest first. Normal
// ones are not among them.
func (e *Engine) Alarms() []Alarm {
	out := make([]Alarm, 0, len(e.byID))
	for _, in := range e.byID {
		out = append(out, in.view())
	}
	slices.SortFunc(out, func(a, b Alarm) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Stats returns the counters.
func (e *Engine) Stats() Stats { return e.stats }

// Snapshot returns what all instances must remember, alarms that stand as well
// as runs that have begun. Restore takes it.
func (e *Engine) Snapshot() []Memory {
	var out []Memory
	for _, p := range e.points {
		for _, in := range p.insts {
			if p.watermark != never || in.alarm.State != Normal {
				out = append(out, in.memory())
			}
		}
	}
	slices.SortFunc(out, func(a, b Memory) int {
		return cmp.Or(cmp.Compare(a.Point, b.Point), cmp.Compare(a.Rule, b.Rule))
	})
	return out
}

// Restore gives an engine made by New what another one remembered: after a
// restart what the journal stored, at a new rule file the old engine's
// Snapshot. Alarms of rules that are gone or changed their type close with a
// Removed event. Call it before the first reading.
func (e *Engine) Restore(now time.Time, mem []Memory) []Event {
	for i := range mem {
		m := &mem[i]
		in := e.find(now.UnixNano(), m)
		if in == nil {
			if m.Alarm != nil {
				p := &point{name: m.Point, watermark: ns(m.Watermark), valueAt: never, quality: m.Alarm.Quality}
				lone := &instance{rule: &Rule{ID: m.Rule, Type: m.Type}, point: p, alarm: *m.Alarm}
				lone.mem.holding, lone.mem.returning = never, never
				e.remove(now.UnixNano(), lone)
			}
			continue
		}
		p := in.point
		if w := ns(m.Watermark); w >= p.watermark && m.Alarm != nil {
			p.quality = m.Alarm.Quality
		}
		p.watermark = max(p.watermark, ns(m.Watermark))
		p.judged = p.watermark
		in.mem.holding, in.mem.returning = ns(m.Holding), ns(m.Returning)
		if m.Alarm == nil {
			continue
		}
		in.alarm = *m.Alarm
		r := in.rule // a new file may say it better; the alarm stays the same
		in.alarm.Priority, in.alarm.Page, in.alarm.Message, in.alarm.Help = r.Priority, r.Page, r.Message, r.Help
		in.alarm.Limit = in.limit()
		if at := ns(m.Alarm.ValueAt); at > p.valueAt {
			p.value, p.valueAt = m.Alarm.Value, at
		}
		e.byID[in.alarm.ID] = in
		if in.alarm.State == Suppressed {
			p.hidden++
			if in.alarm.Reason == ReasonLate {
				in.until = now.Add(r.MaxLate).UnixNano()
				e.held[in] = struct{}{}
			}
		}
	}
	return e.take()
}

func (e *Engine) find(now int64, m *Memory) *instance {
	for _, r := range e.rules {
		if r.ID == m.Rule && r.Type == m.Type && telemetry.Match(r.Points, m.Point) {
			p := e.point(now, m.Point)
			return p.insts[slices.IndexFunc(p.insts, func(in *instance) bool { return in.rule == r })]
		}
	}
	return nil
}

// NextDeadline returns when Tick will next have something to do if no reading
// comes; the zero time for never. It looks at every silence rule: call it
// after Tick, not after each Observe.
func (e *Engine) NextDeadline() time.Time {
	next := int64(math.MaxInt64)
	for _, in := range e.timed {
		if in.alarm.State.active() || in.rule.Type == Stale && !in.usable {
			continue
		}
		next = min(next, in.heard+int64(in.rule.Silence))
	}
	for in := range e.held {
		next = min(next, in.until)
	}
	for g := range e.open {
		next = min(next, g.heard+int64(defaultMaxLate))
	}
	if next == math.MaxInt64 {
		return time.Time{}
	}
	return at(next)
}

func ns(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixNano()
}

func at(ns int64) time.Time {
	if ns == never {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func alarmID(rule, point string, start int64) string {
	return fmt.Sprintf("%s|%s|%d", rule, point, start)
}
