package live

import (
	"time"

	"luquan/gateway/telemetry"
)

// mark is the place of a record in time and in its board's sequence.
type mark struct {
	time, received time.Time
	clock          telemetry.Clock
	epoch, seq     uint64
}

// order is the stamp, but never later than the receipt: a stamp from the
// future must not keep the truth out until that future comes.
func (m mark) order() time.Time {
	if m.received.Before(m.time) {
		return m.received
	}
	return m.time
}

// after reports whether m tells of a later poll than n. In one epoch the
// sequence decides, across epochs the time.
func (m mark) after(n mark) bool {
	if m.epoch == n.epoch {
		return m.seq > n.seq
	}
	return m.order().After(n.order())
}

// outcome is what the latest poll said of a point.
type outcome uint8

const (
	never outcome = iota
	valued
	failed    // no value: the quality says why
	unchanged // polled, and within its deadband
)

// state is an Entry in the list of changes, with what confirms it.
type state struct {
	Entry
	owner string // the gateway that announced it, or showed it first

	// sure is the row until which LastValue is known to hold: the one that
	// carried it, or one that confirmed it without a hole between.
	sure mark
	// polled is the latest row of the point's group, with what it said.
	polled  mark
	outcome outcome
	quality telemetry.Quality // what polled said
	board   *boardState       // that polled it; nil while outcome is never

	older, newer *state
}

// find returns the reading of the point, looking first where the last one
// stood: profiles and records name points in one order.
func find(readings []telemetry.Reading, point string, hint int) (*telemetry.Reading, int) {
	for i := range readings {
		if k := (hint + i) % len(readings); readings[k].Point == point {
			return &readings[k], k + 1
		}
	}
	return nil, hint
}

// applyPoint takes what record r says of s (reading is nil when it has no row
// for it) and reports whether the entry changed.
func (f *Feed) applyPoint(b *boardState, s *state, r *telemetry.Record, reading *telemetry.Reading, m mark) bool {
	quality, hasValue := r.Status, false
	if reading != nil {
		quality = quality.Worst(reading.Quality)
		hasValue = quality.HasValue() && !reading.Value.IsZero()
	}
	if s.outcome != never && !m.after(s.polled) {
		// History. It matters only if it is newer than the value we have: a
		// row that came late between the value and what confirmed it.
		if !hasValue || (!s.LastValue.IsZero() && !m.after(s.sure)) {
			return false
		}
		s.LastValue, s.LastTime, s.sure = reading.Value, m.time, m
		f.judge(s)
		return true
	}
	if s.board != nil && s.board != b {
		delete(s.board.unconfirmed, s) // the device moved to another board
	}
	s.board, s.polled, s.quality, s.Gateway = b, m, quality, r.Gateway
	s.Status = r.Status
	switch {
	case hasValue:
		s.outcome = valued
		s.LastValue, s.LastTime, s.sure = reading.Value, m.time, m
	case quality.HasValue() && reading == nil:
		s.outcome = unchanged
	default:
		s.outcome = failed
	}
	f.judge(s)
	return true
}

// judge sets the visible part of s from what is known, and gives it a version.
func (f *Feed) judge(s *state) {
	delete(s.board.unconfirmed, s)
	s.Unconfirmed = false
	at := s.polled
	switch s.outcome {
	case valued:
		s.Value, s.Quality = s.LastValue, s.quality
	case failed:
		s.Value, s.Quality = telemetry.Value{}, s.quality
		if s.Quality.HasValue() { // a reading without a value and without a reason
			s.Quality = telemetry.Invalid
		}
	case unchanged:
		s.Value, s.Quality = s.LastValue, s.quality
		if !s.LastValue.IsZero() && s.sure.epoch == at.epoch && s.board.epoch(at.epoch).all(s.sure.seq, at.seq) {
			s.sure, s.LastTime = at, at.time
			break
		}
		s.Unconfirmed = true
		s.board.unconfirmed[s] = struct{}{}
		at = s.sure
	}
	s.Time, s.Received, s.Clock, s.Epoch, s.Seq = at.time, at.received, at.clock, at.epoch, at.seq
	f.changed(s)
}

// settle judges again the points that wait for rows now come, and reports
// whether any was confirmed.
func (f *Feed) settle(b *boardState) bool {
	news := false
	for s := range b.unconfirmed {
		if s.sure.epoch == s.polled.epoch && b.epoch(s.polled.epoch).all(s.sure.seq, s.polled.seq) {
			f.judge(s)
			news = true
		}
	}
	return news
}
