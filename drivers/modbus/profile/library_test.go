package profile_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"luquan/drivers/modbus/plan"
	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/telemetry"
)

const unitsDoc = "../../../docs/units.md"

var update = flag.Bool("update", false, "append missing pairs and units to docs/units.md")

func library(t testing.TB) *profile.Library {
	t.Helper()
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

// profiles returns every profile of the library in each of its forms.
func profiles(t testing.TB) []*profile.Profile {
	t.Helper()
	lib := library(t)
	var all []*profile.Profile
	for _, id := range lib.Names() {
		all = append(all, lib.Forms(id)...)
	}
	return all
}

func TestEveryProfileIsComplete(t *testing.T) {
	for _, p := range profiles(t) {
		if p.Vendor == "" || p.Model == "" || p.Label.En == "" || p.Label.Zh == "" {
			t.Errorf("%s: vendor, model or a label is missing", p.ID)
		}
		for _, pt := range p.Points {
			if pt.Label.En == "" || pt.Label.Zh == "" {
				t.Errorf("%s: point %s has no label in both languages", p.ID, pt.Name)
			}
			for _, names := range []map[int64]telemetry.Label{pt.Enum, pt.Bits} {
				for v, l := range names {
					if l.En == "" || l.Zh == "" {
						t.Errorf("%s: point %s: %d has no label in both languages", p.ID, pt.Name, v)
					}
				}
			}
		}
	}
}

// TestEveryProfileCanBePlanned: what a profile needs fits its own limits, so
// that no plan of its points can fail.
func TestEveryProfileCanBePlanned(t *testing.T) {
	for _, p := range profiles(t) {
		var spans []plan.Span
		for _, pt := range p.Points {
			for _, n := range pt.Needs() {
				spans = append(spans, plan.Span{Table: plan.Table(n.Table), Address: n.Address, Count: n.Count})
			}
		}
		limits := plan.Limits{MaxRegisters: p.Limits.MaxRegisters, Gaps: p.Limits.Gaps != profile.GapsError}
		requests := plan.Plan(spans, limits, plan.RTU(9600, true, 1, plan.DefaultTurnaround))
		t.Logf("%s: %d points in %d requests", p.ID, len(p.Points), len(requests))
		if len(requests) == 0 || len(requests) > len(spans) {
			t.Errorf("%s: %d requests for %d spans", p.ID, len(requests), len(spans))
		}
	}
}

// TestKnownBytes decodes bytes of the wire through the shipped profiles.
func TestKnownBytes(t *testing.T) {
	lib := library(t)
	f := func(id string, params map[string]string, point string, at uint16, regs []uint16, want string) {
		t.Helper()
		p, err := lib.Lookup(id, params)
		if err != nil {
			t.Fatal(err)
		}
		pt, ok := p.Point(point)
		if !ok {
			t.Fatalf("%s has no point %s", id, point)
		}
		v, _, q := pt.Decode(func(_ profile.Table, a uint16) (uint16, telemetry.Quality) {
			if i := int(a) - int(at); i >= 0 && i < len(regs) {
				return regs[i], telemetry.Good
			}
			return 0, telemetry.Refused
		})
		got := fmt.Sprintf("%s %s", v, pt.Unit)
		if q != telemetry.Good {
			got = q.String()
		}
		if got != want {
			t.Errorf("%s %v %s: got %s, want %s", id, params, point, got, want)
		}
	}
	f("kamstrup-multical-603", nil, "flow", 0, []uint16{0x4728, 0xC000}, "12 L/s")
	f("kamstrup-multical-603", map[string]string{"flow_unit": "m3/h"}, "flow", 0, []uint16{0x4190, 0}, "5 L/s")
	f("kamstrup-multical-603", map[string]string{"word_order": "little"}, "flow_temp", 6, []uint16{0x6666, 0x42A8}, "84.2 degC")
	f("kamstrup-multical-603", nil, "power", 4, []uint16{0x7FC0, 0}, "invalid")
	f("grundfos-cim-pump", nil, "flow", 301, []uint16{324}, "9 L/s")
	f("grundfos-cim-pump", nil, "head", 300, []uint16{0xFFFF}, "invalid")
	f("grundfos-cim-pump", nil, "liquid_temp", 321, []uint16{32315}, "50 degC")
	f("grundfos-cim-pump", nil, "power", 311, []uint16{0, 0xFFFF}, "invalid")
	f("grundfos-cim-pump", nil, "heat_power", 353, []uint16{1, 0}, "65536 W")
	f("schneider-iem3000-pm5xxx", nil, "p_total", 3059, []uint16{0x41C8, 0}, "25000 W")
	f("schneider-iem3000-pm5xxx", nil, "energy_import", 3203, []uint16{0, 0, 0x499, 0x602D}, "7.7160493e+07 Wh")
	f("qdy30a", nil, "level", 2, []uint16{1, 2, 17243}, "1.7243 m")
	f("qdy30a", nil, "level", 2, []uint16{5, 2, 17243}, "invalid")
	f("qdy30a", map[string]string{"quantity": "pressure"}, "pressure", 2, []uint16{5, 1, 1013}, "1.013 bar")
	f("remond-water-probe", map[string]string{"probe": "do"}, "do", 1, []uint16{0x0000, 0x3F80, 0, 0, 0, 0, 0, 1}, "1 mg/L")
	f("remond-water-probe", map[string]string{"probe": "do"}, "do", 1, []uint16{0x0000, 0x3F80, 0, 0, 0, 0, 0, 0}, "invalid")
	f("remond-water-probe", map[string]string{"probe": "turbidity"}, "turbidity", 1, []uint16{0x0000, 0x3F80}, "1 NTU")
	f("apc-smart-ups-modbus", nil, "charge", 130, []uint16{0xC800}, "100 %")
	f("apc-smart-ups-modbus", nil, "device_status", 0, []uint16{0x0020, 0x0004}, "2097156 ")
	f("apc-smart-ups-modbus", nil, "efficiency", 154, []uint16{0xFFFE}, "invalid")
	f("apc-smart-ups-modbus", nil, "output_power", 136, []uint16{0x3200}, "refused")
	f("xy-md02", nil, "temperature", 1, []uint16{0xFFCE}, "-5 degC")
	f("xy-md02", map[string]string{"table": "holding"}, "humidity", 2, []uint16{455}, "45.5 %")
}

// TestUnitsDoc holds docs/units.md and the library together: every pair and
// unit stands in it as it is. What stands there is released: a test cannot
// see what was removed, a reviewer must.
func TestUnitsDoc(t *testing.T) {
	rows := map[string]string{}
	data, err := os.ReadFile(unitsDoc)
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(strings.NewReader(string(data)))
	for sc.Scan() {
		cells := strings.Split(strings.Trim(sc.Text(), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == 4 {
			if _, twice := rows[cells[0]+" "+cells[1]]; twice {
				t.Errorf("%s: %s %s stands there twice", unitsDoc, cells[0], cells[1])
			}
			rows[cells[0]+" "+cells[1]] = cells[2] + " " + cells[3]
		}
	}
	var missing []string
	for _, p := range profiles(t) {
		for _, pt := range p.Points {
			want := pt.Class.String() + " " + pt.Unit
			key := p.Kind + " " + pt.Name
			got, ok := rows[key]
			if !ok {
				rows[key] = want
				missing = append(missing, fmt.Sprintf("| %s | %s | %s | %s |", p.Kind, pt.Name, pt.Class, pt.Unit))
			} else if got != want {
				t.Errorf("%s says %s is %q; profile %s says %q: a released pair never changes, give the point another name", unitsDoc, key, got, p.ID, want)
			}
		}
	}
	if len(missing) == 0 {
		return
	}
	slices.Sort(missing)
	if !*update {
		t.Fatalf("%s lacks these pairs; append them (go test ./drivers/modbus/profile -run UnitsDoc -update):\n%s", unitsDoc, strings.Join(missing, "\n"))
	}
	if err := os.WriteFile(unitsDoc, append(data, []byte(strings.Join(missing, "\n")+"\n")...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkLoad reads the whole library, as gatewayd does at its start.
func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		library(b)
	}
}
