// Package seqs holds sets of sequence numbers: of an epoch as a whole (Set),
// and minute by minute of the records' stamps (Hour). The ledger keeps its book
// in them, a history tells in them which records it holds, so the two can be
// compared number by number.
package seqs

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sort"
)

// Max is the largest sequence number a set may hold.
const Max = math.MaxInt64 - 1

// ErrDamaged is returned for bytes that encode nothing.
var ErrDamaged = errors.New("damaged set of sequence numbers")

// Set is a set of sequence numbers, which are 1 to Max: closed ranges, sorted,
// neither touching nor overlapping. Numbers come almost in order, so it stays
// short. nil is the empty set.
type Set [][2]uint64

// Add puts first to last in. It changes the set in place.
func (s *Set) Add(first, last uint64) {
	r := *s
	if first > last {
		return
	}
	if n := len(r); n == 0 || first > r[n-1][1]+1 {
		*s = append(r, [2]uint64{first, last})
		return
	}
	// i: the first range that touches [first, last]; j: the first beyond.
	i := sort.Search(len(r), func(k int) bool { return r[k][1]+1 >= first })
	j := i
	for j < len(r) && r[j][0] <= last+1 {
		first, last = min(first, r[j][0]), max(last, r[j][1])
		j++
	}
	if i == j {
		r = append(r, [2]uint64{})
		copy(r[i+1:], r[i:])
	} else {
		r = append(r[:i+1], r[j:]...)
	}
	r[i] = [2]uint64{first, last}
	*s = r
}

// Remove takes first to last out.
func (s *Set) Remove(first, last uint64) {
	r := *s
	i := sort.Search(len(r), func(k int) bool { return r[k][1] >= first })
	if i == len(r) || r[i][0] > last || first > last {
		return
	}
	out := append(Set{}, r[:i]...)
	for ; i < len(r); i++ {
		if r[i][0] < first {
			out = append(out, [2]uint64{r[i][0], first - 1})
		}
		if r[i][1] > last {
			out = append(out, [2]uint64{max(last+1, r[i][0]), r[i][1]})
		}
	}
	*s = out
}

// Has reports whether seq is in the set.
func (s Set) Has(seq uint64) bool {
	i := sort.Search(len(s), func(k int) bool { return s[k][1] >= seq })
	return i < len(s) && s[i][0] <= seq
}

// Count is the number of sequence numbers in the set.
func (s Set) Count() uint64 {
	var n uint64
	for _, x := range s {
		n += x[1] - x[0] + 1
	}
	return n
}

// Within returns the part of s from first to last.
func (s Set) Within(first, last uint64) Set {
	var out Set
	i := sort.Search(len(s), func(k int) bool { return s[k][1] >= first })
	for _, x := range s[i:] {
		if x[0] > last {
			break
		}
		if lo, hi := max(x[0], first), min(x[1], last); lo <= hi {
			out = append(out, [2]uint64{lo, hi})
		}
	}
	return out
}

// Holes returns what s lacks from first to last.
func (s Set) Holes(first, last uint64) Set {
	var out Set
	for _, x := range s.Within(first, last) {
		if x[0] > first {
			out = append(out, [2]uint64{first, x[0] - 1})
		}
		first = x[1] + 1
	}
	if first <= last {
		out = append(out, [2]uint64{first, last})
	}
	return out
}

// Clone returns a copy.
func (s Set) Clone() Set { return slices.Clone(s) }

// Union returns a new set of both.
func (s Set) Union(o Set) Set {
	if len(s) < len(o) {
		s, o = o, s
	}
	out := s.Clone()
	for _, x := range o {
		out.Add(x[0], x[1])
	}
	return out
}

// And returns a new set of what is in both.
func (s Set) And(o Set) Set {
	var out Set
	if len(s) > len(o) {
		s, o = o, s
	}
	for _, x := range s {
		out = append(out, o.Within(x[0], x[1])...)
	}
	return out
}

// Minus returns a new set of what is in s and not in o.
func (s Set) Minus(o Set) Set {
	var out Set
	for _, x := range s {
		out = append(out, o.Holes(x[0], x[1])...)
	}
	return out
}

// Top is the largest sequence number of the set, 0 when it is empty.
func (s Set) Top() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1][1]
}

// Encode writes the set as pairs of uvarints: hole before the range, length-1.
func (s Set) Encode() []byte { return s.append([]byte{}) }

func (s Set) append(b []byte) []byte {
	after := uint64(0)
	for _, x := range s {
		b = binary.AppendUvarint(b, x[0]-after)
		b = binary.AppendUvarint(b, x[1]-x[0])
		after = x[1]
	}
	return b
}

// Decode reads what Encode wrote. The error is ErrDamaged.
func Decode(b []byte) (Set, error) {
	var s Set
	after := uint64(0)
	for len(b) > 0 {
		x, rest, err := next(b, after)
		if err != nil {
			return nil, err
		}
		b, after = rest, x[1]
		s = append(s, x)
	}
	return s, nil
}

// next reads the range that follows the one that ended at after.
func next(b []byte, after uint64) (x [2]uint64, rest []byte, err error) {
	hole, n := binary.Uvarint(b)
	if n <= 0 {
		return x, nil, ErrDamaged
	}
	b = b[n:]
	length, n := binary.Uvarint(b)
	if n <= 0 {
		return x, nil, ErrDamaged
	}
	first := after + hole
	last := first + length
	if hole == 0 || hole == 1 && after > 0 || first <= after || last < first || last > Max {
		return x, nil, ErrDamaged
	}
	return [2]uint64{first, last}, b[n:], nil
}
