package modbus

import (
	"time"

	"luquan/gateway/telemetry"
)

// A device that is silent altogether is asked more and more rarely by whoever
// polls it. One whose second unit address is silent while its first answers is
// asked on, and would hold the line for a response limit in each poll. So that
// address is left out of polls, for longer each time, up to mostQuiet; its
// points meanwhile are as they were found: without an answer.

// quiet is a unit address that does not answer.
type quiet struct {
	why   telemetry.Quality // NoReply or worse
	rest  time.Duration     // how long it is left alone after a time-out
	until time.Time
}

// The rests of a silent unit address: the first, doubled each time, and the longest.
const (
	leastQuiet = time.Second
	mostQuiet  = 30 * time.Second
)

// spare marks the unit addresses that are to be left alone in this poll, unless
// all of the group's are: then there is nothing to lose by asking.
func (d *device) spare(g *group, a *asking) {
	now := time.Now()
	some := false
	for _, r := range g.requests {
		if q := d.quiet[r.Unit]; q == nil || !now.Before(q.until) {
			some = true
		}
	}
	if !some {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for unit, q := range d.quiet {
		if now.Before(q.until) {
			u := a.of(unit)
			u.gone, u.spared = q.why, true
		}
	}
}

// note remembers which unit addresses were silent in a poll in which another
// one answered; where none did, silence is the device's, and nothing is.
func (d *device) note(g *group, a *asking) {
	all := a.allGone(g)
	a.mu.Lock()
	defer a.mu.Unlock()
	for unit, u := range a.units {
		q := d.quiet[unit]
		switch {
		case u.spared:
		case u.gone < telemetry.NoReply || all:
			if q != nil {
				delete(d.quiet, unit)
				if !all {
					d.log.Info("unit address of the device answers again", "unit_offset", unit)
				}
			}
		case q == nil:
			if d.quiet == nil {
				d.quiet = map[uint8]*quiet{}
			}
			d.quiet[unit] = &quiet{u.gone, leastQuiet, time.Now().Add(leastQuiet)}
			d.log.Warn("unit address of the device does not answer while another one does", "unit_offset", unit, "status", u.gone.String(), "error", d.why)
		default:
			q.why, q.rest = u.gone, min(2*q.rest, mostQuiet)
			q.until = time.Now().Add(q.rest)
		}
	}
}
