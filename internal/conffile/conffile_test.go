package conffile

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Name string
	Unit uint8
	Ref  ref `yaml:"ref"`
}

type ref struct {
	ID   string
	Base string
}

func (r *ref) UnmarshalScalar(s string) error {
	if strings.Contains(s, " ") {
		return fmt.Errorf("a reference has no blank: %q", s)
	}
	r.ID = s
	return nil
}

type embedded struct {
	Every time.Duration
}

type outer struct {
	embedded
	Embedded `yaml:"-"`
	Site     string
	Max      Size `yaml:"max"`
	Low      *float64
	On       bool
	Items    []inner
	Names    map[int64]string
	Raw      []Scalar
	Addr     uint16 `yaml:"addr"`
}

// Embedded is exported so that the embedding is visible to reflect.
type Embedded struct{ Hidden string }

func TestParseDecodes(t *testing.T) {
	var o outer
	_, err := Parse("f.yaml", []byte(`
# a comment
site: heating-east
max: 2GiB
low: -1.5
on: true
addr: 0xFFFF
items:
  - {name: a, unit: 1, ref: plain}
  - name: "b"
    ref: {base: model}
names: {1: one, 0x10: sixteen}
raw: [0xFFFF, nan, "1"]
`), &o)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %s %g %v %d %+v %v %q", o.Site, o.Max, *o.Low, o.On, o.Addr, o.Items, o.Names, o.Raw)
	want := `heating-east 2GiB -1.5 true 65535 [{Name:a Unit:1 Ref:{ID:plain Base:}} {Name:b Unit:0 Ref:{ID: Base:model}}] map[1:one 16:sixteen] ["0xFFFF" "nan" "1"]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseErrorsAllWithPosition(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"unknown key", "site: a\nsiet: b\n", `f.yaml:2:1: unknown key "siet"; did you mean "site"?`},
		{"two at once", "max: lots\nlow: high\n", "f.yaml:1:6: \"lots\" is not a size; write for example 512KiB, 64MiB or 2GiB\nf.yaml:2:6: \"high\" is not a number"},
		{"nested", "items:\n  - {name: a, unti: 3}\n  - {unit: 300}\n", "f.yaml:2:15: unknown key \"unti\"; did you mean \"unit\"?\nf.yaml:3:12: 300 is too large here"},
		{"list wanted", "items: {name: a}\n", "f.yaml:1:8: want a list here ([a, b] or lines that begin with -), not keys and values"},
		{"scalar wanted", "site: [a]\n", "f.yaml:1:7: want a text here, not a list"},
		{"twice", "site: a\nsite: b\n", `f.yaml:2:1: key "site" stands here a second time; keep one`},
		{"own scalar", "items: [{ref: a b}]\n", `f.yaml:1:15: a reference has no blank: "a b"`},
		{"bad alias", "site: *x\n", "f.yaml:1:7: alias *x has no anchor &x before it; a text that begins with * belongs in quotes"},
		{"one key in two spellings", "names: {1: one, 0x1: two}\n", `f.yaml:1:17: key "0x1" is 1, and so is "1" before it; keep one`},
		{"a key of another type", "names: {on: one}\n", `f.yaml:1:9: key "on" is not a whole number`},
		{"decimal comma", "items: [{name: 0,1}]\n", `f.yaml:1:18: "1" is no key: a text with a comma in it belongs in quotes, and decimals have a point (0.1)`},
		{"keys wanted", "items: [a]\n", "f.yaml:1:9: want keys and values here ({name: ..., unit: ..., ref: ...}), not a single value"},
		{"two letters are no slip", "items: [{ref: {iq: a}}]\n", `f.yaml:1:16: unknown key "iq"; known here: id, base`},
		{"wide colon", "site：a\n", "f.yaml:1:1: want keys and values here (key: value), not a single value; ： stands there, the wide form of a Chinese keyboard; type the plain one"},
		{"wide colon in a line", "max: 1\nsite：a\nlow: 1\n", "f.yaml:2:1: not valid YAML: this line is no key: value; is the colon, or the space after it, missing?; ： stands there, the wide form of a Chinese keyboard; type the plain one"},
		{"wide digits", "max: １\n", `f.yaml:1:6: "１" is not a size; write for example 512KiB, 64MiB or 2GiB; １ stands there, the wide form of a Chinese keyboard; type the plain one`},
		{"wide braces", "items: [｛name: a｝]\n", "f.yaml:1:9: unknown key \"｛name\"; known here: name, unit, ref; ｛ stands there, the wide form of a Chinese keyboard; type the plain one"},
		{"a parameter without quotes", "items: [{name: ${a}, unit: 1}]\n", "f.yaml:1:17: not valid YAML: a { here, or before, is not closed by a }, or a comma is missing in it; a text with ${...} belongs in quotes"},
		{"indented too far", "items:\n  - ref: {id: a}\n     unit: 1\n", "f.yaml:3:6: not valid YAML: this line does not fit its neighbours: indent lines of one list or mapping alike"},
		{"no space after the colon", "items:\n  - name:a\n    unit: 1\n", "f.yaml:2:5: not valid YAML: this line is no key: value; is the space after the colon, or after the dash, missing?"},
		{"tag", "site: !!int a\n", "f.yaml:1:7: tags such as !!int are not used here; write the plain value"},
		{"not infinite", "low: .inf\n", `f.yaml:1:6: ".inf" is not a number`},
		{"two documents", "site: a\n---\nsite: b\n", "f.yaml:3:1: a second document begins here; keep one document a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o outer
			_, err := Parse("f.yaml", []byte(tt.in), &o)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestSyntaxErrorHasPosition(t *testing.T) {
	for _, in := range []string{"a: [1, 2\n", "a: b: c\n", "\tsite: x\n", "a: \"x\n", "{"} {
		_, err := Parse("f.yaml", []byte(in), &outer{})
		if err == nil || !strings.HasPrefix(err.Error(), "f.yaml:") || !strings.Contains(err.Error(), "not valid YAML") {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

func TestErrorfFindsNode(t *testing.T) {
	var o outer
	d, err := Parse("f.yaml", []byte("site: a\nitems:\n  - name: x\n    unit: 4\n"), &o)
	if err != nil {
		t.Fatal(err)
	}
	p := Path{"items", 0}
	d.Errorf(p.With("unit"), "unit %d is taken", 4)
	d.Errorf(p.With("ref", "base"), "missing") // not in the file: the item is named
	want := "f.yaml:3:5: missing\nf.yaml:4:11: unit 4 is taken"
	if got := d.Err().Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !d.Has(p.With("unit")) || d.Has(p.With("ref")) {
		t.Error("Has is wrong")
	}
}

func TestAliasBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("raw: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "k%d: &a%d [", i, i)
		b.WriteString(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10))
		b.WriteString("]\n")
	}
	_, err := Parse("f.yaml", []byte(b.String()), &outer{})
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("site: a\nitems: [{name: x}]\n"))
	f.Add([]byte("a: &b [*b]\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var o outer
		d, err := Parse("f.yaml", data, &o)
		if d == nil {
			t.Fatal("no Doc")
		}
		if err != nil {
			for _, e := range err.(Errors) {
				if e.Msg == "" {
					t.Errorf("an error without a sentence: %v", e)
				}
			}
		}
	})
}
