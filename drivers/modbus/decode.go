package modbus

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"luquan/drivers/modbus/plan"
	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
)

// Decoding counts what the decoder noticed on the devices of a bus, since the start.
type Decoding struct {
	Frozen    uint64 // times that a point began to stand still for longer than it may
	Rollovers uint64 // times that a counter went past its end and on from 0
	Resets    uint64 // times that a counter went back otherwise: reset, or another meter
}

// decoding is Decoding as it is being counted.
type decoding struct{ frozen, rollovers, resets atomic.Uint64 }

func (d *decoding) load() Decoding {
	return Decoding{d.frozen.Load(), d.rollovers.Load(), d.resets.Load()}
}

// point is a chosen point, and what is remembered of it from poll to poll.
type point struct {
	def         *profile.Point
	every       time.Duration
	deadband    Deadband
	maxSilence  time.Duration
	frozenAfter time.Duration // 0: it may stand still

	own    plan.Span // what its own words came with, whole, in one request
	result int       // where that was in the last poll's results

	sent   telemetry.Value // zero: the next good value is sent whatever it is
	sentAt time.Time

	still *still // of a point that may not stand still for ever
	count *count // of a counter
}

// fill decodes the results into the sample.
func (d *device) fill(s *telemetry.Sample, g *group, results []result) {
	read := false
	for _, r := range results {
		read = read || r.quality == telemetry.Good
		s.Status = s.Status.Worst(r.quality)
	}
	if !read {
		for i := range g.points {
			g.points[i].noValue()
		}
		return
	}
	s.Status = telemetry.Good
	all := g.refreshed != d.refresh.Load()
	g.refreshed = d.refresh.Load()
	s.Readings = make([]telemetry.Reading, 0, len(g.points))
	var current *profile.Point
	words := func(t profile.Table, address uint16) (uint16, telemetry.Quality) {
		return word(current, results, t, address)
	}
	for i := range g.points {
		p := &g.points[i]
		current = p.def
		v, raw, q := p.decode(results, words)
		if !q.HasValue() {
			p.noValue()
			s.Readings = append(s.Readings, telemetry.Reading{Point: p.def.Name, Quality: q})
			continue
		}
		if p.count != nil {
			p.count.add(raw, s.Time, p.def, d)
		}
		if p.still != nil && p.still.add(v, s.Time, p, d) {
			q = q.Worst(telemetry.Frozen)
		}
		if q == telemetry.Good && !all && p.unchanged(v, s.Time) {
			continue
		}
		p.sent, p.sentAt = telemetry.Value{}, s.Time
		if q == telemetry.Good {
			p.sent = v
		}
		s.Readings = append(s.Readings, telemetry.Reading{Point: p.def.Name, Value: v, Quality: q})
	}
}

// decode finds the point's own words in the results and decodes them.
func (p *point) decode(results []result, words profile.Words) (telemetry.Value, float64, telemetry.Quality) {
	if p.result >= len(results) || !covers(results[p.result].Span, p.own) {
		p.result = 0
		for p.result < len(results) && !covers(results[p.result].Span, p.own) {
			p.result++
		}
		if p.result == len(results) {
			panic("BUG: point " + p.def.Name + " was not planned")
		}
	}
	r := &results[p.result]
	if r.quality != telemetry.Good || p.def.Table.IsBit() {
		return p.def.Decode(words)
	}
	return p.def.DecodeOwn(r.data[2*(p.def.Address-r.Address):], words)
}

// noValue notes a poll that brought none: what comes next is sent whatever it is.
func (p *point) noValue() {
	p.sent = telemetry.Value{}
	if p.still != nil {
		p.still.seen = time.Time{}
	}
}

// ownSpan is the span that the point's own words are read in: a value is never
// put together from two answers.
func ownSpan(def *profile.Point) plan.Span {
	for _, n := range def.Needs() {
		if n.Table == def.Table && n.Address <= def.Address && int(def.Address) < int(n.Address)+int(n.Count) {
			return needed(def, n)
		}
	}
	panic("BUG: point " + def.Name + " does not need its own words")
}

// needed is a span that a point needs, under the point's unit.
func needed(def *profile.Point, s profile.Span) plan.Span {
	return plan.Span{Unit: def.UnitOffset, Table: plan.Table(s.Table), Address: s.Address, Count: s.Count}
}

// word looks an address up in the result that brought the whole span p needs
// it in: a value is never put together from two answers.
func word(p *profile.Point, results []result, t profile.Table, address uint16) (uint16, telemetry.Quality) {
	for _, n := range p.Needs() {
		if n.Table != t || address < n.Address || int(address) >= int(n.Address)+int(n.Count) {
			continue
		}
		span := needed(p, n)
		for _, r := range results {
			if !covers(r.Span, span) {
				continue
			}
			i := int(address - r.Address)
			switch {
			case r.quality != telemetry.Good:
				return 0, r.quality
			case t.IsBit():
				return uint16(r.data[i/8]>>(i%8)) & 1, telemetry.Good
			default:
				return uint16(r.data[2*i])<<8 | uint16(r.data[2*i+1]), telemetry.Good
			}
		}
	}
	panic("BUG: point " + p.Name + " looks at a word that was not planned")
}

// unchanged reports whether v may be left out at the time now.
func (p *point) unchanged(v telemetry.Value, now time.Time) bool {
	if !p.deadband.Set || p.sent.IsZero() || now.Sub(p.sentAt) >= p.maxSilence {
		return false
	}
	if v == p.sent {
		return true
	}
	if v.Class() == telemetry.String {
		return false
	}
	return math.Abs(v.Float()-p.sent.Float()) <= max(p.deadband.Absolute, p.deadband.Percent/100*math.Abs(p.sent.Float()))
}

// still measures how long a value has not moved, bit for bit. Only time in
// which it was seen to stand counts: an outage neither adds to it nor ends it.
type still struct {
	value  telemetry.Value
	seen   time.Time // the poll before; zero when that brought no value
	stood  time.Duration
	frozen bool
}

// add notes a value and reports whether it has stood for longer than it may.
func (s *still) add(v telemetry.Value, now time.Time, p *point, d *device) bool {
	switch {
	case v != s.value:
		if s.frozen {
			d.log.Info("point moves again", "point", p.def.Name, "stood", s.stood)
		}
		s.value, s.stood, s.frozen = v, 0, false
	case !s.seen.IsZero():
		s.stood += now.Sub(s.seen)
	}
	s.seen = now
	if !s.frozen && s.stood >= p.frozenAfter {
		s.frozen = true
		d.noticed.frozen.Add(1)
		d.log.Warn("point stands still; its values are told as frozen", "point", p.def.Name, "value", v.String(), "for", s.stood)
	}
	return s.frozen
}

// count follows a counter by its raw number, before any scaling.
type count struct {
	known bool
	last  float64
	at    time.Time
	steep float64 // the fastest it was seen to count, a second
	went  uint64  // times it went back
}

// What tells a rollover from a reset: the way past the end must not be longer
// than the counter could go, by a hundredth of its width or by several times
// what it was seen to count.
const (
	rolloverShare = 0.01
	rolloverRate  = 8
)

// add notes a raw number. A counter that is lower than before has rolled over
// or was reset; the value told is the one that was read either way.
func (c *count) add(raw float64, now time.Time, def *profile.Point, d *device) {
	last, took := c.last, now.Sub(c.at).Seconds()
	known := c.known
	c.known, c.last, c.at = true, raw, now
	if !known {
		return
	}
	if raw >= last {
		if took > 0 {
			c.steep = max(c.steep, (raw-last)/took)
		}
		return
	}
	width := def.Wrap()
	way := raw - last + width
	rolled := width > 0 && way > 0 && way <= min(width/2, max(width*rolloverShare, rolloverRate*c.steep*took))
	c.went++
	tell := bits.OnesCount64(c.went) == 1 // the first, the second, the fourth: what is no counter would fill the log
	if rolled {
		d.noticed.rollovers.Add(1)
		if tell {
			d.log.Info("counter went past its end and counts on from 0", "point", def.Name, "raw_before", last, "raw", raw)
		}
		return
	}
	c.steep = 0
	d.noticed.resets.Add(1)
	if tell {
		d.log.Warn("counter went back: it was reset, or this is another meter", "point", def.Name, "raw_before", last, "raw", raw, "times", c.went)
	}
}
