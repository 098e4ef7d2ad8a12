package profile

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

const head = "id: m\nkind: pump\nsource: {where: book, confidence: low}\n"

// TestBadProfiles: each mistake is told at its place, in a sentence.
func TestBadProfiles(t *testing.T) {
	pt := func(s string) string { return head + "points:\n  - {" + s + "}\n" }
	const ok = "name: x, table: holding, address: 0, type: u16"
	tests := []struct{ name, text, want string }{
		{"unknown key", head + "pionts: []\n", `m.yaml:4:1: unknown key "pionts"; did you mean "points"?`},
		{"no points", head, "m.yaml:1:1: the profile has no points"},
		{"id", strings.Replace(head, "id: m", "id: n", 1) + "points: [{" + ok + "}]\n", `m.yaml:1:5: id is "n" and the file is named m.yaml`},
		{"kind", strings.Replace(head, "kind: pump", "kind: Pump", 1) + "points: [{" + ok + "}]\n", `m.yaml:2:7: kind "Pump" is not allowed`},
		{"source", "id: m\nkind: pump\npoints: [{" + ok + "}]\n", "source.where is missing"},
		{"reserved name", pt("name: status, table: holding, address: 0, type: u16"), `m.yaml:5:12: a point may not be named "status", a column of every row; call it device_status`},
		{"Chinese name", pt("name: 流量, table: holding, address: 0, type: u16"), "Chinese belongs in labels"},
		{"no name", pt("table: holding, address: 0, type: u16"), "name is missing"},
		{"table", pt("name: x, table: holdings, address: 0, type: u16"), `m.yaml:5:22: table is "holdings"; it is one of coil, discrete, holding, input`},
		{"address", pt("name: x, table: holding, type: u16"), "address is missing"},
		{"40001", pt("name: x, table: holding, address: 400001, type: u16"), "address is 400001, a number as books print it; the protocol address is then 0 (write doc_address: 400001)"},
		{"beyond the end", pt("name: x, table: holding, address: 65535, type: u32"), "2 registers from 65535 go beyond the last address"},
		{"type", pt("name: x, table: holding, address: 0, type: int16"), `type is "int16"; it is one of bit, bits, f32`},
		{"bit in a register", pt("name: x, table: holding, address: 0, type: bit"), "type bit cannot stand in the holding table"},
		{"register in a coil", pt("name: x, table: coil, address: 0, type: u16"), "type u16 cannot stand in the coil table"},
		{"unit", pt(ok + ", unit: Kw"), `unit "Kw" is not known; did you mean "kW"?`},
		{"as", pt(ok + ", unit: kW, as: Wh"), `"kW" cannot become "Wh"`},
		{"scale", pt(ok + ", unit: W, scale: 0"), `scale is "0"; write a number that is not 0`},
		{"hostile scale", pt(ok + ", unit: W, scale: 1e999999999"), `scale is "1e999999999"`},
		{"division by zero", pt(ok + ", unit: W, scale: 1/0"), `scale is "1/0"`},
		{"word order", pt(ok + ", word_order: middle"), `word_order is "middle"; it is big or little`},
		{"encoding", pt(ok + ", encoding: low-bite"), `encoding "low-bite" is not known; did you mean "low-byte"?`},
		{"encoding and type", pt("name: x, table: holding, address: 0, type: f32, encoding: bcd"), "encoding bcd does not go with type f32"},
		{"bit field", pt(ok + ", encoding: bit-field:5-4"), "write bit-field:a-b with bits 0 to 15"},
		{"bit field too wide", pt(ok + ", encoding: bit-field:5-16"), "write bit-field:a-b with bits 0 to 15"},
		{"sentinel too wide", pt(ok + ", invalid: [0xFFFFFFFF]"), `m.yaml:5:64: raw value "0xFFFFFFFF" cannot occur in type u16`},
		{"sentinel nan", pt(ok + ", invalid: [nan]"), `raw value "nan" cannot occur in type u16`},
		{"sentinel means", pt(ok + ", invalid: [{raw: 1, means: broken}]"), `means is "broken"; it is one of invalid, over_range, under_range`},
		{"int scaled", pt(ok + ", scale: 0.1, class: int"), "an int is the number as it stands in the register"},
		{"float of a text", pt("name: x, table: holding, address: 0, type: \"string:4\", class: float"), "class float does not go with type string:4"},
		{"enum of a quantity", pt(ok + ", class: float, enum: {0: {en: a, zh: b}}"), "a point with enum or bits is an int"},
		{"a bit there is not", pt(ok + ", bits: {16: {en: a, zh: b}}"), "there is no bit 16; the value has bits 0 to 15"},
		{"unit from", pt(ok + ", unit: m, unit_from: {address: 1, units: {3: MPa}}"), `unit "MPa" cannot be converted to m`},
		{"scale from", pt(ok + ", unit: m, scale_from: {address: 1, rule: pow2}"), `rule is "pow2"; it is pow10`},
		{"scale from nowhere", pt(ok + ", unit: m, scale_from: {rule: pow10}"), "address is missing"},
		{"range", pt(ok + ", unit: m, range: {min: 3, max: 3}"), "the range is empty"},
		{"write only", pt(ok + ", access: wo"), "a write-only register cannot be read"},
		{"every", pt(ok + ", every: 1ms"), "every is 1ms; choose between 100ms and 24h"},
		{"twice", pt(ok + "}\n  - {" + ok), `m.yaml:6:12: point "x" stands here a second time`},
		{"limits", head + "limits: {max_registers: 126, gaps: maybe}\npoints: [{" + ok + "}]\n", "max_registers is 126; a request reads 1 to 125"},
		{"gaps", head + "limits: {gaps: maybe}\npoints: [{" + ok + "}]\n", `m.yaml:4:16: gaps is "maybe"; it is one of ok, zero-fill, error`},
		{"in flight", head + "limits: {in_flight: 17}\npoints: [{" + ok + "}]\n", "m.yaml:4:21: in_flight is 17; a device is asked 1 to 16 requests at once"},
		{"in flight with a pause", head + "limits: {pause: 10ms, in_flight: 2}\npoints: [{" + ok + "}]\n", "in_flight is 2 and pause is 10ms; a device that needs a pause is asked one request at a time"},
		{"longer than a request", head + "limits: {max_registers: 1}\npoints: [{name: x, table: holding, address: 0, type: u32}]\n", "the value takes 2 registers and the device gives at most 1"},
		{"block", head + "limits: {max_registers: 2}\nblocks: [{table: holding, address: 0, count: 3}]\npoints: [{" + ok + "}]\n", "a block of 3 from 0 does not fit"},
		{"parameter", pt(ok + `, unit: "${flow_unit}"`), "${flow_unit} names no parameter of this profile"},
		{"parameter default", head + "params: {u: {default: kW, one_of: [W]}}\npoints: [{" + ok + `, unit: "${u}"}]` + "\n", `default is "kW"; it is one of W`},
		{"a bad value of a parameter", head + "params: {u: {default: W, one_of: [W, watt]}}\npoints: [{" + ok + `, unit: "${u}"}]` + "\n", `m.yaml:5:65: unit "watt" is not known; did you mean "W"?`},
		{"an address that is no sum", pt("name: x, table: holding, address: \"10 + \", type: u16"), `m.yaml:5:40: address is "10 + ": a number is missing at its end`},
		{"a sum that is too large", pt("name: x, table: holding, address: \"65000 + 536\", type: u16"), `address is "65000 + 536", 65536; it is the zero-based protocol address, 0 to 65535`},
		{"a sum below 0", pt("name: x, table: holding, address: \"1-2\", type: u16"), `address is "1-2", -1;`},
		{"an address of a value of a parameter", head + "params: {m: {default: 1, one_of: [1, 660]}}\npoints: [{name: x, table: holding, address: \"100*${m}\", type: u16}]\n", `m.yaml:5:45: address is "100*660", 66000;`},
		{"an address by a text parameter", head + "params: {m: {default: a, one_of: [a]}}\npoints: [{name: x, table: holding, address: \"${m}+1\", type: u16}]\n", `"a" is not a whole number`},
		{"validity out of range", pt(ok + ", validity: {address: 70000, good: [0]}"), `m.yaml:5:74: address is 70000;`},
		{"block out of range", head + "blocks: [{table: holding, address: 1+70000, count: 3}]\npoints: [{" + ok + "}]\n", `m.yaml:4:36: address is "1+70000", 70001;`},
		{"block without address", head + "blocks: [{table: holding, count: 3}]\npoints: [{" + ok + "}]\n", "m.yaml:4:10: address is missing"},
		{"unit offset", pt(ok + ", unit_offset: 247"), "m.yaml:5:67: unit_offset is 247; it is 0 to 246"},
		{"used at", head + "used_at: [sewage, school]\npoints: [{" + ok + "}]\n", `m.yaml:4:19: "school" is none of the plants: district-heating, sewage`},
		{"transport", head + "transport: [rtu, rtu]\npoints: [{" + ok + "}]\n", `m.yaml:4:18: "rtu" stands here a second time`},
		{"transport unknown", head + "transport: [ascii]\npoints: [{" + ok + "}]\n", `"ascii" is none of the transports: rtu, tcp`},
		{"when with a list", head + "params: {u: {default: W, one_of: [W, V]}}\npoints: [{" + ok + `, when: {u: [W, kW]}}]` + "\n", `m.yaml:5:73: parameter u is never "kW"`},
		{"when", head + "params: {u: {default: W, one_of: [W]}}\npoints: [{" + ok + `, when: {u: kW}}]` + "\n", `parameter u is never "kW"`},
	}
	for _, tt := range tests {
		p, err := Parse("m.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		if p != nil {
			t.Errorf("%s: a profile came with the error", tt.name)
		}
		list, ok := err.(conffile.Errors)
		if !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", tt.name, err, tt.want)
		}
		for _, e := range list {
			if e.Line == 0 {
				t.Errorf("%s: %v has no place", tt.name, e)
			}
		}
	}
}

// TestAllMistakesAtOnce: one reading tells everything.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := Parse("m.yaml", []byte(head+"points:\n  - {name: status, table: holding, address: 0, type: u16}\n  - {name: x, table: no, address: 0, type: u16}\n  - {name: y, table: holding, address: 0, type: u16, unit: no}\n"))
	if list, ok := err.(conffile.Errors); !ok || len(list) != 3 || list[0].Line != 5 || list[1].Line != 6 || list[2].Line != 7 {
		t.Errorf("got %v", err)
	}
}

func TestClassesAndUnits(t *testing.T) {
	f := func(text string, class telemetry.Class, unit string) {
		t.Helper()
		if p := point(t, text); p.Class != class || p.Unit != unit {
			t.Errorf("%s: got %s in %q, want %s in %q", text, p.Class, p.Unit, class, unit)
		}
	}
	const h = "table: holding, address: 0, "
	f(h+"type: u16", telemetry.Int, "")
	f(h+"type: u16, scale: 0.001", telemetry.Float, "")
	f(h+"type: u16, unit: rpm", telemetry.Float, "rpm")
	f(h+"type: u32, unit: kWh, counter: true", telemetry.Float, "Wh")
	f(h+"type: f32", telemetry.Float, "")
	f(h+"type: u16, class: float", telemetry.Float, "")
	f(h+"type: u16, enum: {0: {en: a, zh: b}}", telemetry.Int, "")
	f(h+"type: u16, encoding: hhmm-decimal", telemetry.String, "")
	f(h+"type: u16, unit: kPa", telemetry.Float, "bar")
	f(h+"type: f32, unit: mV", telemetry.Float, "mV")
	f(h+"type: f32, unit: mV, as: V", telemetry.Float, "V")
	f(h+"type: f32, unit: d", telemetry.Float, "h")
}

func TestNeeds(t *testing.T) {
	prof, err := Parse("m.yaml", []byte(head+`limits: {max_registers: 4}
blocks: [{table: holding, address: 2, count: 3}]
points:
  - {name: a, table: holding, address: 4, type: s16, unit: m, scale_from: {address: 3, rule: decimals}, unit_from: {address: 2, units: {1: cm}}}
  - {name: b, table: holding, address: 5, type: u32, validity: {table: input, address: 7, good: [0]}}
  - {name: c, table: holding, address: 4, type: u32}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]Span{"a": {{Holding, 2, 3}}, "b": {{Holding, 5, 2}, {Input, 7, 1}}, "c": {{Holding, 2, 4}}}
	for name, spans := range want {
		p, _ := prof.Point(name)
		got := p.Needs()
		if len(got) != len(spans) {
			t.Errorf("%s needs %v, want %v", name, got, spans)
			continue
		}
		for i := range spans {
			if got[i] != spans[i] {
				t.Errorf("%s needs %v, want %v", name, got, spans)
			}
		}
	}
}

func testLibrary(t *testing.T) *Library {
	t.Helper()
	lib, err := Load(fstest.MapFS{
		"d/pump-a.yaml": {Data: []byte("id: pump-a\nkind: pump\nsource: {where: book, confidence: low}\nevery: 5s\nparams:\n  flow_unit: {default: L/h, one_of: [L/h, m3/h]}\n" +
			"points:\n  - {name: flow, label: {en: Flow, zh: 流量}, table: input, address: 0, type: u16, unit: \"${flow_unit}\"}\n  - {name: speed, table: input, address: 1, type: u16, unit: rpm}\n")},
		"d/probe.yaml": {Data: []byte("id: probe\nkind: analyser\nsource: {where: book, confidence: low}\nparams:\n  probe: {one_of: [ph, orp]}\n" +
			"points:\n  - {name: ph, when: {probe: ph}, table: input, address: 0, type: f32, unit: pH}\n  - {name: orp, when: {probe: orp}, table: input, address: 0, type: f32, unit: mV}\n")},
	}, "d")
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func TestLookup(t *testing.T) {
	lib := testLibrary(t)
	p, err := lib.Lookup("pump-a", nil)
	if err != nil || p.Every != 5*time.Second || len(p.Points) != 2 || p.Points[0].SourceUnit != "L/h" {
		t.Fatalf("got %+v, %v", p, err)
	}
	if p, err = lib.Lookup("pump-a", map[string]string{"flow_unit": "m3/h"}); err != nil || p.Points[0].SourceUnit != "m3/h" || p.Points[0].Unit != "L/s" {
		t.Fatalf("got %+v, %v", p, err)
	}
	for _, tt := range []struct {
		id     string
		params map[string]string
		want   string
	}{
		{"pump-b", nil, `profile "pump-b" is not known; did you mean "pump-a"?`},
		{"pump-a", map[string]string{"flow_unit": "gpm"}, `parameter flow_unit is "gpm"; it is one of L/h, m3/h`},
		{"pump-a", map[string]string{"flow": "m3/h"}, `profile pump-a has no parameter "flow"`},
		{"probe", nil, "profile probe needs the parameter probe"},
	} {
		if _, err := lib.Lookup(tt.id, tt.params); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: got %v, want %q", tt.id, tt.params, err, tt.want)
		}
	}
}

func TestLibraryDisagrees(t *testing.T) {
	file := func(id, unit string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("id: " + id + "\nkind: pump\nsource: {where: book, confidence: low}\npoints:\n  - {name: flow, table: input, address: 0, type: u16, unit: " + unit + "}\n")}
	}
	lib, err := Load(fstest.MapFS{"a.yaml": file("a", "L/h"), "b.yaml": file("b", "kg/h"), "c.yaml": file("c", "m3/h")}, ".")
	want := "b.yaml:5:61: point flow of kind pump is float in kg/s here and float in L/s in profile a; one kind and point is one class and unit everywhere: give it another name"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if names := strings.Join(lib.Names(), " "); names != "a c" {
		t.Errorf("the sound profiles are %q, want a c", names)
	}
	if _, err := Load(fstest.MapFS{}, "devices"); err == nil {
		t.Error("an empty folder was accepted")
	}
}

func TestRef(t *testing.T) {
	lib := testLibrary(t)
	f := func(name, text string, check func(*Profile) bool, want string) {
		t.Helper()
		var file struct{ Profile Ref }
		doc, err := conffile.Parse("g.yaml", []byte(text), &file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		p := file.Profile.Resolve(lib, doc, conffile.Path{"profile"})
		err = doc.Err()
		switch {
		case want == "" && (err != nil || p == nil || !check(p)):
			t.Errorf("%s: got %+v, %v", name, p, err)
		case want != "" && (p != nil || err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	unit := func(name, source, canon string) func(*Profile) bool {
		return func(p *Profile) bool {
			pt, ok := p.Point(name)
			return ok && pt.SourceUnit == source && pt.Unit == canon
		}
	}
	f("an id", "profile: pump-a\n", func(p *Profile) bool { return p.ID == "pump-a" && p.Kind == "pump" && p.PointNames()[1] == "speed" }, "")
	f("a parameter", "profile: {base: pump-a, params: {flow_unit: m3/h}}\n", unit("flow", "m3/h", "L/s"), "")
	f("an override keeps the rest", "profile: {base: pump-a, points: [{name: flow, unit: L/s, address: 7}]}\n", func(p *Profile) bool {
		pt, _ := p.Point("flow")
		return pt.SourceUnit == "L/s" && pt.Address == 7 && pt.Table == Input && pt.Label.Zh == "流量" && len(p.Points) == 2
	}, "")
	f("the library is not changed by an override", "profile: pump-a\n", unit("flow", "L/h", "L/s"), "")
	f("a point more", "profile: {base: pump-a, every: 1s, points: [{name: head, table: input, address: 9, type: u16, unit: kPa}]}\n", func(p *Profile) bool {
		return p.Every == time.Second && p.Points[0].Every == time.Second && len(p.Points) == 3 && p.Points[2].Unit == "bar"
	}, "")
	f("written out", "profile: {kind: fan, points: [{name: speed, table: holding, address: 1, type: u16, unit: rpm}]}\n", func(p *Profile) bool { return p.ID == "" && p.Kind == "fan" }, "")
	f("no kind", "profile: {points: [{name: speed, table: holding, address: 1, type: u16, unit: rpm}]}\n", nil, "g.yaml:1:10: kind is missing")
	f("an empty one", "profile:\n", nil, "profile is missing; name one of: probe, pump-a")
	f("unknown", "profile: pump-aa\n", nil, `g.yaml:1:10: profile "pump-aa" is not known; did you mean "pump-a"?`)
	f("unknown base", "profile: {base: pumpa}\n", nil, `g.yaml:1:17: profile "pumpa" is not known; did you mean "pump-a"?`)
	f("needs a parameter", "profile: probe\n", nil, "g.yaml:1:10: profile probe needs the parameter probe, which only the device's own settings tell: write profile: {base: probe, params: {probe: ...}} with one of ph, orp")
	f("a bad parameter", "profile: {base: probe, params: {probe: do}}\n", nil, `g.yaml:1:40: parameter probe is "do"; it is one of ph, orp`)
	f("a bad override", "profile: {base: pump-a, points: [{name: flow, unit: gpm}]}\n", nil, `g.yaml:1:53: unit "gpm" is not known`)
	f("an inherited point that no longer fits", "profile: {base: pump-a, byte_order: no}\n", nil, `byte_order is "no"`)
	f("another unit for a known pair", "profile: {kind: pump, points: [{name: flow, table: input, address: 0, type: u16, unit: kg/h}]}\n", nil, "point flow of kind pump is float in kg/s here and float in L/s in profile pump-a")
	f("another class by override", "profile: {base: pump-a, points: [{name: speed, type: \"string:4\"}]}\n", nil, "a text has no scale, offset, unit or range")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "points: [{name: x, table: holding, address: 0, type: u16, unit: kW, scale: 0.1, invalid: [0xFFFF]}]\n"))
	f.Add([]byte(head + "params: {u: {one_of: [W]}}\nblocks: [{table: input, address: 1, count: 2}]\npoints: [{name: x, when: {u: W}, table: input, address: 2, type: u32, unit: \"${u}\"}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("m.yaml", data)
		if (p == nil) == (err == nil) {
			t.Errorf("profile %v and error %v", p, err)
		}
		if p == nil {
			return
		}
		for i := range p.Points {
			p.Points[i].Decode(func(Table, uint16) (uint16, telemetry.Quality) { return 0xffff, telemetry.Good })
		}
	})
}

// TestOneProfileForAll: what is written alike is one profile, what differs is not.
func TestOneProfileForAll(t *testing.T) {
	lib := testLibrary(t)
	resolve := func(text string) *Profile {
		t.Helper()
		var file struct{ Profile Ref }
		doc, err := conffile.Parse("g.yaml", []byte(text), &file)
		if err != nil {
			t.Fatal(err)
		}
		p := file.Profile.Resolve(lib, doc, conffile.Path{"profile"})
		if err := doc.Err(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	inline := "profile: {kind: k, points: [{name: x, table: holding, address: %s, type: u16}]}\n"
	one, two := resolve(strings.Replace(inline, "%s", "1", 1)), resolve("\n\n"+strings.Replace(inline, "%s", "1", 1))
	if one != two {
		t.Error("two profiles written alike are kept twice")
	}
	if other := resolve(strings.Replace(inline, "%s", "2", 1)); other == one || other.Points[0].Address != 2 {
		t.Errorf("another profile is given out as the same: %+v", other.Points[0])
	}
}
