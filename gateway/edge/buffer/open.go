package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Open opens the queue in a directory, making it if it is missing, and draws
// a new epoch. It fails only when the options make no sense or the directory
// cannot be used at all, or is used by another process: files that are damaged
// cost the records in the damaged bytes, and a card that refuses writes leaves
// the records in RAM (Stats says so).
func Open(opt Options) (*Queue, error) {
	if opt.Max == 0 {
		opt.Max = defaultMax
	}
	if opt.segSize == 0 {
		opt.segSize, opt.firstSize = segSize, firstSize
	}
	opt.ramMax = cmp.Or(opt.ramMax, ramMax)
	opt.CommitEvery = cmp.Or(opt.CommitEvery, 5*time.Second)
	switch {
	case opt.Dir == "":
		return nil, errors.New("buffer: open: no directory given")
	case opt.Max < int64(minSegments*opt.segSize):
		return nil, fmt.Errorf("buffer: open %q: max of %d bytes is too little: at least %d", opt.Dir, opt.Max, minSegments*opt.segSize)
	case opt.CommitEvery < 0:
		return nil, fmt.Errorf("buffer: open %q: commit_every of %v: must be positive", opt.Dir, opt.CommitEvery)
	case len(opt.Label) > maxLabel:
		return nil, fmt.Errorf("buffer: open %q: label of %d bytes: at most %d fit", opt.Dir, len(opt.Label), maxLabel)
	}
	if opt.FS == nil {
		opt.FS = osFS{}
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		opt: opt, fs: opt.FS, log: opt.Logger, nextGen: 1, nextFile: 1,
		notify: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	var err error
	if q.lock, err = q.fs.Lock(opt.Dir); err != nil {
		return nil, fmt.Errorf("buffer: open: %w", err)
	}
	names, err := q.fs.List(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("buffer: open: %w", errors.Join(err, q.lock.Close()))
	}
	q.begin(q.recover(names))
	_ = q.commit()      // counted and logged; the records stay in RAM
	_ = q.writeCursor() // counted and logged
	go q.run()
	return q, nil
}

// recovered is what opening found beside the segments.
type recovered struct {
	ends  []EpochEnd // to be said in this epoch
	holes []hole     // to be declared lost
	tail  *segment   // the newest one, its content not indexed yet
	body  []byte     // its content
}

type hole struct {
	ep *epoch
	Lost
}

// recover finds out what the directory holds. It writes nothing.
func (q *Queue) recover(names []string) recovered {
	c, haveCursor := q.readCursor()
	segs, free := q.readHeaders(names, c)
	var rec recovered
	newest := q.group(segs)

	// What is known of how epochs ended, from the headers of later ones.
	ends := map[uint64]EpochEnd{}
	for _, s := range slices.Concat(segs, free) {
		if s.prevEpoch != 0 {
			ends[s.prevEpoch] = newEpochEnd(s.prevEpoch, s.prevLast, s.prevClean, "")
		}
	}
	var unheard *cursorEpoch // the newest epoch, when nothing of it reached a segment
	for i, e := range c.epochs {
		ep := q.epoch(e.epoch)
		if ep == nil {
			ep = &epoch{id: e.epoch}
			q.epochs = slices.Insert(q.epochs, min(i, len(q.epochs)), ep)
			if _, ok := ends[e.epoch]; e.current && !ok {
				unheard = &e
			}
		}
		ep.freed, ep.last = e.freed, e.last
	}
	for _, s := range free { // the newest epoch of all may have nothing but spare files
		if newest == nil || s.gen > newest.gen {
			newest = s
		}
	}
	if newest != nil {
		rec.body, _ = q.readFile(newest.name, newest.size) // unreadable: as if empty, and declared lost when read
		e := newEpochEnd(newest.epoch, 0, false, newest.label)
		e.Last, e.Clean = newest.lastIn(rec.body)
		if e.Clean {
			e.Reason = reasonClean
		}
		newest.last = e.Last
		if ep := q.epoch(e.Epoch); ep != nil {
			e.Last = max(e.Last, ep.last, ep.freed.upto)
		}
		ends[e.Epoch] = e
		q.prev = e
		rec.ends = append(rec.ends, e)
		// An epoch without a record did not get to say how the one before ended.
		for p := newest; e.Last == 0 && p.prevEpoch != 0; {
			e = ends[p.prevEpoch]
			i := slices.IndexFunc(segs, func(s *segment) bool { return s.epoch == e.Epoch })
			if i >= 0 {
				e.Label = segs[i].label
			}
			rec.ends = append(rec.ends, e)
			if i < 0 || segs[i].gen >= p.gen { // gone, or a header that lies
				break
			}
			p = segs[i]
		}
		slices.Reverse(rec.ends)
		if newest.ep != nil {
			rec.tail = newest
		}
	}
	if unheard != nil && (newest == nil || newest.epoch != unheard.epoch) {
		q.prev = newEpochEnd(unheard.epoch, unheard.last, false, "")
		rec.ends = append(rec.ends, q.prev)
	}
	if len(segs) > 0 {
		q.settleNamed(segs, c, rec)
	}
	for _, ep := range q.epochs {
		if e, ok := ends[ep.id]; ok {
			ep.last = max(ep.last, e.Last)
		}
		q.lastOf(ep, rec.tail)
		rec.holes = append(rec.holes, q.holes(ep, haveCursor)...)
	}
	return rec
}

// settleNamed takes as settled what gap records name that were on flash before
// the cursor told so: a power cut may have come between. It reads the segments
// that the cursor does not know the end of, newest first; that is mostly the
// newest one alone, for a loss is told to the cursor before the next segment
// begins.
func (q *Queue) settleNamed(segs []*segment, c cursor, rec recovered) {
	known := map[uint64]uint64{}
	for _, e := range c.epochs {
		known[e.epoch] = e.last
	}
	room := settleRead
	for i, s := range slices.Backward(segs) {
		b := rec.body
		if s != rec.tail {
			// Full to the base of the next one, which may be of another epoch.
			if i+1 < len(segs) && segs[i+1].ep == s.ep && segs[i+1].base-1 <= known[s.epoch] {
				continue
			}
			if len(c.epochs) == 0 || room < s.size {
				return
			}
			room -= s.size
			b, _ = q.readFile(s.name, s.size) // unreadable: it says nothing
		}
		scan(b, &s.header, sector, func(f frame) {
			if f.kind != Gap {
				return
			}
			if l, _, ok := decodeLost(f.body); ok && l.First <= l.Last && l.Last < maxSeq {
				if ep := q.epoch(l.Epoch); ep != nil {
					ep.freed.add(l.First, l.Last)
				}
			}
		})
	}
}

// readHeaders reads the first sector of every segment. Segments that hold
// records are returned by gen, those that the cursor lists as free apart.
func (q *Queue) readHeaders(names []string, c cursor) (segs, free []*segment) {
	slices.Sort(names)
	for _, n := range names {
		num, ok := strings.CutPrefix(n, "seg-")
		num, ok2 := strings.CutSuffix(num, ".q")
		if !ok || !ok2 {
			continue
		}
		if i, err := strconv.Atoi(num); err == nil {
			q.nextFile = max(q.nextFile, i+1)
		}
		name := q.path(n)
		h, size, state := q.readHeader(name)
		q.total += size
		switch state {
		case headerBlank:
			q.spares = append(q.spares, &spare{name: name, size: int(size), ready: true})
			continue
		case headerBad:
			q.setAside++
			q.asideSize += size
			q.log.Error("segment without a readable header is set aside", "file", name, "bytes", size)
			continue
		}
		q.nextGen = max(q.nextGen, h.gen+1)
		s := &segment{header: h, name: name, last: h.base - 1, seed: seed(h.salt), pos: sector, synced: sector}
		if slices.Contains(c.free, h.gen) {
			free = append(free, s)
			q.spares = append(q.spares, &spare{name: name, gen: h.gen, size: int(size), ready: true})
			continue
		}
		segs = append(segs, s)
	}
	slices.SortStableFunc(segs, func(a, b *segment) int { return cmp.Compare(a.gen, b.gen) })
	return segs, free
}

type headerState int

const (
	headerGood headerState = iota
	headerBlank
	headerBad
)

// readHeader reads a segment's header, or its copy at the end, and its size.
func (q *Queue) readHeader(name string) (h header, size int64, state headerState) {
	f, err := q.fs.Open(name)
	if err != nil {
		return h, 0, headerBad
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return h, 0, headerBad
	}
	b := make([]byte, sector)
	for _, off := range []int64{0, size - sector} {
		if off < 0 {
			continue
		}
		if _, err := f.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if h, ok := decodeHeader(b); ok {
			return h, size, headerGood
		}
	}
	b = make([]byte, 64<<10)
	for off := int64(0); off < size; {
		n, err := f.ReadAt(b, off)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) || !zero(b[:n]) {
			return h, size, headerBad
		}
		off += int64(n)
	}
	return h, size, headerBlank
}

// group makes the epochs of the segments, oldest first, their segments by
// base, and returns the newest segment.
func (q *Queue) group(segs []*segment) (newest *segment) {
	for _, s := range segs {
		ep := q.epoch(s.epoch)
		if ep == nil {
			ep = &epoch{id: s.epoch, label: s.label}
			q.epochs = append(q.epochs, ep)
		}
		s.ep = ep
		ep.segs = append(ep.segs, s)
		newest = s
	}
	for _, ep := range q.epochs {
		slices.SortStableFunc(ep.segs, func(a, b *segment) int { return cmp.Compare(a.base, b.base) })
	}
	return newest
}

// lastOf works out the last sequence number of an epoch's segments, reading
// the files where headers do not tell.
func (q *Queue) lastOf(ep *epoch, tail *segment) {
	known := ep.last
	for i, s := range ep.segs {
		switch {
		case s == tail:
			// known from its content
		case i+1 < len(ep.segs) && ep.segs[i+1].gen == s.gen+1:
			s.last = ep.segs[i+1].base - 1
		case i+1 == len(ep.segs) && (tail == nil || s.epoch != tail.epoch) && known >= s.base:
			s.last = known
		default:
			b, err := q.readFile(s.name, s.size)
			if err != nil {
				q.stats.ReadErrors++
			}
			s.last, _ = s.lastIn(b)
		}
		if i+1 < len(ep.segs) {
			s.last = min(s.last, ep.segs[i+1].base-1)
		}
		ep.last = max(ep.last, s.last)
	}
	ep.last = max(ep.last, ep.freed.upto)
}

// holes returns the runs of an epoch that no segment covers and nobody freed.
// Without a cursor they count as freed.
func (q *Queue) holes(ep *epoch, haveCursor bool) (out []hole) {
	next, before := uint64(1), time.Time{}
	gap := func(to uint64, after time.Time) {
		if next > to {
			return
		}
		if !haveCursor {
			ep.freed.add(next, to)
			return
		}
		if before.IsZero() {
			before = after
		}
		for _, r := range ep.freed.held(next, to) {
			out = append(out, hole{ep, Lost{ep.id, r[0], r[1], before, after, reasonDamaged}})
		}
	}
	for _, s := range ep.segs {
		gap(s.base-1, s.created)
		next, before = max(next, s.last+1), s.created
	}
	gap(ep.last, q.opt.Now())
	return out
}

// readCursor returns the newer valid slot.
func (q *Queue) readCursor() (c cursor, ok bool) {
	b, err := q.readFile(q.path(cursorName), 2*slotSize)
	if err != nil {
		return cursor{}, false // also when there is none yet
	}
	for off := 0; off < len(b); off += slotSize {
		if d, good := decodeCursor(b[off:min(len(b), off+slotSize)]); good && (!ok || d.serial > c.serial) {
			c, ok = d, true
		}
	}
	q.curSerial = c.serial
	for _, g := range c.free {
		q.nextGen = max(q.nextGen, g+1)
	}
	return c, ok
}

// begin draws the new epoch and says in it what opening found.
func (q *Queue) begin(rec recovered) {
	ep := &epoch{id: random64() >> 11, label: q.opt.Label}
	for ep.id == 0 || ep.id == q.prev.Epoch || q.epoch(ep.id) != nil {
		ep.id = random64() >> 11
	}
	s := newSegment(ep, 1, q.opt.firstSize, q.opt.Now())
	s.prevEpoch, s.prevLast, s.prevClean = q.prev.Epoch, q.prev.Last, q.prev.Clean
	ep.segs = []*segment{s}
	q.epochs, q.cur = append(q.epochs, ep), s
	for _, e := range rec.ends {
		q.declareEnd(e)
	}
	for _, h := range rec.holes {
		q.declare(h.ep, h.Lost)
	}
	if rec.tail != nil {
		q.loaded = append(q.loaded, rec.tail)
		q.missing(rec.tail, append([]byte{}, rec.body...))
	}
	q.settle()
	q.reclaim()
	q.log.Info("buffer opened", "dir", filepath.Clean(q.opt.Dir), "epoch", ep.id, "epochs_held", len(q.epochs)-1,
		"previous", q.prev.Reason, "set_aside", q.setAside)
}
