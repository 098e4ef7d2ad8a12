package profile

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Level says what a Finding asks for.
type Level string

// The levels. An error keeps the profile from being loaded, or from being what
// docs/profiles.md requires of one; a warning is a usual mistake that this may
// be; a note is worth a look.
const (
	LevelError   Level = "error"
	LevelWarning Level = "warning"
	LevelNote    Level = "note"
)

// rank puts errors first.
func (l Level) rank() int {
	return slices.Index([]Level{LevelError, LevelWarning, LevelNote}, l)
}

// Finding is one thing that lint found: where, what, and what to do. Line and
// Col count from 1; both are 0 when the whole file is meant.
type Finding struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Col   int    `json:"col,omitempty"`
	Level Level  `json:"level"`
	Msg   string `json:"message"`
}

// String returns file:line:col: level: message.
func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", f.File, f.Level, f.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", f.File, f.Line, f.Col, f.Level, f.Msg)
}

// Lint checks a profile file as Load does, with every value of every
// parameter, and for the mistakes that are usual in one. It is compared with
// the profiles of the library, without the one of its own id. The findings are
// in reading order; none means that there is nothing to say.
func (l *Library) Lint(file string, data []byte) []Finding {
	x := linter{file: file, kinds: l.others(strings.TrimSuffix(path.Base(file), ".yaml"))}
	doc, raw, _ := (&Library{pairs: x.pairs()}).parse(file, data)
	x.doc, x.raw = doc, raw
	if line, _ := doc.Pos(nil); raw != nil && line == 0 {
		return []Finding{{file, 0, 0, LevelError, "the file says nothing: there are only comments in it; write a profile as docs/add-a-device.md does"}}
	}
	if raw != nil && doc.Err() == nil {
		combine(doc, raw)
	}
	var list conffile.Errors
	if errors.As(doc.Err(), &list) {
		for _, e := range list {
			x.found = append(x.found, Finding{e.File, e.Line, e.Col, LevelError, e.Msg})
		}
	}
	if raw != nil { // else half a file would give findings that are none
		x.profile()
		for i := range raw.Points {
			x.written(&raw.Points[i])
		}
		if len(list) == 0 {
			x.forms()
		}
	}
	slices.SortStableFunc(x.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Level.rank(), b.Level.rank()))
	})
	var out []Finding
	seen := map[Finding]bool{}
	wrong := map[[2]int]bool{}  // where an error stands
	for _, f := range x.found { // a finding of each form is one; where an error stands it says enough
		spot := [2]int{f.Line, f.Col}
		if seen[f] || f.Level != LevelError && wrong[spot] && f.Line > 1 {
			continue
		}
		seen[f] = true
		wrong[spot] = wrong[spot] || f.Level == LevelError
		out = append(out, f)
	}
	return out
}

// mostCombined bounds the sets of parameters that combine tries.
const mostCombined = 256

// combine compiles a profile that is sound with each parameter alone with all
// of them together, where there are few enough: two that are right alone may
// give an address beyond the last one.
func combine(doc *conffile.Doc, raw *rawProfile) {
	sets := []map[string]string{{}}
	for _, name := range slices.Sorted(maps.Keys(raw.Params)) {
		var more []map[string]string
		for _, set := range sets {
			for _, v := range raw.Params[name].OneOf {
				other := maps.Clone(set)
				other[name] = v
				more = append(more, other)
			}
		}
		if sets = more; len(sets) > mostCombined || len(sets)*len(raw.Points) > mostForms {
			return
		}
	}
	if len(raw.Params) < 2 {
		return
	}
	for _, set := range sets {
		c := compiler{doc: doc}
		c.compile(raw, set)
	}
}

// linter is one file being linted.
type linter struct {
	file  string
	doc   *conffile.Doc
	raw   *rawProfile
	kinds map[string]map[string]quantity // what other profiles have, by kind and name
	found []Finding
}

func (x *linter) add(at conffile.Path, level Level, format string, args ...any) {
	line, col := x.doc.Pos(at)
	x.found = append(x.found, Finding{x.file, line, col, level, fmt.Sprintf(format, args...)})
}

func (x *linter) errorf(at conffile.Path, format string, args ...any) {
	x.add(at, LevelError, format, args...)
}

func (x *linter) warnf(at conffile.Path, format string, args ...any) {
	x.add(at, LevelWarning, format, args...)
}

// quantity is what a profile says of a point, for comparing.
type quantity struct {
	kind, name string
	class      telemetry.Class
	unit       string
	label      telemetry.Label
	by         string
}

// others returns the points of all profiles but the one of that id.
func (l *Library) others(id string) map[string]map[string]quantity {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[string][]quantity{}
		for _, name := range l.names {
			l.known[name] = quantities(l.models[name])
		}
	}
	kinds := map[string]map[string]quantity{}
	for _, name := range l.names {
		if name == id {
			continue
		}
		for _, q := range l.known[name] {
			if kinds[q.kind] == nil {
				kinds[q.kind] = map[string]quantity{}
			}
			if _, there := kinds[q.kind][q.name]; !there {
				kinds[q.kind][q.name] = q
			}
		}
	}
	return kinds
}

func quantities(raw *rawProfile) (out []quantity) {
	seen := map[string]bool{}
	for _, p := range allForms(raw) {
		for i := range p.Points {
			if pt := &p.Points[i]; !seen[pt.Name] {
				seen[pt.Name] = true
				out = append(out, quantity{p.Kind, pt.Name, pt.Class, pt.Unit, pt.Label, p.ID})
			}
		}
	}
	return out
}

// allForms compiles a sound profile with every value of every parameter.
func allForms(raw *rawProfile) (out []*Profile) {
	doc, _ := conffile.Parse(raw.ID, nil, &struct{}{})
	for _, params := range variants(doc, raw) {
		c := compiler{doc: doc}
		if p := c.compile(raw, params); p != nil {
			out = append(out, p)
		}
	}
	return out
}

func (x *linter) pairs() pairs {
	out := pairs{}
	for kind, points := range x.kinds {
		for name, q := range points {
			out[[2]string{kind, name}] = pair{q.class, q.unit, q.by}
		}
	}
	return out
}

// profile checks what stands before the points.
func (x *linter) profile() {
	raw := x.raw
	for _, s := range []struct{ key, text string }{{"vendor", raw.Vendor}, {"model", raw.Model}} {
		if strings.TrimSpace(s.text) == "" {
			x.errorf(conffile.Path{s.key}, "%s is missing; write it as on the type plate", s.key)
		}
	}
	x.label(conffile.Path{"label"}, raw.Label, LevelError, "the profile", "{en: Heat meter X, zh: 热量表 X}")
	if _, known := x.kinds[raw.Kind]; !known && telemetry.ValidKind(raw.Kind) && len(x.kinds) > 0 {
		kinds := slices.Sorted(maps.Keys(x.kinds))
		if i := slices.IndexFunc(kinds, func(k string) bool { return misspelt(raw.Kind, k) }); i >= 0 {
			x.warnf(conffile.Path{"kind"}, "no other profile has the kind %q; did you mean %q?", raw.Kind, kinds[i])
		} else {
			x.add(conffile.Path{"kind"}, LevelNote, "the kind %q is new; known: %s", raw.Kind, strings.Join(kinds, ", "))
		}
	}
	for i, u := range raw.Unproven {
		if strings.ContainsAny(strings.TrimSpace(u), " ,;") || u == "" {
			x.warnf(conffile.Path{"unproven", i}, "%q is not one word; name what is unproven (word_order) and explain it in notes", u)
		}
	}
	x.serial(raw.Serial)
	for _, name := range slices.Sorted(maps.Keys(raw.Params)) {
		x.param(name, raw.Params[name])
	}
	x.wordOrder()
}

// bauds are the speeds that serial devices offer.
var bauds = []int{300, 600, 1200, 2400, 4800, 9600, 14400, 19200, 28800, 38400, 57600, 76800, 115200, 128000, 230400, 256000, 460800, 921600}

func (x *linter) serial(s Serial) {
	at := conffile.Path{"serial"}
	if s.Baud != 0 && !slices.Contains(bauds, s.Baud) {
		x.warnf(at.With("baud"), "baud is %d, which no serial port offers; did you mean %d?", s.Baud, nearestBaud(s.Baud))
	}
	if s.DataBits != 0 && s.DataBits != 8 {
		x.warnf(at.With("data_bits"), "data_bits is %d; Modbus RTU always has 8 (7 is Modbus ASCII, which is not spoken here)", s.DataBits)
	}
	if s.Unit > 247 && !slices.Contains(x.raw.Transport, "tcp") {
		x.warnf(at.With("unit"), "unit is %d; on a serial line addresses are 1 to 247: correct it, or say transport: [tcp]", s.Unit)
	}
	if s.StopBits == 1 && s.Parity == "none" || s.Parity == "" || s.StopBits == 0 {
		return
	}
	if s.StopBits == 2 && s.Parity != "none" {
		x.warnf(at.With("stop_bits"), "parity %s and 2 stop bits make 12 bits a character; Modbus RTU has 11: check the book, one of the two is usual", s.Parity)
	}
}

func nearestBaud(b int) int {
	return slices.MinFunc(bauds, func(i, j int) int { return cmp.Compare(distance(i, b), distance(j, b)) })
}

func distance(a, b int) int { return max(a-b, b-a) }

func (x *linter) param(name string, p rawParam) {
	at := conffile.Path{"params", name}
	x.label(at.With("label"), p.Label, LevelWarning, "parameter "+name, "{en: Unit of flow, zh: 流量单位}")
	for i := range x.raw.Points {
		rp := &x.raw.Points[i]
		if _, ok := rp.When[name]; ok || refers(rp, name) {
			return
		}
	}
	for _, b := range x.raw.Blocks {
		if strings.Contains(string(b.Address), "${"+name+"}") {
			return
		}
	}
	x.warnf(at, "nothing in the profile uses the parameter %s; write ${%s} or when: {%s: ...} where it matters, or leave it out", name, name, name)
}

// wordOrder tells of values of several registers that rely on the default.
func (x *linter) wordOrder() {
	n, first := 0, -1
	for i, rp := range x.raw.Points {
		wide := slices.Contains([]string{"u32", "s32", "f32", "u64", "s64", "f64"}, rp.Type) && rp.Encoding != string(Base10000)
		if wide && rp.WordOrder == "" {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n > 0 {
		x.add(conffile.Path{"points", first}, LevelNote,
			"%s of two or more registers without a word_order, point %s the first; big (most significant register first) is taken: say it where the book does, list word_order in unproven where it does not",
			plural(n, "value"), x.raw.Points[first].Name)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
