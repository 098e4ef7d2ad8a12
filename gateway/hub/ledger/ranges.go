package ledger

import (
	"encoding/binary"
	"errors"
	"sort"
)

// ranges is a set of seqs: closed ranges, sorted, neither touching nor
// overlapping. Seqs arrive almost in order, so it stays short.
type ranges [][2]uint64

// add puts first to last in. It must not alias a set that is read elsewhere.
func (r *ranges) add(first, last uint64) {
	s := *r
	if first > last {
		return
	}
	if n := len(s); n == 0 || first > s[n-1][1]+1 {
		*r = append(s, [2]uint64{first, last})
		return
	}
	// i: the first range that touches [first, last]; j: the first beyond.
	i := sort.Search(len(s), func(k int) bool { return s[k][1]+1 >= first })
	j := i
	for j < len(s) && s[j][0] <= last+1 {
		first, last = min(first, s[j][0]), max(last, s[j][1])
		j++
	}
	if i == j {
		s = append(s, [2]uint64{})
		copy(s[i+1:], s[i:])
	} else {
		s = append(s[:i+1], s[j:]...)
	}
	s[i] = [2]uint64{first, last}
	*r = s
}

// remove takes first to last out.
func (r *ranges) remove(first, last uint64) {
	s := *r
	i := sort.Search(len(s), func(k int) bool { return s[k][1] >= first })
	if i == len(s) || s[i][0] > last || first > last {
		return
	}
	out := append(ranges{}, s[:i]...)
	for ; i < len(s); i++ {
		if s[i][0] < first {
			out = append(out, [2]uint64{s[i][0], first - 1})
		}
		if s[i][1] > last {
			out = append(out, [2]uint64{max(last+1, s[i][0]), s[i][1]})
		}
	}
	*r = out
}

func (r ranges) has(seq uint64) bool {
	i := sort.Search(len(r), func(k int) bool { return r[k][1] >= seq })
	return i < len(r) && r[i][0] <= seq
}

// count is the number of seqs in the set.
func (r ranges) count() uint64 {
	var n uint64
	for _, x := range r {
		n += x[1] - x[0] + 1
	}
	return n
}

// within returns the part of r from first to last.
func (r ranges) within(first, last uint64) ranges {
	var out ranges
	for _, x := range r {
		if lo, hi := max(x[0], first), min(x[1], last); lo <= hi {
			out = append(out, [2]uint64{lo, hi})
		}
	}
	return out
}

// holes returns what r lacks from first to last.
func (r ranges) holes(first, last uint64) ranges {
	var out ranges
	for _, x := range r.within(first, last) {
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

func (r ranges) clone() ranges { return append(ranges(nil), r...) }

// union returns a new set of both.
func (r ranges) union(o ranges) ranges {
	out := r.clone()
	for _, x := range o {
		out.add(x[0], x[1])
	}
	return out
}

// top is the largest seq of the set, 0 when it is empty.
func (r ranges) top() uint64 {
	if len(r) == 0 {
		return 0
	}
	return r[len(r)-1][1]
}

// encode writes the set as pairs of uvarints: hole before the range, length-1.
func (r ranges) encode() []byte {
	b := []byte{}
	after := uint64(0)
	for _, x := range r {
		b = binary.AppendUvarint(b, x[0]-after)
		b = binary.AppendUvarint(b, x[1]-x[0])
		after = x[1]
	}
	return b
}

var errRanges = errors.New("damaged set of seqs")

func decodeRanges(b []byte) (ranges, error) {
	var r ranges
	after := uint64(0)
	for len(b) > 0 {
		hole, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errRanges
		}
		b = b[n:]
		length, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errRanges
		}
		b = b[n:]
		first := after + hole
		last := first + length
		if hole == 0 || hole == 1 && after > 0 || first <= after || last < first || last > maxSeq {
			return nil, errRanges
		}
		r = append(r, [2]uint64{first, last})
		after = last
	}
	return r, nil
}
