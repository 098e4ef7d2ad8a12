package buffer

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
)

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
	h := q.number(s)
	image := make([]byte, s.size)
	copy(image, h)
	copy(image[s.size-sector:], h)
	name, f, err := q.zeroed(image)
	if err != nil {
		return err
	}
	q.mu.Lock()
	s.name, s.file = name, f
	q.mu.Unlock()
	return nil
}

// zeroed makes a file of that content, synced with its directory.
func (q *Queue) zeroed(image []byte) (name string, f File, err error) {
	q.mu.Lock()
	name = q.path(fmt.Sprintf("seg-%06d.q", q.nextFile))
	q.nextFile++
	q.mu.Unlock()
	if f, err = q.fs.Create(name); err != nil {
		return "", nil, err
	}
	err = q.write(f, image, 0)
	if err == nil {
		err = q.syncDir()
	}
	gone := false
	if err != nil {
		_ = f.Close() // the error at hand says more
		gone = q.fs.Remove(name) == nil
	}
	if !gone {
		q.mu.Lock()
		q.total += int64(len(image))
		q.mu.Unlock()
	}
	return name, f, err
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
		q.declare(s.ep, Lost{s.ep.id, r[0], r[1], s.when(r[0]), s.until(r[1], now), reason})
	}
	if s.ep == q.cur.ep {
		q.lost = slices.DeleteFunc(q.lost, func(t told) bool { return t.seq >= s.base && t.seq <= s.last })
	}
	var again []Lost
	for _, r := range s.refs {
		if s.ep.freed.has(r.seq) {
			continue
		}
		switch r.kind {
		case Gap:
			if l, _, ok := decodeLost(s.body(r)); ok && !q.toldElsewhere(l) {
				again = append(again, l)
			}
		case End:
			if e, _, ok := decodeEnd(s.body(r)); ok {
				q.declareEnd(e)
			}
		}
	}
	q.sayAgain(again)
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

// toldElsewhere reports whether a range is named by a gap record of the current
// epoch that is still held.
func (q *Queue) toldElsewhere(l Lost) bool {
	return slices.ContainsFunc(q.lost, func(t told) bool {
		return t.Epoch == l.Epoch && t.First <= l.First && t.Last >= l.Last && !q.cur.ep.freed.has(t.seq)
	})
}

// declare appends a gap record that names a range for the first time: it is
// counted, and settled when the record is durable. Until then the record is not
// read either, unless the card refuses writes: a power cut before that brings
// the range back, or it is named anew, and nothing may be named twice.
func (q *Queue) declare(ep *epoch, l Lost) {
	n := l.Last - l.First + 1
	q.stats.Lost += n
	if l.Reason == reasonFull {
		q.stats.LostFull += n
	}
	q.log.Warn("records lost", "dir", q.opt.Dir, "epoch", l.Epoch, "first", l.First, "last", l.Last, "reason", l.Reason)
	seq := q.sayGap(l)
	ep.pending++
	q.unsettled = append(q.unsettled, settling{ep, l.First, l.Last, seq})
}

// sayGap appends the record and returns its number, 0 when there is none.
func (q *Queue) sayGap(l Lost) (seq uint64) {
	if q.opt.EncodeGap == nil {
		return 0
	}
	p := q.opt.EncodeGap(l)
	if len(p) == 0 || len(p) > MaxPayload {
		q.log.Error("gap record cannot be encoded", "bytes", len(p), "max", MaxPayload)
		return 0
	}
	seq = q.append(Gap, l.encode(), p)
	q.lost = append(q.lost, told{l, seq})
	q.urgent = true
	q.wake()
	return seq
}

// sayAgain appends gap records for what those of a dropped segment said. In a
// long outage they pile up, one more each time the whole quota has gone
// round; beyond a number what lies beside each other is said as one, together
// with what later records say, which then need not be said again themselves.
func (q *Queue) sayAgain(lost []Lost) {
	if len(lost) <= max(1, q.opt.segSize/againShare) {
		for _, l := range lost {
			q.sayGap(l)
		}
		return
	}
	for _, l := range lost {
		if q.toldElsewhere(l) {
			continue
		}
		q.lost = slices.DeleteFunc(q.lost, func(t told) bool {
			if q.cur.ep.freed.has(t.seq) {
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
		q.sayGap(l)
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
			q.declare(s.ep, Lost{s.ep.id, r[0], r[1], s.when(r[0]), s.until(r[1], now), q.whyMissing(s, m)})
		}
	}
}

// whyMissing tells a commit that a power cut interrupted, of which some sectors
// are there and some are not, from bytes that were on flash once.
func (q *Queue) whyMissing(s *segment, m span) string {
	if s.ep != q.cur.ep && s == s.ep.segs[len(s.ep.segs)-1] && s.torn(m) {
		return reasonCut
	}
	return reasonDamaged
}

// torn reports whether m is missing from the last commit in s: none began
// after it, and some of it is there.
func (s *segment) torn(m span) bool {
	return len(s.times) > 0 && s.times[len(s.times)-1].seq <= m[0] && len(s.refs) > 0 && s.refs[len(s.refs)-1].seq > m[1]
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
