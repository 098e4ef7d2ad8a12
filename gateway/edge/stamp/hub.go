package stamp

import "time"

// The hub's beats come every 30 s.
const (
	beats    = 12          // are looked back at
	outlier  = time.Second // from the estimate
	agreeUp  = 3           // outliers in a row that are believed: a beat never comes early
	agreeLow = beats       // but may well come late
	maxTrip  = time.Second // longest round trip that is corrected for
)

// estimate is the hub's clock less mono, from beats that come late by an
// unknown delay: the largest is the best.
type estimate struct {
	off     int64
	heard   []int64
	strayed []int64
}

// take takes one beat.
func (e *estimate) take(off int64) {
	switch {
	case len(e.heard) == 0:
		e.heard = []int64{off}
	case apart(off, e.off) <= outlier:
		e.strayed = nil
		e.heard = append(e.heard, off)
		if len(e.heard) > beats {
			e.heard = e.heard[1:]
		}
	default:
		if n := len(e.strayed); n > 0 && apart(e.strayed[n-1], off) > outlier {
			e.strayed = nil // they do not even agree among themselves
		}
		e.strayed = append(e.strayed, off)
		need := agreeUp
		if off < e.off {
			need = agreeLow
		}
		if len(e.strayed) < need {
			return
		}
		e.heard, e.strayed = e.strayed, nil
	}
	e.off = e.heard[0]
	for _, o := range e.heard {
		e.off = max(e.off, o)
	}
}

// HubTime takes a beat of the hub's clock that has just arrived. trip is the
// shortest round trip to the broker that was seen; 0: none yet.
func (k *Keeper) HubTime(hub time.Time, trip time.Duration) {
	if !k.trust("hub") || !hub.After(k.cfg.Build) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := int64(k.cfg.Clock.SinceBoot())
	k.hub.take(hub.UnixNano() + int64(min(max(trip, 0), maxTrip)/2) - m)
	b := k.now
	switch {
	case b.Hub == nil:
		b.Hub = &anchor{k.hub.off, m, m}
		k.learned("the hub told it", k.hub.off, m)
	case apart(b.Hub.Off, k.hub.off) > hubSpread:
		b.Hub = &anchor{k.hub.off, m, m}
		k.learned("the hub's differs from before", k.hub.off, m)
	default:
		b.Hub.Off, b.Hub.To = k.hub.off, m
	}
}
