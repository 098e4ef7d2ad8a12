package profile

import (
	"cmp"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Defaults of what a profile leaves out.
const (
	defaultEvery  = 10 * time.Second
	maxEvery      = 24 * time.Hour
	protocolMax   = 125 // registers in one request
	mostInFlight  = 16  // MODBUS Messaging on TCP/IP V1.0b, 4.3.1.2
	maxTextLength = 240
)

// compiler turns one written profile into a Profile; everything wrong goes
// into doc.
type compiler struct {
	doc    *conffile.Doc
	at     conffile.Path // of the profile in doc
	base   string        // the profile whose points are inherited by one written in gateway.yaml
	about  string        // begins sentences about a point that stands in base's file
	params map[string]string
	byteLE bool
	blocks []Span
	bad    bool
}

func (c *compiler) errorf(p conffile.Path, format string, args ...any) {
	c.bad = true
	c.doc.Errorf(p, c.about+format, args...)
}

// compile checks raw with the given parameters; nil when something is wrong.
func (c *compiler) compile(raw *rawProfile, given map[string]string) *Profile {
	c.fillParams(raw, given)
	p := &Profile{ID: raw.ID, Vendor: raw.Vendor, Model: raw.Model, Kind: raw.Kind, Label: raw.Label, Source: raw.Source,
		Unproven: raw.Unproven, Notes: raw.Notes, Serial: raw.Serial, Limits: raw.Limits,
		UsedAt: raw.UsedAt, Transport: raw.Transport, Book: raw.Book, SharesUnit: raw.SharesUnit, Every: cmp.Or(raw.Every, defaultEvery)}
	if raw.Kind == "" {
		c.errorf(c.at.With("kind"), "kind is missing; say what the device is, for example kind: heat_meter")
	} else if !telemetry.ValidKind(raw.Kind) {
		c.errorf(c.at.With("kind"), "kind %q is not allowed: use a-z, 0-9 and _, beginning with a letter", raw.Kind)
	}
	c.byteLE = c.order(c.at.With("byte_order"), "byte_order", raw.ByteOrder, false)
	c.period(c.at.With("every"), p.Every)
	c.words(c.at.With("used_at"), raw.UsedAt, "plants", plants)
	c.words(c.at.With("transport"), raw.Transport, "transports", []string{"rtu", "tcp"})
	c.limits(&p.Limits)
	c.serial(p.Serial)
	c.readBlocks(raw.Blocks, p.Limits.MaxRegisters)
	seen := map[string]bool{}
	for _, rp := range raw.Points {
		if !c.present(rp, raw.Params) {
			continue
		}
		if seen[rp.Name] {
			c.errorf(rp.at.With("name"), "point %q stands here a second time; a name is unique in a profile: give one of the two another", rp.Name)
			continue
		}
		seen[rp.Name] = true
		if pt, ok := c.point(rp, p); ok {
			p.Points = append(p.Points, pt)
		}
	}
	if len(seen) == 0 && !c.bad {
		c.errorf(c.at.With("points"), "the profile has no points; a device without one is not worth polling")
	}
	if c.bad {
		return nil
	}
	return p
}

func (c *compiler) fillParams(raw *rawProfile, given map[string]string) {
	c.params = map[string]string{}
	names := slices.Sorted(maps.Keys(raw.Params))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		param, ok := raw.Params[name]
		at := c.at.With("params", name)
		if !ok {
			c.errorf(at, "profile %s has no parameter %q%s", raw.ID, name, suggest(name, names))
		} else if v := given[name]; len(param.OneOf) > 0 && !slices.Contains(param.OneOf, v) {
			c.errorf(at, "parameter %s is %q; it is one of %s", name, v, strings.Join(param.OneOf, ", "))
		} else {
			c.params[name] = v
		}
	}
	for _, name := range names {
		if _, ok := given[name]; ok {
			continue
		}
		param := raw.Params[name]
		if param.Default == "" {
			c.errorf(c.at.With("params"), "profile %s needs the parameter %s, which only the device's own settings tell: write profile: {base: %s, params: {%s: ...}} with one of %s",
				raw.ID, name, raw.ID, name, strings.Join(param.OneOf, ", "))
		}
		c.params[name] = string(param.Default)
	}
}

// present reports whether the point exists with these parameters.
func (c *compiler) present(rp rawPoint, params map[string]rawParam) (here bool) {
	here = true
	for _, name := range slices.Sorted(maps.Keys(rp.When)) {
		want := rp.When[name]
		param, ok := params[name]
		if !ok {
			c.errorf(rp.at.With("when"), "there is no parameter %q: declare it under params:, or correct the name%s", name, suggest(name, slices.Sorted(maps.Keys(params))))
			here = false
			continue
		}
		for i, w := range want {
			if !slices.Contains(param.OneOf, w) {
				at := rp.at.With("when", name, i)
				if !c.doc.Has(at) {
					at = rp.at.With("when", name)
				}
				c.errorf(at, "parameter %s is never %q; it is one of %s", name, w, strings.Join(param.OneOf, ", "))
			}
		}
		if !slices.Contains(want, c.params[name]) {
			here = false
		}
	}
	return here
}

// plants are the kinds of plant that used_at names.
var plants = []string{"district-heating", "sewage", "computing-centre", "power-substation", "gas-storage", "cold-chain"}

// words checks a list of words, each of them known and there once.
func (c *compiler) words(at conffile.Path, list []string, what string, known []string) {
	for i, w := range list {
		switch {
		case !slices.Contains(known, w):
			c.errorf(at.With(i), "%q is none of the %s: %s", w, what, strings.Join(known, ", "))
		case slices.Index(list, w) < i:
			c.errorf(at.With(i), "%q stands here a second time", w)
		}
	}
}

func (c *compiler) limits(l *Limits) {
	at := c.at.With("limits")
	l.MaxRegisters = cmp.Or(l.MaxRegisters, protocolMax)
	if l.MaxRegisters < 1 || l.MaxRegisters > protocolMax {
		c.errorf(at.With("max_registers"), "max_registers is %d; a request reads 1 to %d", l.MaxRegisters, protocolMax)
	}
	l.Gaps = cmp.Or(l.Gaps, GapsError)
	if l.Gaps != GapsOK && l.Gaps != GapsZeroFill && l.Gaps != GapsError {
		c.errorf(at.With("gaps"), "gaps is %q; it is one of ok, zero-fill, error (leave it out when it is not known)", l.Gaps)
	}
	if l.Pause < 0 || l.Pause > 10*time.Second {
		c.errorf(at.With("pause"), "pause is %s; choose between 0s and 10s", l.Pause)
	}
	if l.ResponseTimeout < 0 || l.ResponseTimeout > time.Minute {
		c.errorf(at.With("response_timeout"), "response_timeout is %s; choose between 0s and 1m", l.ResponseTimeout)
	}
	l.InFlight = cmp.Or(l.InFlight, 1)
	switch {
	case l.InFlight < 1 || l.InFlight > mostInFlight:
		c.errorf(at.With("in_flight"), "in_flight is %d; a device is asked 1 to %d requests at once", l.InFlight, mostInFlight)
	case l.InFlight > 1 && l.Pause > 0:
		c.errorf(at.With("in_flight"), "in_flight is %d and pause is %s; a device that needs a pause is asked one request at a time: leave one of them out", l.InFlight, l.Pause)
	}
}

func (c *compiler) serial(s Serial) {
	at := c.at.With("serial")
	if s.Parity != "" && !slices.Contains([]string{"none", "even", "odd"}, s.Parity) {
		c.errorf(at.With("parity"), "parity is %q; it is one of none, even, odd", s.Parity)
	}
	if s.StopBits < 0 || s.StopBits > 2 {
		c.errorf(at.With("stop_bits"), "stop_bits is %d; it is 1 or 2", s.StopBits)
	}
	if s.Unit < 0 || s.Unit > 255 {
		c.errorf(at.With("unit"), "unit is %d; addresses are 1 to 247 (254 and 255 on TCP)", s.Unit)
	}
	if s.Baud < 0 || s.Baud > 4_000_000 {
		c.errorf(at.With("baud"), "baud is %d; write the speed in bits a second, for example 9600", s.Baud)
	}
}

func (c *compiler) readBlocks(raw []rawBlock, most int) {
	for i, b := range raw {
		at := c.at.With("blocks", i)
		for _, name := range fill(reflect.ValueOf(&b).Elem(), c.params) {
			c.errorf(at, "${%s} names no parameter of this profile%s", name, suggest(name, slices.Sorted(maps.Keys(c.params))))
		}
		t := c.table(at, b.Table, 0)
		address, ok := c.place(at, b.Address)
		switch {
		case b.Address == "":
			c.errorf(at.With("address"), "address is missing; it is the zero-based protocol address of the block's first register")
		case !ok:
		case b.Count == 0 || int(b.Count) > most || int(address)+int(b.Count) > 1<<16:
			c.errorf(at.With("count"), "a block of %d from %d does not fit a request of at most %d", b.Count, address, most)
		default:
			c.blocks = append(c.blocks, Span{t, address, b.Count})
		}
	}
}

func (c *compiler) period(at conffile.Path, d time.Duration) {
	if d < 100*time.Millisecond || d > maxEvery {
		c.errorf(at, "every is %s; choose between 100ms and 24h", d)
	}
}

func (c *compiler) order(at conffile.Path, key, word string, none bool) (little bool) {
	switch word {
	case "":
		return none
	case "big":
		return false
	case "little":
		return true
	}
	c.errorf(at, "%s is %q; it is big or little", key, word)
	return none
}

// table reads a table's name; none stands for "" and 0 makes it required.
func (c *compiler) table(at conffile.Path, name string, none Table) Table {
	if t, ok := tableNames[name]; ok {
		return t
	}
	if name == "" && none != 0 {
		return none
	}
	const oneOf = "it is one of coil, discrete, holding, input"
	plain := strings.ToLower(strings.NewReplacer("_", "", " ", "", "-", "", "registers", "", "register", "", "inputs", "input", "coils", "coil").Replace(strings.ToLower(name)))
	switch ours := otherTables[plain]; {
	case name == "":
		c.errorf(at.With("table"), "table is missing; %s", oneOf)
	case ours != "":
		c.errorf(at.With("table"), "table is %q; %s; did you mean %q?", name, oneOf, ours)
	default:
		c.errorf(at.With("table"), "table is %q; %s", name, oneOf)
	}
	return none
}

// otherTables are the names that books and other tools give the tables, and
// the function codes that read them.
var otherTables = map[string]string{
	"1": "coil", "01": "coil", "fc1": "coil", "fc01": "coil", "0x": "coil", "0x01": "coil", "coil": "coil", "do": "coil", "线圈": "coil",
	"2": "discrete", "02": "discrete", "fc2": "discrete", "fc02": "discrete", "1x": "discrete", "0x02": "discrete", "discrete": "discrete", "discreteinput": "discrete", "di": "discrete", "离散输入": "discrete", "离散量输入": "discrete",
	"3": "holding", "03": "holding", "fc3": "holding", "fc03": "holding", "4x": "holding", "0x03": "holding", "holding": "holding", "hr": "holding", "hold": "holding", "保持寄存器": "holding", "保持": "holding",
	"4": "input", "04": "input", "fc4": "input", "fc04": "input", "3x": "input", "0x04": "input", "input": "input", "ir": "input", "输入寄存器": "input", "输入": "input",
}

// suggest ends a sentence with what may have been meant.
func suggest(word string, known []string) string {
	near := conffile.Nearest(word, known)
	for _, k := range known { // Kw is meant for kW, however near K is
		if strings.EqualFold(k, word) {
			near = k
			break
		}
	}
	if near != "" {
		return `; did you mean "` + near + `"?`
	}
	if len(known) == 0 {
		return ""
	}
	return "; known: " + strings.Join(known, ", ")
}

// addSpan adds a span unless one of p's spans covers it; a span that touches
// a block of the profile becomes the block.
func (c *compiler) addSpan(needs []Span, s Span) []Span {
	for _, b := range c.blocks {
		if b.Table == s.Table && int(s.Address) < int(b.Address)+int(b.Count) && int(b.Address) < int(s.Address)+int(s.Count) {
			end := max(int(s.Address)+int(s.Count), int(b.Address)+int(b.Count))
			s.Address = min(s.Address, b.Address)
			s.Count = uint16(end - int(s.Address))
		}
	}
	for _, n := range needs {
		if n.Table == s.Table && n.Address <= s.Address && int(s.Address)+int(s.Count) <= int(n.Address)+int(n.Count) {
			return needs
		}
	}
	return append(needs, s)
}

// ratFloat returns r as the nearest float64.
func ratFloat(r *big.Rat) float64 {
	f, _ := r.Float64()
	return f
}
