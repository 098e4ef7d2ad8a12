package buffer

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Kind says what a record is.
type Kind uint8

// The kinds of record. Append takes Reading and Event; Gap and End are
// appended by the queue itself.
const (
	Reading Kind = 1 // an ordinary record
	Gap     Kind = 2 // names records that are lost; its payload is what Options.EncodeGap returned
	Event   Kind = 3 // an alarm or the like: committed at once
	End     Kind = 4 // says how the last epoch ended; its payload is what Options.EncodeEnd returned

	mark Kind = 5 // begins a commit and tells its time; takes no sequence number
	stop Kind = 6 // the epoch was closed cleanly; takes no sequence number
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Reading:
		return "reading"
	case Gap:
		return "gap"
	case Event:
		return "event"
	case End:
		return "end"
	case mark:
		return "mark"
	case stop:
		return "stop"
	}
	return "unknown"
}

// isRecord reports whether frames of this kind take a sequence number.
func (k Kind) isRecord() bool { return k >= Reading && k <= End }

// MaxPayload is the longest payload in bytes: 60 KiB.
const MaxPayload = 60 << 10

const (
	sector     = 512
	frameHead  = 16
	frameByte  = 0xA7
	markSize   = frameHead + 8
	maxSeq     = 1 << 62 // what is above is not one of ours, and sums stay below 1<<63
	maxBody    = 1<<16 - 1
	maxLabel   = 128
	maxSegment = 16 << 20 // a header that says more is not one of ours

	segMagic    = "luquanQ1"
	cursorMagic = "luquanC1"
	version     = 1
)

// castagnoli is the CRC-32C table; both target architectures have an instruction for it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the first and last sector of a segment.
type header struct {
	size                int
	gen, epoch, base    uint64
	salt                uint64
	created             time.Time
	prevEpoch, prevLast uint64
	prevClean           bool
	label               string
}

func (h *header) encode() []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, segMagic)
	le.PutUint16(b[8:], version)
	if h.prevClean {
		le.PutUint16(b[10:], 1)
	}
	le.PutUint32(b[12:], uint32(h.size))
	le.PutUint64(b[16:], h.gen)
	le.PutUint64(b[24:], h.epoch)
	le.PutUint64(b[32:], h.base)
	le.PutUint64(b[40:], h.salt)
	le.PutUint64(b[48:], uint64(h.created.UnixNano()))
	le.PutUint64(b[56:], h.prevEpoch)
	le.PutUint64(b[64:], h.prevLast)
	b[72] = byte(copy(b[73:73+maxLabel], h.label))
	le.PutUint32(b[508:], crc32.Checksum(b[:508], castagnoli))
	return b
}

// decodeHeader returns the header in b's first sector, false when there is
// none this version can read.
func decodeHeader(b []byte) (header, bool) {
	le := binary.LittleEndian
	if len(b) < sector || string(b[:8]) != segMagic ||
		le.Uint32(b[508:]) != crc32.Checksum(b[:508], castagnoli) || le.Uint16(b[8:]) != version {
		return header{}, false
	}
	n := int(b[72])
	h := header{
		size: int(le.Uint32(b[12:])), gen: le.Uint64(b[16:]), epoch: le.Uint64(b[24:]), base: le.Uint64(b[32:]),
		salt: le.Uint64(b[40:]), created: time.Unix(0, int64(le.Uint64(b[48:]))),
		prevEpoch: le.Uint64(b[56:]), prevLast: le.Uint64(b[64:]), prevClean: le.Uint16(b[10:])&1 != 0,
	}
	if n > maxLabel || h.epoch == 0 || h.base == 0 || h.base >= maxSeq || h.prevLast >= maxSeq || h.size < 4*sector || h.size%sector != 0 || h.size > maxSegment {
		return header{}, false
	}
	h.label = string(b[73 : 73+n])
	return h, true
}

// seed is the part of a frame's CRC that is the same all over a segment.
func seed(salt uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	return crc32.Checksum(b[:], castagnoli)
}

// frameCRC is the CRC of the frame f that stands at off.
func frameCRC(f []byte, off int, seed uint32) uint32 {
	c := crc32.Update(seed^uint32(off), castagnoli, f[:4])
	return crc32.Update(c, castagnoli, f[8:])
}

// putFrame writes a frame at off of buf and returns the offset after it. The
// body is the concatenation of parts and must fit.
func putFrame(buf []byte, off int, salt uint64, seed uint32, kind Kind, seq uint64, parts ...[]byte) int {
	end := off + frameHead
	for _, p := range parts {
		end += copy(buf[end:], p)
	}
	f := buf[off:end]
	le := binary.LittleEndian
	f[0], f[1] = frameByte, byte(kind)
	le.PutUint16(f[2:], uint16(len(f)-frameHead))
	le.PutUint64(f[8:], seq^salt)
	le.PutUint32(f[4:], frameCRC(f, off, seed))
	return end
}

// frame is one decoded frame; body aliases the buffer it was found in.
type frame struct {
	off  int
	kind Kind
	seq  uint64
	body []byte
}

// frameAt decodes the frame at off of b.
func frameAt(b []byte, off int, salt uint64, seed uint32) (frame, bool) {
	if off+frameHead > len(b) || b[off] != frameByte {
		return frame{}, false
	}
	le := binary.LittleEndian
	end := off + frameHead + int(le.Uint16(b[off+2:]))
	if end > len(b) {
		return frame{}, false
	}
	f := b[off:end]
	kind, seq := Kind(f[1]), le.Uint64(f[8:])^salt
	if kind == 0 || kind > stop || seq >= maxSeq || frameCRC(f, off, seed) != le.Uint32(f[4:]) {
		return frame{}, false
	}
	return frame{off, kind, seq, f[frameHead:]}, true
}

// scan calls emit for every valid frame of a segment's content b (header
// included) from off on, in order, and returns how many stretches of bytes it
// passed over, zeros and what follows the last frame not counted. Frames that
// do not belong, with a sequence number outside the segment's window or not
// rising, are passed over.
func scan(b []byte, h *header, off int, emit func(frame)) (bad int) {
	if end := h.size - sector; len(b) > end {
		b = b[:end]
	}
	sd := seed(h.salt)
	next, limit := h.base, h.base+uint64(h.size/frameHead)
	inBad := false
	for off < len(b) {
		f, ok := frameAt(b, off, h.salt, sd)
		if ok && (f.seq < next && f.kind != stop || f.seq >= limit) {
			ok = false
		}
		if !ok {
			// To the next byte that could begin a frame; what is jumped over is
			// padding when it is zero.
			i := bytes.IndexByte(b[off+1:], frameByte)
			to := len(b)
			if i >= 0 {
				to = off + 1 + i
			}
			inBad = inBad || !zero(b[off:to])
			off = to
			continue
		}
		if inBad {
			bad++
		}
		inBad = false
		emit(f)
		if f.kind.isRecord() {
			next = f.seq + 1
		}
		off = f.off + frameHead + len(f.body)
	}
	return bad
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Lost names records that are no longer there.
type Lost struct {
	Epoch       uint64
	First, Last uint64    // sequence numbers, both included
	From, To    time.Time // when they were appended, to within a commit, by the board's clock of then
	Reason      string    // "buffer full", "flash failing", "damaged on flash"
}

// EpochEnd says how the last epoch ended.
type EpochEnd struct {
	Epoch  uint64
	Last   uint64 // its highest sequence number known; a power cut may have taken later ones that were never committed
	Clean  bool
	Reason string // "clean stop" or "power cut" (or kill: a label that holds the boot id tells them apart)
	Label  string // that epoch's Options.Label
}

const (
	reasonFull    = "buffer full"
	reasonFailing = "flash failing"
	reasonDamaged = "damaged on flash"
	reasonClean   = "clean stop"
	reasonCut     = "power cut"
)

func (l *Lost) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, l.Epoch)
	b = le.AppendUint64(b, l.First)
	b = le.AppendUint64(b, l.Last)
	b = le.AppendUint64(b, uint64(l.From.UnixNano()))
	b = le.AppendUint64(b, uint64(l.To.UnixNano()))
	r := l.Reason[:min(len(l.Reason), 255)]
	return append(append(b, byte(len(r))), r...)
}

// decodeLost splits a gap record's body into what it says and its payload.
func decodeLost(b []byte) (l Lost, payload []byte, ok bool) {
	if len(b) < 41 || len(b) < 41+int(b[40]) {
		return Lost{}, nil, false
	}
	le := binary.LittleEndian
	n := 41 + int(b[40])
	return Lost{
		Epoch: le.Uint64(b), First: le.Uint64(b[8:]), Last: le.Uint64(b[16:]),
		From: time.Unix(0, int64(le.Uint64(b[24:]))), To: time.Unix(0, int64(le.Uint64(b[32:]))),
		Reason: string(b[41:n]),
	}, b[n:], true
}

func (e *EpochEnd) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, e.Epoch)
	b = le.AppendUint64(b, e.Last)
	var clean byte
	if e.Clean {
		clean = 1
	}
	return append(append(b, clean, byte(len(e.Label))), e.Label...)
}

// decodeEnd splits an end record's body into what it says and its payload.
func decodeEnd(b []byte) (e EpochEnd, payload []byte, ok bool) {
	if len(b) < 18 || len(b) < 18+int(b[17]) {
		return EpochEnd{}, nil, false
	}
	le := binary.LittleEndian
	n := 18 + int(b[17])
	return newEpochEnd(le.Uint64(b), le.Uint64(b[8:]), b[16]&1 != 0, string(b[18:n])), b[n:], true
}

func newEpochEnd(epoch, last uint64, clean bool, label string) EpochEnd {
	e := EpochEnd{Epoch: epoch, Last: last, Clean: clean, Reason: reasonCut, Label: label}
	if clean {
		e.Reason = reasonClean
	}
	return e
}

// payloadOf returns the part of a frame's body that the reader gets.
func payloadOf(kind Kind, body []byte) []byte {
	switch kind {
	case Gap:
		if _, p, ok := decodeLost(body); ok {
			return p
		}
	case End:
		if _, p, ok := decodeEnd(body); ok {
			return p
		}
	}
	return body
}
