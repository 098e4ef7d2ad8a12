package modbus

import (
	"context"
	"sync"
	"time"

	"luquan/drivers/modbus/plan"
	"luquan/gateway/telemetry"
)

// mostGarbled is how many answers in a row may be damaged before a poll is given up.
const mostGarbled = 2

// asking is one poll while it asks. A unit that did not answer one request
// is not asked the next: it would cost the line another response limit. So it
// does after each damaged answer; after two in a row the rest is not asked for.
// A device with several unit addresses is asked at the others all the same.
type asking struct {
	d   *device
	ctx context.Context

	mu       sync.Mutex // guards everything below, and d.why; never held while asking
	last     time.Time  // the last answer
	units    map[uint8]*unit
	canceled bool
}

// unit is one unit address in one poll.
type unit struct {
	gone    telemetry.Quality // why the rest is not asked for; Good: it is
	garbled int               // damaged answers in a row
	spared  bool              // it is left alone in this poll
}

// of returns the state of a unit address; a.mu is held.
func (a *asking) of(offset uint8) *unit {
	u := a.units[offset]
	if u == nil {
		if a.units == nil {
			a.units = map[uint8]*unit{}
		}
		u = &unit{}
		a.units[offset] = u
	}
	return u
}

// isGone reports whether the unit is asked no more in this poll.
func (a *asking) isGone(offset uint8) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(offset).gone != telemetry.Good
}

// allGone reports whether no unit that the group's points stand under is asked any more.
func (a *asking) allGone(g *group) bool {
	for _, r := range g.requests {
		if !a.isGone(r.Unit) {
			return false
		}
	}
	return true
}

// take asks for one span; false means that the poll was called off.
func (a *asking) take(r plan.Span) (result, bool) {
	a.mu.Lock()
	gone, canceled := a.of(r.Unit).gone, a.canceled
	a.mu.Unlock()
	if canceled {
		return result{}, false
	}
	if gone != telemetry.Good {
		return result{Span: r, quality: gone}, true
	}
	res, canceled, err := a.d.read(a.ctx, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if canceled {
		a.canceled = true
		return res, false
	}
	if err != nil {
		a.d.why = err
	}
	u := a.of(r.Unit)
	if res.quality == telemetry.Garbled {
		u.garbled++
	} else {
		u.garbled = 0
	}
	if res.quality < telemetry.NoReply {
		a.last = time.Now()
	}
	if res.quality >= telemetry.NoReply || u.garbled == mostGarbled {
		u.gone = max(u.gone, res.quality)
	}
	return res, true
}

// all asks for each of the requests, as many side by side as the device
// allows; false means that the poll was called off. Their results are in the
// order of the requests, whatever the order of the answers.
func (a *asking) all(requests []request) ([]result, bool) {
	results := make([]result, len(requests))
	next := 0 // guarded by a.mu
	ask := func() {
		for {
			a.mu.Lock()
			i := next
			next++
			a.mu.Unlock()
			if i >= len(requests) {
				return
			}
			var ok bool
			if results[i], ok = a.take(requests[i].Span); !ok {
				return
			}
		}
	}
	var others sync.WaitGroup
	for range min(a.d.inFlight, len(requests)) - 1 {
		others.Go(ask)
	}
	ask()
	others.Wait()
	return results, !a.canceled
}
