package profile

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// point checks one written point; ok is false when something is wrong.
func (c *compiler) point(rp rawPoint, prof *Profile) (p Point, ok bool) {
	before := c.bad
	c.bad = false
	defer func() {
		ok = !c.bad
		c.bad, c.about = c.bad || before, ""
	}()
	if !telemetry.ValidPoint(rp.Name) {
		c.errorf(rp.at.With("name"), "%s", badName(rp.Name))
		return p, false
	}
	if c.base != "" && len(rp.at) == len(c.at) {
		c.about = "profile " + c.base + ", point " + rp.Name + ": "
	}
	written := rp
	for _, name := range rp.fill(c.params) {
		c.errorf(rp.at.With(written.names(name)...), "${%s} names no parameter of this profile: declare it under params:, or correct the name%s", name, suggest(name, slices.Sorted(maps.Keys(c.params))))
	}
	if c.bad {
		return p, false
	}
	p = Point{Table: c.table(rp.at, rp.Table, 0), SourceUnit: rp.Unit, WrapsAt: rp.WrapsAt, Access: rp.Access, Note: rp.Note, Every: rp.Every}
	p.Name, p.Label, p.Counter = rp.Name, rp.Label, rp.Counter != nil && *rp.Counter
	if p.Every == 0 {
		p.Every = prof.Every
	}
	c.period(rp.at.With("every"), p.Every)
	p.FrozenAfter, p.at = rp.FrozenAfter, rp.at
	if rp.Access != "" && !slices.Contains([]string{"ro", "rw", "wo"}, rp.Access) {
		c.errorf(rp.at.With("access"), "access is %q; it is ro or rw", rp.Access)
	}
	if rp.Access == "wo" {
		c.errorf(rp.at.With("access"), "a write-only register cannot be read; leave the point out")
	}
	p.WordLittle = c.order(rp.at.With("word_order"), "word_order", rp.WordOrder, false)
	p.ByteLittle = c.order(rp.at.With("byte_order"), "byte_order", rp.ByteOrder, c.byteLE)
	c.readType(rp, &p)
	c.encoding(rp, &p)
	if c.bad {
		return p, false
	}
	c.address(rp, &p, prof.Limits.MaxRegisters)
	c.class(rp, &p)
	if p.Class != telemetry.String {
		c.scaling(rp, &p)
	} else if rp.Scale != "" || rp.Offset != "" || rp.Unit != "" || rp.ScaleFrom != nil || rp.UnitFrom != nil || rp.Range != nil {
		c.errorf(rp.at, "a text has no scale, offset, unit or range")
	}
	c.validity(rp, &p)
	c.sentinels(rp, &p)
	c.names(rp, &p)
	for _, n := range p.needs {
		if int(n.Count) > prof.Limits.MaxRegisters && !n.Table.IsBit() {
			c.errorf(rp.at, "the value and its block need %d registers in one request, and the device gives at most %d", n.Count, prof.Limits.MaxRegisters)
		}
	}
	return p, !c.bad
}

func badName(name string) string {
	switch {
	case name == "":
		return "name is missing: every point has one, for example name: flow_temp"
	case telemetry.ValidKind(name) && !strings.HasPrefix(name, "gateway_") && !strings.HasSuffix(name, "_q"):
		return fmt.Sprintf("a point may not be named %q, a column of every row; call it device_%s", name, name)
	}
	return fmt.Sprintf("a point may not be named %q: use a-z, 0-9 and _, beginning with a letter, not with gateway_, not ending in _q; Chinese belongs in labels", name)
}

func (c *compiler) readType(rp rawPoint, p *Point) {
	if n, isText := strings.CutPrefix(rp.Type, "string:"); isText {
		length, err := strconv.Atoi(n)
		if err != nil || length < 1 || length > maxTextLength {
			c.errorf(rp.at.With("type"), "type is %q; write string:N with N from 1 to %d characters", rp.Type, maxTextLength)
			return
		}
		p.Type, p.Length, p.Words = Text, uint16(length), uint16(length+1)/2
	} else if t, known := typeNames[rp.Type]; known {
		p.Type, p.Words = t, uint16(t.Width()+15)/16
	} else if names := slices.Sorted(maps.Keys(typeNames)); rp.Type == "" {
		c.errorf(rp.at.With("type"), "type is missing; it is one of %s, string:N", strings.Join(names, ", "))
		return
	} else {
		hint := ""
		other := strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(rp.Type))
		if ours := cmp.Or(otherTypes[other], otherTypes[strings.TrimSuffix(strings.TrimSuffix(other, "be"), "le")]); ours != "" {
			hint = "; did you mean " + ours + "?"
		}
		c.errorf(rp.at.With("type"), "type is %q; it is one of %s, string:N%s", rp.Type, strings.Join(names, ", "), hint)
		return
	}
	if p.Table != 0 && p.Table.IsBit() != (p.Type == Bit) {
		c.errorf(rp.at.With("type"), "type %s cannot stand in the %s table: coils and discrete inputs are bits, registers are not (use encoding: bit-field:3-3 for one bit of a register)", rp.Type, p.Table)
	}
}

// otherTypes are the names that books and other tools give the types.
var otherTypes = map[string]string{
	"uint16": "u16", "int16": "s16", "uint32": "u32", "int32": "s32", "uint64": "u64", "int64": "s64", "i16": "s16", "i32": "s32", "i64": "s64",
	"word": "u16", "uint": "u16", "int": "s16", "short": "s16", "ushort": "u16", "dword": "u32", "udint": "u32", "dint": "s32", "long": "s32", "ulong": "u32",
	"float": "f32", "float32": "f32", "real": "f32", "single": "f32", "double": "f64", "float64": "f64", "lreal": "f64",
	"bool": "bit", "boolean": "bit", "bitmap": "bits", "bitfield": "bits", "enum": "u16", "string": "string:N", "ascii": "string:N", "char": "string:N",
}

func (c *compiler) encoding(rp rawPoint, p *Point) {
	name, arg, _ := strings.Cut(rp.Encoding, ":")
	p.Encoding = Encoding(name)
	at, fits := rp.at.With("encoding"), true
	whole := p.Type == U16 || p.Type == U32 || p.Type == U64
	switch p.Encoding {
	case Plain:
	case LowByte, HighByte:
		fits = p.Type == U16 || p.Type == S16
	case BitField:
		a, b, _ := strings.Cut(arg, "-")
		lo, err1 := strconv.ParseUint(a, 10, 8)
		hi, err2 := strconv.ParseUint(b, 10, 8)
		if err1 != nil || err2 != nil || lo > hi || uint(hi) >= p.Type.Width() {
			c.errorf(at, "encoding is %q; write bit-field:a-b with bits 0 to %d, low one first", rp.Encoding, max(p.Type.Width(), 1)-1)
		}
		p.BitLow, p.BitHigh, arg = uint(lo), uint(hi), ""
		fits = whole
	case OneHot, BCD:
		fits = whole
	case SignMagnitude:
		fits = whole
	case Base10000:
		fits = p.Type == U32 || p.Type == U64
	case IntPlusFraction:
		fits = p.Type == U32 || p.Type == S32
		p.Words = 4
	case HiLoVersion, HHMM:
		fits = p.Type == U16
	case UnixTime:
		fits = p.Type == U32
	case Days2000:
		fits = p.Type == U16
	case DateTime6, DateTime3:
		fits = p.Type == U16
		p.Words = 3
	default:
		c.errorf(at, "encoding %q is not known%s", rp.Encoding, suggest(name, encodingNames))
		return
	}
	if arg != "" {
		c.errorf(at, "encoding %s takes no %q", name, arg)
	}
	if !fits {
		c.errorf(at, "encoding %s does not go with type %s", name, rp.Type)
	}
}

var encodingNames = []string{string(LowByte), string(HighByte), string(BitField), string(OneHot), string(BCD), string(SignMagnitude), string(Base10000),
	string(IntPlusFraction), string(HiLoVersion), string(HHMM), string(UnixTime), string(Days2000), string(DateTime6), string(DateTime3)}

func (c *compiler) address(rp rawPoint, p *Point, most int) {
	if rp.Address == "" {
		c.errorf(rp.at.With("address"), "address is missing; it is the zero-based protocol address, not the number 4xxxx of the book")
		return
	}
	p.DocAddress = string(rp.DocAddress)
	if rp.UnitOffset != "" {
		p.UnitOffset = uint8(c.sum(rp.at.With("unit_offset"), "unit_offset", rp.UnitOffset, maxUnitOffset))
	}
	at, ok := c.place(rp.at, rp.Address)
	if p.Address = at; !ok {
		return
	}
	if int(p.Address)+int(p.Words) > 1<<16 {
		c.errorf(rp.at.With("address"), "%d registers from %d go beyond the last address, 65535", p.Words, p.Address)
	}
	if int(p.Words) > most {
		c.errorf(rp.at.With("type"), "the value takes %d registers and the device gives at most %d in a request", p.Words, most)
	}
	p.needs = c.addSpan(nil, Span{p.Table, p.Address, p.Words})
}

// isText reports whether the point gives a text.
func (p *Point) isText() bool {
	switch p.Encoding {
	case HiLoVersion, HHMM, UnixTime, Days2000, DateTime6, DateTime3:
		return true
	}
	return p.Type == Text
}

// class decides the class: quantities are floats; what has an enum, named
// bits or no unit and no scaling is a whole number.
func (c *compiler) class(rp rawPoint, p *Point) {
	plain := rp.Unit == "" && rp.Scale == "" && rp.Offset == "" && rp.ScaleFrom == nil && rp.UnitFrom == nil && p.Encoding != IntPlusFraction && p.Encoding != SignMagnitude
	switch {
	case p.isText():
		p.Class = telemetry.String
	case !p.Type.IsFloat() && (plain || len(rp.Enum) > 0 || len(rp.Bits) > 0):
		p.Class = telemetry.Int
	default:
		p.Class = telemetry.Float
	}
	var want telemetry.Class
	switch rp.Class {
	case "":
		return
	case "float":
		want = telemetry.Float
	case "int":
		want = telemetry.Int
	case "string":
		want = telemetry.String
	default:
		c.errorf(rp.at.With("class"), "class is %q; it is float, int or string", rp.Class)
		return
	}
	switch {
	case (want == telemetry.String) != p.isText():
		c.errorf(rp.at.With("class"), "class %s does not go with type %s and encoding %q", want, rp.Type, rp.Encoding)
	case want == telemetry.Int && (p.Type.IsFloat() || p.Encoding == IntPlusFraction || rp.ScaleFrom != nil || rp.UnitFrom != nil):
		c.errorf(rp.at.With("class"), "class int is for whole numbers as they stand in the register; this point is a float")
	case want == telemetry.Float && (len(rp.Enum) > 0 || len(rp.Bits) > 0):
		c.errorf(rp.at.With("class"), "a point with enum or bits is an int")
	default:
		p.Class = want
	}
}

// scaling builds the exact way from raw to the canonical unit.
func (c *compiler) scaling(rp rawPoint, p *Point) {
	scale, ok1 := parseRat(rp.Scale, big.NewRat(1, 1))
	offset, ok2 := parseRat(rp.Offset, new(big.Rat))
	if !ok1 || scale.Sign() == 0 {
		c.errorf(rp.at.With("scale"), "scale is %q; write a number that is not 0, for example 0.1, or a fraction such as 1/512", rp.Scale)
		return
	}
	if !ok2 {
		c.errorf(rp.at.With("offset"), "offset is %q; write a number, for example -273.15", rp.Offset)
		return
	}
	p.Scale, p.Offset = ratFloat(scale), ratFloat(offset)
	if u, known := units[rp.Unit]; known {
		p.Unit = u.canon
	} else if rp.Unit != "" {
		c.errorf(rp.at.With("unit"), "unit %q is not known%s", rp.Unit, suggestUnit(rp.Unit))
		return
	}
	if rp.As != "" {
		p.Unit = rp.As
	}
	conv, ok := c.convFrom(rp.Unit, p.Unit, scale, offset)
	if !ok {
		c.errorf(rp.at.With("as"), "%q cannot become %q: as: names another canonical unit of the same dimension", rp.Unit, rp.As)
		return
	}
	p.conv = conv
	if p.Class == telemetry.Int && (!conv.small || conv.n != 1 || conv.o != 0 || conv.d != 1) {
		c.errorf(rp.at, "an int is the number as it stands in the register: leave scale, offset and a unit that converts out, or make it class: float")
	}
	c.scaleFrom(rp, p)
	c.unitFrom(rp, p, scale, offset)
	c.readRange(rp, p)
}

func (c *compiler) convFrom(from, to string, scale, offset *big.Rat) (conv, bool) {
	factor, add, ok := convert(from, to)
	if !ok {
		return conv{}, false
	}
	mul := new(big.Rat).Mul(scale, factor)
	add.Add(add, new(big.Rat).Mul(offset, factor))
	return newConv(mul, add), true
}

func (c *compiler) scaleFrom(rp rawPoint, p *Point) {
	sf := rp.ScaleFrom
	if sf == nil {
		return
	}
	at := rp.at.With("scale_from")
	p.ScaleFrom = &ScaleFrom{Rule: sf.Rule}
	p.ScaleFrom.Table, p.ScaleFrom.Address = c.aux(at, sf.Table, sf.Address, p)
	if !slices.Contains([]string{rulePow10, ruleDecimals, ruleTimes}, sf.Rule) {
		c.errorf(at.With("rule"), "rule is %q; it is pow10 (times 10^register), decimals (divided by 10^register) or times (times the register)", sf.Rule)
	}
}

func (c *compiler) unitFrom(rp rawPoint, p *Point, scale, offset *big.Rat) {
	uf := rp.UnitFrom
	if uf == nil {
		return
	}
	at := rp.at.With("unit_from")
	p.UnitFrom = &UnitFrom{Units: uf.Units, conv: map[int64]*conv{}}
	p.UnitFrom.Table, p.UnitFrom.Address = c.aux(at, uf.Table, uf.Address, p)
	if p.Unit == "" {
		c.errorf(rp.at.With("unit"), "a point with unit_from needs unit: too, the one its values are stored in")
		return
	}
	for code, name := range uf.Units {
		conv, ok := c.convFrom(name, p.Unit, scale, offset)
		if !ok {
			c.errorf(at.With("units", strconv.FormatInt(code, 10)), "unit %q cannot be converted to %s; leave the code out: then the point has no value while the device says so", name, p.Unit)
			continue
		}
		p.UnitFrom.conv[code] = &conv
	}
	if len(uf.Units) == 0 {
		c.errorf(at.With("units"), "units is missing; map the register's codes to units, for example units: {1: cm, 2: mm}")
	}
}

// aux reads the place of a register that tells something about the value and
// adds it to what the point needs.
func (c *compiler) aux(at conffile.Path, table string, address conffile.Scalar, p *Point) (Table, uint16) {
	t := c.table(at, table, p.Table)
	if address == "" {
		c.errorf(at.With("address"), "address is missing; it is the zero-based protocol address")
		return t, 0
	}
	a, ok := c.place(at, address)
	if ok {
		p.needs = c.addSpan(p.needs, Span{t, a, 1})
	}
	return t, a
}

func (c *compiler) validity(rp rawPoint, p *Point) {
	v := rp.Validity
	if v == nil {
		return
	}
	at := rp.at.With("validity")
	p.Validity = &Validity{Mask: v.Mask, Good: v.Good, OverRange: v.OverRange, UnderRange: v.UnderRange}
	p.Validity.Table, p.Validity.Address = c.aux(at, v.Table, v.Address, p)
	if v.Mask == 0 {
		p.Validity.Mask = math.MaxUint16
	}
	if len(v.Good) == 0 {
		c.errorf(at.With("good"), "good is missing; list what the register holds while the value is valid, for example good: [0]")
	}
}

// readRange converts the maker's range, which is in the source unit.
func (c *compiler) readRange(rp rawPoint, p *Point) {
	if rp.Range == nil {
		return
	}
	at := rp.at.With("range")
	bound := func(key string, s conffile.Scalar) *float64 {
		if s == "" {
			return nil
		}
		if r, ok := parseRat(s, nil); ok {
			conv, _ := c.convFrom(rp.Unit, p.Unit, new(big.Rat), r)
			f := conv.apply(number{}, 1)
			return &f
		}
		c.errorf(at.With(key), "%q is not a number", s)
		return nil
	}
	p.Min, p.Max = bound("min", rp.Range.Min), bound("max", rp.Range.Max)
	if p.Min == nil && p.Max == nil {
		c.errorf(at, "a range has min, max or both, in the point's unit")
	}
	if p.Min != nil && p.Max != nil && *p.Min >= *p.Max {
		c.errorf(at, "the range is empty: min is not below max; are the two swapped?")
	}
}

// names checks the labels of values and bits.
func (c *compiler) names(rp rawPoint, p *Point) {
	p.Enum, p.Bits = rp.Enum, rp.Bits
	if len(p.Enum) > 0 && len(p.Bits) > 0 {
		c.errorf(rp.at.With("bits"), "a point has enum or bits, not both")
	}
	if (len(p.Enum) > 0 || len(p.Bits) > 0) && p.Class != telemetry.Int {
		key := "enum"
		if len(p.Bits) > 0 {
			key = "bits"
		}
		c.errorf(rp.at.With(key), "enum and bits are for whole numbers; this point is a %s: take a whole type, or leave them out", p.Class)
		return
	}
	width := p.width()
	for bit := range p.Bits {
		if bit < 0 || bit >= int64(width) {
			hint := "; bits are counted from 0"
			if n := bits.TrailingZeros64(uint64(bit)); bit > 64 && bits.OnesCount64(uint64(bit)) == 1 && n < int(width) {
				hint = fmt.Sprintf("; a bit is written by its number, not its mask: %d is bit %d", bit, n)
			}
			c.errorf(rp.at.With("bits", strconv.FormatInt(bit, 10)), "there is no bit %d; the value has bits 0 to %d%s", bit, width-1, hint)
		}
	}
	if p.Counter && (p.Class == telemetry.String || p.Type == Bit) {
		c.errorf(rp.at.With("counter"), "only a number can be a counter")
	}
	if p.FrozenAfter != 0 {
		c.frozen(rp.at.With("frozen_after"), p)
	}
	if p.WrapsAt != 0 && p.Counter && !p.Type.IsFloat() && float64(p.WrapsAt) > math.Ldexp(1, int(width)) {
		c.errorf(rp.at.With("wraps_at"), "wraps_at is %d, and %d bits only count to %d", p.WrapsAt, width, mask(width))
	}
	if p.WrapsAt != 0 && !p.Counter {
		c.errorf(rp.at.With("wraps_at"), "wraps_at is for a point with counter: true")
	}
}

// maxFrozen is the longest time a point may be given to move in.
const maxFrozen = 30 * 24 * time.Hour

// frozen checks how long the point may stand still.
func (c *compiler) frozen(at conffile.Path, p *Point) {
	switch {
	case p.Class == telemetry.String:
		c.errorf(at, "a text may stand still for ever: leave frozen_after out")
	case p.FrozenAfter < 2*p.Every || p.FrozenAfter > maxFrozen:
		c.errorf(at, "frozen_after is %s; choose between two periods of the point (%s) and 720h", p.FrozenAfter, 2*p.Every)
	}
}
