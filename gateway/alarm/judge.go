package alarm

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"luquan/gateway/telemetry"
)

// Observe judges one reading that the hub received by now and returns what it
// changed, nil mostly. Events come in the order in which they happened.
func (e *Engine) Observe(now time.Time, r Reading) []Event {
	p := e.points[r.Point]
	if p == nil {
		p = e.point(now.UnixNano(), r.Point)
	}
	if len(p.insts) == 0 {
		return nil
	}
	if r.Period > 0 {
		p.period = r.Period
	}
	received := now.UnixNano()
	if !r.Received.IsZero() {
		received = r.Received.UnixNano()
	}
	ts := r.Time.UnixNano()
	if ts > received+int64(future) {
		ts = received
		e.stats.Future++
	}
	if ts <= p.watermark {
		if r.Lateness > defaultMaxLate || p.watermark-ts <= int64(setBack+r.Lateness) {
			e.replay(p, received, ts, &r)
			return e.take()
		}
		e.setBack(p)
	} else if p.watermark != never && ts-p.watermark > p.missed() {
		e.jump(p, ts)
	}
	p.watermark = ts
	e.stats.Readings++
	p.quality = r.Quality
	v := r.Value
	if r.Confirmed && v.IsZero() && p.seen {
		v = p.value
	}
	if !r.Confirmed && !v.IsZero() && r.Quality.HasValue() {
		p.value, p.valueAt, p.seen = v, ts, true
	}
	usable := r.Quality == telemetry.OverRange || r.Quality == telemetry.UnderRange ||
		r.Quality.HasValue() && (!v.IsZero() || r.Confirmed)
	for _, in := range p.insts {
		c := call{now: received, ts: ts, late: r.Lateness > in.rule.MaxLate, usable: usable}
		switch {
		case in.rule.Type.timed():
			e.heard(in, c)
		case in.rule.Type == NoGood:
			e.blind(in, c)
		default:
			if violates, returned, ok := in.rule.judge(v, r.Quality); ok {
				e.step(in, c, violates, returned)
			}
		}
	}
	if usable {
		p.judged = ts
		for _, g := range p.gaps {
			if g.after == never {
				g.after, g.value, g.quality = ts, v, r.Quality
			}
		}
	}
	if p.hidden > 0 {
		e.release(p, received, func(in *instance) bool { return r.Lateness <= in.rule.MaxLate && usable })
	}
	if e.events == nil {
		return nil
	}
	return e.take()
}

// call is what the instances of a point need to know of a reading.
type call struct {
	now, ts int64
	late    bool
	usable  bool
}

// setBack follows a board's clock that was set back: runs that have begun
// cannot be measured any more and begin anew.
func (e *Engine) setBack(p *point) {
	e.stats.SetBack++
	p.judged = never
	for _, g := range p.gaps {
		delete(e.open, g)
	}
	p.gaps = nil
	for _, in := range p.insts {
		in.mem.holding, in.mem.returning = never, never
	}
}

// gap reports whether so long nothing usable came before ts that a run must
// begin anew.
func (in *instance) gap(ts int64) bool {
	return in.point.judged != never && ts-in.point.judged > in.maxGap()
}

func (in *instance) maxGap() int64 { return int64(max(3*in.point.period, in.rule.MaxLate)) }

// step is the condition of a rule that looks at values.
func (e *Engine) step(in *instance, c call, violates, returned bool) {
	if !in.alarm.State.active() {
		if !violates {
			in.mem.holding = never
			return
		}
		if in.mem.holding == never || in.gap(c.ts) {
			in.mem.holding = c.ts
		}
		if c.ts-in.mem.holding >= int64(in.rule.OnDelay) {
			e.raise(in, c, in.mem.holding)
		}
		return
	}
	if in.alarm.Reason == ReasonLate && c.late {
		in.until = c.now + int64(in.rule.MaxLate) // the replay goes on
	}
	if !returned {
		in.mem.returning = never
		return
	}
	if in.mem.returning == never || in.gap(c.ts) {
		in.mem.returning = c.ts
	}
	if c.ts-in.mem.returning >= int64(in.rule.OffDelay) {
		e.clear(in, c.now, in.mem.returning)
	}
}

// heard is a reading as stale and absent see it: only whether something usable
// came in time.
func (e *Engine) heard(in *instance, c call) {
	if c.late || !c.usable {
		return
	}
	pause := c.now-in.heard >= int64(in.rule.Silence)
	in.heard, in.usable = c.now, true
	if !in.alarm.State.active() {
		return
	}
	if in.mem.returning == never || pause {
		in.mem.returning = c.now
	}
	if c.now-in.mem.returning >= int64(in.rule.OffDelay) {
		e.clear(in, c.now, in.mem.returning)
	}
}

// blind is a reading as NoGood sees it. It looks at polls that came back
// without a value; when nothing comes at all, that is the board's or the
// link's fault and told by them.
func (e *Engine) blind(in *instance, c call) {
	if c.late {
		return
	}
	if c.usable {
		in.heard, in.bad, in.badSince = c.now, 0, never
		if in.alarm.State.active() {
			e.clear(in, c.now, c.ts)
		}
		return
	}
	if in.bad++; in.badSince == never {
		in.badSince = c.ts
	}
	p := in.point
	long := p.period > 0 && c.now-in.heard >= badPolls*int64(p.period) && in.bad > 1
	if in.alarm.State.active() || in.bad < badPolls && !long || e.stands(p, in.rule) {
		return
	}
	e.raise(in, c, in.badSince)
}

// stands reports whether the alarm whose blindness blind watches stands: then
// people know already.
func (e *Engine) stands(p *point, blind *Rule) bool {
	for _, in := range p.insts {
		if in.rule.Type != NoGood && in.rule.ID+blindSuffix == blind.ID {
			return in.alarm.State.announced()
		}
	}
	return false
}

// Tick does what is due by the hub's time now without a reading: silence that
// has lasted, and alarms known late whose replay stopped.
func (e *Engine) Tick(now time.Time) []Event {
	t := now.UnixNano()
	for _, in := range e.timed {
		if in.alarm.State.active() || in.rule.Type == Stale && !in.usable {
			continue
		}
		if t-in.heard >= int64(in.rule.Silence) {
			e.raise(in, call{now: t, ts: t}, in.heard)
		}
	}
	e.overdue(now)
	var due []*instance
	for in := range e.held {
		if t >= in.until {
			due = append(due, in)
		}
	}
	slices.SortFunc(due, func(a, b *instance) int { return cmp.Compare(a.alarm.ID, b.alarm.ID) })
	for _, in := range due {
		if in.point.outer(in.rule.Type) {
			in.hide(e, ReasonOuter, t)
			continue
		}
		e.announce(in, t)
	}
	return e.take()
}

// raise begins an alarm whose condition began at start.
func (e *Engine) raise(in *instance, c call, start int64) {
	r, p := in.rule, in.point
	e.supersede(in, c.now)
	in.mem.holding, in.mem.returning = never, never
	in.alarm = in.create(start, c.late)
	in.alarm.State = Unacknowledged
	e.byID[in.alarm.ID] = in
	switch {
	case c.late:
		in.hide(e, ReasonLate, c.now)
	case p.outer(r.Type):
		in.hide(e, ReasonOuter, c.now)
	}
	tell := Raised
	if in.alarm.State == Suppressed {
		tell = ""
	}
	e.emit(in, Raised, start, c.now, tell)
}

// create returns a new alarm of the instance.
func (in *instance) create(start int64, late bool) Alarm {
	r, p := in.rule, in.point
	return Alarm{
		ID: alarmID(r.ID, p.name, start), Rule: r.ID, Type: r.Type, Point: p.name, Priority: r.Priority,
		Start: at(start), Limit: in.limit(), Unit: p.unit, Message: r.Message, Help: r.Help, Page: r.Page, Late: late,
	}
}

// supersede takes a returned, unacknowledged alarm off the list, for a new one.
func (e *Engine) supersede(in *instance, now int64) {
	if in.alarm.State != ReturnedUnacknowledged {
		return
	}
	delete(e.byID, in.alarm.ID)
	in.alarm.State = Normal
	e.emit(in, Superseded, now, now, "")
}

// hide makes the alarm Suppressed.
func (in *instance) hide(e *Engine, reason string, now int64) {
	if in.alarm.State != Suppressed {
		in.point.hidden++
	}
	in.alarm.State, in.alarm.Reason = Suppressed, reason
	delete(e.held, in)
	if reason == ReasonLate {
		in.until = now + int64(in.rule.MaxLate)
		e.held[in] = struct{}{}
	}
}

// show ends being Suppressed.
func (in *instance) show(e *Engine) {
	if in.alarm.State == Suppressed {
		in.point.hidden--
		in.alarm.Reason = ""
		delete(e.held, in)
	}
}

// outer reports whether the point has an announced alarm of the type that
// suppresses t.
func (p *point) outer(t Type) bool {
	o := t.outer()
	if o == "" {
		return false
	}
	for _, in := range p.insts {
		if in.rule.Type == o && in.alarm.State.announced() {
			return true
		}
	}
	return false
}

// release announces what of p need not stay suppressed. An alarm that is on
// its way back waits: it may turn out to have ended before anybody knew.
func (e *Engine) release(p *point, now int64, inTime func(*instance) bool) {
	for _, in := range p.insts {
		if in.alarm.State != Suppressed || in.mem.returning != never || !inTime(in) {
			continue
		}
		switch outer := p.outer(in.rule.Type); {
		case !outer:
			e.announce(in, now)
		case in.alarm.Reason == ReasonLate:
			in.hide(e, ReasonOuter, now)
		}
	}
}

func (e *Engine) announce(in *instance, now int64) {
	in.show(e)
	in.alarm.State = Unacknowledged
	e.emit(in, Announced, now, now, Raised)
}

// clear ends an alarm whose condition ended at end.
func (e *Engine) clear(in *instance, now, end int64) {
	in.mem.holding, in.mem.returning = never, never
	if start := in.alarm.Start.UnixNano(); end < start {
		end = max(start, now) // the clock was set back in between
	}
	in.alarm.Cleared = at(end)
	was, reason := in.alarm.State, in.alarm.Reason
	in.show(e)
	tell := told(was)
	in.alarm.State = Normal
	switch {
	case was == Unacknowledged:
		in.alarm.State = ReturnedUnacknowledged
	case was == Suppressed && reason == ReasonLate && in.rule.Late != lateJournal:
		in.alarm.State = ReturnedUnacknowledged
		if in.rule.Late == latePage {
			tell = Raised
		}
	}
	if in.alarm.State == Normal {
		delete(e.byID, in.alarm.ID)
	}
	e.emit(in, Cleared, end, now, tell)
}

// remove ends an alarm because its rule or point is no more.
func (e *Engine) remove(now int64, in *instance) {
	if in.alarm.State == Normal {
		return
	}
	tell := told(in.alarm.State)
	in.show(e)
	delete(e.byID, in.alarm.ID)
	in.alarm.State = Normal
	e.emit(in, Removed, now, now, tell)
}

// Ack acknowledges the alarm named by id for who. Acknowledging twice changes
// nothing and is no error.
func (e *Engine) Ack(now time.Time, id, who string) ([]Event, error) {
	in := e.byID[id]
	if in == nil {
		return nil, fmt.Errorf("acknowledge %q: %w", id, ErrUnknown)
	}
	switch in.alarm.State {
	case Suppressed:
		return nil, fmt.Errorf("acknowledge %q: %w", id, ErrSuppressed)
	case Acknowledged:
		return nil, nil
	case Unacknowledged:
		in.alarm.State = Acknowledged
	case ReturnedUnacknowledged:
		in.alarm.State = Normal
		delete(e.byID, id)
	}
	in.alarm.AckedBy, in.alarm.AckedAt = who, now.UTC()
	e.emit(in, AckedEvent, now.UnixNano(), now.UnixNano(), AckedEvent)
	e.events[len(e.events)-1].By = who
	return e.take(), nil
}

// told returns what the end of an alarm in state s is to people: a resolved
// note where they were told that it began.
func told(s State) Transition {
	if s.announced() {
		return Cleared
	}
	return ""
}

// emit appends an event of the instance's alarm as it is now.
func (e *Engine) emit(in *instance, t Transition, when, now int64, tell Transition) {
	e.emitAlarm(in, in.view(), t, when, now, tell)
}

// emitAlarm appends an event with the memory as it is now.
func (e *Engine) emitAlarm(in *instance, a Alarm, t Transition, when, now int64, tell Transition) {
	if a.Page == "" {
		tell = ""
	}
	e.events = append(e.events, Event{
		Transition: t, Time: at(when), At: at(now), Alarm: a, Tell: tell, Memory: in.memory(),
	})
}

// view is the alarm with what is known of its point by now.
func (in *instance) view() Alarm {
	a, p := in.alarm, in.point
	if p.valueAt != never {
		a.Value, a.ValueAt = p.value, at(p.valueAt)
	}
	if p.watermark != never {
		a.Quality = p.quality
	}
	return a
}

func (in *instance) memory() Memory {
	m := Memory{
		Rule: in.rule.ID, Point: in.point.name, Type: in.rule.Type, Watermark: at(in.point.watermark),
		Holding: at(in.mem.holding), Returning: at(in.mem.returning),
	}
	if in.alarm.State != Normal {
		a := in.view()
		m.Alarm = &a
	}
	return m
}

func (in *instance) limit() *float64 {
	if !in.rule.Type.limit() {
		return nil
	}
	l := in.rule.Limit
	return &l
}
