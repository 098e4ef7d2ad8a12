package uplink

import (
	"time"

	"luquan/gateway/wire"
)

const (
	// gather is the least time between two live payloads that are not full: at
	// forty records a second each of its own would cost a quarter more bytes.
	gather = 100 * time.Millisecond
	// slowHub is how long what was published waits for the hub's word until the
	// backlog goes on in steps of a second: a hub whose database is down shall
	// hear of what is late, but need not be fed what it cannot keep.
	slowHub = 10 * time.Second
	maxRows = 4096 // of session.ahead
	// firstWord is how long the backlog waits for a hub that never spoke.
	firstWord = 5 * time.Second
	leastPack = 4 << 10 // bytes a payload of the backlog is filled to on the slowest link
)

// pace bounds how many bytes of the backlog are under way on one stretch, so
// that they fill it without making live wait in its queues: the window grows
// while what arrives has waited less than target, and shrinks by as much as
// arrives when it has waited twice that.
type pace struct {
	window      float64 // bytes that may be under way
	least, most float64
	target      time.Duration
	under       int  // bytes under way
	full        bool // the window was what kept the next payload back

	base  time.Duration // the stretch's own time, with nothing waiting; 0: not known
	learn time.Time     // when base is learnt anew, with nothing under way
}

// room reports whether more may be sent.
func (p *pace) room(now time.Time) bool {
	if now.After(p.learn) {
		if p.under > 0 {
			return false
		}
		p.base, p.learn = 0, now.Add(time.Minute)
	}
	p.full = p.under > 0 && float64(p.under) >= p.window
	return !p.full
}

// took notes how long something was on the stretch and returns how much of it
// was waiting.
func (p *pace) took(d time.Duration) time.Duration {
	if p.base == 0 || d < p.base {
		p.base = d
	}
	return d - p.base
}

// done notes that n bytes arrived, having waited so long.
func (p *pace) done(n int, waited time.Duration) {
	p.under -= n
	gain := max(-1, float64(p.target-waited)/float64(p.target))
	if gain > 0 && !p.full {
		return // growing would change nothing now, and be too much later
	}
	p.window = min(max(p.window+gain*float64(n), p.least), p.most)
}

// linkPace is for the stretch to the broker, told by PUBACK.
func linkPace(now time.Time) pace {
	return pace{window: 16 << 10, least: 4 << 10, most: 16 << 20, target: 250 * time.Millisecond, learn: now.Add(time.Minute)}
}

// hubPace is for the stretch from the broker, which acknowledges what the hub
// has yet to get, to the hub's store, told by committed. Its time is not
// measured but reckoned, so there is none to learn. most keeps it under what a
// hub lets one board have waiting for its store: the rest would be dropped, and
// come again a minute later.
func hubPace() pace {
	return pace{window: 256 << 10, least: 128 << 10, most: 1280 << 10, target: 250 * time.Millisecond, learn: time.Unix(1<<40, 0)}
}

// ahead is a payload of the backlog that the broker has acknowledged, at a
// time, and the hub has not settled.
type ahead struct {
	span
	bytes int
	at    time.Time
}

// resize fits the payloads of the backlog to the link: large ones compress
// better, but on a slow link live waits behind each. n bytes arrived having
// waited so long.
func (s *session) resize(n int, waited time.Duration) {
	switch {
	case waited < s.linkPace.target/4:
		s.backPack = min(s.backPack+n, s.u.cfg.Lanes.Pack)
	case waited > s.linkPace.target:
		s.backPack = max(s.backPack/2, leastPack)
	}
}

// goesAhead notes a payload of the backlog that the broker has.
func (s *session) goesAhead(now time.Time, x span, bytes int) {
	if s.u.cfg.Commit != CommitHub {
		return
	}
	if len(s.ahead) == maxRows { // only while a hub is silent
		s.hubPace.under -= s.ahead[0].bytes
		s.ahead = s.ahead[1:]
	}
	s.ahead = append(s.ahead, ahead{x, bytes, now})
	s.hubPace.under += bytes
}

// hubKeepsUp reports whether the hub may get more of the backlog.
func (s *session) hubKeepsUp(now time.Time) bool {
	if len(s.ahead) == 0 || s.hubPace.room(now) {
		return true
	}
	if s.u.hub == "" { // one that is there speaks when it hears our state
		return now.Sub(s.begun) > firstWord
	}
	return now.Sub(s.ahead[0].at) > slowHub+s.u.cfg.Linger && now.Sub(s.backAt) >= tick
}

// paced takes from ahead what the hub's word settles. A hub stores in the order
// of arrival: what stands before something settled and is not settled itself
// was dropped for want of room, and comes again by the rules of resending.
func (s *session) paced(now time.Time, c wire.Committed) {
	last, missed := -1, false
	for i, a := range s.ahead {
		if s.settled(a.span, c) {
			last = i
		}
	}
	since := s.saidAt
	s.saidAt = now
	if last < 0 {
		return
	}
	bytes := 0
	for _, a := range s.ahead[:last+1] {
		bytes += a.bytes
		missed = missed || !s.settled(a.span, c)
	}
	if first := s.ahead[0].at; first.After(since) {
		since = first
	}
	s.ahead = s.ahead[last+1:]
	// How long the rest waits for its turn at the speed of what came through.
	waited := time.Duration(float64(s.hubPace.under-bytes) / float64(bytes) * float64(now.Sub(since)))
	if missed {
		waited = 2 * s.hubPace.target
	}
	s.hubPace.done(bytes, waited)
}

// settled reports whether the last record of x is, or is held no more.
func (s *session) settled(x span, c wire.Committed) bool {
	e, ok := c.Epochs[x.epoch]
	if !ok {
		for _, h := range s.held {
			if h.Epoch == x.epoch {
				return false
			}
		}
		return true
	}
	if x.last <= e.Upto {
		return true
	}
	for _, r := range e.Also {
		if r[0] <= x.last && x.last <= r[1] {
			return true
		}
	}
	return false
}
