package uplink

import (
	"time"

	"luquan/gateway/wire"
)

// sent are records that were published and are not settled.
type sent struct {
	span
	at     time.Time // first published in this session; CommitNone: acknowledged
	n      uint64    // order of publishing, of the last merged into it
	passed time.Time // when something published later was committed; zero: not yet
}

// merge is how close in time two publishes are told apart no more: a hub that
// is away for a day must not cost a board its memory.
const merge = 5 * time.Second

// track notes records that were just published.
func (s *session) track(now time.Time, x span) {
	if len(s.sent) == 0 {
		s.moved(now) // nothing was waiting until now
	}
	s.nextN++
	// Two lanes take turns, so the one before the last may be the neighbour.
	for i := len(s.sent) - 1; i >= max(0, len(s.sent)-3); i-- {
		if l := &s.sent[i]; l.epoch == x.epoch && l.last+1 == x.first && now.Sub(l.at) < merge && l.passed.IsZero() {
			l.last, l.n = x.last, s.nextN
			return
		}
	}
	s.sent = append(s.sent, sent{span: x, at: now, n: s.nextN})
}

// puback is the broker's word for some records.
func (s *session) puback(x span) {
	u := s.u
	switch u.cfg.Commit {
	case CommitBroker:
		u.free(x.epoch, 0, [][2]uint64{{x.first, x.last}})
	case CommitNone:
		now := time.Now()
		if n := len(u.kept); n > 0 {
			if l := &u.kept[n-1]; l.epoch == x.epoch && l.last+1 == x.first && now.Sub(l.at) < time.Minute {
				l.last = x.last
				return
			}
		}
		u.kept = append(u.kept, sent{span: x, at: now})
	}
}

// expire frees what was acknowledged Keep ago (CommitNone).
func (s *session) expire(now time.Time) {
	u := s.u
	for len(u.kept) > 0 && now.Sub(u.kept[0].at) >= u.cfg.Keep {
		x := u.kept[0]
		u.free(x.epoch, 0, [][2]uint64{{x.first, x.last}})
		u.kept = u.kept[1:]
	}
}

func (u *Uplink) free(epoch, upto uint64, also [][2]uint64) {
	if err := u.queue.Free(epoch, upto, also); err != nil {
		u.warn("records cannot be freed", "epoch", epoch, "upto", upto, "error", err)
	}
}

// committed is the hub's word.
func (s *session) committed(now time.Time, doc []byte) {
	u := s.u
	c, err := wire.ParseCommitted(doc)
	if err != nil {
		u.warn("committed is not understood and changes nothing", "error", err)
		return
	}
	before := s.sent
	moved := false
	for _, h := range s.held {
		e, ok := c.Epochs[h.Epoch]
		if !ok {
			continue
		}
		if h.Current && aboveLast(e, h.Last) {
			// It cannot be true: perhaps another board's, perhaps a hub that
			// was restored from a backup of elsewhere.
			u.warn("committed is above the last record drawn and is ignored", "epoch", h.Epoch, "upto", e.Upto, "last", h.Last)
			continue
		}
		u.free(h.Epoch, e.Upto, e.Also)
		moved = s.settle(h.Epoch, e) || moved
	}
	// A first word that has nothing of this epoch is perhaps a hub's that came
	// to the broker later than we did: what we published before came to nobody.
	ours := c.Epochs[s.epoch]
	s.paced(now, c)
	late := u.hub == "" && ours.Upto == 0 && len(ours.Also) == 0 && len(s.sent) > 0
	if late || u.hub != "" && u.hub != c.Hub {
		u.log.Info("the hub changed; what it has not committed is sent again", "hub", short(c.Hub), "before", short(u.hub))
		for _, x := range s.sent {
			s.backlog = append(s.backlog, x.span)
			s.resent += x.len()
		}
		s.sent, moved = nil, true
		s.ahead, s.hubPace = nil, hubPace()
		if u.hub != "" { // what live sent whole at the start comes again as it was
			defer u.refresh("hub changed")
		}
	}
	u.hub = c.Hub
	if moved || len(before) == 0 {
		s.moved(now)
		u.note(func(st *Stats) { st.Committed = now })
	}
	for i := range s.sent {
		if x := &s.sent[i]; x.n < s.passedN && x.passed.IsZero() {
			x.passed = now
		}
	}
}

// moved notes that committed does not stand still.
func (s *session) moved(now time.Time) {
	s.progress, s.repeated, s.stall = now, now, s.u.cfg.Lanes.Resend
}

func aboveLast(e wire.CommitEpoch, last uint64) bool {
	return e.Upto > last || len(e.Also) > 0 && e.Also[len(e.Also)-1][1] > last
}

// settle takes what is committed of an epoch from what waits for it and
// reports whether there was any.
func (s *session) settle(epoch uint64, e wire.CommitEpoch) bool {
	ranges := e.Also
	if e.Upto > 0 {
		ranges = append([][2]uint64{{1, e.Upto}}, ranges...)
	}
	var left []sent
	moved := false
	for _, x := range s.sent {
		rest := []span{x.span}
		if x.epoch == epoch {
			for _, r := range ranges {
				var next []span
				for _, y := range rest {
					next = append(next, subtract(y, span{epoch, r[0], r[1]})...)
				}
				rest = next
			}
		}
		if len(rest) != 1 || rest[0] != x.span {
			moved = true
			s.passedN = max(s.passedN, x.n)
		}
		for _, y := range rest {
			x.span = y
			left = append(left, x)
		}
	}
	s.sent = left
	return moved
}

// resend follows the contract: what committed passed over for 60 s goes to
// the backlog again. While committed stands still only the oldest payload is
// repeated, after 60 s and then twice as long each time: a hub whose database
// is down must not be fed everything again each minute.
func (s *session) resend(now time.Time) {
	if len(s.sent) == 0 {
		return
	}
	lanes := s.u.cfg.Lanes
	if now.Sub(s.progress) < lanes.Resend {
		var left []sent
		for _, x := range s.sent {
			if x.passed.IsZero() || now.Sub(x.passed) < lanes.Resend {
				left = append(left, x)
				continue
			}
			s.u.warn("committed passed records over; they are sent again", "epoch", x.epoch, "first", x.first, "last", x.last)
			s.backlog = append(s.backlog, x.span)
			s.resent += x.len()
		}
		s.sent = left
		return
	}
	if now.Sub(s.repeated) < s.stall || len(s.flight) >= lanes.Window || now.Before(s.readAt) {
		return
	}
	x := s.sent[0]
	p, ok := s.pack(x.epoch, x.first, x.last, lanes.Pack)
	if !ok {
		return
	}
	if p.timeless && p.span.len() == 0 {
		return
	}
	if p.span.len() == 0 { // dropped by a full buffer, which has said so
		s.sent = s.sent[1:]
		return
	}
	s.tokens -= float64(s.send(now, wire.Backfill, p, false))
	s.resent += p.span.len()
	s.repeated, s.stall = now, min(2*s.stall, lanes.MaxWait)
}
