package profile

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"luquan/gateway/telemetry"
)

// The rules of ScaleFrom.
const (
	rulePow10    = "pow10"
	ruleDecimals = "decimals"
	ruleTimes    = "times"
)

// maxPow10 bounds a scale register: no device means more than this, a garbled
// one might.
const maxPow10 = 18

// Words gives the word (or bit: 0 or 1) at an address and the quality of the
// request that brought it: Good, or why there is none.
type Words func(t Table, address uint16) (word uint16, q telemetry.Quality)

// Decode turns the words the point needs into its value in the canonical
// unit, and says how good it is. With a quality that carries no value the
// Value is zero. It is the worst quality of the words when any of them is not
// there; Invalid when the device says so, by a sentinel, a validity register
// or a number that cannot be one; OutOfRange carries the value. raw is a
// counter's number as it stands in the register, before any scaling; 0 of
// every other point.
func (p *Point) Decode(words Words) (v telemetry.Value, raw float64, q telemetry.Quality) {
	var space [4]uint16
	own := space[:0]
	for i := range p.Words {
		w, wq := words(p.Table, p.Address+i)
		own, q = append(own, w), q.Worst(wq)
	}
	return p.decode(own, words, q)
}

// DecodeOwn is Decode where the point's own registers are at hand: data begins
// with them, two bytes each, high byte first, as Modbus sends them. words is
// asked for the other ones only: scale, unit and validity.
func (p *Point) DecodeOwn(data []byte, words Words) (v telemetry.Value, raw float64, q telemetry.Quality) {
	var space [4]uint16
	own := space[:0]
	data = data[:2*int(p.Words)]
	for i := 0; i < len(data); i += 2 {
		own = append(own, uint16(data[i])<<8|uint16(data[i+1]))
	}
	return p.decode(own, words, telemetry.Good)
}

// decode decodes own, whose words came with the quality q.
func (p *Point) decode(own []uint16, words Words, q telemetry.Quality) (telemetry.Value, float64, telemetry.Quality) {
	read := func(t Table, a uint16) uint16 {
		w, wq := words(t, a)
		q = q.Worst(wq)
		return w
	}
	times, exp := int64(1), 0
	if p.ScaleFrom != nil {
		w := read(p.ScaleFrom.Table, p.ScaleFrom.Address)
		switch p.ScaleFrom.Rule {
		case rulePow10:
			exp = int(int16(w))
		case ruleDecimals:
			exp = -int(int16(w))
		case ruleTimes:
			times = int64(w)
		}
	}
	cv := &p.conv
	known := times != 0 // a device that leaves its ratio at 0 has not been set up
	if p.UnitFrom != nil {
		code, ok := p.UnitFrom.conv[int64(read(p.UnitFrom.Table, p.UnitFrom.Address))]
		cv, known = code, known && ok
	}
	valid := telemetry.Good
	if p.Validity != nil {
		valid = p.Validity.judge(read(p.Validity.Table, p.Validity.Address))
	}
	switch {
	case q != telemetry.Good:
		return telemetry.Value{}, 0, q
	case valid != telemetry.Good:
		return telemetry.Value{}, 0, valid
	case !known || exp > maxPow10 || exp < -maxPow10:
		return telemetry.Value{}, 0, telemetry.Invalid
	}
	if p.Class == telemetry.String {
		v, q := p.text(own)
		return v, 0, q
	}
	raw, ok := p.raw(own)
	if !ok {
		return telemetry.Value{}, 0, telemetry.Invalid
	}
	for i := range p.Invalid {
		if p.Invalid[i].match(raw) {
			return telemetry.Value{}, 0, p.Invalid[i].Quality
		}
	}
	return p.number(own, raw, cv, times, exp)
}

// Wrap is the raw number at which a counter begins again at 0; 0 where nothing
// is known: a float has no end of its own.
func (p *Point) Wrap() float64 {
	switch {
	case p.WrapsAt != 0:
		return float64(p.WrapsAt)
	case p.Type.IsFloat() || p.Type == Text:
		return 0
	case p.Encoding == BCD:
		return math.Pow10(int(p.Type.Width() / 4))
	case p.Encoding == Base10000:
		return math.Pow10(4 * int(p.Words))
	}
	return math.Ldexp(1, int(p.width()))
}

func (v *Validity) judge(word uint16) telemetry.Quality {
	w := int64(word & v.Mask)
	in := func(list []int64) bool {
		for _, x := range list {
			if x == w {
				return true
			}
		}
		return false
	}
	switch {
	case in(v.Good):
		return telemetry.Good
	case in(v.OverRange):
		return telemetry.OverRange
	case in(v.UnderRange):
		return telemetry.UnderRange
	}
	return telemetry.Invalid
}

// width is the number of bits of what raw returns.
func (p *Point) width() uint {
	switch p.Encoding {
	case LowByte, HighByte:
		return 8
	case BitField:
		return p.BitHigh - p.BitLow + 1
	}
	return p.Type.Width()
}

// raw assembles the words and takes out what the encoding says, still as bits
// of p.width(). ok is false when the encoding does not allow these bits.
func (p *Point) raw(own []uint16) (raw uint64, ok bool) {
	if p.Encoding == IntPlusFraction {
		own = own[:2]
	}
	if p.Encoding == Base10000 {
		return p.base10000(own)
	}
	raw = p.join(own)
	switch p.Encoding {
	case LowByte:
		raw &= 0xff
	case HighByte:
		raw >>= 8
	case BitField:
		raw = raw >> p.BitLow & mask(p.width())
	case OneHot:
		if bits.OnesCount64(raw) != 1 {
			return 0, false
		}
		raw = uint64(bits.TrailingZeros64(raw))
	}
	if p.Type == Bit {
		raw &= 1
	}
	return raw, true
}

func (p *Point) join(own []uint16) (raw uint64) {
	for i, w := range own {
		if p.ByteLittle {
			w = bits.ReverseBytes16(w)
		}
		if p.WordLittle {
			raw |= uint64(w) << (16 * i)
		} else {
			raw = raw<<16 | uint64(w)
		}
	}
	return raw
}

func (p *Point) base10000(own []uint16) (raw uint64, ok bool) {
	for i := range own {
		w := own[i]
		if p.WordLittle {
			w = own[len(own)-1-i]
		}
		if p.ByteLittle {
			w = bits.ReverseBytes16(w)
		}
		if w > 9999 {
			return 0, false
		}
		raw = raw*10000 + uint64(w)
	}
	return raw, true
}

func mask(width uint) uint64 {
	if width >= 64 {
		return math.MaxUint64
	}
	return 1<<width - 1
}

// number makes a Float or Int of the raw bits.
func (p *Point) number(own []uint16, raw uint64, cv *conv, times int64, exp int) (telemetry.Value, float64, telemetry.Quality) {
	x, ok := p.exact(raw)
	if !ok {
		return telemetry.Value{}, 0, telemetry.Invalid
	}
	read := 0.0
	if p.Counter {
		read = x.float()
	}
	if p.Class == telemetry.Int {
		i, ok := x.int()
		if !ok {
			return telemetry.Value{}, 0, telemetry.Invalid // an unsigned one that no int64 holds
		}
		return telemetry.IntValue(i), read, p.judge(float64(i))
	}
	x.exp += exp
	f := 0.0
	if p.Encoding == IntPlusFraction {
		frac, ok := floatNumber(float64(math.Float32frombits(uint32(p.join(own[2:])))), 32)
		if !ok {
			return telemetry.Value{}, 0, telemetry.Invalid
		}
		frac.exp += exp
		sum := x.rat()
		sum.Add(sum, frac.rat())
		f = cv.applyRat(sum.Mul(sum, new(big.Rat).SetInt64(times)))
	} else {
		f = cv.apply(x, times)
	}
	v := telemetry.FloatValue(f)
	if v.IsZero() {
		return v, 0, telemetry.Invalid
	}
	return v, read, p.judge(v.Float())
}

// judge compares with the maker's range, in the canonical unit.
func (p *Point) judge(f float64) telemetry.Quality {
	if (p.Min != nil && f < *p.Min) || (p.Max != nil && f > *p.Max) {
		return telemetry.OutOfRange
	}
	return telemetry.Good
}

// exact reads the raw bits as an exact number.
func (p *Point) exact(raw uint64) (number, bool) {
	switch {
	case p.Type == F32:
		return floatNumber(float64(math.Float32frombits(uint32(raw))), 32)
	case p.Type == F64:
		return floatNumber(math.Float64frombits(raw), 64)
	case p.Encoding == BCD:
		var n uint64
		for shift := int(p.Type.Width()) - 4; shift >= 0; shift -= 4 {
			digit := raw >> shift & 0xf
			if digit > 9 {
				return number{}, false
			}
			n = n*10 + digit
		}
		return number{mant: n}, true
	case p.Encoding == SignMagnitude:
		top := uint64(1) << (p.Type.Width() - 1)
		return number{neg: raw&top != 0, mant: raw &^ top}, true
	case p.Type.Signed():
		shift := 64 - p.width()
		return intNumber(int64(raw<<shift) >> shift), true
	}
	return number{mant: raw}, true
}

// floatNumber returns the shortest decimal that reads back as f at that
// width: what the device meant, without the artefacts of widening 32 bits.
func floatNumber(f float64, width int) (number, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return number{}, false
	}
	var space [32]byte
	var x number
	b := strconv.AppendFloat(space[:0], f, 'e', -1, width) // -d.ddde+xx
	point := false
	for i, c := range b {
		switch {
		case c == '-':
			x.neg = true
		case c == '.':
			point = true
		case c == 'e':
			e, _ := strconv.Atoi(string(b[i+1:]))
			x.exp += e
			return x, true
		default:
			x.mant = x.mant*10 + uint64(c-'0')
			if point {
				x.exp--
			}
		}
	}
	panic("BUG: strconv wrote a float without an exponent")
}

// int returns x as an int64 when it is a whole number that fits.
func (x number) int() (int64, bool) {
	switch {
	case x.exp != 0 || x.mant > 1<<63 || (x.mant == 1<<63 && !x.neg):
		return 0, false
	case x.neg:
		return int64(-x.mant), true
	}
	return int64(x.mant), true
}

// text makes a String of the words.
func (p *Point) text(own []uint16) (telemetry.Value, telemetry.Quality) {
	s, ok := "", false
	switch p.Encoding {
	case HiLoVersion:
		w := p.join(own)
		s, ok = fmt.Sprintf("%d.%d", w>>8, w&0xff), true
	case HHMM:
		w := p.join(own)
		s, ok = fmt.Sprintf("%02d:%02d", w/100, w%100), w <= 2400 && w%100 < 60
	case UnixTime:
		s, ok = time.Unix(int64(p.join(own)), 0).UTC().Format(time.RFC3339), true
	case Days2000:
		s, ok = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(p.join(own))).Format(time.DateOnly), true
	case DateTime6:
		b := p.bytes(own)
		s, ok = dateTime(2000+int(b[0]), b[1], b[2], b[3], b[4], b[5])
	case DateTime3:
		b := p.bytes(own)
		s, ok = dateTime(1900+int(b[2]), b[0], b[1], b[3], b[4], b[5])
		ok = ok && b[2] <= 199
	default:
		s, ok = cleanText(p.bytes(own)[:p.Length])
	}
	if p.Type != Text {
		raw := p.join(own)
		for _, sen := range p.Invalid {
			if sen.match(raw) {
				return telemetry.Value{}, sen.Quality
			}
		}
	}
	if !ok {
		return telemetry.Value{}, telemetry.Invalid
	}
	return telemetry.StringValue(s), telemetry.Good
}

func (p *Point) bytes(own []uint16) []byte {
	b := make([]byte, 0, 2*len(own))
	for _, w := range own {
		if p.ByteLittle {
			w = bits.ReverseBytes16(w)
		}
		b = append(b, byte(w>>8), byte(w))
	}
	return b
}

func dateTime(year int, month, d, h, m, s byte) (string, bool) {
	t := time.Date(year, time.Month(month), int(d), int(h), int(m), int(s), 0, time.UTC)
	if t.Month() != time.Month(month) || t.Day() != int(d) || t.Hour() != int(h) || t.Minute() != int(m) || t.Second() != int(s) {
		return "", false
	}
	return t.Format("2006-01-02T15:04:05"), true
}

// cleanText ends a text at its first NUL or line end and cuts the spaces
// around it. What is not printable text is none: a device without the text
// answers 0xFFFF or noise.
func cleanText(b []byte) (string, bool) {
	s := string(b)
	if i := strings.IndexAny(s, "\x00\r\n"); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimSpace(s)
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", false
	}
	return s, true
}
