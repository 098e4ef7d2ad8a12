package ledger

import (
	"errors"
	"sort"
	"time"

	"luquan/gateway/hub/seqs"
)

func unix(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// gateSnapshot is what verify needs of a board.
type gateSnapshot struct {
	stored   map[hourKey]*seqs.Hour // by stamp
	unplaced map[key]seqs.Set       // stored, without a stamp
}

// snapshotOf is what the ledger says is stored in the window.
func (l *Ledger) snapshotOf(g Gateway, a *account) (*gateSnapshot, error) {
	b, err := l.take(g, a)
	if err != nil {
		return nil, err
	}
	s := &gateSnapshot{stored: b.stored(), unplaced: map[key]seqs.Set{}}
	for _, e := range b.epochs {
		s.unplaced[e.key] = e.unplaced.And(e.stored)
	}
	return s, b.close()
}

// stored is the hours of the book with the stored records only.
func (b *book) stored() map[hourKey]*seqs.Hour {
	out := map[hourKey]*seqs.Hour{}
	for k, h := range b.window {
		e := b.epochs[k.epoch]
		if e == nil {
			continue
		}
		c := &seqs.Hour{}
		for m, s := range h.Minutes {
			if len(s) > 0 {
				c.Minutes[m] = s.And(e.stored)
			}
		}
		out[k] = c
	}
	return out
}

// accountFor adds a board to the account and returns what it says is stored.
func (l *Ledger) accountFor(g Gateway, a *account) (stored map[hourKey]*seqs.Hour, err error) {
	b, err := l.take(g, a)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, e := range b.epochs {
		a.known[g] = max(a.known[g], e.told, e.to)
	}
	if a.whole {
		for _, e := range b.epochs {
			a.wholeEpoch(e)
		}
		return nil, nil
	}
	a.placed(b)
	a.everyHour(g, b)
	for _, e := range b.epochs {
		if err := b.unplaced(e, a); err != nil {
			return nil, err
		}
	}
	for rk, r := range a.rows {
		if e := b.epochs[rk.epoch]; e != nil && rk.Gateway == g && a.q.ByEpoch {
			r.Held = e.held
			if e.ended {
				r.Ended = e.reason
			}
		}
	}
	if a.q.Verify == nil {
		return nil, nil
	}
	return b.stored(), nil
}

// placed counts the records whose stamps are known.
func (a *account) placed(b *book) {
	for k, h := range b.window {
		e := b.epochs[k.epoch]
		if e == nil {
			continue
		}
		settled := e.stored.Union(e.quarantined)
		for m, s := range h.Minutes {
			at := k.hour*hourNs + int64(m)*minuteNs
			if at < a.from || at >= a.to || len(s) == 0 && h.Again[m] == 0 {
				continue
			}
			s = s.And(settled) // a damaged row of the epoch may have lost some
			bad := s.And(e.quarantined).Count()
			if len(s) == 0 && h.Again[m] == 0 {
				continue
			}
			r := a.row(k.key, a.bucket(at))
			r.Duplicates += h.Again[m]
			if len(s) > 0 {
				r.count(stored, "", s.Count()-bad)
				r.count(quarantined, "", bad)
				r.seen(s[0][0], s.Top())
			}
		}
	}
}

// everyHour makes a row of each hour since the board was first heard of, so
// that one in which nothing is known to have been drawn shows as such.
func (a *account) everyHour(g Gateway, b *book) {
	if !a.q.ByHour || a.q.ByEpoch {
		return
	}
	first := a.now
	for _, e := range b.epochs {
		for _, at := range []int64{e.from, e.seen} {
			if at != 0 {
				first = min(first, at)
			}
		}
	}
	to := min(a.to, a.now)
	for at := max(a.from, first/hourNs*hourNs); at < to && len(a.rows) <= MaxRows; at = (at/hourNs + 1) * hourNs {
		a.row(key{Gateway: g}, a.bucket(at))
	}
}

// classes splits what an epoch is known to have drawn.
type classes struct {
	all, placed                                                          seqs.Set
	stored, quarantined, unstamped, unread, cleared, lost, wait, missing seqs.Set
}

func (e *epoch) classes() classes {
	good := e.stored.Union(e.quarantined)
	c := classes{
		stored: e.stored.Minus(e.quarantined), quarantined: e.quarantined,
		unstamped: e.unplaced.And(e.stored).Minus(e.quarantined), unread: e.unplaced.And(e.quarantined),
		placed: good.Minus(e.unplaced), lost: e.lost.Minus(good),
	}
	c.cleared = c.lost.Union(good).Holes(1, e.base)
	known := good.Union(c.lost).Union(c.cleared)
	c.wait = e.queued.Minus(known)
	c.all = known.Union(c.wait)
	top := e.top
	if e.ended {
		// Past the end a power cut took what was not kept: only what came
		// all the same counts.
		top = e.last
	}
	c.missing = c.all.Holes(1, top)
	for _, x := range c.missing {
		c.all.Add(x[0], x[1])
	}
	return c
}

// wholeEpoch counts an epoch without regard to time.
func (a *account) wholeEpoch(e *epoch) {
	c := e.classes()
	r := a.row(e.key, 0)
	r.count(stored, "", c.stored.Count())
	r.count(quarantined, "", c.quarantined.Count())
	r.count(cleared, "", c.cleared.Count())
	r.count(waiting, "", c.wait.Count())
	r.count(missing, "", c.missing.Count())
	e.reasons(c.lost, func(reason string, _ *gap, first, last uint64) { r.count(lost, reason, last-first+1) })
	r.Duplicates += e.dups
	if len(c.all) > 0 {
		r.seen(c.all[0][0], c.all.Top())
	}
	if e.from != 0 {
		from, to := unix(e.from), unix(e.to)
		if r.From.IsZero() || from.Before(r.From) {
			r.From = from
		}
		if to.After(r.To) {
			r.To = to
		}
	}
	if a.q.ByEpoch {
		r.Held = e.held
		if e.ended {
			r.Ended = e.reason
		}
		r.MissingRanges = c.missing[:min(len(c.missing), maxList)]
	}
}

// reasons tells each part of a set by the gap that declared it; the first gap
// that names a record counts.
func (e *epoch) reasons(set seqs.Set, f func(reason string, g *gap, first, last uint64)) {
	if len(set) == 0 {
		return
	}
	left := set.Clone()
	for i := range e.gaps {
		g := &e.gaps[i]
		for _, x := range left.Within(g.first, g.last) {
			f(g.reason, g, x[0], x[1])
			left.Remove(x[0], x[1])
		}
	}
	for _, x := range left {
		f("", nil, x[0], x[1])
	}
}

// unplaced counts, by their neighbours, the records whose stamps are not known.
func (b *book) unplaced(e *epoch, a *account) error {
	c := e.classes()
	holes := c.all.Minus(c.placed)
	if len(holes) == 0 {
		return nil
	}
	p, err := b.placer(e, a, c, holes)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		class class
		set   seqs.Set
	}{{stored, c.unstamped}, {quarantined, c.unread}, {cleared, c.cleared}, {waiting, c.wait}, {missing, c.missing}} {
		for _, r := range x.set {
			p.spread(x.class, "", nil, r[0], r[1])
		}
	}
	e.reasons(c.lost, func(reason string, g *gap, first, last uint64) { p.spread(lost, reason, g, first, last) })
	return p.err
}

// placer says when records without a stamp were drawn.
type placer struct {
	b     *book
	e     *epoch
	a     *account
	c     classes
	holes seqs.Set // between placed records
	spans []span
	cache map[int64]*seqs.Hour
	lower int64 // not before: the last record of the board's epochs before
	upper int64 // not after: when the hub heard of the last one
	err   error
}

func (b *book) placer(e *epoch, a *account, c classes, holes seqs.Set) (*placer, error) {
	p := &placer{b: b, e: e, a: a, c: c, holes: holes, cache: map[int64]*seqs.Hour{}, upper: max(e.told, e.to)}
	first := p.upper
	if e.from != 0 {
		first = e.from
	}
	for _, o := range b.epochs {
		if o != e && o.to > p.lower && o.to <= first {
			p.lower = o.to
		}
	}
	var err error
	p.spans, err = b.spans(e.key)
	return p, err
}

// minute is the minute in which a placed record was true.
func (p *placer) minute(seq uint64) (at int64, ok bool) {
	if seq == 0 || !p.c.placed.Has(seq) {
		return 0, false
	}
	for _, s := range p.spans {
		if seq < s.first || seq > s.last {
			continue
		}
		h := p.cache[s.hour]
		if h == nil {
			if h, p.err = p.b.readHour(hourKey{p.e.key, s.hour}); p.err != nil {
				return 0, false
			}
			p.cache[s.hour] = h
		}
		for m, set := range h.Minutes {
			if set.Has(seq) {
				return s.hour*hourNs + int64(m)*minuteNs, true
			}
		}
	}
	return 0, false
}

// spread counts the records first to last, which lie in one hole, over the
// time the hole spans, or the gap that declared them says.
func (p *placer) spread(c class, reason string, g *gap, first, last uint64) {
	i := sort.Search(len(p.holes), func(k int) bool { return p.holes[k][1] >= first })
	hole := p.holes[i]
	left, lok := p.minute(hole[0] - 1)
	right, rok := p.minute(hole[1] + 1)
	if p.err != nil {
		return
	}
	sure := true
	if !rok {
		right = p.upper
		if p.upper == 0 {
			right, sure = left, false
		}
	}
	if !lok {
		left = p.lower
		if p.lower == 0 {
			left, sure = right, false
		}
	}
	if right < left { // the clock was set back between them
		right, sure = left, false
	}
	s := slope{hole[0], hole[1], left, right}
	if g != nil && g.from > 0 && g.from <= g.to {
		if from, to := min(max(g.from, left), right), min(max(g.to, left), right); lok && rok || g.from >= left && g.to <= right {
			s = slope{g.first, g.last, from, to}
		} else if !lok && p.lower == 0 {
			s = slope{g.first, g.last, min(g.from, right), min(g.to, right)}
		}
	}
	p.count(c, reason, s, first, last, sure)
}

// slope is evenly spread records: first near from, last near to.
type slope struct {
	first, last uint64
	from, to    int64
}

func (s slope) at(seq uint64) int64 {
	return s.from + int64(float64(s.to-s.from)*(float64(seq-s.first)+1)/(float64(s.last-s.first)+2))
}

// count adds records to the rows they fall into.
func (p *placer) count(c class, reason string, s slope, first, last uint64, sure bool) {
	a := p.a
	sure = sure && a.bucket(s.from) == a.bucket(s.to) && inside(s.from, a) && inside(s.to, a)
	for seq := first; seq <= last; {
		at := s.at(seq)
		if at >= a.to {
			return
		}
		until := a.from // the end of the stretch that seq lies in
		if at >= a.from {
			until = a.to
			if a.q.ByHour {
				until = min(until, (a.bucket(at)+1)*hourNs)
			}
		}
		n := uint64(sort.Search(int(min(last-seq, 1<<62)), func(k int) bool { return s.at(seq+uint64(k)+1) >= until })) + 1
		if at >= a.from {
			r := a.row(p.e.key, a.bucket(at))
			r.count(c, reason, n)
			r.seen(seq, seq+n-1)
			if !sure {
				r.Approximate += n
			}
			if c == missing && a.q.ByEpoch && len(r.MissingRanges) < maxList {
				r.MissingRanges = append(r.MissingRanges, [2]uint64{seq, seq + n - 1})
			}
		}
		seq += n
	}
}

func inside(at int64, a *account) bool { return at >= a.from && at < a.to }
