package modbus

import (
	"slices"

	"luquan/drivers/modbus/plan"
	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
)

// A device refuses a request whole when one register in it is not there: in a
// hole that the profile took for readable, or a value that this version of the
// model does not have. Which it is shows when the request is divided, again
// and again, and the parts are asked for in the same poll: of two sound parts
// whose join is refused the border between them is to blame, and a value that
// is refused alone is to blame itself. What was found stays known of the
// device for as long as the gateway runs, all of its groups are planned anew
// around it, and what is sound stays joined.

// request is one transaction of the plan.
type request struct {
	plan.Span
	// A device that refuses everything for a while teaches nothing: skip is
	// how many polls go by before the request is divided again, pause how many
	// after the next time in vain.
	skip, pause int
}

// mostPause is the most polls between two divisions in vain.
const mostPause = 64

// replan plans every group around what is known to be refused.
func (d *device) replan() {
	for _, g := range d.groups {
		old := g.requests
		g.requests = nil
		for _, s := range plan.Plan(g.spans, d.limits, d.cost) {
			r := request{Span: s}
			if i := slices.IndexFunc(old, func(o request) bool { return o.Span == s }); i >= 0 {
				r = old[i]
			}
			g.requests = append(g.requests, r)
		}
	}
}

// learn remembers what was refused.
func (d *device) learn(r plan.Span, bad []plan.Span) {
	news := false
	for _, b := range bad {
		if slices.Contains(d.limits.Bad, b) {
			continue
		}
		news = true
		d.limits.Bad = append(d.limits.Bad, b)
		d.log.Info("device refuses registers; they are left out of joined requests from now on",
			"table", profile.Table(b.Table).String(), "address", b.Address, "count", b.Count,
			"unit_offset", b.Unit, "request_address", r.Address, "request_count", r.Count)
	}
	if news {
		d.replan()
	}
}

// division is how the parts of one refused request are read.
type division struct {
	take    func(plan.Span) (result, bool) // one transaction; false: the poll was called off
	results []result
	good    int         // parts that brought data
	bad     []plan.Span // what is to blame
}

// divides reports whether the refusal may be the fault of a part: exceptions 1
// to 4. The others speak of the moment (busy, acknowledge), not of the request.
func (r result) divides() bool { return r.quality == telemetry.Refused && r.code <= 4 }

// of reads the units, whose join was refused, in two parts.
func (v *division) of(units []plan.Span) bool {
	at := middle(units)
	left, ok := v.part(units[:at])
	if !ok {
		return false
	}
	right, ok := v.part(units[at:])
	if left && right {
		v.bad = append(v.bad, border(units[at-1], units[at]))
	}
	return ok
}

// part reads the units, joined if that goes, and reports whether it does.
func (v *division) part(units []plan.Span) (sound, ok bool) {
	first, last := units[0], units[len(units)-1]
	res, ok := v.take(plan.Span{Unit: first.Unit, Table: first.Table, Address: first.Address, Count: last.Address + last.Count - first.Address})
	switch {
	case !ok:
		return false, false
	case res.divides() && len(units) > 1:
		return false, v.of(units)
	case res.divides():
		v.bad = append(v.bad, units[0])
	case res.quality == telemetry.Good:
		v.good++
	}
	v.results = append(v.results, res)
	return res.quality == telemetry.Good, true
}

// border is what lies between two neighbours; nothing (Count 0) when they touch.
func border(a, b plan.Span) plan.Span {
	return plan.Span{Unit: a.Unit, Table: a.Table, Address: a.Address + a.Count, Count: b.Address - a.Address - a.Count}
}

// middle is where to divide: at the middle one of the holes, which are the
// first suspects, or of all borders where there are none.
func middle(units []plan.Span) int {
	var holes []int
	for i := 1; i < len(units); i++ {
		if border(units[i-1], units[i]).Count > 0 {
			holes = append(holes, i)
		}
	}
	if len(holes) == 0 {
		return len(units) / 2
	}
	return holes[len(holes)/2]
}

// units are what a request is made of: what its points need, in order of
// address; spans that overlap are one, as they are read together.
func (g *group) units(r plan.Span) []plan.Span {
	var in []plan.Span
	for _, s := range g.spans {
		if covers(r, s) {
			in = append(in, s)
		}
	}
	slices.SortFunc(in, func(a, b plan.Span) int { return int(a.Address) - int(b.Address) })
	var out []plan.Span
	for _, s := range in {
		if n := len(out); n > 0 && int(s.Address) < int(out[n-1].Address)+int(out[n-1].Count) {
			end := max(int(out[n-1].Address)+int(out[n-1].Count), int(s.Address)+int(s.Count))
			out[n-1].Count = uint16(end - int(out[n-1].Address))
			continue
		}
		out = append(out, s)
	}
	return out
}

// readAll reads the group's requests. One that is refused is divided, and what
// that teaches is remembered.
func (d *device) readAll(g *group, a *asking) (results []result, ok bool) {
	type lesson struct {
		from plan.Span
		bad  []plan.Span
	}
	var lessons []lesson
	first, ok := a.all(g.requests)
	if !ok {
		return nil, false
	}
	for i, res := range first {
		r := &g.requests[i]
		if !res.divides() {
			if res.quality == telemetry.Good {
				r.skip, r.pause = 0, 0
			}
			results = append(results, res)
			continue
		}
		units := g.units(r.Span)
		switch {
		case len(units) < 2, a.isGone(r.Unit):
		case r.skip > 0:
			r.skip--
		default:
			v := division{take: a.take}
			if !v.of(units) {
				return nil, false
			}
			results = append(results, v.results...)
			if v.good > 0 {
				lessons = append(lessons, lesson{r.Span, v.bad})
			} else {
				r.pause = min(max(1, 2*r.pause), mostPause)
				r.skip = r.pause
			}
			continue
		}
		results = append(results, res)
	}
	for _, l := range lessons { // not before: the requests change
		d.learn(l.from, l.bad)
	}
	return results, true
}
