package profile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"luquan/gateway/telemetry"
)

func TestEvaluate(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "007": 7, "0x10": 16, "0XfF": 255, "50020 + 100*(3-1)": 50220, "2*3*4": 24, "1-2-3": -4, "-(2+3)*-2": 10, "((7))": 7, " 1 ": 1,
		"10-2*3": 4, "(10-2)*3": 24, "65535": 65535,
	} {
		if got, err := evaluate(text); err != nil || got != want {
			t.Errorf("%s is %d (%v), want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "a number is missing at its end", "1+": "missing at its end", "(1": "a ) is missing", "1)": `")" does not belong there`, "1 2": `"2" does not belong there`,
		"a": `"a" is not a whole number`, "1.5": `"1.5" is not a whole number`, "1e3": "not a whole number", "0x": "not a whole number", "+": "a number is missing", "*2": "a number is missing",
		"99999999999999999999": "far too large", "9999999999": "far too large", "65535*65535": "far too large", "1_000": "not a whole number", "6/2": "not a whole number",
		strings.Repeat("(", 20) + "1": "too many parentheses", strings.Repeat("-", 20) + "1": "too many parentheses", strings.Repeat("1", 201): "longer than 200",
	} {
		if _, err := evaluate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzEvaluate: whatever is written, evaluate ends without a panic, and where
// Go's own parser reads the same expression the value is Go's.
func FuzzEvaluate(f *testing.F) {
	for _, s := range []string{"1", "50020 + 100*(3-1)", "-1", "((", "0x", "1*-2+3*(4-0x5)", "9999999999*9", "1 -\t2", "007"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := evaluate(text)
		if got > maxSum || got < -maxSum {
			t.Fatalf("%q is %d, beyond the bound", text, got)
		}
		if err != nil {
			return
		}
		tree, perr := parser.ParseExpr(text)
		if perr != nil {
			return // leading zeros: decimal here, octal there
		}
		if want, ok := goValue(tree); ok && got != want {
			t.Fatalf("%q is %d, want %d", text, got, want)
		}
	})
}

func goValue(e ast.Expr) (int64, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if len(e.Value) > 1 && e.Value[0] == '0' && !strings.HasPrefix(strings.ToLower(e.Value), "0x") {
			return 0, false
		}
		n, err := strconv.ParseInt(e.Value, 0, 64)
		return n, err == nil
	case *ast.ParenExpr:
		return goValue(e.X)
	case *ast.UnaryExpr:
		n, ok := goValue(e.X)
		return -n, ok && e.Op == token.SUB
	case *ast.BinaryExpr:
		a, ok1 := goValue(e.X)
		b, ok2 := goValue(e.Y)
		switch e.Op {
		case token.ADD:
			return a + b, ok1 && ok2
		case token.SUB:
			return a - b, ok1 && ok2
		case token.MUL:
			return a * b, ok1 && ok2
		}
	}
	return 0, false
}

// TestBlocksOfAMeter: a parameter moves every address of a point, the blocks
// too, and a point may be there with some of its values only.
func TestBlocksOfAMeter(t *testing.T) {
	const text = head + `used_at: [sewage]
transport: [rtu, tcp]
book: one-based
shares_unit: true
params:
  meter: {default: 1, one_of: [1, 2, 3]}
  unit: {default: L/h, one_of: [L/h, L/s]}
blocks: [{table: holding, address: "1000*${meter}", count: 4}]
points:
  - {name: flow, table: holding, address: "1000*${meter} + 2", doc_address: 41003, type: u16, unit: "${unit}", note: n, unit_offset: "${meter}-1",
     scale_from: {address: "1000*${meter}+1", rule: pow10}, unit_from: {address: "1000 * ${meter}", units: {1: "${unit}"}},
     validity: {table: input, address: "7+${meter}", good: [0]}, invalid: ["${meter}"]}
  - {name: only_2_3, when: {meter: ["2", 3]}, table: coil, address: 9, doc_address: "%MX1", type: bit}
`
	lib := &Library{pairs: pairs{}, models: map[string]*rawProfile{}}
	doc, raw, p := lib.parse("m.yaml", []byte(text))
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	if len(p.Points) != 1 || !p.SharesUnit || p.Book != "one-based" || len(p.UsedAt) != 1 || len(p.Transport) != 2 || p.Points[0].Note != "n" || p.Points[0].DocAddress != "41003" {
		t.Errorf("got %+v", p)
	}
	lib.models["m"], lib.names = raw, []string{"m"}
	for meter, want := range map[string]uint16{"1": 1000, "2": 2000, "3": 3000} {
		p, err := lib.Lookup("m", map[string]string{"meter": meter, "unit": "L/s"})
		if err != nil {
			t.Fatal(err)
		}
		pt := &p.Points[0]
		needs := pt.Needs()
		if pt.Address != want+2 || pt.UnitOffset != byte(want/1000-1) || len(needs) != 2 || needs[0] != (Span{Holding, want, 4}) || needs[1] != (Span{Input, 7 + want/1000, 1}) {
			t.Errorf("meter %s: address %d, offset %d, needs %v", meter, pt.Address, pt.UnitOffset, needs)
		}
		if _, there := p.Point("only_2_3"); there != (meter != "1") {
			t.Errorf("meter %s: only_2_3 there: %v", meter, there)
		}
		regs := map[uint16]uint16{want: 1, want + 1: 1, want + 2: 36, 7 + want/1000: 0}
		v, _, q := pt.Decode(func(_ Table, a uint16) (uint16, telemetry.Quality) { return regs[a], telemetry.Good })
		if q != telemetry.Good || v.Float() != 360 {
			t.Errorf("meter %s: %v %v, want 360 L/s", meter, v, q)
		}
		regs[want+2] = want / 1000
		if _, _, q := pt.Decode(func(_ Table, a uint16) (uint16, telemetry.Quality) { return regs[a], telemetry.Good }); q != telemetry.Invalid {
			t.Errorf("meter %s: its sentinel is %v", meter, q)
		}
	}
}

// TestDateTime3 reads the example of Schneider Electric's FAQ FA296948.
func TestDateTime3(t *testing.T) {
	p := point(t, "table: holding, address: 0, type: u16, encoding: datetime-3-registers")
	for _, tt := range []struct {
		words [3]uint16
		want  string
	}{
		{[3]uint16{0x0119, 0x640B, 0x063B}, "2000-01-25T11:06:59"},
		{[3]uint16{0x0C1F, 0x7E17, 0x3B3B}, "2026-12-31T23:59:59"},
		{[3]uint16{0x0C1F, 0xC700, 0x0000}, "2099-12-31T00:00:00"},
		{[3]uint16{0x0C1F, 0xC800, 0x0000}, ""},
		{[3]uint16{0x0D01, 0x7E00, 0x0000}, ""},
		{[3]uint16{0x021E, 0x7E00, 0x0000}, ""},
		{[3]uint16{0xFFFF, 0xFFFF, 0xFFFF}, ""},
		{[3]uint16{0, 0, 0}, ""},
	} {
		v, _, q := p.Decode(words(tt.words[:]...))
		if got := v.String(); (tt.want == "") != (q == telemetry.Invalid) || tt.want != "" && got != tt.want {
			t.Errorf("%04x: %s (%v), want %q", tt.words, got, q, tt.want)
		}
	}
}
