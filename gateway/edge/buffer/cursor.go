package buffer

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"
)

// maxRanges bounds what one epoch keeps beside upto. Beyond it the highest
// are forgotten, which can only mean sending again.
const maxRanges = 1024

// span is a run of sequence numbers, both ends included.
type span = [2]uint64

// freed is the set of an epoch's sequence numbers that are settled: everything
// up to upto, and the spans of also, which are sorted, disjoint, not adjacent
// and above upto.
type freed struct {
	upto uint64
	also []span
}

// add marks a to b as freed and reports whether that was news.
func (f *freed) add(a, b uint64) bool {
	if a > b || f.covers(a, b) {
		return false
	}
	if a <= f.upto+1 {
		f.upto = max(f.upto, b)
	} else {
		// i is the first span that touches [a,b], j the first wholly above it.
		i, _ := slices.BinarySearchFunc(f.also, a, func(s span, a uint64) int {
			if s[1]+1 < a {
				return -1
			}
			return 1
		})
		j := i
		for j < len(f.also) && f.also[j][0] <= b+1 {
			a, b = min(a, f.also[j][0]), max(b, f.also[j][1])
			j++
		}
		f.also = slices.Replace(f.also, i, j, span{a, b})
	}
	for len(f.also) > 0 && f.also[0][0] <= f.upto+1 {
		f.upto = max(f.upto, f.also[0][1])
		f.also = f.also[1:]
	}
	if len(f.also) > maxRanges {
		f.also = f.also[:maxRanges]
	}
	return true
}

// has reports whether s is freed.
func (f *freed) has(s uint64) bool { return f.next(s) != s }

// covers reports whether all of a to b is freed.
func (f *freed) covers(a, b uint64) bool { return f.next(a) > b }

// next returns the lowest sequence number from s on that is not freed.
func (f *freed) next(s uint64) uint64 {
	s = max(s, f.upto+1)
	i, _ := slices.BinarySearchFunc(f.also, s, func(r span, s uint64) int {
		if r[1] < s {
			return -1
		}
		return 1
	})
	if i < len(f.also) && f.also[i][0] <= s {
		return f.also[i][1] + 1
	}
	return s
}

// held returns the runs of a to b that are not freed.
func (f *freed) held(a, b uint64) []span {
	var out []span
	for a = f.next(a); a <= b; {
		end := b
		for _, r := range f.also {
			if r[0] > a {
				end = min(b, r[0]-1)
				break
			}
		}
		out = append(out, span{a, end})
		a = f.next(end + 1)
	}
	return out
}

// count returns how many of a to b are not freed.
func (f *freed) count(a, b uint64) uint64 {
	a = max(a, f.upto+1)
	if a > b {
		return 0
	}
	n := b - a + 1
	for _, r := range f.also {
		if r[1] >= a && r[0] <= b {
			n -= min(b, r[1]) - max(a, r[0]) + 1
		}
	}
	return n
}

// cursorEpoch is what the cursor knows of one epoch.
type cursorEpoch struct {
	epoch, last uint64
	freed       freed
	current     bool
}

// cursor is what is remembered of what has been freed.
type cursor struct {
	serial  uint64
	written time.Time
	epochs  []cursorEpoch
	free    []uint64 // gens of segments that may be overwritten
}

const (
	cursorName = "cursor.q"
	slotSize   = 64 << 10
)

// encode returns the bytes of a slot, padded to a sector. What does not fit is
// left out: of an epoch its highest spans, then epochs from the middle, for
// it is of the oldest and of the current one that segments are freed. Leaving out
// means sending again; but where a segment of the epoch was used again, an opening
// would take what was freed for lost.
func (c *cursor) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 40, 1024)
	copy(b, cursorMagic)
	le.PutUint16(b[8:], version)
	le.PutUint64(b[24:], c.serial)
	le.PutUint64(b[32:], uint64(c.written.UnixNano()))
	epochs, room := c.epochs, slotSize-4
	if most := (room - len(b)) / 32; len(epochs) > most {
		epochs = slices.Concat(epochs[:most/2], epochs[len(epochs)-most/2:])
	}
	for i, e := range epochs {
		also := e.freed.also[:min(len(e.freed.also), (room-len(b)-32*(len(epochs)-i))/16)]
		b = le.AppendUint64(b, e.epoch)
		b = le.AppendUint64(b, e.freed.upto)
		b = le.AppendUint64(b, e.last)
		b = le.AppendUint16(b, uint16(len(also)))
		var flags uint16
		if e.current {
			flags = 1
		}
		b = le.AppendUint16(b, flags)
		b = le.AppendUint32(b, 0)
		for _, r := range also {
			b = le.AppendUint64(le.AppendUint64(b, r[0]), r[1])
		}
	}
	c.free = c.free[:min(len(c.free), (room-len(b))/8)]
	for _, g := range c.free {
		b = le.AppendUint64(b, g)
	}
	le.PutUint16(b[10:], uint16(len(epochs)))
	le.PutUint32(b[12:], uint32(len(c.free)))
	le.PutUint32(b[16:], uint32(len(b)))
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, make([]byte, alignUp(len(b))-len(b))...)
}

// decodeCursor decodes one slot.
func decodeCursor(b []byte) (cursor, bool) {
	le := binary.LittleEndian
	if len(b) < 44 || string(b[:8]) != cursorMagic || le.Uint16(b[8:]) != version {
		return cursor{}, false
	}
	n := int(le.Uint32(b[16:]))
	if n < 40 || n > len(b)-4 || crc32.Checksum(b[:n], castagnoli) != le.Uint32(b[n:]) {
		return cursor{}, false
	}
	c := cursor{serial: le.Uint64(b[24:]), written: time.Unix(0, int64(le.Uint64(b[32:])))}
	epochs, free := int(le.Uint16(b[10:])), int(le.Uint32(b[12:]))
	b = b[40:n]
	for range epochs {
		if len(b) < 32 {
			return cursor{}, false
		}
		e := cursorEpoch{epoch: le.Uint64(b), last: le.Uint64(b[16:]), current: le.Uint16(b[26:])&1 != 0}
		e.freed.upto = le.Uint64(b[8:])
		ranges := int(le.Uint16(b[24:]))
		b = b[32:]
		if len(b) < 16*ranges || e.freed.upto >= maxSeq || e.last >= maxSeq {
			return cursor{}, false
		}
		for ; ranges > 0; ranges-- {
			lo, hi := le.Uint64(b), le.Uint64(b[8:])
			if lo > hi || hi >= maxSeq {
				return cursor{}, false
			}
			e.freed.add(lo, hi)
			b = b[16:]
		}
		c.epochs = append(c.epochs, e)
	}
	if len(b) != 8*free {
		return cursor{}, false
	}
	for ; free > 0; free-- {
		c.free = append(c.free, le.Uint64(b))
		b = b[8:]
	}
	return c, true
}

func alignUp(n int) int { return (n + sector - 1) &^ (sector - 1) }
