package seqs

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Hour is the records of one epoch whose stamps lie in one hour, by minute.
type Hour struct {
	Minutes [60]Set
	// Again counts the records of a minute that came when they were known.
	Again [60]uint64
}

// Place says where the stamp t, nanoseconds since 1970, lies: in which hour
// since 1970 and in which minute of it.
func Place(t int64) (hour int64, minute int) {
	m := t / int64(time.Minute)
	if t%int64(time.Minute) < 0 {
		m--
	}
	hour = m / 60
	if m%60 < 0 {
		hour--
	}
	return hour, int(m - hour*60)
}

// Merge adds what o has.
func (h *Hour) Merge(o *Hour) {
	for m := range h.Minutes {
		for _, x := range o.Minutes[m] {
			h.Minutes[m].Add(x[0], x[1])
		}
		h.Again[m] += o.Again[m]
	}
}

// Span is the least and the largest sequence number, 0 and 0 when there is none.
func (h *Hour) Span() (first, last uint64) {
	for _, s := range h.Minutes {
		if len(s) == 0 {
			continue
		}
		if first == 0 || s[0][0] < first {
			first = s[0][0]
		}
		last = max(last, s.Top())
	}
	return first, last
}

// All is the set of all minutes together.
func (h *Hour) All() Set {
	var out Set
	for _, s := range h.Minutes {
		out = out.Union(s)
	}
	return out
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode writes the hour: CRC-32C of the rest, little endian, then for each
// minute that has something
//
//	minute u8, with 64 added when Again follows and 128 when there is not exactly one range
//	Again uvarint | number of ranges uvarint | the ranges, as in Set.Encode
//
// but the first range counts, by a zigzag varint, from the end of the minute before.
func (h *Hour) Encode() []byte {
	b := make([]byte, 4, 256)
	after := uint64(0)
	for m, s := range h.Minutes {
		if len(s) == 0 && h.Again[m] == 0 {
			continue
		}
		head := byte(m)
		if h.Again[m] > 0 {
			head |= 64
		}
		if len(s) != 1 {
			head |= 128
		}
		b = append(b, head)
		if h.Again[m] > 0 {
			b = binary.AppendUvarint(b, h.Again[m])
		}
		if len(s) != 1 {
			b = binary.AppendUvarint(b, uint64(len(s)))
		}
		if len(s) == 0 {
			continue
		}
		b = binary.AppendVarint(b, int64(s[0][0]-after))
		b = binary.AppendUvarint(b, s[0][1]-s[0][0])
		end := s[0][1]
		for _, x := range s[1:] {
			b = binary.AppendUvarint(b, x[0]-end)
			b = binary.AppendUvarint(b, x[1]-x[0])
			end = x[1]
		}
		after = end
	}
	sum(b)
	return b
}

// sum writes the CRC of b[4:] before it.
func sum(b []byte) { binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli)) }

// DecodeHour reads what Encode wrote. The error is ErrDamaged.
func DecodeHour(b []byte) (*Hour, error) {
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return nil, ErrDamaged
	}
	b = b[4:]
	h := &Hour{}
	after, least := uint64(0), 0
	uvarint := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	for len(b) > 0 {
		head := b[0]
		b = b[1:]
		m, ok := int(head&63), true
		if m < least || m > 59 {
			return nil, ErrDamaged
		}
		least = m + 1
		if head&64 != 0 {
			if h.Again[m], ok = uvarint(); !ok || h.Again[m] == 0 {
				return nil, ErrDamaged
			}
		}
		n := uint64(1)
		if head&128 != 0 {
			if n, ok = uvarint(); !ok || n == 1 || n == 0 && head&64 == 0 {
				return nil, ErrDamaged
			}
		}
		if n == 0 {
			continue
		}
		step, k := binary.Varint(b)
		if k <= 0 {
			return nil, ErrDamaged
		}
		b = b[k:]
		length, ok := uvarint()
		first := after + uint64(step)
		last := first + length
		if !ok || first == 0 || first > Max || last < first || last > Max {
			return nil, ErrDamaged
		}
		s := Set{{first, last}}
		for range n - 1 {
			x, rest, err := next(b, s.Top())
			if err != nil {
				return nil, err
			}
			s, b = append(s, x), rest
		}
		h.Minutes[m], after = s, s.Top()
	}
	return h, nil
}
