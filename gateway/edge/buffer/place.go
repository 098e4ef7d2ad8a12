package buffer

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"syscall"
)

// errFull is returned when no file can be had for a segment.
var errFull = errors.New("no room for another segment and nothing to drop")

// place gives a segment a file with its headers: a spare one, a new one, or
// the one of the oldest segment. Only the writer calls it.
func (q *Queue) place(s *segment) error {
	flushed, full := false, false
	for {
		q.mu.Lock()
		if q.curFirst && !flushed {
			q.mu.Unlock()
			flushed = true
			_ = q.writeCursor() // counted and logged; at worst something is sent again
			continue
		}
		sp, waiting := q.takeSpare(s.size, false)
		q.mu.Unlock()
		if sp != nil {
			if err := q.recycle(sp, s); err != nil {
				return err
			}
			break
		}
		if waiting && !flushed {
			flushed = true
			_ = q.writeCursor() // counted and logged
			continue
		}
		if !full && q.roomFor(s.size) {
			err := q.create(s)
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
				return err
			}
			full = true
			continue
		}
		// Full. A spare of another size makes room; then one that no durable
		// cursor lists yet (what it held may be sent again or named as lost
		// again after a power cut now); then the oldest records go.
		q.mu.Lock()
		sp = q.anySpare()
		q.curFirst = q.curFirst || sp != nil && !sp.ready
		q.mu.Unlock()
		if sp != nil {
			if sp.size == s.size {
				if err := q.recycle(sp, s); err != nil {
					return err
				}
				break
			}
			q.remove([]*spare{sp})
			full = false
			continue
		}
		if q.dropOldest() {
			continue
		}
		// Nothing to drop: rather the file system's last bytes than none.
		if full || !q.withinQuota(s.size) {
			return errFull
		}
		if err := q.create(s); err != nil {
			return err
		}
		break
	}
	// One file in reserve, so that a gap record is durable before the file of
	// the records it names is overwritten.
	q.mu.Lock()
	reserve := len(q.spares) > 0
	q.mu.Unlock()
	if !reserve && !q.roomFor(q.opt.segSize) {
		q.dropOldest()
	}
	return nil
}

// takeSpare takes out a spare of that size that may be overwritten, and
// reports whether there are others that only wait for the cursor.
func (q *Queue) takeSpare(size int, any bool) (sp *spare, waiting bool) {
	for i, s := range q.spares {
		if s.size == size && (s.ready || any) {
			q.spares = slices.Delete(q.spares, i, i+1)
			return s, waiting
		}
		waiting = waiting || s.size == size
	}
	return nil, waiting
}

// anySpare takes out a spare, one that may be overwritten if there is one.
func (q *Queue) anySpare() *spare {
	if len(q.spares) == 0 {
		return nil
	}
	i := max(0, slices.IndexFunc(q.spares, func(s *spare) bool { return s.ready }))
	sp := q.spares[i]
	q.spares = slices.Delete(q.spares, i, i+1)
	return sp
}

// withinQuota reports whether a new file of that size is. What was set aside
// must not choke the queue.
func (q *Queue) withinQuota(size int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total+int64(size) <= max(q.opt.Max, q.asideSize+minSegments*int64(q.opt.segSize))
}

// roomFor reports whether a new file of that size is within the quota and
// leaves the file system some air.
func (q *Queue) roomFor(size int) bool {
	if !q.withinQuota(size) {
		return false
	}
	n, err := q.fs.Avail(q.opt.Dir)
	return err != nil || n-int64(size) >= availFloor // not known: the write will tell
}

func (q *Queue) path(name string) string { return filepath.Join(q.opt.Dir, name) }

// number gives the segment its place in the order.
func (q *Queue) number(s *segment) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.gen = q.nextGen
	q.nextGen++
	return s.header.encode()
}

// create makes a file full of zeros between the headers.
func (q *Queue) create(s *segment) error {
	q.mu.Lock()
	name := q.path(fmt.Sprintf("seg-%06d.q", q.nextFile))
	q.nextFile++
	q.mu.Unlock()
	h := q.number(s)
	f, err := q.fs.Create(name)
	if err != nil {
		return err
	}
	image := make([]byte, s.size)
	copy(image, h)
	copy(image[s.size-sector:], h)
	err = q.write(f, image, 0)
	if err == nil {
		err = q.syncDir()
	}
	if err != nil {
		_ = f.Close() // the error at hand says more
		if q.fs.Remove(name) != nil {
			q.mu.Lock()
			q.total += int64(s.size)
			q.mu.Unlock()
		}
		return err
	}
	q.mu.Lock()
	q.total += int64(s.size)
	s.name, s.file = name, f
	q.mu.Unlock()
	return nil
}

// recycle makes a spare file the segment's by overwriting its headers. A file
// that fails is removed, for it cannot be known what it holds.
func (q *Queue) recycle(sp *spare, s *segment) error {
	h := q.number(s)
	f, err := q.fs.Open(sp.name)
	if err == nil {
		var n int
		n, err = f.WriteAt(h, int64(s.size-sector))
		q.mu.Lock()
		q.stats.BytesWritten += uint64(n)
		q.mu.Unlock()
		if err == nil {
			err = q.write(f, h, 0)
		}
		if err != nil {
			_ = f.Close() // the error at hand says more
		}
	}
	if err != nil {
		q.remove([]*spare{sp})
		return err
	}
	q.mu.Lock()
	s.name, s.file = sp.name, f
	q.mu.Unlock()
	return nil
}

// dropOldest gives up the oldest segment on flash and names what is lost with
// it. Its file becomes a spare. It reports whether there was one.
func (q *Queue) dropOldest() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		s := q.oldest()
		if s == nil {
			return false
		}
		if s.buf == nil {
			if q.load(s) != nil {
				continue // counted; after a few times it counts as empty
			}
			continue // reading let the lock go: look again
		}
		q.drop(s, reasonFull)
		q.closeFile(s)
		q.spares = append(q.spares, &spare{name: s.name, gen: s.gen, size: s.size, after: q.cur.ep.last})
		q.curDirty = true
		return true
	}
}

// oldest returns the oldest segment that may be dropped.
func (q *Queue) oldest() *segment {
	for _, ep := range q.epochs {
		for _, s := range ep.segs {
			if s != q.cur && !s.busy && !s.dirty() && s.name != "" {
				return s
			}
		}
	}
	return nil
}

// drop takes a loaded segment out of the queue, appends gap records for what
// is held of it and says again what its own gap and end records say.
func (q *Queue) drop(s *segment, reason string) {
	q.detach(s)
	now := q.opt.Now()
	for _, r := range q.heldOf(s.ep, s.base, s.last) {
		q.declare(s.ep, Lost{s.ep.id, r[0], r[1], s.when(r[0]), s.until(r[1], now), reason}, true)
	}
	for _, r := range s.refs {
		if s.ep.freed.has(r.seq) {
			continue
		}
		switch r.kind {
		case Gap:
			if l, _, ok := decodeLost(s.body(r)); ok && !q.toldElsewhere(l, s.ep, r.seq) {
				q.declare(nil, l, false)
			}
		case End:
			if e, _, ok := decodeEnd(s.body(r)); ok {
				q.declareEnd(e)
			}
		}
	}
}

// heldOf returns the runs of a to b that are neither freed nor already named
// as lost.
func (q *Queue) heldOf(ep *epoch, a, b uint64) []span {
	f := &ep.freed
	if ep.pending > 0 {
		f = &freed{ep.freed.upto, slices.Clone(ep.freed.also)}
		for _, u := range q.unsettled {
			if u.ep == ep {
				f.add(u.first, u.last)
			}
		}
	}
	return f.held(a, b)
}

// toldElsewhere reports whether what a gap record at seq of an epoch says is
// also said by a later one that is still held.
func (q *Queue) toldElsewhere(l Lost, ep *epoch, seq uint64) bool {
	return slices.ContainsFunc(q.lost, func(t told) bool {
		return t.Epoch == l.Epoch && t.First <= l.First && t.Last >= l.Last &&
			!(ep == q.cur.ep && t.seq == seq)
	})
}

// declare appends a gap record. It says one range together with those beside
// it that are named and not yet delivered, so that the newest gap record says
// all of a growing loss and older ones may be dropped. With fresh the range is
// counted, and settled when the record is durable.
func (q *Queue) declare(ep *epoch, l Lost, fresh bool) {
	own := span{l.First, l.Last}
	if fresh {
		n := l.Last - l.First + 1
		q.stats.Lost += n
		if l.Reason == reasonFull {
			q.stats.LostFull += n
		}
		q.log.Warn("records lost", "dir", q.opt.Dir, "epoch", l.Epoch, "first", l.First, "last", l.Last, "reason", l.Reason)
	}
	cur := q.cur.ep
	q.lost = slices.DeleteFunc(q.lost, func(t told) bool {
		if cur.freed.has(t.seq) {
			return true
		}
		if t.Epoch != l.Epoch || t.Reason != l.Reason || t.First > l.Last+1 || l.First > t.Last+1 {
			return false
		}
		l.First, l.Last = min(l.First, t.First), max(l.Last, t.Last)
		if t.From.Before(l.From) {
			l.From = t.From
		}
		if t.To.After(l.To) {
			l.To = t.To
		}
		return true
	})
	var seq uint64
	if q.opt.EncodeGap != nil {
		if p := q.opt.EncodeGap(l); len(p) > 0 && len(p) <= MaxPayload {
			seq = q.append(Gap, l.encode(), p)
			q.lost = append(q.lost, told{l, seq})
		} else {
			q.log.Error("gap record cannot be encoded", "bytes", len(p), "max", MaxPayload)
		}
	}
	if fresh {
		ep.pending++
		q.unsettled = append(q.unsettled, settling{ep, own[0], own[1], seq})
	}
}

// declareEnd appends an end record.
func (q *Queue) declareEnd(e EpochEnd) {
	if q.opt.EncodeEnd == nil {
		return
	}
	if p := q.opt.EncodeEnd(e); len(p) > 0 && len(p) <= MaxPayload {
		q.append(End, e.encode(), p)
	} else {
		q.log.Error("end record cannot be encoded", "bytes", len(p), "max", MaxPayload)
	}
}

// trimRAM bounds what a failing or slow card keeps in RAM: beyond it the
// oldest segments that never had a file are given up.
func (q *Queue) trimRAM() {
	for {
		var size int64
		var first *segment
		segs := q.cur.ep.segs
		for i := len(segs) - 1; i >= 0; i-- {
			s := segs[i]
			if s.name != "" && !s.dirty() {
				break
			}
			if s.name == "" && s != q.cur && !s.busy {
				first = s
				size += int64(s.size)
			}
		}
		if size <= q.opt.ramMax {
			return
		}
		q.drop(first, reasonFailing)
		q.nextGen++ // tells a later opening that there was something between
	}
}

// load reads a segment's content. It lets mu go while it reads; afterwards the
// segment may be dead. What turns out to be missing is declared lost.
func (q *Queue) load(s *segment) error {
	name, size := s.name, s.size
	q.mu.Unlock()
	b, err := q.readFile(name, size)
	q.mu.Lock()
	if s.dead || s.buf != nil {
		return nil
	}
	if err != nil {
		s.errs++
		q.stats.ReadErrors++
		q.stats.LastError = err.Error()
		if s.errs < maxLoadErrors {
			return fmt.Errorf("buffer: read segment: %w", err)
		}
		b = []byte{}
	}
	s.errs = 0
	q.clock++
	s.used = q.clock
	q.loaded = append(q.loaded, s)
	q.missing(s, b)
	q.evict()
	return nil
}

// missing indexes a segment's content and declares lost what is not in it.
func (q *Queue) missing(s *segment, b []byte) {
	missing, bad := s.parse(b)
	q.stats.Damaged += uint64(bad)
	now := q.opt.Now()
	for _, m := range missing {
		for _, r := range q.heldOf(s.ep, m[0], m[1]) {
			q.declare(s.ep, Lost{s.ep.id, r[0], r[1], s.when(r[0]), s.until(r[1], now), reasonDamaged}, true)
		}
	}
}

// readFile returns the first size bytes of a file, fewer when it is shorter.
func (q *Queue) readFile(name string, size int) ([]byte, error) {
	f, err := q.fs.Open(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], errors.Join(err, f.Close())
}

// evict forgets the content of the segments read longest ago, as long as the
// rest is more than the cache may hold and the file has it all.
func (q *Queue) evict() {
	for {
		var size int
		var old *segment
		for _, s := range q.loaded {
			if s == q.cur || s.busy || s.dirty() || s.name == "" {
				continue
			}
			size += s.size
			if old == nil || s.used < old.used {
				old = s
			}
		}
		if size <= cacheMax || old == nil {
			return
		}
		old.buf, old.refs, old.times = nil, nil, nil
		q.loaded = slices.DeleteFunc(q.loaded, func(s *segment) bool { return s == old })
	}
}
