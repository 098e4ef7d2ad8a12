package buffer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Options say where a queue lives and how it behaves.
type Options struct {
	Dir         string        // required; made if missing; one process at a time
	Max         int64         // quota of all segment files in bytes, at least 4 MiB, of which up to two segments of 1 MiB are in reserve; default 2 GiB
	CommitEvery time.Duration // longest time a record is in RAM only, on a card that works; default 5 s
	Label       string        // opaque, at most 128 bytes; kept with this epoch's records and told by Holds
	// EncodeGap and EncodeEnd must not call the queue: it waits for them.
	EncodeGap func(Lost) []byte     // payload of the record that names lost ones; nil: none is appended
	EncodeEnd func(EpochEnd) []byte // payload of the record that says how the last epoch ended; nil: none is appended
	FS        FS                    // nil: the real one
	Logger    *slog.Logger          // nil: silent
	Now       func() time.Time      // wall clock for marks; nil: time.Now

	segSize, firstSize int   // tests only: smaller segments
	ramMax             int64 // tests only
}

const (
	defaultMax    = 2 << 30
	minSegments   = 4
	commitBytes   = 32 << 10         // commit at once when so much waits
	hurryEvery    = 10 * time.Second // at most, when Hurry asks for it
	cursorEvery   = time.Minute      // at most; with 5 s commits it keeps a day under 20,000 syncs
	retryEvery    = 30 * time.Second // a failing card is tried again
	ramMax        = 16 << 20         // records of a failing card that are kept in RAM
	cacheMax      = 4 << 20          // content of segments kept in RAM for readers
	spareMax      = 16               // freed segments kept for reuse; more are removed
	availFloor    = 16 << 20         // no new file when the file system has less, or less than a sixteenth
	openings      = 8                // first segments that the quota keeps room for
	defaultRead   = 1 << 20
	settleRead    = 8 << 20 // read at opening for what was lost since the cursor was written
	againShare    = 1 << 10 // a segment says again one gap record for so many of its bytes
	maxLoadErrors = 3       // then a segment that cannot be read is declared lost
)

// ErrClosed is returned by the methods of a queue that is closed.
var ErrClosed = errors.New("buffer: closed")

// Queue is an open buffer. Its methods may be called from several goroutines.
type Queue struct {
	opt    Options
	log    *slog.Logger
	fs     FS
	lock   io.Closer
	notify chan struct{}
	kick   chan struct{} // wakes the committer
	quit   chan struct{} // closed by Close
	done   chan struct{} // closed by the committer

	// Only one goroutine writes to flash: Open's, then the committer, then
	// Close's. What is below is guarded by mu, the segments included; the
	// writer lets mu go while the card works.
	mu        sync.Mutex
	closed    bool
	inRAM     bool     // told: the epoch has no room on flash yet, and nothing is dropped for it
	epochs    []*epoch // with records, oldest first; the last is the current one
	cur       *segment // being filled
	prev      EpochEnd // how the epoch before this one ended; zero when there was none
	nextGen   uint64
	nextFile  int
	spares    []*spare
	total     int64      // bytes of all files but the cursor
	setAside  int        // files that no header explains
	asideSize int64      // their bytes, part of total
	loaded    []*segment // with content in RAM that can be read again
	clock     int64      // for the cache's least recently used
	durable   uint64     // current epoch: every seq up to it is on flash or settled
	batch     int        // bytes appended since the last commit began
	since     time.Time
	force     bool // commit at the next occasion, even on a failing card
	urgent    bool // commit at the next occasion
	failing   time.Time
	retryAt   time.Time
	waiters   []waiter
	lost      []told     // ranges named by gap records that are still held
	unsettled []settling // lost ranges to be marked as freed once their gap record is durable

	curFile    File      // the writer's alone
	curSerial  uint64    // of the newest durable cursor
	curDirty   bool      // it no longer says everything
	curFirst   bool      // it must be written before the next segment begins
	curHurry   bool      // it is wanted soon
	curWritten time.Time // last tried

	stats Stats
}

type waiter struct {
	seq uint64
	ch  chan error
}

// spare is a file that holds nothing unread.
type spare struct {
	name  string
	gen   uint64 // of its old header, 0 when it has none
	size  int
	after uint64 // the gap record that names what was dropped from it: not listed before that is durable
	ready bool   // a durable cursor lists it: it may be overwritten
}

type told struct {
	Lost
	seq uint64 // of the gap record, in the current epoch
}

type settling struct {
	ep          *epoch
	first, last uint64
	seq         uint64
}

// Entry is one record as read.
type Entry struct {
	Epoch, Seq uint64
	Kind       Kind
	Payload    []byte // the caller's
}

// Held describes the records of one epoch that are not freed.
type Held struct {
	Epoch       uint64
	First, Last uint64 // First is Last+1 when the current epoch holds none. Last is the highest that may be read: for the
	// moment that a gap record takes to flash, what stands behind it is held back with it.
	Label   string // Options.Label of that opening
	Current bool
}

// Epoch returns the number drawn at this opening: random, positive, 53 bits.
func (q *Queue) Epoch() uint64 { return q.current().id }

// current returns the epoch of this opening; it never changes.
func (q *Queue) current() *epoch {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cur.ep
}

// Notify returns a channel of capacity one that receives after an append.
func (q *Queue) Notify() <-chan struct{} { return q.notify }

// Append adds a record of kind Reading or Event with a payload of 1 to
// MaxPayload bytes, which it copies, and returns its sequence number. The
// record can be read at once and is on flash within Options.CommitEvery, an
// Event as soon as the card allows. Append does not wait for the card.
func (q *Queue) Append(kind Kind, payload []byte) (seq uint64, err error) {
	if kind != Reading && kind != Event {
		return 0, fmt.Errorf("buffer: append: kind %d: only readings and events are appended", kind)
	}
	if len(payload) == 0 || len(payload) > MaxPayload {
		return 0, fmt.Errorf("buffer: append: payload of %d bytes: 1 to %d fit", len(payload), MaxPayload)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.take(kind, payload)
}

// take is Append for a caller that holds mu.
func (q *Queue) take(kind Kind, payload []byte) (seq uint64, err error) {
	if q.closed {
		return 0, ErrClosed
	}
	seq = q.append(kind, payload)
	q.stats.Appended++
	q.trimRAM()
	return seq, nil
}

// append adds a record to the current segment, beginning a new one when it is
// full. The caller holds mu.
func (q *Queue) append(kind Kind, parts ...[]byte) uint64 {
	now := q.opt.Now()
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if !q.cur.room(n) {
		q.cur.open = false
		q.grow(now)
	}
	ep := q.cur.ep
	ep.last++
	q.cur.put(kind, ep.last, now, parts...)
	if q.batch == 0 {
		q.since = time.Now()
		q.wake()
	}
	q.batch += frameHead + n
	if kind == Event || q.batch >= commitBytes {
		q.urgent = true
		q.wake()
	}
	q.tell()
	return ep.last
}

// tell makes Notify's channel receive.
func (q *Queue) tell() {
	select {
	case q.notify <- struct{}{}:
	default:
	}
}

// grow begins a new segment in RAM; the committer gives it a file.
func (q *Queue) grow(now time.Time) {
	ep := q.cur.ep
	s := newSegment(ep, ep.last+1, q.opt.segSize, now)
	s.prevEpoch, s.prevLast, s.prevClean = q.prev.Epoch, q.prev.Last, q.prev.Clean
	ep.segs = append(ep.segs, s)
	q.loaded = append(q.loaded, q.cur)
	q.cur = s
	q.evict()
}

func (q *Queue) wake() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// Read returns records of an epoch in order, from sequence number from on:
// at most maxEntries of them (0: no limit) with payloads of at most maxBytes
// together (0: 1 MiB), but one at least if there is one. What is lost or freed
// is passed over; an epoch that is not held has no records. Records not yet on
// flash are included. With an error from the card the records before it are
// returned as well; calling again goes on.
func (q *Queue) Read(epoch, from uint64, maxEntries, maxBytes int) ([]Entry, error) {
	if maxBytes <= 0 {
		maxBytes = defaultRead
	}
	var err error
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil, ErrClosed
	}
	var out []Entry
	size := 0
	ep, ready := q.epoch(epoch), q.ready()
scan:
	for ep != nil {
		from = ep.freed.next(from)
		s := ep.segment(from)
		if s == nil {
			break
		}
		if s.buf == nil {
			if err = q.load(s); err != nil {
				break
			}
			ep, ready = q.epoch(epoch), q.ready() // it may have been let go while the file was read, or something been lost
			continue
		}
		q.clock++
		s.used = q.clock
		next := s.last + 1
		for _, r := range s.refs[s.find(from):] {
			if r.seq > ready && ep == q.cur.ep {
				break scan
			}
			if ep.freed.has(r.seq) {
				continue
			}
			p := payloadOf(r.kind, s.body(r))
			if len(out) > 0 && (size+len(p) > maxBytes || len(out) == maxEntries) {
				break scan
			}
			size += len(p)
			out = append(out, Entry{epoch, r.seq, r.kind, p})
		}
		from = max(from, next)
	}
	q.evict()
	q.mu.Unlock()
	// The bytes of a segment never change once they are indexed, so the copy
	// needs no lock.
	all := make([]byte, 0, size)
	for i := range out {
		n := len(all)
		all = append(all, out[i].Payload...)
		out[i].Payload = all[n:len(all):len(all)]
	}
	return out, err
}

// ready returns the highest sequence number of the current epoch that may be
// read: up to the first gap record that must be on flash before it is told.
func (q *Queue) ready() uint64 {
	last := q.cur.ep.last
	if !q.failing.IsZero() {
		return last
	}
	for _, u := range q.unsettled {
		if u.seq > 0 {
			last = min(last, u.seq-1)
		}
	}
	return last
}

// epoch returns a held epoch, nil when there is none of that number.
func (q *Queue) epoch(id uint64) *epoch {
	for i := len(q.epochs) - 1; i >= 0; i-- {
		if q.epochs[i].id == id {
			return q.epochs[i]
		}
	}
	return nil
}

// segment returns the first segment that may hold records from seq on.
func (ep *epoch) segment(seq uint64) *segment {
	for lo, hi := 0, len(ep.segs); ; {
		if lo == hi {
			if lo == len(ep.segs) {
				return nil
			}
			return ep.segs[lo]
		}
		if m := (lo + hi) / 2; ep.segs[m].last < seq {
			lo = m + 1
		} else {
			hi = m
		}
	}
}

// Holds lists the epochs with records that are not freed, oldest first, and
// last the current one, always.
func (q *Queue) Holds() []Held {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]Held, 0, len(q.epochs))
	for i, ep := range q.epochs {
		h := Held{Epoch: ep.id, First: ep.freed.next(1), Last: ep.last, Label: ep.label, Current: i == len(q.epochs)-1}
		if h.Current {
			h.Last = max(q.ready(), h.First-1)
		}
		if h.Current || h.First <= h.Last {
			out = append(out, h)
		}
	}
	return out
}

// Free says that records are settled elsewhere: those of an epoch up to upto
// and those in the ranges of also (both ends included). It may be said again.
// An epoch that is not held is none of our business and no error. In the
// current epoch a number above the last one drawn cannot be true: nothing is
// freed and the error says so. In an ended epoch a higher upto frees all.
func (q *Queue) Free(epoch, upto uint64, also [][2]uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	ep := q.epoch(epoch)
	if ep == nil {
		return nil
	}
	top := upto
	for _, r := range also {
		if r[0] > r[1] {
			return fmt.Errorf("buffer: free: epoch %d: range [%d,%d] ends before it begins", epoch, r[0], r[1])
		}
		top = max(top, r[1])
	}
	if ep == q.cur.ep && top > ep.last {
		q.stats.FreeRefused++
		return fmt.Errorf("buffer: free: epoch %d: %d is above %d, the last one drawn: ignored", epoch, top, ep.last)
	}
	news := upto > 0 && ep.freed.add(1, min(upto, ep.last))
	for _, r := range also {
		if r[0] <= ep.last {
			news = ep.freed.add(r[0], min(r[1], ep.last)) || news
		}
	}
	if news {
		q.reclaim()
		if !q.curDirty {
			q.curDirty = true
			q.wake()
		}
	}
	return nil
}

// Hurry puts what was freed on flash within ten seconds rather than a minute:
// for a caller that has lost the one who tells it. A power cut in the outage
// that follows would bring freed records back, and a full card name them as lost.
func (q *Queue) Hurry() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.curDirty && !q.closed {
		q.curHurry = true
		q.wake()
	}
}

// Commit waits until everything appended so far is on flash, or until the card
// refused it: then the records stay in RAM, are tried again, and the error says why.
func (q *Queue) Commit(ctx context.Context) error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return ErrClosed
	}
	q.settle()
	last := q.cur.ep.last
	if q.durable >= last {
		q.mu.Unlock()
		return nil
	}
	w := waiter{last, make(chan error, 1)}
	q.waiters = append(q.waiters, w)
	q.force = true
	q.wake()
	q.mu.Unlock()
	select {
	case err := <-w.ch:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close commits, marks the epoch as closed cleanly, writes the cursor and lets
// the directory go. A second call does nothing.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.mu.Unlock()
	close(q.quit)
	<-q.done
	q.mu.Lock()
	if !q.cur.room(0) {
		q.cur.open = false
		q.grow(q.opt.Now())
	}
	q.cur.put(stop, q.cur.ep.last, q.opt.Now())
	q.mu.Unlock()
	err := q.commit()
	if errors.Is(err, errWaits) {
		err = nil // nothing was appended: the next opening says the same again
	}
	err = errors.Join(err, q.writeCursor())
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiters {
		w.ch <- ErrClosed
	}
	q.waiters = nil
	for _, s := range q.cur.ep.segs {
		q.closeFile(s)
	}
	if q.curFile != nil {
		err = errors.Join(err, q.curFile.Close())
		q.curFile = nil
	}
	if e := errors.Join(err, q.lock.Close()); e != nil {
		return fmt.Errorf("buffer: close %q: %w", q.opt.Dir, e)
	}
	return nil
}
