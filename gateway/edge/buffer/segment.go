package buffer

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sort"
	"time"
)

const (
	segSize   = 1 << 20   // a segment
	firstSize = 128 << 10 // the first segment of an epoch
)

// ref is where a record stands in its segment's content.
type ref struct {
	seq  uint64
	off  uint32 // of the body
	size uint16 // of the body
	kind Kind
}

// at says that the records from seq on were appended at t or later.
type at struct {
	seq uint64
	t   time.Time
}

// segment is a run of one epoch's records: a file, its content in RAM, or
// both. Bytes of buf below pos never change, so slices of it may be read
// without the queue's lock.
type segment struct {
	header
	ep   *epoch
	name string // path; "" while it exists in RAM only
	last uint64 // highest sequence number in it; base-1 when empty
	seed uint32

	buf    []byte // whole content, header included; nil when not loaded
	refs   []ref  // of the content's records, rising; valid with buf
	times  []at
	pos    int  // where the next frame goes
	synced int  // below this the file holds what buf holds, durably
	open   bool // a commit is being filled: its mark is written
	file   File // open while it is written to
	busy   bool // being written without the lock
	dead   bool // no longer part of the queue
	used   int64
	errs   int // failed loads in a row
}

// epoch is one opening's records.
type epoch struct {
	id      uint64
	label   string
	last    uint64 // highest sequence number drawn (current) or known
	freed   freed
	segs    []*segment // by base; the last one of the current epoch is being filled
	pending int        // lost ranges whose gap record is not durable yet
}

func newSegment(ep *epoch, base uint64, size int, now time.Time) *segment {
	s := &segment{ep: ep, last: base - 1, pos: sector, synced: sector}
	s.header = header{size: size, epoch: ep.id, base: base, salt: random64(), created: now, label: ep.label}
	s.seed = seed(s.salt)
	s.buf = make([]byte, size)
	return s
}

func random64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand never returns an error
	return binary.LittleEndian.Uint64(b[:])
}

// dirty reports whether the segment has frames that are not durable.
func (s *segment) dirty() bool { return s.synced < s.pos }

// room reports whether a frame with a body of n bytes fits.
func (s *segment) room(n int) bool {
	need := frameHead + n
	if !s.open {
		need += markSize
	}
	return s.pos+need <= s.size-sector
}

// put appends a frame; the caller has checked the room.
func (s *segment) put(kind Kind, seq uint64, now time.Time, parts ...[]byte) {
	if !s.open {
		s.open = true
		var t [8]byte
		binary.LittleEndian.PutUint64(t[:], uint64(now.UnixNano()))
		s.frame(mark, s.last+1, t[:])
	}
	s.frame(kind, seq, parts...)
}

// frame writes one frame and enters it in the index.
func (s *segment) frame(kind Kind, seq uint64, parts ...[]byte) {
	off := s.pos
	s.pos = putFrame(s.buf, off, s.salt, s.seed, kind, seq, parts...)
	s.enter(frame{off, kind, seq, s.buf[off+frameHead : s.pos]})
}

func (s *segment) enter(f frame) {
	switch {
	case f.kind.isRecord():
		s.refs = append(s.refs, ref{f.seq, uint32(f.off + frameHead), uint16(len(f.body)), f.kind})
		s.last = f.seq
	case f.kind == mark && len(f.body) == 8:
		s.times = append(s.times, at{f.seq, time.Unix(0, int64(binary.LittleEndian.Uint64(f.body)))})
		s.open = true
	}
}

// body returns a record's body.
func (s *segment) body(r ref) []byte { return s.buf[r.off : int(r.off)+int(r.size)] }

// find returns the index of the first record from seq on.
func (s *segment) find(seq uint64) int {
	return sort.Search(len(s.refs), func(i int) bool { return s.refs[i].seq >= seq })
}

// when returns the time at or before which record seq was appended: its
// commit's, or the segment's.
func (s *segment) when(seq uint64) time.Time {
	i := sort.Search(len(s.times), func(i int) bool { return s.times[i].seq > seq })
	if i == 0 {
		return s.created
	}
	return s.times[i-1].t
}

// until returns a time after which record seq was not appended, as far as the
// segment knows: the next commit's.
func (s *segment) until(seq uint64, otherwise time.Time) time.Time {
	i := sort.Search(len(s.times), func(i int) bool { return s.times[i].seq > seq })
	if i == len(s.times) {
		return otherwise
	}
	return s.times[i].t
}

// parse fills the index from content b read from the file, keeping records up
// to the known last (those above belong to the next segment), and returns the
// runs in [base,last] that are missing and the number of damaged stretches.
func (s *segment) parse(b []byte) (missing []span, bad int) {
	s.buf, s.refs, s.times = b, nil, nil
	last, next := s.last, s.base
	bad = scan(b, &s.header, sector, func(f frame) {
		if f.kind.isRecord() {
			if f.seq > last {
				return
			}
			if f.seq > next {
				missing = append(missing, span{next, f.seq - 1})
			}
			next = f.seq + 1
		}
		s.enter(f)
	})
	s.last, s.open = last, false
	if next <= last {
		missing = append(missing, span{next, last})
	}
	return missing, bad
}

// lastIn returns the highest sequence number in content b of a segment, base-1
// when there is none, and whether the epoch was closed cleanly after it.
func (h *header) lastIn(b []byte) (last uint64, clean bool) {
	last = h.base - 1
	scan(b, h, sector, func(f frame) {
		if f.kind.isRecord() {
			last, clean = f.seq, false
		} else if f.kind == stop && f.seq == last {
			clean = true
		}
	})
	return last, clean
}

// split takes the frames that are not durable out of s, for its file failed,
// and returns a segment that has them, encoded anew. s keeps what is durable.
func (s *segment) split(now time.Time) *segment {
	i := s.find(s.unsynced())
	base := s.last + 1
	if i < len(s.refs) {
		base = s.refs[i].seq
	}
	n := newSegment(s.ep, base, s.size, now)
	h := s.header
	h.base = base
	scan(s.buf[:s.pos], &h, s.synced, func(f frame) { n.frame(f.kind, f.seq, f.body) })
	n.open = s.open
	s.refs, s.last, s.pos, s.open = s.refs[:i:i], base-1, s.synced, false
	s.times = slices.DeleteFunc(slices.Clone(s.times), func(a at) bool { return a.seq >= base })
	return n
}

// unsynced returns the lowest sequence number in s that is not durable, or
// last+1.
func (s *segment) unsynced() uint64 {
	i := sort.Search(len(s.refs), func(i int) bool { return int(s.refs[i].off) >= s.synced })
	if i == len(s.refs) {
		return s.last + 1
	}
	return s.refs[i].seq
}
