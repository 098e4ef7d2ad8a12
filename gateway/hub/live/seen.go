package live

// span is a run of sequence numbers, both ends included.
type span struct{ first, last uint64 }

// maxSpans bounds what is remembered of an epoch's holes. What is forgotten
// counts as missing: points then become unconfirmed, never falsely confirmed.
const maxSpans = 64

// seen remembers which sequence numbers of one epoch the hub holds.
type seen struct {
	epoch uint64
	spans []span // ascending, never touching
}

// add marks seq as held and reports whether it came after all others.
func (s *seen) add(seq uint64) (newest bool) {
	n := len(s.spans)
	if n == 0 || seq > s.spans[n-1].last+1 {
		s.spans = append(s.spans, span{seq, seq})
		if len(s.spans) > maxSpans {
			s.spans = append(s.spans[:0], s.spans[1:]...)
		}
		return true
	}
	if seq == s.spans[n-1].last+1 {
		s.spans[n-1].last = seq
		return true
	}
	i := n - 1
	for i >= 0 && seq < s.spans[i].first {
		i--
	}
	// spans[i].first <= seq, or i == -1.
	if i >= 0 && seq <= s.spans[i].last {
		return false
	}
	joinsLeft := i >= 0 && seq == s.spans[i].last+1
	joinsRight := i+1 < n && seq+1 == s.spans[i+1].first
	switch {
	case joinsLeft && joinsRight:
		s.spans[i].last = s.spans[i+1].last
		s.spans = append(s.spans[:i+1], s.spans[i+2:]...)
	case joinsLeft:
		s.spans[i].last = seq
	case joinsRight:
		s.spans[i+1].first = seq
	case n < maxSpans:
		s.spans = append(s.spans, span{})
		copy(s.spans[i+2:], s.spans[i+1:])
		s.spans[i+1] = span{seq, seq}
	}
	return false
}

// all reports whether every number from first to last is held.
func (s *seen) all(first, last uint64) bool {
	for i := len(s.spans) - 1; i >= 0; i-- {
		if s.spans[i].first <= first {
			return last <= s.spans[i].last
		}
	}
	return false
}
