package buffer

import (
	"errors"
	"io/fs"
	"slices"
	"time"
)

// run is the committer: it writes what is due until Close.
func (q *Queue) run() {
	defer close(q.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	provided := false
	for {
		q.mu.Lock()
		commit, cursor, wait := q.due(time.Now())
		q.mu.Unlock()
		if commit {
			if q.commit() == nil && !provided { // what it returns is counted, logged and told to who waits
				provided = true
				q.provide()
			}
		}
		if cursor {
			_ = q.writeCursor() // counted and logged
		}
		if commit || cursor {
			select {
			case <-q.quit:
				return
			default:
				continue
			}
		}
		timer.Reset(wait)
		select {
		case <-q.quit:
			return
		case <-q.kick:
		case <-timer.C:
		}
	}
}

// due says what must be written now, and when to look again if nothing.
func (q *Queue) due(now time.Time) (commit, cursor bool, wait time.Duration) {
	wait = time.Hour
	at := func(t time.Time) bool {
		d := t.Sub(now)
		if d > 0 {
			wait = min(wait, d)
		}
		return d <= 0
	}
	switch {
	case q.force:
		commit = true
	case !q.failing.IsZero():
		commit = at(q.retryAt)
	case q.urgent:
		commit = true
	case q.batch > 0:
		commit = at(q.since.Add(q.opt.CommitEvery))
	}
	if q.curDirty && q.failing.IsZero() {
		every := cursorEvery
		switch {
		case q.curFirst:
			every = time.Second
		case q.curHurry:
			every = hurryEvery
		}
		cursor = at(q.curWritten.Add(every))
	}
	return commit, cursor, wait
}

// commit writes everything appended before it was called and tells who waits.
// Only the writer calls it.
func (q *Queue) commit() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.force, q.urgent = false, false
	target := q.cur.ep.last
	var errs []error
	var waits error
	for {
		s := q.firstDirty()
		if s == nil {
			q.batch = 0
			if !q.failing.IsZero() {
				q.retryAt = time.Now().Add(retryEvery) // nothing to try it with
			}
			break
		}
		if s.unsynced() > target && !q.closed {
			break
		}
		from, to := s.synced, alignUp(s.pos)
		s.pos, s.open, s.busy = to, false, true // what is appended from here on is another commit
		if s == q.cur {
			q.batch = 0
		}
		q.mu.Unlock()
		placed, err := q.writeSegment(s, from, to)
		q.mu.Lock()
		s.busy = false
		if err == nil {
			s.synced = to
			q.stats.Commits++
			if s != q.cur && !s.dirty() {
				q.closeFile(s)
			}
			if !q.failing.IsZero() {
				q.log.Info("flash accepts writes again", "dir", q.opt.Dir, "failed_for", time.Since(q.failing))
				q.failing = time.Time{}
			}
			q.settle()
			q.log.Debug("records are on flash", "epoch", q.cur.ep.id, "upto", q.durable)
			continue
		}
		if errors.Is(err, errWaits) {
			// Nothing is dropped only because the board starts or stops; it is when a record must be committed.
			q.batch, q.since, waits = 1, time.Now(), err
			q.retryAt = time.Now().Add(retryEvery)
			if !q.inRAM {
				q.inRAM = true
				q.log.Warn("no room on flash to begin an epoch: until there is something to write it waits in RAM", "dir", q.opt.Dir)
			}
			break
		}
		q.failed(err)
		if placed {
			q.abandon(s)
		}
		if errs = append(errs, err); len(errs) == 2 {
			if q.failing.IsZero() {
				q.failing = time.Now()
				q.log.Error("flash refuses writes: records stay in RAM", "dir", q.opt.Dir, "error", err)
			}
			q.retryAt = time.Now().Add(retryEvery)
			break
		}
	}
	q.settle()
	err := waits
	if len(errs) == 2 {
		err = errors.Join(errs...)
	}
	if err != nil {
		for _, w := range q.waiters {
			w.ch <- err
		}
		q.waiters = nil
	}
	return err
}

// firstDirty returns the oldest segment with frames that are not durable. They
// are at the end of the current epoch.
func (q *Queue) firstDirty() (first *segment) {
	segs := q.cur.ep.segs
	for i := len(segs) - 1; i >= 0; i-- {
		if segs[i].dirty() {
			first = segs[i]
		} else if segs[i] != q.cur {
			break
		}
	}
	return first
}

// settle works out what is durable and does what waited for it.
func (q *Queue) settle() {
	ep := q.cur.ep
	q.durable = ep.last
	if s := q.firstDirty(); s != nil {
		q.durable = min(s.unsynced()-1, ep.last)
	}
	q.waiters = slices.DeleteFunc(q.waiters, func(w waiter) bool {
		if w.seq <= q.durable {
			w.ch <- nil
		}
		return w.seq <= q.durable
	})
	n := len(q.unsettled)
	q.unsettled = slices.DeleteFunc(q.unsettled, func(u settling) bool {
		if u.seq > q.durable {
			return false
		}
		u.ep.freed.add(u.first, u.last)
		u.ep.pending--
		return true
	})
	if len(q.unsettled) < n {
		q.curDirty, q.curFirst = true, true
		q.reclaim()
		q.tell() // what stood behind the gap record may be read now
	}
}

// writeSegment writes a commit, giving the segment a file first if it has none.
// It reports whether the segment had one.
func (q *Queue) writeSegment(s *segment, from, to int) (placed bool, err error) {
	if s.file == nil {
		if s.name != "" {
			panic("BUG: buffer: segment " + s.name + " has a file and frames to write but is not open")
		}
		if err := q.place(s); err != nil {
			return false, err
		}
	}
	return true, q.write(s.file, s.buf[from:to], int64(from))
}

// write is one pwrite and one fdatasync, counted.
func (q *Queue) write(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil {
		err = f.Sync()
	}
	q.mu.Lock()
	q.stats.BytesWritten += uint64(n)
	q.stats.Syncs++
	q.mu.Unlock()
	return err
}

// failed counts and logs an error of the card.
func (q *Queue) failed(err error) {
	q.stats.WriteErrors++
	q.stats.LastError = err.Error()
	q.log.Warn("write to flash failed", "dir", q.opt.Dir, "error", err)
}

// abandon takes the frames that are not durable out of a segment whose file
// failed and puts a new segment behind it. The file is not written again: after
// a failed sync the kernel takes the pages for clean, and the next sync would
// lie.
func (q *Queue) abandon(s *segment) {
	n := s.split(q.opt.Now())
	n.prevEpoch, n.prevLast, n.prevClean = s.prevEpoch, s.prevLast, s.prevClean
	q.closeFile(s)
	ep := s.ep
	i := slices.Index(ep.segs, s)
	ep.segs = slices.Insert(ep.segs, i+1, n)
	if q.cur == s {
		q.cur = n
		q.loaded = append(q.loaded, s)
	} else {
		q.loaded = append(q.loaded, n)
	}
	if len(s.refs) > 0 {
		return
	}
	q.detach(s)
	if q.fs.Remove(s.name) == nil {
		q.total -= int64(s.size)
	}
}

// detach takes a segment out of the queue.
func (q *Queue) detach(s *segment) {
	s.dead = true
	s.ep.segs = slices.DeleteFunc(s.ep.segs, func(o *segment) bool { return o == s })
	q.loaded = slices.DeleteFunc(q.loaded, func(o *segment) bool { return o == s })
}

func (q *Queue) closeFile(s *segment) {
	if s.file != nil {
		_ = s.file.Close() // what matters was synced
		s.file = nil
	}
}

// reclaim makes spare files of the segments whose records are all freed, and
// forgets ended epochs without any.
func (q *Queue) reclaim() {
	for _, ep := range q.epochs {
		for i := 0; i < len(ep.segs); i++ {
			s := ep.segs[i]
			unplaced := s.name == ""
			if s == q.cur || s.busy || s.dirty() && !unplaced || !ep.freed.covers(s.base, s.last) {
				continue
			}
			q.detach(s)
			i--
			if unplaced {
				// The gap in gen tells a later opening that there was something
				// between, the cursor that it was freed.
				q.nextGen++
				q.curFirst = true
				continue
			}
			q.closeFile(s)
			q.spares = append(q.spares, &spare{name: s.name, gen: s.gen, size: s.size})
			q.curDirty = true
		}
	}
	q.epochs = slices.DeleteFunc(q.epochs, func(ep *epoch) bool {
		return ep != q.cur.ep && len(ep.segs) == 0 && ep.pending == 0
	})
}

// writeCursor makes durable what is freed. Only the writer calls it.
func (q *Queue) writeCursor() error {
	q.mu.Lock()
	q.settle()
	c := cursor{serial: q.curSerial + 1, written: q.opt.Now()}
	for _, ep := range q.epochs {
		e := cursorEpoch{epoch: ep.id, last: ep.last, current: ep == q.cur.ep}
		if e.current {
			e.last = q.durable
		}
		e.freed = freed{ep.freed.upto, slices.Clone(ep.freed.also)}
		c.epochs = append(c.epochs, e)
	}
	var listed []*spare
	for _, sp := range q.spares {
		if sp.gen != 0 && sp.after <= q.durable {
			listed = append(listed, sp)
			c.free = append(c.free, sp.gen)
		}
	}
	q.curDirty, q.curFirst, q.curHurry, q.curWritten = false, false, false, time.Now()
	q.mu.Unlock()

	b := c.encode()
	err := q.openCursor()
	if err == nil {
		err = q.write(q.curFile, b, int64(c.serial%2)*slotSize)
	}

	q.mu.Lock()
	if err != nil {
		if q.curFile != nil {
			_ = q.curFile.Close() // it failed already
			q.curFile = nil
		}
		q.curDirty = true
		q.failed(err)
		q.mu.Unlock()
		return err
	}
	q.curSerial = c.serial
	q.stats.CursorWrites++
	for _, sp := range listed[:len(c.free)] {
		sp.ready = true
	}
	gone := q.surplus()
	q.mu.Unlock()
	q.remove(gone)
	return nil
}

// openCursor opens the cursor's file, making it full of zeros first so that
// its blocks exist.
func (q *Queue) openCursor() (err error) {
	if q.curFile != nil {
		return nil
	}
	name := q.path(cursorName)
	f, err := q.fs.Open(name)
	if err != nil {
		if f, err = q.fs.Create(name); err != nil {
			return err
		}
	}
	n, err := f.Size()
	if err == nil && n < 2*slotSize {
		err = q.write(f, make([]byte, 2*slotSize-n), n)
		if err == nil {
			err = q.syncDir()
		}
	}
	if err != nil {
		_ = f.Close() // the error at hand says more
		return err
	}
	q.curFile = f
	return nil
}

// surplus takes out the spares that are more than worth keeping. The caller
// holds mu.
func (q *Queue) surplus() (gone []*spare) {
	keep := map[int]int{q.opt.firstSize: 1, q.opt.segSize: spareMax}
	q.spares = slices.DeleteFunc(q.spares, func(sp *spare) bool {
		if !sp.ready {
			return false
		}
		keep[sp.size]--
		if keep[sp.size] >= 0 {
			return false
		}
		gone = append(gone, sp)
		return true
	})
	return gone
}

// remove deletes spare files. Those that cannot be deleted stay as spares.
func (q *Queue) remove(gone []*spare) {
	if len(gone) == 0 {
		return
	}
	var size int64
	var left []*spare
	for _, sp := range gone {
		if err := q.fs.Remove(sp.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.log.Warn("cannot remove a spare segment", "file", sp.name, "error", err)
			left = append(left, sp)
			continue
		}
		size += int64(sp.size)
	}
	err := q.syncDir()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total -= size
	q.spares = append(q.spares, left...)
	if err != nil {
		q.failed(err)
	}
}

func (q *Queue) syncDir() error {
	q.mu.Lock()
	q.stats.Syncs++
	q.mu.Unlock()
	return q.fs.SyncDir(q.opt.Dir)
}
