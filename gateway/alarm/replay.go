package alarm

import (
	"cmp"
	"slices"
	"time"

	"luquan/gateway/telemetry"
)

// Live arrives before backfill. So when readings jump ahead, the point keeps
// the gap: what its rules knew at the last reading before it. What then
// arrives from within is judged by that in the shadow, apart from the alarms
// that stand, and only what it finds touches the journal or the list.

// maxGaps bounds what one point keeps; the oldest is given up.
const maxGaps = 8

// gap is a stretch of a point's time that was jumped over.
type gap struct {
	from, to int64           // stamps: the last judged, the one jumped to; from moves on with the replay
	heard    int64           // hub's time of the last reading from within; never: none yet
	last     telemetry.Value // the point's value at from
	shadows  []shadow

	// The first usable reading judged after the gap; after is never without one.
	after   int64
	value   telemetry.Value
	quality telemetry.Quality
}

// shadow is one instance in a gap.
type shadow struct {
	in                 *instance
	active             bool
	stood              bool // the alarm stood when the gap began: it is on the list, not found here
	start              int64
	holding, returning int64
	judged             int64
	value              telemetry.Value // that began it
	valueAt            int64
	quality            telemetry.Quality
}

// missed is the pause between two stamps that tells of polls missing between.
func (p *point) missed() int64 {
	if p.period == 0 {
		return int64(defaultMaxLate)
	}
	return int64(p.period + p.period/2)
}

// jump keeps the gap from the watermark to ts.
func (e *Engine) jump(p *point, ts int64) {
	g := &gap{from: p.watermark, to: ts, heard: never, after: never}
	if p.seen {
		g.last = p.value
	}
	for _, in := range p.insts {
		if in.rule.Type.timed() || in.rule.Type == NoGood {
			continue
		}
		if in.mem.holding != never && (p.judged == never || ts-p.judged <= in.maxGap()) {
			continue // one run over a short gap: the instance itself goes on with it
		}
		g.shadows = append(g.shadows, shadow{
			in: in, active: in.alarm.State.active(), stood: in.alarm.State.active(), start: ns(in.alarm.Start),
			holding: in.mem.holding, returning: in.mem.returning, judged: p.judged,
		})
		in.mem.holding = never // the gap's now: the instance would begin it anew
	}
	if len(g.shadows) == 0 {
		return
	}
	if len(p.gaps) == maxGaps {
		e.finish(p.gaps[0], g.to)
		p.gaps = slices.Delete(p.gaps, 0, 1)
	}
	p.gaps = append(p.gaps, g)
}

// replay judges a reading at or below the watermark. One that lies in no gap
// was judged before and is not judged again.
func (e *Engine) replay(p *point, now, ts int64, r *Reading) {
	i := slices.IndexFunc(p.gaps, func(g *gap) bool { return g.from < ts && ts < g.to })
	if i < 0 {
		e.stats.History++
		return
	}
	e.stats.Replayed++
	g := p.gaps[i]
	g.from, g.heard = ts, now
	e.open[g] = p
	v := r.Value
	if r.Confirmed && v.IsZero() {
		v = g.last
	} else if !v.IsZero() {
		g.last = v
	}
	for k := range g.shadows {
		e.shade(&g.shadows[k], now, ts, v, r.Quality)
	}
	if g.to-g.from <= p.missed() { // nothing more to come
		e.finish(g, now)
		p.gaps = slices.Delete(p.gaps, i, i+1)
	}
}

// shade is Engine.step in the shadow.
func (e *Engine) shade(s *shadow, now, ts int64, v telemetry.Value, q telemetry.Quality) {
	r := s.in.rule
	violates, returned, ok := r.judge(v, q)
	if !ok {
		return
	}
	broken := s.judged != never && ts-s.judged > s.in.maxGap()
	s.judged = ts
	if !s.active {
		if !violates {
			s.holding = never
			return
		}
		if s.holding == never || broken {
			s.holding, s.value, s.valueAt, s.quality = ts, v, ts, q
		}
		if ts-s.holding >= int64(r.OnDelay) {
			s.active, s.stood, s.start, s.holding, s.returning = true, false, s.holding, never, never
		}
		return
	}
	if !returned {
		s.returning = never
		return
	}
	if s.returning == never || broken {
		s.returning = ts
	}
	if ts-s.returning < int64(r.OffDelay) {
		return
	}
	end := s.returning
	s.active, s.returning = false, never
	if !s.stood {
		e.past(s, now, end)
	}
}

// known reports whether the alarm that the shadow found is the one the
// instance has or is about to raise.
func (s *shadow) known() bool {
	return s.in.alarm.Start.Equal(at(s.start)) || s.in.mem.holding == s.start
}

// past journals an alarm that began and ended in the gap, and by `late` puts
// it on the list, unless a later alarm of the instance is there.
func (e *Engine) past(s *shadow, now, end int64) {
	in, r := s.in, s.in.rule
	if s.known() {
		return
	}
	a := in.create(s.start, true)
	a.Value, a.ValueAt, a.Quality = s.value, at(s.valueAt), s.quality
	a.State, a.Reason = Suppressed, ReasonLate
	e.emitAlarm(in, a, Raised, s.start, now, "")
	a.State, a.Reason, a.Cleared = Normal, "", at(end)
	tell := Transition("")
	if r.Late == latePage {
		tell = Raised
	}
	free := in.alarm.State == Normal || in.alarm.State == ReturnedUnacknowledged && in.alarm.Start.Before(a.Start)
	if r.Late != lateJournal && free {
		e.supersede(in, now)
		a.State = ReturnedUnacknowledged
		in.alarm = a
		e.byID[a.ID] = in
	}
	e.emitAlarm(in, a, Cleared, end, now, tell)
}

// finish ends a gap: what still holds at its end is joined to what was judged
// after it.
func (e *Engine) finish(g *gap, now int64) {
	delete(e.open, g)
	if g.heard == never {
		return
	}
	for i := range g.shadows {
		s := &g.shadows[i]
		in := s.in
		if g.after != never {
			e.shade(s, now, g.after, g.value, g.quality)
		}
		if !s.active || s.stood || s.known() || g.after != never && s.start >= g.after {
			continue // nothing found in the gap that the instance does not know
		}
		switch {
		case g.after != never && in.alarm.Start.Equal(at(g.after)):
			if in.alarm.State != Normal { // the run that was seen to begin after the gap began in it
				in.alarm.Start = at(s.start)
				e.emit(in, Backdated, s.start, now, "")
			}
		case !in.alarm.State.active():
			e.raise(in, call{now: now, ts: s.judged, late: true}, s.start)
			in.mem.returning = s.returning
		}
	}
}

// overdue finishes the gaps whose replay stopped at least max_late ago.
func (e *Engine) overdue(now time.Time) {
	var due []*gap
	for g := range e.open {
		if now.UnixNano()-g.heard >= int64(defaultMaxLate) {
			due = append(due, g)
		}
	}
	slices.SortFunc(due, func(a, b *gap) int {
		return cmp.Or(cmp.Compare(e.open[a].name, e.open[b].name), cmp.Compare(a.from, b.from))
	})
	for _, g := range due {
		p := e.open[g]
		e.finish(g, now.UnixNano())
		p.gaps = slices.DeleteFunc(p.gaps, func(x *gap) bool { return x == g })
	}
}
