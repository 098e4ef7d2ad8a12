package profile

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"testing"

	"luquan/gateway/telemetry"
)

// FuzzSentinel: a raw value that a type can hold is matched by its own words
// and by no others; one it cannot hold is refused; nothing panics.
func FuzzSentinel(f *testing.F) {
	for _, raw := range []string{"0xFFFF", "-1", "65535", "nan", "-inf", "1e38", "all-ones", "max-positive", "negative", "0x", "--1", "1_000"} {
		f.Add(raw, uint8(0), uint64(0xFFFF))
	}
	types := []Type{U16, S16, U32, S32, U64, S64, F32, F64, Bit}
	f.Fuzz(func(t *testing.T, raw string, kind uint8, x uint64) {
		p := &Point{Type: types[int(kind)%len(types)]}
		match, ok := p.matcher(raw)
		if !ok {
			return
		}
		width := p.width()
		x &= mask(width)
		match(x)
		if p.Type.IsFloat() {
			return
		}
		i, err := strconv.ParseInt(raw, 0, 64)
		if err != nil {
			return
		}
		if !match(uint64(i) & mask(width)) {
			t.Fatalf("%s of %s is not its own sentinel", raw, p.Type)
		}
		if x != uint64(i)&mask(width) && match(x) {
			t.Fatalf("%s of %s matches %#x", raw, p.Type, x)
		}
		if i > 0 && uint64(i) > mask(width) || i < 0 && !p.Type.Signed() {
			t.Fatalf("%s accepted for %s", raw, p.Type)
		}
	})
}

// FuzzBCD: packed decimals are the number their hexadecimal digits write, and
// a digit over nine is no number; so are the four digits of each base-10000 word.
func FuzzBCD(f *testing.F) {
	bcd := point(f, "table: holding, address: 0, type: u32, encoding: bcd")
	myriad := point(f, "table: holding, address: 0, type: u32, encoding: base-10000")
	f.Add(uint16(0x1234), uint16(0x5678))
	f.Add(uint16(0x0000), uint16(0x000A))
	f.Add(uint16(9999), uint16(10000))
	f.Fuzz(func(t *testing.T, hi, lo uint16) {
		want, err := strconv.ParseInt(fmt.Sprintf("%04x%04x", hi, lo), 10, 64)
		check(t, bcd, hi, lo, want, err == nil)
		check(t, myriad, hi, lo, int64(hi)*10000+int64(lo), hi <= 9999 && lo <= 9999)
	})
}

func check(t *testing.T, p *Point, hi, lo uint16, want int64, number bool) {
	t.Helper()
	v, _, q := p.Decode(words(hi, lo))
	switch {
	case number && (q != telemetry.Good || v.String() != strconv.FormatInt(want, 10)):
		t.Fatalf("%s %04x %04x: %v (%v), want %d", p.Name, hi, lo, v, q, want)
	case !number && (q != telemetry.Invalid || !v.IsZero()):
		t.Fatalf("%s %04x %04x: %v (%v), want invalid", p.Name, hi, lo, v, q)
	}
}

// FuzzUnits: any two words convert or do not, without a panic; what converts to
// a canonical unit does so by a positive factor, and between two canonical ones
// there and back is exactly nothing.
func FuzzUnits(f *testing.F) {
	f.Add("kW", "W")
	f.Add("degF", "degC")
	f.Add("ms", "h")
	f.Add("mV", "V")
	f.Add("", "")
	f.Add("kWh ", "\x00")
	f.Fuzz(func(t *testing.T, from, to string) {
		suggestUnit(from)
		factor, offset, ok := convert(from, to)
		if !ok {
			return
		}
		if factor.Sign() <= 0 || offset == nil {
			t.Fatalf("%q to %q: factor %v, offset %v", from, to, factor, offset)
		}
		if fl, _ := factor.Float64(); math.IsInf(fl, 0) || fl == 0 {
			t.Fatalf("%q to %q: factor %v", from, to, fl)
		}
		if back, _, ok := convert(to, from); ok && new(big.Rat).Mul(factor, back).Cmp(big.NewRat(1, 1)) != 0 {
			t.Fatalf("%q to %q by %v and back by %v", from, to, factor, back)
		}
	})
}
