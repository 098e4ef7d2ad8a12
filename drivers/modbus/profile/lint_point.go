package profile

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// label checks a label: both languages, each in its own.
func (x *linter) label(at conffile.Path, l telemetry.Label, missing Level, of, example string) {
	if l == (telemetry.Label{}) {
		x.add(at, missing, "%s has no label; write label: %s", of, example)
		return
	}
	for _, s := range []struct{ key, text string }{{"en", l.En}, {"zh", l.Zh}} {
		if strings.TrimSpace(s.text) == "" {
			x.add(at.With(s.key), missing, "%s has no label in %s; write label: %s", of, language[s.key], example)
		}
	}
	if l.Zh != "" && !hasHan(l.Zh) {
		x.warnf(at.With("zh"), "the label %q of %s has no Chinese character; zh is in the words of the trade", l.Zh, of)
	}
	if hasHan(l.En) {
		x.warnf(at.With("en"), "the label %q of %s has Chinese characters; en is in English (are en and zh swapped?)", l.En, of)
	}
}

var language = map[string]string{"en": "English (en)", "zh": "Chinese (zh)"}

func hasHan(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) })
}

// word is what would have to be translated.
var word = regexp.MustCompile(`[A-Za-z]{4}`)

// code checks the label of a value or bit, where a symbol such as MPa, ×10 or
// PT100 is the same in both languages.
func (x *linter) code(at conffile.Path, l telemetry.Label, of string) {
	if l.En != "" && l.Zh != "" && !hasHan(l.En) && (l.En == l.Zh && !strings.Contains(l.En, " ") || !word.MatchString(l.Zh)) {
		return
	}
	x.label(at, l, LevelWarning, of, "{en: running, zh: 运行}")
}

// refers reports whether the point writes ${name} somewhere.
func refers(rp *rawPoint, name string) bool {
	p := *rp
	for _, unknown := range fill(reflect.ValueOf(&p).Elem(), nil) { // without parameters all are unknown
		if unknown == name {
			return true
		}
	}
	return false
}

// written checks a point as it stands in the file.
func (x *linter) written(rp *rawPoint) {
	of := "point " + rp.Name
	if !telemetry.ValidPoint(rp.Name) {
		return // told
	}
	x.label(rp.at.With("label"), rp.Label, LevelWarning, of, "{en: Flow temperature, zh: 供水温度}")
	for key, names := range map[string]map[int64]telemetry.Label{"enum": rp.Enum, "bits": rp.Bits} {
		for _, n := range slices.Sorted(maps.Keys(names)) {
			x.code(rp.at.With(key, strconv.FormatInt(n, 10)), names[n], of+", "+strconv.FormatInt(n, 10)+" of "+key)
		}
	}
	x.docAddress(rp)
	if rp.Type == "bits" && len(rp.Bits) == 0 && len(rp.Enum) == 0 && rp.Encoding == "" {
		x.warnf(rp.at.With("type"), "type bits is a register of named bits and point %s names none; write bits: {0: {en: fault, zh: 故障}}, or type: u16", rp.Name)
	}
	if rp.Range != nil && rp.Note == "" && !x.tellsOf("range", string(rp.Range.Min), string(rp.Range.Max)) {
		x.warnf(rp.at.With("range"), "a range without a note; say in note: (or in the notes of the profile) which page of the book gives it, and leave it out where none does: outside it values are doubted")
	}
	if (rp.Type == "f32" || rp.Type == "f64") && rp.Scale != "" && rp.Scale != "1" && rp.Note == "" {
		x.warnf(rp.at.With("scale"), "a float with a scale of %s: floats are mostly in the unit already; leave scale out, or say in note: where the book asks for it", rp.Scale)
	}
}

// tellsOf reports whether the notes of the profile have one of the words in them.
func (x *linter) tellsOf(words ...string) bool {
	for _, n := range append([]string{x.raw.Source.Note}, x.raw.Notes...) {
		for _, w := range strings.FieldsFunc(strings.ToLower(n), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '.' }) {
			if w = strings.Trim(w, "."); w != "" && slices.Contains(words, w) {
				return true
			}
		}
	}
	return false
}

// docAddress compares the address with the number that the maker prints.
func (x *linter) docAddress(rp *rawPoint) {
	address, err := strconv.Atoi(string(rp.Address))
	if err != nil {
		return // a sum, or told
	}
	base := map[string]int{"holding": 40000, "input": 30000, "discrete": 10000}[rp.Table]
	zero := strings.Contains(strings.ToLower(x.raw.Book), "zero")
	doc, err := strconv.Atoi(string(rp.DocAddress))
	if err != nil {
		doc = -1
	}
	numbered := func(n int) bool { return base > 0 && n > base && n < base+10000 }
	other := map[string]string{"holding": "input", "input": "holding"}[rp.Table]
	foreign := map[string]int{"holding": 30000, "input": 40000}[rp.Table] // the numbers of the other table
	switch at := rp.at.With("address"); {
	case foreign > 0 && address > foreign && address < foreign+10000 && !zero && (doc < 0 || doc == address):
		x.warnf(at, "address %d looks like the number %dxxxx that books give to the %s table, and this is the %s one; is it table: %s, address: %d? Where %d goes over the wire as it is, say book: zero-based",
			address, foreign/10000, other, rp.Table, other, address-foreign-1, address)
	case numbered(address) && !zero && (doc < 0 || doc == address):
		x.warnf(at, "address %d looks like the number %dxxxx that books print; the protocol address is then %d (write doc_address: %d). Where %d goes over the wire as it is, say book: zero-based",
			address, base/10000, address-base-1, address, address)
	case doc < 0 || zero:
	case doc == address && x.oneBased():
		x.warnf(at, "address and doc_address are both %d, and the book counts from one; the protocol address is then %d", doc, doc-1)
	case numbered(doc) && address == doc-base:
		x.warnf(at, "the maker prints %d, whose protocol address is %d, and here stands %d: one too many? Where the book counts from %d, say book: zero-based", doc, doc-base-1, address, base)
	}
}

// oneBased reports whether the book is said to count from one.
func (x *linter) oneBased() bool {
	book := strings.ToLower(x.raw.Book)
	return strings.Contains(book, "one-based") || strings.Contains(book, "xxxx")
}

// forms checks the points together, in each form of the profile.
func (x *linter) forms() {
	forms := allForms(x.raw)
	used := map[string]bool{}
	for _, p := range forms {
		for i := range p.Points {
			used[p.Points[i].Name] = true
		}
	}
	for _, p := range forms {
		labels := map[telemetry.Label]*Point{}
		x.overlaps(p.Points)
		for i := range p.Points {
			pt := &p.Points[i]
			x.dimension(pt)
			x.counter(pt)
			x.falls(pt)
			x.codes(pt)
			x.sign(pt)
			x.helpers(pt)
			x.name(p, pt, used)
			if l := pt.Label; l != (telemetry.Label{}) {
				if other := labels[l]; other != nil {
					x.warnf(pt.at.With("label"), "points %s and %s have the same label; say what tells them apart", other.Name, pt.Name)
				}
				labels[l] = pt
			}
		}
	}
}

// overlaps calls overlap for each two points that may share registers.
func (x *linter) overlaps(points []Point) {
	at := map[uint32][]*Point{} // by table and register
	for i := range points {
		b := &points[i]
		told := map[*Point]bool{}
		for n := range b.Words {
			spot := uint32(b.Table)<<16 | uint32(b.Address+n)
			for _, a := range at[spot] {
				if !told[a] {
					told[a] = true
					x.overlap(a, b)
				}
			}
			if views := at[spot]; len(views) < mostViews {
				at[spot] = append(views, b)
			}
		}
	}
}

// mostViews bounds how many points of one register are compared with another.
const mostViews = 64

// overlap tells of values that share registers without being the same ones.
func (x *linter) overlap(a, b *Point) {
	if a.Table != b.Table || a.UnitOffset != b.UnitOffset || int(a.Address) >= int(b.Address)+int(b.Words) || int(b.Address) >= int(a.Address)+int(a.Words) {
		return
	}
	if a.Address == b.Address && a.Words == b.Words {
		return // two views of one value
	}
	if strings.Contains(a.Note, b.Name) || strings.Contains(b.Note, a.Name) {
		return
	}
	x.warnf(b.at.With("address"), "points %s (%s %d to %d) and %s (%d to %d) share registers and are not the same ones; check address and type, or say so in a note that names the other point",
		a.Name, a.Table, a.Address, int(a.Address)+int(a.Words)-1, b.Name, b.Address, int(b.Address)+int(b.Words)-1)
}

// codes tells of named values that the register cannot hold.
func (x *linter) codes(p *Point) {
	width := p.width()
	if p.Encoding != Plain && p.Encoding != LowByte && p.Encoding != HighByte && p.Encoding != BitField || width == 0 || width >= 64 {
		return
	}
	low, high := int64(0), int64(1)<<width-1
	if p.Type.Signed() {
		low, high = -1<<(width-1), int64(1)<<(width-1)-1
	}
	for _, code := range slices.Sorted(maps.Keys(p.Enum)) {
		if code < low || code > high {
			x.warnf(p.at.With("enum", strconv.FormatInt(code, 10)), "point %s never holds %d: its values are %d to %d; correct the number, or the type", p.Name, code, low, high)
		}
	}
}

// helpers tells of a register that is to scale itself.
func (x *linter) helpers(p *Point) {
	own := func(t Table, a uint16) bool {
		return t == p.Table && a >= p.Address && int(a) < int(p.Address)+int(p.Words)
	}
	for _, h := range []struct {
		key  string
		self bool
	}{
		{"scale_from", p.ScaleFrom != nil && own(p.ScaleFrom.Table, p.ScaleFrom.Address)},
		{"unit_from", p.UnitFrom != nil && own(p.UnitFrom.Table, p.UnitFrom.Address)},
		{"validity", p.Validity != nil && own(p.Validity.Table, p.Validity.Address) && p.Validity.Mask == 0xFFFF},
	} {
		if h.self {
			x.warnf(p.at.With(h.key), "%s of point %s is a register of its own value; it is another one, as a rule", h.key, p.Name)
		}
	}
}

// sign tells of a temperature that cannot be below zero.
func (x *linter) sign(p *Point) {
	unsigned := p.Type == U16 || p.Type == U32
	if p.Unit == "degC" && unsigned && p.Offset == 0 && p.Encoding == Plain && p.Note == "" {
		x.add(p.at.With("type"), LevelNote, "point %s is a temperature of type %s: below zero it would read as a large number; is it s%d?", p.Name, p.Type, p.Type.Width())
	}
}
