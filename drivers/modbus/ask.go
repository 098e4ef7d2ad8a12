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

// asking is one poll while it asks. A device that did not answer one request
// is not asked the next: it would cost the line another response limit. So it
// does after each damaged answer; after two in a row the rest is not asked for.
type asking struct {
	d   *device
	ctx context.Context

	mu       sync.Mutex        // guards everything below, and d.why; never held while asking
	last     time.Time         // the last answer
	gone     telemetry.Quality // why the rest is not asked for; Good: it is
	garbled  int               // damaged answers in a row
	canceled bool
}

// take asks for one span; false means that the poll was called off.
func (a *asking) take(r plan.Span) (result, bool) {
	a.mu.Lock()
	gone, canceled := a.gone, a.canceled
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
	if res.quality == telemetry.Garbled {
		a.garbled++
	} else {
		a.garbled = 0
	}
	if res.quality < telemetry.NoReply {
		a.last = time.Now()
	}
	if res.quality >= telemetry.NoReply || a.garbled == mostGarbled {
		a.gone = max(a.gone, res.quality)
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
