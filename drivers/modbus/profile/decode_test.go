package profile

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"luquan/gateway/telemetry"
)

// point compiles one point written in flow style, with nothing around it.
func point(t testing.TB, text string) *Point {
	t.Helper()
	prof, err := Parse("test.yaml", []byte("id: test\nkind: test\nsource: {where: test, confidence: low}\npoints:\n  - {name: x, "+text+"}\n"))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &prof.Points[0]
}

// words serves registers from 0 up, everything good.
func words(regs ...uint16) Words {
	return func(_ Table, a uint16) (uint16, telemetry.Quality) {
		if int(a) >= len(regs) {
			return 0, telemetry.NoReply
		}
		return regs[a], telemetry.Good
	}
}

// hex reads "80 6B 42 12" as registers.
func hex(t testing.TB, s string) []uint16 {
	t.Helper()
	var b []byte
	for _, f := range strings.Fields(s) {
		v, err := strconv.ParseUint(f, 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, byte(v))
	}
	var regs []uint16
	for i := 0; i+1 < len(b); i += 2 {
		regs = append(regs, uint16(b[i])<<8|uint16(b[i+1]))
	}
	return regs
}

func TestDecode(t *testing.T) {
	const h = "table: holding, address: 0, "
	tests := []struct {
		name, point, bytes string
		want               string // the value, or the quality in brackets
	}{
		// numbers that makers print with their bytes
		{"Remond sheet: 1.0 low word first", h + "type: f32, word_order: little, unit: mg/L", "00 00 3F 80", "1"},
		{"36.625 exactly", h + "type: f32, word_order: little, unit: degC", "80 00 42 12", "36.625"},
		{"36.625 low word first, as read from a TUF-2000M", h + "type: f32, word_order: little, unit: degC", "80 6B 42 12", "36.62541"},

		{"tenths are exact", h + "type: s16, scale: 0.1, unit: degC", "03 4A", "84.2"},
		{"negative tenths", h + "type: s16, scale: 0.1, unit: degC", "FF 9C", "-10"},
		{"every f32 is what it was meant to be", h + "type: f32, unit: degC", "3D CC CC CD", "0.1"},
		{"an f32 is converted exactly", h + "type: f32, unit: kW", "41 45 85 1F", "12345"},
		{"L/h", h + "type: f32, unit: L/h", "47 28 C0 00", "12"},
		{"m3/h to L/s", h + "type: u16, scale: 0.1, unit: m3/h", "01 44", "9"},
		{"a third is rounded once", h + "type: u16, scale: 0.1, unit: m3/h", "00 01", "0.027777777777777776"},
		{"kelvin by offset", h + "type: u16, scale: 0.01, offset: -273.15, unit: degC", "72 77", "19.88"},
		{"Fahrenheit", h + "type: s16, unit: degF", "00 D4", "100"},
		{"offset is in the source unit", h + "type: u16, offset: 1, unit: kW", "00 02", "3000"},
		{"a product of ratios", h + "type: u16, scale: 40*100/10, unit: W", "00 03", "1200"},
		{"binary fractions", h + "type: u16, scale: 1/512, unit: \"%\"", "C8 00", "100"},
		{"s64", h + "type: s64, unit: Wh", "FF FF FF FF FF FF FF FE", "-2"},
		{"u64 over int64 is a float", h + "type: u64, unit: Wh", "FF FF FF FF FF FF FF FF", "1.8446744073709552e+19"},
		{"u64 that no int holds", h + "type: u64", "FF FF FF FF FF FF FF FF", "[invalid]"},
		{"s64 least", h + "type: s64", "80 00 00 00 00 00 00 00", "-9223372036854775808"},
		{"f64", h + "type: f64, unit: kWh", "40 09 21 FB 54 44 2D 18", "3141.592653589793"},
		{"f64 low word first", h + "type: f64, word_order: little, unit: m", "00 00 00 00 00 00 40 00", "2"},
		{"u32 low word first, bytes swapped", h + "type: u32, word_order: little, byte_order: little", "04 03 02 01", "16909060"},
		{"f32 without end", h + "type: f32, unit: m", "7F 80 00 00", "[invalid]"},
		{"f32 nan", h + "type: f32, unit: m", "7F C0 00 01", "[invalid]"},
		{"minus zero", h + "type: f32, unit: m", "80 00 00 00", "0"},
		{"f64 that overflows when converted", h + "type: f64, unit: kW", "7F EF FF FF FF FF FF FF", "[invalid]"},
		{"f64 smallest", h + "type: f64, unit: W", "00 00 00 00 00 00 00 01", "5e-324"},

		{"sentinel before scaling", h + "type: u16, scale: 0.1, unit: bar, invalid: [0xFFFF]", "FF FF", "[invalid]"},
		{"one below the sentinel", h + "type: u16, scale: 0.1, unit: bar, invalid: [0xFFFF]", "FF FE", "6553.4"},
		{"sentinel over range", h + "type: s16, unit: degC, invalid: [{raw: 0x7FFF, means: over_range}, {raw: -32768, means: under_range}]", "7F FF", "[over range]"},
		{"sentinel under range", h + "type: s16, unit: degC, invalid: [{raw: 0x7FFF, means: over_range}, {raw: -32768, means: under_range}]", "80 00", "[under range]"},
		{"all ones by width", h + "type: s32, unit: W, invalid: [all-ones]", "FF FF FF FF", "[invalid]"},
		{"low word marked", h + "type: u32, unit: W, invalid: [all-ones, 0x0000FFFF]", "00 00 FF FF", "[invalid]"},
		{"max positive", h + "type: s32, unit: W, invalid: [max-positive]", "7F FF FF FF", "[invalid]"},
		{"negative", h + "type: s16, unit: W, invalid: [negative]", "FF FE", "[invalid]"},
		{"float sentinel", h + "type: f32, unit: degC, invalid: [{raw: 192.0, means: over_range}]", "43 40 00 00", "[over range]"},
		{"float sentinel by bits", h + "type: f32, unit: degC, invalid: [0xC0000000]", "C0 00 00 00", "[invalid]"},
		{"float infinity", h + "type: f32, unit: degC, invalid: [{raw: inf, means: over_range}]", "7F 80 00 00", "[over range]"},
		{"sentinel of one byte", h + "type: u16, encoding: low-byte, unit: \"%\", invalid: [all-ones]", "12 FF", "[invalid]"},

		{"range is in the source unit", h + "type: u16, unit: kW, range: {min: 0, max: 3}", "00 03", "3000"},
		{"out of range carries the value", h + "type: u16, unit: kW, range: {min: 0, max: 3}", "00 04", "4000 [out of range]"},
		{"below range", h + "type: s16, scale: 0.1, unit: degC, range: {min: -40}", "FE 6F", "-40.1 [out of range]"},

		{"low byte", h + "type: u16, encoding: low-byte, unit: \"%\"", "12 34", "52"},
		{"high byte", h + "type: s16, encoding: high-byte, unit: degC", "FE 34", "-2"},
		{"bit field", h + "type: u16, encoding: bit-field:4-5", "00 2F", "2"},
		{"one bit", h + "type: u16, encoding: bit-field:15-15", "80 00", "1"},
		{"one hot", h + "type: u16, encoding: one-hot", "00 08", "3"},
		{"not one hot", h + "type: u16, encoding: one-hot", "00 0C", "[invalid]"},
		{"none hot", h + "type: u16, encoding: one-hot", "00 00", "[invalid]"},
		{"bcd", h + "type: u32, encoding: bcd, scale: 0.01, unit: m3", "12 34 56 78", "123456.78"},
		{"not bcd", h + "type: u16, encoding: bcd", "12 3A", "[invalid]"},
		{"sign and magnitude", h + "type: u16, encoding: sign-magnitude, scale: 0.001", "83 CA", "-0.97"},
		{"base 10000, lowest first", h + "type: u64, word_order: little, encoding: base-10000, unit: Wh", "04 D2 00 02 00 00 00 00", "21234"},
		{"base 10000", h + "type: u32, encoding: base-10000, unit: Wh", "00 02 04 D2", "21234"},
		{"not base 10000", h + "type: u32, encoding: base-10000, unit: Wh", "00 02 27 10", "[invalid]"},
		{"whole and fraction", h + "type: u32, encoding: int-plus-fraction, unit: m3", "00 00 30 39 3F 00 00 00", "12345.5"},
		{"whole and fraction, exactly", h + "type: u32, encoding: int-plus-fraction, unit: m3", "00 01 E2 40 3D CC CC CD", "123456.1"},
		{"whole and fraction, times a power of ten that a register tells", h + "type: s32, encoding: int-plus-fraction, scale: 0.001, scale_from: {address: 4, rule: pow10}, unit: m3",
			"00 00 30 39 3F 00 00 00 00 05", "1.23455e+06"},
		{"negative whole and fraction", h + "type: s32, encoding: int-plus-fraction, unit: m3", "FF FF FF FE BE 80 00 00", "-2.25"},
		{"version", h + "type: u16, encoding: hi-lo-byte-version", "01 0E", "1.14"},
		{"time of day", h + "type: u16, encoding: hhmm-decimal", "02 DA", "07:30"},
		{"midnight", h + "type: u16, encoding: hhmm-decimal", "09 60", "24:00"},
		{"no time of day", h + "type: u16, encoding: hhmm-decimal", "00 4B", "[invalid]"},
		{"seconds since 1970", h + "type: u32, encoding: unix-time", "65 92 00 80", "2024-01-01T00:00:00Z"},
		{"days since 2000", h + "type: u16, encoding: days-since-2000", "00 3B", "2000-02-29"},
		{"date and time", h + "type: u16, encoding: datetime-6-bytes", "18 02 1D 17 3B 3A", "2024-02-29T23:59:58"},
		{"no date", h + "type: u16, encoding: datetime-6-bytes", "17 02 1D 17 3B 3A", "[invalid]"},
		{"text", h + "type: \"string:8\"", "53 4D 58 31 35 30 30 00", "SMX1500"},
		{"odd text", h + "type: \"string:3\"", "41 42 43 44", "ABC"},
		{"text with its bytes swapped", h + "type: \"string:4\", byte_order: little", "42 41 44 43", "ABCD"},
		{"text that is none", h + "type: \"string:2\"", "FF FF", "[invalid]"},
		{"text ends at the line", h + "type: \"string:6\"", "20 41 0D 0A FF FF", "A"},

		{"named bits are an int", h + "type: bits, bits: {9: {en: on, zh: 运行}}", "02 00", "512"},
		{"a coil", "table: coil, address: 0, type: bit", "00 01", "1"},
		{"decimals told by a register", h + "type: s16, unit: m, scale_from: {address: 1, rule: decimals}", "FF 85 00 02", "-1.23"},
		{"power of ten told by a register", h + "type: u16, unit: W, scale_from: {address: 1, rule: pow10}", "00 05 00 03", "5000"},
		{"negative power of ten", h + "type: u16, unit: W, scale_from: {address: 1, rule: pow10}", "00 05 FF FF", "0.5"},
		{"a power of ten that cannot be", h + "type: u16, unit: W, scale_from: {address: 1, rule: pow10}", "00 05 80 00", "[invalid]"},
		{"times a register", h + "type: u16, scale: 1/25600, unit: W, scale_from: {address: 1, rule: times}", "32 00 1F 40", "4000"},
		{"a ratio that is not set", h + "type: u16, unit: W, scale_from: {address: 1, rule: times}", "32 00 00 00", "[invalid]"},
		{"unit told by a register", h + "type: s16, unit: m, unit_from: {address: 1, units: {1: cm, 2: mm}}", "01 9A 00 01", "4.1"},
		{"another unit", h + "type: s16, unit: m, unit_from: {address: 1, units: {1: cm, 2: mm}}", "01 9A 00 02", "0.41"},
		{"a unit that does not fit", h + "type: s16, unit: m, unit_from: {address: 1, units: {1: cm, 2: mm}}", "01 9A 00 04", "[invalid]"},
		{"valid", h + "type: u16, unit: m, validity: {address: 1, mask: 0xF, good: [0], over_range: [3], under_range: [4]}", "00 05 A0 F0", "5"},
		{"validity over", h + "type: u16, unit: m, validity: {address: 1, mask: 0xF, good: [0], over_range: [3], under_range: [4]}", "00 05 00 03", "[over range]"},
		{"validity under", h + "type: u16, unit: m, validity: {address: 1, mask: 0xF, good: [0], over_range: [3], under_range: [4]}", "00 05 00 04", "[under range]"},
		{"not valid", h + "type: u16, unit: m, validity: {address: 1, mask: 0xF, good: [0], over_range: [3], under_range: [4]}", "00 05 00 01", "[invalid]"},
		{"canonical unit chosen", h + "type: u16, unit: mA, as: A", "00 0C", "0.012"},
		{"hours in minutes", h + "type: u32, unit: min, as: h", "00 00 00 5A", "1.5"},
		{"a word that is not there", h + "type: u32, unit: W", "00 01", "[no reply]"},
		{"a scale that is not there", h + "type: u16, unit: W, scale_from: {address: 1, rule: pow10}", "00 01", "[no reply]"},
	}
	for _, tt := range tests {
		p := point(t, tt.point)
		v, _, q := p.Decode(words(hex(t, tt.bytes)...))
		got := v.String()
		if q != telemetry.Good {
			got = strings.TrimSpace(got + " [" + q.String() + "]")
		}
		if got != tt.want {
			t.Errorf("%s: %s: % s: got %s, want %s", tt.name, tt.point, tt.bytes, got, tt.want)
		}
		if !v.IsZero() && v.Class() != p.Class {
			t.Errorf("%s: value is %s, the point says %s", tt.name, v.Class(), p.Class)
		}
	}
}

// TestWorstQuality: a point is as good as the worst of the requests its words
// came by, and a refused scale register is not a scale of 0.
func TestWorstQuality(t *testing.T) {
	p := point(t, "table: holding, address: 0, type: u16, unit: W, scale_from: {table: input, address: 0, rule: pow10}")
	v, _, q := p.Decode(func(tb Table, _ uint16) (uint16, telemetry.Quality) {
		if tb == Input {
			return 0, telemetry.Refused
		}
		return 7, telemetry.Good
	})
	if !v.IsZero() || q != telemetry.Refused {
		t.Errorf("got %v, %v, want no value and refused", v, q)
	}
}

// TestTenthsAreDecimals: every scaled register reads as the decimal that the
// device meant, which is what strconv makes of its digits.
func TestTenthsAreDecimals(t *testing.T) {
	for scale, digits := range map[string]int{"0.1": 1, "0.01": 2, "0.001": 3} {
		p := point(t, "table: holding, address: 0, type: u16, unit: V, scale: "+scale)
		for raw := range 1 << 16 {
			v, _, _ := p.Decode(words(uint16(raw)))
			s := strconv.Itoa(raw)
			for len(s) <= digits {
				s = "0" + s
			}
			want, _ := strconv.ParseFloat(s[:len(s)-digits]+"."+s[len(s)-digits:], 64)
			if v.Float() != want {
				t.Fatalf("%d * %s is %v, want %v", raw, scale, v.Float(), want)
			}
		}
	}
}

// TestFastIsExact compares the machine words with the rational arithmetic.
func TestFastIsExact(t *testing.T) {
	for _, text := range []string{"scale: 0.1, unit: m3/h", "scale: 0.01, offset: -273.15, unit: degC", "scale: 1/25600, unit: kW", "unit: degF", "scale: -3.7, offset: 12, unit: psi"} {
		p := point(t, "table: holding, address: 0, type: s16, "+text)
		for raw := math.MinInt16; raw <= math.MaxInt16; raw += 97 {
			for _, exp := range []int{-6, -1, 0, 2} {
				for _, times := range []int64{1, 8000} {
					x := intNumber(int64(raw))
					x.exp = exp
					fast, ok := p.conv.fast(x, times)
					r := x.rat()
					exact := p.conv.applyRat(r.Mul(r, intNumber(times).rat()))
					if ok && fast != exact {
						t.Fatalf("%s: %d e%d * %d: fast %v, exact %v", text, raw, exp, times, fast, exact)
					}
				}
			}
		}
	}
}

// FuzzDecode: whatever the words, a value is of the point's class and comes
// only with a quality that carries one; nothing panics.
func FuzzDecode(f *testing.F) {
	const h = "table: holding, address: 0, "
	points := []string{
		h + "type: f32, unit: kW", h + "type: f64, unit: L/h", h + "type: u64, encoding: bcd, unit: m3", h + "type: s32, encoding: int-plus-fraction, unit: MWh",
		h + "type: s16, unit: degF, scale_from: {address: 4, rule: pow10}", h + "type: u16, unit: m, unit_from: {address: 4, units: {1: cm}}",
		h + "type: u64, encoding: base-10000", h + "type: u16, encoding: datetime-6-bytes", h + "type: \"string:7\"", h + "type: s64", h + "type: u32, encoding: unix-time",
		h + "type: u16, encoding: one-hot, validity: {address: 4, good: [0, 1, 2]}", h + "type: u16, encoding: hhmm-decimal", h + "type: u32, encoding: sign-magnitude, scale: 1/3",
	}
	var compiled []*Point
	for _, p := range points {
		compiled = append(compiled, point(f, p))
	}
	f.Add(uint16(0), uint16(0), uint16(0), uint16(0), uint16(0))
	f.Add(uint16(0x7ff0), uint16(0), uint16(0), uint16(0), uint16(18))
	f.Add(uint16(0xffff), uint16(0xffff), uint16(0xffff), uint16(0xffff), uint16(1))
	f.Fuzz(func(t *testing.T, a, b, c, d, e uint16) {
		for i, p := range compiled {
			v, _, q := p.Decode(words(a, b, c, d, e))
			if q.HasValue() == v.IsZero() || (!v.IsZero() && v.Class() != p.Class) {
				t.Errorf("%s: %04x: %v (%s) with quality %s", points[i], []uint16{a, b, c, d, e}, v, v.Class(), q)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, text := range map[string]string{"s16": "type: s16, scale: 0.1, unit: degC", "f32": "type: f32, unit: L/h"} {
		p := point(b, "table: holding, address: 0, "+text)
		w := words(0x4145, 0x851f)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decode(w)
			}
		})
	}
}
