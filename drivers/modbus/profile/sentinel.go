package profile

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"luquan/gateway/telemetry"
)

// sentinels reads the raw values that mean no value.
func (c *compiler) sentinels(rp rawPoint, p *Point) {
	for i, s := range rp.Invalid {
		at := rp.at.With("invalid", i)
		q, ok := sentinelMeans[s.Means]
		if !ok {
			c.errorf(at.With("means"), "means is %q; it is one of invalid, over_range, under_range", s.Means)
			continue
		}
		s.Quality = q
		if s.match, ok = p.matcher(s.Raw); !ok {
			c.errorf(at, "raw value %q cannot occur in type %s; write a number of %d bits as it stands in the register (before scaling), nan, inf, -inf (floats), all-ones, max-positive or negative (signed types)",
				s.Raw, rp.Type, p.width())
			continue
		}
		p.Invalid = append(p.Invalid, s)
	}
	if len(rp.Invalid) > 0 && p.Type == Text {
		c.errorf(rp.at.With("invalid"), "a text has no invalid raw values: what is not printable is no value anyway")
	}
	p.Invalid = slices.Clip(p.Invalid)
}

// matcher returns the test for one raw value, on bits of p.width().
func (p *Point) matcher(raw string) (func(uint64) bool, bool) {
	width := p.width()
	is := func(want uint64) (func(uint64) bool, bool) {
		return func(x uint64) bool { return x == want }, true
	}
	asFloat := func(x uint64) float64 {
		if p.Type == F32 {
			return float64(math.Float32frombits(uint32(x)))
		}
		return math.Float64frombits(x)
	}
	hex := strings.HasPrefix(raw, "0x") || strings.HasPrefix(raw, "0X")
	switch {
	case raw == "all-ones":
		return is(mask(width))
	case raw == "negative" && (p.Type.Signed() || p.Type.IsFloat()):
		return func(x uint64) bool { return x>>(width-1) == 1 }, true
	case raw == "max-positive":
		return is(mask(width) >> 1)
	case !p.Type.IsFloat() || hex:
		if i, err := strconv.ParseInt(raw, 0, 64); err == nil && i < 0 {
			if !p.Type.Signed() || (width < 64 && i < -(1<<(width-1))) {
				return nil, false
			}
			return is(uint64(i) & mask(width))
		}
		u, err := strconv.ParseUint(raw, 0, 64)
		if err != nil || u > mask(width) {
			return nil, false
		}
		return is(u)
	case raw == "nan":
		return func(x uint64) bool { return math.IsNaN(asFloat(x)) }, true
	case raw == "inf":
		return func(x uint64) bool { return math.IsInf(asFloat(x), 1) }, true
	case raw == "-inf":
		return func(x uint64) bool { return math.IsInf(asFloat(x), -1) }, true
	}
	f, err := strconv.ParseFloat(raw, int(width))
	if err != nil {
		return nil, false
	}
	return func(x uint64) bool { return asFloat(x) == f }, true
}

// sentinelMeans are the words of Sentinel.Means; "" is invalid.
var sentinelMeans = map[string]telemetry.Quality{"": telemetry.Invalid, "invalid": telemetry.Invalid,
	"over_range": telemetry.OverRange, "under_range": telemetry.UnderRange}

// UnmarshalScalar reads the short form of a sentinel: a raw value that means
// invalid. The long form is {raw: ..., means: over_range}.
func (s *Sentinel) UnmarshalScalar(text string) error {
	s.Raw = text
	return nil
}
