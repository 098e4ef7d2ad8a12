package buffer

import (
	"errors"
	"slices"
	"syscall"
)

// errFull is returned when no file can be had for a segment.
var errFull = errors.New("no room for another segment and nothing to drop")

// errWaits is returned when what an opening has to say needs room that only
// dropping records could make.
var errWaits = errors.New("no room on flash to begin an epoch; nothing is dropped for it before there is a record to write")

// maxFlushes bounds how often the cursor is written to place one segment.
const maxFlushes = 3

// place gives a segment a file with its headers: a spare one, a new one, or
// the one of the oldest segment. Only the writer calls it.
//
// Beginning an epoch must cost nothing that is held, however full the card is:
// a board that starts again and again would eat its backlog. So a small spare
// is kept for it, it may take the quota's and the file system's last bytes,
// and until something is appended it waits in RAM rather than drop a segment.
func (q *Queue) place(s *segment) error {
	first := s.base == 1 && s.size == q.opt.firstSize
	flushes, noRoom, removed := 0, false, false
	// list writes the cursor if that makes a spare ready, and reports whether it did write.
	list := func(size int) bool {
		q.mu.Lock()
		due := q.curFirst && flushes == 0 || flushes < maxFlushes && q.unlisted(size)
		q.mu.Unlock()
		if due {
			flushes++
			_ = q.writeCursor() // counted and logged; at worst something is sent again
		}
		return due
	}
	// use takes a spare's file, which may be longer than the segment was meant to be.
	use := func(sp *spare) error {
		q.enlarge(s, sp.size)
		return q.recycle(sp, s)
	}
	for {
		if list(s.size) {
			continue
		}
		if sp := q.takeSpare(s.size); sp != nil {
			if err := use(sp); err != nil {
				return err
			}
			break
		}
		if !noRoom && q.roomFor(s.size, first) {
			err := q.create(s)
			if err == nil {
				break
			}
			if !noSpace(err) {
				return err
			}
			noRoom = true
			continue
		}
		// There is no room: what is freed serves before anything goes.
		if list(0) {
			continue
		}
		if first {
			if sp := q.takeSpare(q.opt.segSize); sp != nil {
				if err := use(sp); err != nil {
					return err
				}
				break
			}
			if !noRoom && q.withinQuota(s.size, true) {
				err := q.create(s)
				if err == nil {
					break
				}
				if !noSpace(err) {
					return err
				}
				noRoom = true
			}
		}
		if q.appended() == 0 {
			return errWaits
		}
		// A spare whose gap record is not on flash yet: a power cut now finds a hole
		// and names it instead, if the cursor tells it what of it was freed.
		sp := q.anySpare(s.size)
		if sp == nil && first && noRoom && removed { // others take the room of what is removed
			sp = q.anySpare(q.opt.segSize)
		}
		if sp != nil {
			if !sp.ready {
				_ = q.writeCursor() // counted and logged; on a card that refuses even this, what was freed may be named
			}
			if err := use(sp); err != nil {
				return err
			}
			break
		}
		if gone := q.misfits(s.size); len(gone) > 0 {
			_ = q.writeCursor() // as above
			q.remove(gone)
			noRoom, removed = false, true
			continue
		}
		if q.dropOldest() {
			continue
		}
		// Nothing to drop: rather the file system's last bytes than none.
		if noRoom || !q.withinQuota(s.size, true) {
			return errFull
		}
		if err := q.create(s); err != nil {
			return err
		}
		break
	}
	if first || q.appended() == 0 {
		return nil
	}
	// One file in reserve, so that a gap record is durable before the file of
	// the records it names is overwritten.
	if !q.reserved() && !q.roomFor(q.opt.segSize, false) {
		q.dropOldest()
	}
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// appended returns how many records the caller has appended.
func (q *Queue) appended() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stats.Appended
}

// reserved reports whether there is a spare for a whole segment.
func (q *Queue) reserved() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.spares, func(sp *spare) bool { return sp.size == q.opt.segSize })
}

// unlisted reports whether there is a spare of that size (0: any) that waits
// for nothing but the cursor. The caller holds mu.
func (q *Queue) unlisted(size int) bool {
	q.settle()
	return slices.ContainsFunc(q.spares, func(sp *spare) bool {
		return !sp.ready && sp.after <= q.durable && (size == 0 || sp.size == size)
	})
}

// takeSpare takes out a spare of that size that may be overwritten.
func (q *Queue) takeSpare(size int) *spare {
	return q.takeIf(func(sp *spare) bool { return sp.size == size && sp.ready })
}

// anySpare takes out a spare of that size, whether it may be overwritten or not.
func (q *Queue) anySpare(size int) *spare {
	return q.takeIf(func(sp *spare) bool { return sp.size == size })
}

func (q *Queue) takeIf(fits func(*spare) bool) *spare {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.spares, fits)
	if i < 0 {
		return nil
	}
	sp := q.spares[i]
	q.spares = slices.Delete(q.spares, i, i+1)
	return sp
}

// enlarge makes a segment that has no file yet as long as a file that there is.
func (q *Queue) enlarge(s *segment, size int) {
	if s.size == size {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	buf := make([]byte, size)
	copy(buf, s.buf[:s.pos]) // readers hold on to the old bytes
	s.buf, s.size = buf, size
}

// misfits takes out the spares of another size than a segment needs. One small
// one is kept for the next opening.
func (q *Queue) misfits(size int) (gone []*spare) {
	q.mu.Lock()
	defer q.mu.Unlock()
	keep := 1
	q.spares = slices.DeleteFunc(q.spares, func(sp *spare) bool {
		if sp.size == size {
			return false
		}
		if sp.size == q.opt.firstSize && keep > 0 {
			keep--
			return false
		}
		gone = append(gone, sp)
		return true
	})
	return gone
}

// withinQuota reports whether a new file of that size is. What was set aside
// must not choke the queue. Openings have a share of the quota to themselves.
func (q *Queue) withinQuota(size int, opening bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	most := max(q.opt.Max, q.asideSize+minSegments*int64(q.opt.segSize))
	if !opening {
		most -= int64(min(q.opt.segSize, openings*q.opt.firstSize))
	}
	return q.total+int64(size) <= most
}

// roomFor reports whether a new file of that size is within the quota and
// leaves the file system some air.
func (q *Queue) roomFor(size int, opening bool) bool {
	if !q.withinQuota(size, opening) {
		return false
	}
	n, total, err := q.fs.Avail(q.opt.Dir)
	return err != nil || n-int64(size) >= min(availFloor, total/16) // not known: the write will tell
}

// provide makes the spare that the next opening begins with, unless there is
// one or no room for it. It holds zeros only, so an opening knows it for one
// without the cursor.
func (q *Queue) provide() {
	q.mu.Lock()
	have := q.opt.firstSize == q.opt.segSize || slices.ContainsFunc(q.spares, func(sp *spare) bool { return sp.size == q.opt.firstSize })
	q.mu.Unlock()
	if have || !q.roomFor(q.opt.firstSize, true) {
		return
	}
	name, f, err := q.zeroed(make([]byte, q.opt.firstSize))
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		if !noSpace(err) {
			q.failed(err)
		}
		return
	}
	_ = f.Close() // it was synced
	q.spares = append(q.spares, &spare{name: name, size: q.opt.firstSize, ready: true})
}
