// Package plan decides which Modbus requests read a set of registers in the
// least bus time, and tells how much of a line's time a set of polls takes. It
// is pure arithmetic: it knows neither devices nor lines.
//
// On a serial line a request costs its own bytes, the silences around it and
// the time the device takes to answer, so a few unwanted registers are cheaper
// than a second request. How many depends on the line; the least total is
// found exactly, by dynamic programming over the spans in order of address.
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Table is one of the four Modbus tables, by the function code that reads it.
type Table uint8

// The four tables.
const (
	Coil     Table = 1
	Discrete Table = 2
	Holding  Table = 3
	Input    Table = 4
)

func (t Table) isBit() bool { return t == Coil || t == Discrete }

// Span is a run of registers or bits, zero-based. As something wanted it is
// never split; as a request it is what one transaction reads.
type Span struct {
	Unit    uint8 // which of the unit addresses of a device that has several; no request mixes two
	Table   Table
	Address uint16
	Count   uint16
}

// Request is one transaction.
type Request = Span

// end is the first address after the span.
func (s Span) end() int { return int(s.Address) + int(s.Count) }

// Protocol limits of one request (MODBUS Application Protocol V1.1b3, 6.1 to 6.4).
const (
	MaxRegisters = 125
	MaxBits      = 2000
)

// Limits are what a device bears in one request.
type Limits struct {
	// MaxRegisters and MaxBits are at most those of the protocol; 0 is those.
	MaxRegisters, MaxBits int
	// Gaps says that a request may cover registers nobody wants. It must stay
	// false for a device that refuses them, and where that is not known.
	Gaps bool
	// Bad are spans that the device was seen to refuse: holes, and values that
	// it does not have. No request covers one together with anything else. A
	// Count of 0 is a border that no request may cross.
	Bad []Span
}

// bars reports whether r covers what was seen to be refused.
func (l Limits) bars(r Request) bool {
	for _, b := range l.Bad {
		switch {
		case b.Unit != r.Unit || b.Table != r.Table || b.Address < r.Address || b.end() > r.end():
		case b.Count == 0:
			if r.Address < b.Address && b.end() < r.end() {
				return true
			}
		case b != r:
			return true
		}
	}
	return false
}

func (l Limits) most(t Table) int {
	if t.isBit() {
		return bounded(l.MaxBits, MaxBits)
	}
	return bounded(l.MaxRegisters, MaxRegisters)
}

func bounded(n, most int) int {
	if n <= 0 || n > most {
		return most
	}
	return n
}

// Plan returns the requests that read every span whole, in the least time on
// the line; of plans that take the same time, the one with the fewest
// requests, then the fewest registers. They are ordered by unit, table and address.
// Spans may touch, overlap and repeat; each is read by one request, so what
// must be read together is one span. A span that is empty, passes address 65535 or is longer than the
// limits allow is a bug of the caller: profiles are checked when loaded.
func Plan(spans []Span, limits Limits, line Line) []Request {
	want := normalise(spans, limits)
	var out []Request
	for len(want) > 0 {
		n := 1
		for n < len(want) && want[n].Unit == want[0].Unit && want[n].Table == want[0].Table {
			n++
		}
		out = append(out, planTable(want[:n], limits, line)...)
		want = want[n:]
	}
	return out
}

// normalise orders the spans by unit, table and address and drops those that lie
// within another: starts and ends both rise afterwards.
func normalise(spans []Span, limits Limits) []Span {
	sorted := slices.Clone(spans)
	for _, s := range sorted {
		if s.Table < Coil || s.Table > Input || s.Count == 0 || s.end() > 1<<16 || int(s.Count) > limits.most(s.Table) {
			panic(fmt.Sprintf("BUG: span %+v cannot be read in one request of at most %d", s, limits.most(s.Table)))
		}
	}
	slices.SortFunc(sorted, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Address, b.Address), cmp.Compare(b.Count, a.Count))
	})
	out := sorted[:0]
	for _, s := range sorted {
		if n := len(out); n > 0 && out[n-1].Unit == s.Unit && out[n-1].Table == s.Table && s.end() <= out[n-1].end() {
			continue
		}
		out = append(out, s)
	}
	return out
}

// planTable cuts the ordered spans of one table of one unit into runs, a request each.
func planTable(want []Span, limits Limits, line Line) []Request {
	type best struct {
		cost  time.Duration
		count int // requests
		words int // registers or bits read
		from  int
	}
	bests := make([]best, len(want)+1)
	most := limits.most(want[0].Table)
	for i := 1; i <= len(want); i++ {
		bests[i].cost = -1
		for j := i - 1; j >= 0; j-- {
			if j < i-1 && !limits.Gaps && int(want[j+1].Address) > want[j].end() {
				break // nothing that begins further down may cross this gap
			}
			if want[i-1].end()-int(want[j].Address) > most {
				break
			}
			r := run(want[j], want[i-1])
			if j < i-1 && limits.bars(r) {
				break // and neither may a longer one; a single span is asked for whatever is known of it
			}
			with := best{bests[j].cost + line.Time(r), bests[j].count + 1, bests[j].words + int(r.Count), j}
			if b := &bests[i]; b.cost < 0 || cmp.Or(cmp.Compare(with.cost, b.cost), cmp.Compare(with.count, b.count), cmp.Compare(with.words, b.words)) < 0 {
				*b = with
			}
		}
	}
	var out []Request
	for i := len(want); i > 0; i = bests[i].from {
		out = append(out, run(want[bests[i].from], want[i-1]))
	}
	slices.Reverse(out)
	return out
}

// run is the request from the first span to the last.
func run(first, last Span) Request {
	return Request{first.Unit, first.Table, first.Address, uint16(last.end() - int(first.Address))}
}
