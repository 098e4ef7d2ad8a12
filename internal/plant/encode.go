package plant

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
)

// sourceUnits are the units a device may count in, as canonical = source *
// factor + offset. The table is the plant's own: see the package comment.
var sourceUnits = map[string]struct{ factor, offset float64 }{
	"kW": {1000, 0}, "MW": {1e6, 0}, "kWh": {1000, 0}, "MWh": {1e6, 0}, "GJ": {1e9 / 3600, 0}, "MJ": {1e6 / 3600, 0},
	"kvar": {1000, 0}, "kvarh": {1000, 0}, "kVA": {1000, 0}, "kVAh": {1000, 0}, "kV": {1000, 0},
	"m3/h": {1 / 3.6, 0}, "L/h": {1 / 3600.0, 0}, "L/min": {1 / 60.0, 0}, "m3/s": {1000, 0}, "L": {0.001, 0},
	"kPa": {0.01, 0}, "MPa": {10, 0}, "Pa": {1e-5, 0}, "mbar": {0.001, 0}, "hPa": {0.001, 0},
	"cm": {0.01, 0}, "mm": {0.001, 0}, "min": {60, 0}, "ms": {0.001, 0}, "d": {24, 0},
	"MVA": {1e6, 0}, "Mvar": {1e6, 0}, "Mvarh": {1e6, 0}, "MJ/h": {1e6 / 3600, 0}, "mV": {0.001, 0}, "cm3/min": {1 / 60_000.0, 0},
	"GJ/h": {1e9 / 3600, 0}, "GWh": {1e9, 0}, "J": {1 / 3600.0, 0}, "kJ": {1 / 3.6, 0}, "kA": {1000, 0}, "uA": {0.001, 0}, "kohm": {1000, 0}, "Mohm": {1e6, 0},
	"psi": {0.06894757293168, 0}, "t/h": {1 / 3.6, 0}, "kg/h": {1 / 3600.0, 0}, "ppb": {0.001, 0}, "ohm/ft": {1 / 0.3048, 0}, "ft": {0.3048, 0}, "EBC": {4, 0}, "%FSD": {1, 0},
	"ft3": {0.028316846592, 0}, "gal": {0.003785411784, 0}, "igal": {0.00454609, 0},
	"ft3/h": {28.316846592 / 3600, 0}, "ft3/min": {28.316846592 / 60, 0}, "ft3/s": {28.316846592, 0}, "ft3/d": {28.316846592 / 86400, 0},
	"gal/h": {3.785411784 / 3600, 0}, "gal/min": {3.785411784 / 60, 0}, "gal/s": {3.785411784, 0}, "gal/d": {3.785411784 / 86400, 0},
	"igal/h": {4.54609 / 3600, 0}, "igal/min": {4.54609 / 60, 0}, "igal/s": {4.54609, 0}, "igal/d": {4.54609 / 86400, 0},
	"m3/min": {1000 / 60.0, 0}, "m3/d": {1 / 86.4, 0}, "L/d": {1 / 86400.0, 0},
	"degF": {5.0 / 9, -160.0 / 9}, "degF-difference": {5.0 / 9, 0}, "g/m3": {1, 0}, "g/L": {1000, 0}, "ug/L": {0.001, 0}, "mS/cm": {1000, 0},
}

// toSource turns a canonical value into the unit the device counts in.
func toSource(v float64, source, canonical string) (float64, error) {
	if source == canonical || source == "" {
		return v, nil
	}
	u, ok := sourceUnits[source]
	if !ok {
		return 0, fmt.Errorf("the simulation cannot count in %q", source)
	}
	return (v - u.offset) / u.factor, nil
}

// encode returns the words of a numeric point. scale is what a scale register
// adds (1 without one), source the unit the device counts in.
func encode(p *profile.Point, v float64, source string, scale float64) ([]uint16, error) {
	if v == 0 && math.Signbit(v) {
		v = 0
	}
	x, err := toSource(v, source, p.Unit)
	if err != nil {
		return nil, err
	}
	if p.Class != telemetry.String { // dates and versions are not scaled
		factor := p.Scale * scale
		if factor == 0 {
			return nil, fmt.Errorf("a scale of 0 leaves nothing to encode")
		}
		x = (x - p.Offset) / factor
	}
	switch p.Type {
	case profile.F32:
		return spread(p, uint64(math.Float32bits(float32(x))), 2), nil
	case profile.F64:
		return spread(p, math.Float64bits(x), 4), nil
	case profile.Bit:
		return []uint16{uint16(clamp(math.Round(x), 0, 1))}, nil
	}
	switch p.Encoding {
	case profile.IntPlusFraction:
		whole := math.Trunc(x)
		return append(spread(p, integer(p, whole, 32), 2), spread(p, uint64(math.Float32bits(float32(x-whole))), 2)...), nil
	case profile.DateTime6, profile.DateTime3:
		return date(p, time.Unix(int64(x), 0).UTC()), nil
	case profile.Base10000:
		return digits(p, x), nil
	}
	raw, err := pack(p, math.Round(x))
	if err != nil {
		return nil, err
	}
	return spread(p, raw, int(p.Type.Width()/16)), nil
}

// pack puts a whole number into the raw bits its encoding asks for. What does
// not fit is held at the end of the range, as a device does.
func pack(p *profile.Point, x float64) (uint64, error) {
	width := p.Type.Width()
	switch p.Encoding {
	case profile.Plain, profile.Days2000, profile.UnixTime, profile.HHMM, profile.HiLoVersion:
		return integer(p, x, width), nil
	case profile.LowByte:
		return uint64(clamp(x, 0, 255)), nil
	case profile.HighByte:
		return uint64(clamp(x, 0, 255)) << 8, nil
	case profile.BitField:
		return (uint64(max(0, x)) & (1<<(p.BitHigh-p.BitLow+1) - 1)) << p.BitLow, nil
	case profile.OneHot:
		return 1 << uint(clamp(x, 0, float64(width-1))), nil
	case profile.SignMagnitude:
		raw := uint64(min(math.Abs(x), math.Ldexp(1, int(width)-1)-1))
		if x < 0 {
			raw |= 1 << (width - 1)
		}
		return raw, nil
	case profile.BCD:
		var raw uint64
		for n, shift := uint64(max(0, x)), uint(0); n > 0 && shift < width; n, shift = n/10, shift+4 {
			raw |= n % 10 << shift
		}
		return raw, nil
	}
	return 0, fmt.Errorf("the simulation does not know the encoding %q", p.Encoding)
}

// digits lays a whole number out at four decimal digits a register.
func digits(p *profile.Point, x float64) []uint16 {
	w := make([]uint16, p.Type.Width()/16)
	for n, i := uint64(max(0, x)), 0; i < len(w); n, i = n/10000, i+1 {
		at := len(w) - 1 - i
		if p.WordLittle {
			at = i
		}
		w[at] = order(p, uint16(n%10000))
	}
	return w
}

// date is what a clock shows: a byte each of year (since 2000, or since 1900
// where it takes three registers of month and day first), and so on.
func date(p *profile.Point, t time.Time) []uint16 {
	two := func(hi, lo int) uint16 { return order(p, uint16(hi)<<8|uint16(lo)) }
	if p.Encoding == profile.DateTime6 {
		return []uint16{two(t.Year()-2000, int(t.Month())), two(t.Day(), t.Hour()), two(t.Minute(), t.Second())}
	}
	return []uint16{two(int(t.Month()), t.Day()), two(t.Year()-1900, t.Hour()), two(t.Minute(), t.Second())}
}

func integer(p *profile.Point, x float64, width uint) uint64 {
	if p.Type.Signed() {
		edge := math.Ldexp(1, int(width)-1)
		if x >= edge {
			return 1<<(width-1) - 1
		}
		return uint64(int64(max(x, -edge))) & mask(width)
	}
	if p.Counter && p.WrapsAt > 0 && x > 0 {
		return uint64(math.Mod(x, float64(p.WrapsAt)))
	}
	if p.Counter && width < 64 && x > 0 {
		return uint64(math.Mod(x, math.Ldexp(1, int(width))))
	}
	if x >= math.Ldexp(1, int(width)) {
		return mask(width)
	}
	return uint64(max(0, x))
}

func mask(width uint) uint64 {
	if width >= 64 {
		return math.MaxUint64
	}
	return 1<<width - 1
}

// spread lays raw out over n words in the point's word and byte order.
func spread(p *profile.Point, raw uint64, n int) []uint16 {
	w := make([]uint16, n)
	for i := range w {
		at := n - 1 - i
		if p.WordLittle {
			at = i
		}
		w[i] = order(p, uint16(raw>>(16*at)))
	}
	return w
}

func order(p *profile.Point, w uint16) uint16 {
	if p.ByteLittle {
		return w<<8 | w>>8
	}
	return w
}

// encodeText fills the point's words with s, two characters a word, then zeros.
func encodeText(p *profile.Point, s string) []uint16 {
	w := make([]uint16, (p.Length+1)/2)
	for i := range min(len(s), int(p.Length)) {
		w[i/2] |= uint16(s[i]) << (8 * (1 - i%2))
	}
	for i := range w {
		w[i] = order(p, w[i])
	}
	return w
}

// notAvailable returns the words by which the model says that it has no value.
func notAvailable(p *profile.Point) ([]uint16, bool) {
	if p.Type == profile.Text || p.Type == profile.Bit {
		return nil, false
	}
	for _, s := range p.Invalid {
		if s.Means != "" && s.Means != "invalid" {
			continue
		}
		if raw, ok := sentinelRaw(p, s.Raw); ok {
			return spread(p, raw, int(p.Type.Width()/16)), true
		}
	}
	if p.Type.IsFloat() { // a float can always say that it is none
		raw, _ := sentinelRaw(p, "nan")
		return spread(p, raw, int(p.Type.Width()/16)), true
	}
	return nil, false
}

func sentinelRaw(p *profile.Point, text string) (uint64, bool) {
	width := p.Type.Width()
	switch strings.ToLower(text) {
	case "all-ones":
		return mask(width), true
	case "negative":
		return mask(width), p.Type.Signed() // -1
	case "max-positive":
		return mask(width) >> 1, true
	case "nan", "inf", "-inf":
		f, _ := strconv.ParseFloat(text, 64)
		if width == 64 {
			return math.Float64bits(f), p.Type.IsFloat()
		}
		return uint64(math.Float32bits(float32(f))), p.Type.IsFloat()
	}
	if u, err := strconv.ParseUint(text, 0, 64); err == nil && !p.Type.IsFloat() {
		return u & mask(width), true
	}
	if i, err := strconv.ParseInt(text, 0, 64); err == nil && !p.Type.IsFloat() {
		return uint64(i) & mask(width), true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !p.Type.IsFloat() {
		return 0, false
	}
	if width == 64 {
		return math.Float64bits(f), true
	}
	return uint64(math.Float32bits(float32(f))), true
}

func clamp(x, lo, hi float64) float64 { return max(lo, min(hi, x)) }
