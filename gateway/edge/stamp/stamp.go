package stamp

import (
	"math"
	"slices"
	"time"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

const (
	residues    = 200
	maxBoots    = 200
	maxBases    = 400
	mostBases   = 500              // those of this boot included
	ahead       = 30 * time.Minute // a ceiling is raised by
	minChunk    = 256              // records a basis reaches ahead at first
	maxChunk    = 64 << 10
	unsureChunk = 4096
	jump        = 256 // records without a basis that an unsure one may take in
)

// Stamp returns the final stamp of a record polled in the boot of that name,
// before it is published. Its basis is on flash by then. Not ok: the time is
// not known yet and hold is not over; ask again.
func (k *Keeper) Stamp(bootID string, epoch, seq uint64, s wire.Stamp) (out wire.Stamp, ok bool) {
	if !s.Raw {
		return s, true
	}
	k.mu.Lock()
	out, ok = k.decide(bootID, epoch, seq, s)
	pending := k.version != k.durable
	k.mu.Unlock()
	if ok && pending {
		k.Flush()
	}
	return out, ok
}

// decide finds or makes the record's basis. The caller holds mu.
func (k *Keeper) decide(bootID string, epoch, seq uint64, s wire.Stamp) (wire.Stamp, bool) {
	b := k.find(epoch, seq, s)
	if b != nil && seq <= b.high {
		return k.apply(b, s), true
	}
	info := k.boot(bootID, s)
	c, ok := k.choose(info, s)
	if !ok {
		return wire.Stamp{}, false
	}
	m := int64(s.Mono)
	if b == nil {
		b = k.behind(epoch, seq)
	}
	if b != nil && k.extend(b, info, c, seq, m) {
		return k.apply(b, s), true
	}
	if n := len(k.bases); n >= maxBases && bootID != k.now.ID || n >= mostBases {
		if now := time.Now(); now.Sub(k.fullTold) > time.Minute {
			k.fullTold = now
			k.log.Warn("records of too many openings or clock steps are under way to the hub; others wait until it has committed some", "bases", n)
		}
		return wire.Stamp{}, false
	}
	r, c := k.residue(info, c, m)
	if b != nil && b.Res == r.N && k.extend(b, info, c, seq, m) {
		return k.apply(b, s), true // the clock was set back too often
	}
	for _, x := range k.bases {
		if x.Epoch == epoch && x.First <= seq && seq <= x.Last && x.high < seq {
			x.Last = x.high // what it reserved was not needed, and would hold before a newer one
		}
	}
	n := &basis{Epoch: epoch, First: seq, Last: seq, Off: r.Off, Code: c.code, Res: r.N, Forced: c.forced, high: seq}
	k.bases = append(k.bases, n)
	k.reach(n, seq)
	return k.apply(n, s), true
}

// extend makes the record one of basis b, if its offset is as good and still
// owns its residue, and reports whether it did.
func (k *Keeper) extend(b *basis, info *boot, c choice, seq uint64, m int64) bool {
	r := k.residues[b.Res]
	if b.Code != c.code || c.forced && !b.Forced || apart(b.Off, c.off) > c.tol || r == nil || r.Boot != info.ID || r.Off != b.Off || m < r.From {
		return false
	}
	// What lies between was passed over by the live lane. With a source on
	// both sides the offset was the same there too; without, it may be learnt.
	if b.Code == telemetry.ClockUnsure && seq-b.high > jump {
		return false
	}
	if seq > b.Last {
		for _, x := range k.newer(b) {
			if x.Epoch == b.Epoch && x.First <= seq && x.Last > b.Last {
				return false // must not be covered
			}
		}
		k.reach(b, seq)
	}
	b.high = max(b.high, seq)
	return true
}

// newer returns the bases that were made after b: where two overlap the older one holds.
func (k *Keeper) newer(b *basis) []*basis { return k.bases[slices.Index(k.bases, b)+1:] }

// find returns the first basis that holds for the record.
func (k *Keeper) find(epoch, seq uint64, s wire.Stamp) *basis {
	for _, b := range k.bases {
		if b.Epoch == epoch && b.First <= seq && seq <= b.Last && b.fits(s) {
			return b
		}
	}
	return nil
}

// fits reports whether a record that shows s may have been given b. A trusted
// basis is for those that showed its offset, and what was synchronised takes no
// other: what lies in a range reserved, or was passed over by the live lane,
// may have been polled after the clock was stepped or had lost its source.
func (b *basis) fits(s wire.Stamp) bool {
	switch {
	case b.Forced:
		return true
	case b.Code == telemetry.ClockTrusted:
		return (s.Clock == synchronised || s.Clock == battery) && apart(s.Time-int64(s.Mono), b.Off) <= tolerance
	}
	return s.Clock != synchronised
}

// release gives back what bases have reserved and not published: it would be
// taken for published by the next run, and a better offset is known now.
func (k *Keeper) release() {
	for _, b := range k.bases {
		b.Last = b.high
	}
}

// behind returns the basis that ends nearest before seq.
func (k *Keeper) behind(epoch, seq uint64) (near *basis) {
	for _, b := range k.bases {
		if b.Epoch == epoch && b.Last < seq && (near == nil || b.Last > near.Last) {
			near = b
		}
	}
	return near
}

// reach extends a basis to seq and some way ahead, never over a newer one.
func (k *Keeper) reach(b *basis, seq uint64) {
	most, limit := uint64(maxChunk), uint64(math.MaxInt64)
	if b.Code == telemetry.ClockUnsure {
		most = unsureChunk
	}
	for _, x := range k.newer(b) {
		if x.Epoch == b.Epoch && x.First > seq {
			limit = min(limit, x.First-1)
		}
	}
	b.Last = min(limit, seq+min(most, max(minChunk, 2*(b.Last-b.First))))
	k.change()
}

// apply is the formula of FORMAT.md. It raises the ceiling where the stamp
// comes near it.
func (k *Keeper) apply(b *basis, s wire.Stamp) wire.Stamp {
	t := formula(int64(s.Mono), b.Off, b.Res)
	if r := k.residues[b.Res]; r != nil && r.Off == b.Off {
		r.peak = max(r.peak, t)
		if t > r.Ceil {
			r.Ceil = t + int64(ahead)
			k.change()
		}
	}
	k.last = t
	return wire.Stamp{Time: t, Clock: b.Code, Mono: s.Mono}
}

func formula(mono, off int64, res int) int64 {
	return floorGrid(mono+off) + int64(res)
}

func floorGrid(t int64) int64 {
	r := t % grid
	if r < 0 {
		r += grid
	}
	return t - r
}

// residue returns the owner of a residue that stamps the record by c, or, when
// the clock was set back more often than there are residues, by a later offset.
func (k *Keeper) residue(info *boot, c choice, m int64) (*residue, choice) {
	own := func(off int64, tol time.Duration) *residue {
		for _, r := range k.residues {
			if r != nil && r.Boot == info.ID && m >= r.From && apart(r.Off, off) <= tol {
				return r
			}
		}
		return nil
	}
	if r := own(c.off, c.tol); r != nil {
		return r, c
	}
	for _, from := range []int64{0, m} {
		for n := range k.residues {
			if r := k.residues[n]; k.spentOf(r) < floorGrid(c.off+from) {
				return k.take(n, info, c.off, from), c
			}
		}
	}
	// All are taken up to a later time than this: count on from the lowest.
	if r := own(k.forced, 0); r != nil && k.forced >= c.off {
		return r, choice{r.Off, telemetry.ClockUnsure, tolerance, true}
	}
	lowest := 0
	for n, r := range k.residues {
		if k.spentOf(r) < k.spentOf(k.residues[lowest]) {
			lowest = n
		}
	}
	k.forced = k.spentOf(k.residues[lowest]) + 2*grid - m
	k.log.Error("the clock was set back too often to follow it; stamps count on with clock=3",
		"from", time.Unix(0, k.forced+m).UTC(), "clock_says", time.Unix(0, c.off+m).UTC())
	return k.take(lowest, info, k.forced, m), choice{k.forced, telemetry.ClockUnsure, tolerance, true}
}

// spentOf is a stamp that no record with this residue exceeds: none that was
// published, and none that has a basis on flash and still stands in the queue.
func (k *Keeper) spentOf(r *residue) int64 {
	if r == nil {
		return k.lowest
	}
	if r.fresh {
		return r.peak + int64(time.Minute) // buses run side by side: seq and mono differ a little in order
	}
	for _, b := range k.boots {
		if b == k.now && r.Boot == b.ID {
			return max(r.Ceil, r.Off+k.began+int64(time.Minute))
		} else if r.Boot == b.ID {
			return max(r.Ceil, r.Off+b.Last+int64(ahead+time.Minute)) // Last was written so often
		}
	}
	return r.Ceil
}

// take gives a residue to an offset. Records without a basis of the former
// owner lose what was reserved for them.
func (k *Keeper) take(n int, info *boot, off, from int64) *residue {
	if old := k.residues[n]; old != nil {
		for _, b := range k.bases {
			if b.Res == n && b.Off == old.Off && b.Last > b.high {
				b.Last = b.high
			}
		}
	}
	spent := k.spentOf(k.residues[n])
	k.residues[n] = &residue{N: n, Boot: info.ID, Off: off, From: from, Ceil: spent, peak: spent, fresh: true}
	k.change()
	return k.residues[n]
}

// boot returns what is known of a boot. One that is not known, because its
// file was damaged, is entered by the record's own clock.
func (k *Keeper) boot(id string, s wire.Stamp) *boot {
	if id == k.now.ID {
		return k.now
	}
	for _, b := range k.boots {
		if b.ID == id {
			return b
		}
	}
	b := &boot{ID: id, First: int64(s.Mono), Last: int64(s.Mono), Start: max(s.Time, k.cfg.Build.UnixNano()) - int64(s.Mono)}
	k.boots = slices.Insert(k.boots, 0, b)
	k.change()
	return b
}
