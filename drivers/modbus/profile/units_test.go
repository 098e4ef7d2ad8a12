package profile

import (
	"fmt"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestUnitTable: every source unit reaches a canonical one, and its factor is
// what physics says.
func TestUnitTable(t *testing.T) {
	for name, u := range units {
		c, ok := units[u.canon]
		if !ok || c.canon != u.canon || c.dim != u.dim || c.factor != "1" || c.offset != "" {
			t.Errorf("%s becomes %q, which is not canonical in its dimension", name, u.canon)
		}
		if f, _, ok := convert(name, u.canon); !ok || f.Sign() <= 0 {
			t.Errorf("%s does not convert to %s", name, u.canon)
		}
		if strings.ContainsAny(name, "|\"\n") {
			t.Errorf("%q would break a table", name)
		}
	}
	f := func(x string, from, to string, want string) {
		t.Helper()
		factor, offset, ok := convert(from, to)
		if !ok {
			t.Errorf("%s does not convert to %s", from, to)
			return
		}
		got := new(big.Rat).Mul(rat(x), factor)
		if got.Add(got, offset); got.Cmp(rat(want)) != 0 {
			t.Errorf("%s %s is %s %s, want %s", x, from, got.RatString(), to, want)
		}
	}
	f("3.6", "m3/h", "L/s", "1")
	f("60", "L/min", "L/s", "1")
	f("3.6", "MJ", "Wh", "1000")
	f("3.6", "GJ", "Wh", "1000000")
	f("3.6", "GJ/h", "W", "1000000")
	f("3.6", "MJ/h", "W", "1000")
	f("3600", "J", "Wh", "1")
	f("3.6", "kJ", "Wh", "1")
	f("212", "degF", "degC", "100")
	f("32", "degF", "degC", "0")
	f("100", "kPa", "bar", "1")
	f("0.1", "MPa", "bar", "1")
	f("100000", "Pa", "bar", "1")
	f("1000", "hPa", "bar", "1")
	f("14.5", "psi", "bar", "0.99973980750936")
	f("12", "mA", "A", "0.012")
	f("12", "uA", "A", "0.000012")
	f("1", "A", "mA", "1000")
	f("90", "min", "h", "1.5")
	f("2", "d", "s", "172800")
	f("7.2", "t/h", "kg/s", "2")
	f("60000", "cm3/min", "L/s", "1")
	f("1.5", "mS/cm", "uS/cm", "1500")
	f("1", "gal", "m3", "0.003785411784")
	f("60", "gal/min", "L/s", "3.785411784")
	f("3600", "gal/h", "L/s", "3.785411784")
	f("2", "gal/s", "L/s", "7.570823568")
	f("3600", "ft3/h", "L/s", "28.316846592")
	f("60", "ft3/min", "L/s", "28.316846592")
	f("1", "ft3", "m3", "0.028316846592")
	f("86.4", "m3/d", "L/s", "1")
	f("0.06", "m3/min", "L/s", "1")
	f("10", "ft", "m", "3.048")
	f("100", "in", "m", "2.54")
	f("10", "ft/s", "m/s", "3.048")
	f("3.048", "ohm/ft", "ohm/m", "10")
	f("2", "t", "kg", "2000")
	f("7", "FNU", "NTU", "7")
	f("7", "FTU", "NTU", "7")
	f("50", "%FSD", "%", "50")
	for _, bad := range [][2]string{{"kW", "Wh"}, {"W", "kW"}, {"", "W"}, {"W", ""}, {"m", "bar"}, {"x", "x"}, {"EBC", "NTU"}} {
		if _, _, ok := convert(bad[0], bad[1]); ok {
			t.Errorf("%s converts to %s", bad[0], bad[1])
		}
	}
}

// TestUnitsAreDocumented: docs/units.md lists every unit with its canonical one.
func TestUnitsAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../../docs/units.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	sources := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		if u := units[name]; u.canon != name {
			sources[u.canon] = append(sources[u.canon], name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		if canonical(name) {
			row := fmt.Sprintf("| %s | %s | %s |", name, units[name].dim, strings.Join(sources[name], ", "))
			if !strings.Contains(doc, row+"\n") {
				t.Errorf("docs/units.md lacks the row\n%s", row)
			}
		}
	}
}
