package plant

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"luquan/drivers/modbus/profile"
)

// The serial registers of the package comment.
const (
	serialBase = 65000
	serials    = 8
)

// The Modbus exception codes a simulated device answers with.
const (
	illegalFunction = 1
	illegalAddress  = 2
	illegalValue    = 3
	targetSilent    = 11 // from a gateway: the unit did not answer
)

// device is one simulated device. What it serves is a function of the plant's
// quantities and faults; it holds only its counts.
type device struct {
	name     string
	bus      string
	unit     byte
	offset   uint8     // of a face: unit less the device's own
	faces    []*device // the device under its other unit addresses
	profile  *profile.Profile
	feeds    []feed
	settings []setting
	hole     uint16 // what an undefined register inside a block reads as

	// sending is held from the making of an answer until it is handed over: a
	// device has one serial number to give, however many ask.
	sending sync.Mutex
	served  [serials]uint32 // guarded by Plant.mu
}

// feed says what a point of the device shows.
type feed struct {
	point    *profile.Point
	quantity string // a physical quantity, or "":
	constant float64
	text     string
	absent   bool // the model's "not available"
	// view: another point's register, seen at another scale. It shows what
	// that one holds and encodes nothing.
	view bool
}

// setting is a raw register that is what it is: a unit code, an address.
type setting struct {
	Table   string
	Address uint16
	Value   uint16
}

// cell is one register or bit.
type cell struct {
	table   profile.Table
	address uint16
}

// image is what every defined register of a device holds at one instant.
type image map[cell]uint16

func (m image) put(t profile.Table, at uint16, words []uint16) {
	for i, w := range words {
		m[cell{t, at + uint16(i)}] = w
	}
}

// overlay changes what a point shows; the zero overlay changes nothing.
type overlay struct {
	value  *float64 // this instead of the quantity
	words  []uint16 // these, frozen
	absent bool
}

// image makes the device's registers. value returns a quantity, over the
// faults on a point.
func (d *device) image(value func(string) float64, over func(point string) overlay) (image, error) {
	m := make(image, 64)
	for _, s := range d.settings {
		m[cell{tables[s.Table], s.Address}] = s.Value
	}
	// two rounds: a point whose scale or unit another register tells comes
	// after that register
	for _, dependent := range []bool{false, true} {
		for i := range d.feeds {
			f := &d.feeds[i]
			if f.view || f.point.UnitOffset != d.offset || (f.point.ScaleFrom != nil || f.point.UnitFrom != nil) != dependent {
				continue
			}
			words, err := d.words(f, m, value, over(f.point.Name))
			if err != nil {
				return nil, fmt.Errorf("point %s of %s: %w", f.point.Name, d.name, err)
			}
			if p := f.point; p.Encoding == profile.BitField { // leaves the other fields of the register alone
				words = slices.Clone(words)
				for i, mask := range spread(p, (1<<(p.BitHigh-p.BitLow+1)-1)<<p.BitLow, len(words)) {
					words[i] = m[cell{p.Table, p.Address + uint16(i)}]&^mask | words[i]&mask
				}
			}
			m.put(f.point.Table, f.point.Address, words)
		}
	}
	return m, nil
}

func (d *device) words(f *feed, m image, value func(string) float64, o overlay) ([]uint16, error) {
	p := f.point
	if f.absent || o.absent {
		if w, ok := notAvailable(p); ok {
			return w, nil
		}
		return nil, fmt.Errorf("the model has no raw value for 'not available'")
	}
	if o.words != nil {
		return o.words, nil
	}
	if p.Type == profile.Text {
		return encodeText(p, f.text), nil
	}
	v := f.constant
	if f.quantity != "" {
		v = value(f.quantity)
	}
	if o.value != nil {
		v = *o.value
	}
	scale := 1.0
	if s := p.ScaleFrom; s != nil {
		reg := float64(m[cell{s.Table, s.Address}])
		switch s.Rule {
		case "pow10":
			scale = math.Pow(10, float64(int16(m[cell{s.Table, s.Address}])))
		case "decimals":
			scale = math.Pow(10, -reg)
		case "times":
			scale = reg
		}
	}
	source := p.SourceUnit
	if u := p.UnitFrom; u != nil {
		code := int64(m[cell{u.Table, u.Address}])
		var ok bool
		if source, ok = u.Units[code]; !ok {
			return nil, fmt.Errorf("unit code %d is none the model has", code)
		}
	}
	return encode(p, v, source, scale)
}

// answer is what a device sends for one request.
type answer struct {
	pdu     []byte
	counted []int // groups whose serial this answer carries
}

func refusal(fn byte, code byte) answer { return answer{pdu: []byte{fn | 0x80, code}} }

// answer answers one request PDU (function code, address, quantity). regs is
// called when the registers are needed.
func (d *device) answer(req []byte, regs func() (image, error)) (answer, error) {
	if len(req) == 0 {
		return refusal(0, illegalFunction), nil
	}
	fn := req[0]
	if fn < 1 || fn > 4 {
		return refusal(fn, illegalFunction), nil
	}
	if len(req) != 5 {
		return refusal(fn, illegalValue), nil
	}
	table := profile.Table(fn)
	first, n := binary.BigEndian.Uint16(req[1:]), int(binary.BigEndian.Uint16(req[3:]))
	most := 2000
	if !table.IsBit() {
		most = 125
		if l := d.profile.Limits.MaxRegisters; l > 0 {
			most = min(most, l)
		}
	}
	if n < 1 || n > most {
		return refusal(fn, illegalValue), nil
	}
	if int(first)+n > 1<<16 {
		return refusal(fn, illegalAddress), nil
	}
	m, err := regs()
	if err != nil {
		return answer{}, err
	}
	counted := d.addSerials(m, table, first, n)
	words := make([]uint16, n)
	for i := range words {
		w, defined := m[cell{table, first + uint16(i)}]
		if !defined {
			if !d.fills(i) {
				return refusal(fn, illegalAddress), nil
			}
			w = d.hole
		}
		words[i] = w
	}
	return answer{pdu: response(table, words), counted: counted}, nil
}

// fills reports whether the model answers an undefined register that is the
// i-th of a block.
func (d *device) fills(i int) bool {
	switch d.profile.Limits.Gaps {
	case profile.GapsOK:
		return true
	case profile.GapsZeroFill:
		return i > 0
	}
	return false
}

// addSerials puts the serial registers into m, raised by one where both words
// are asked for, and returns those groups. The caller keeps the raise.
func (d *device) addSerials(m image, t profile.Table, first uint16, n int) (counted []int) {
	if t.IsBit() {
		return nil
	}
	for g := range serials {
		at := uint16(serialBase + 2*g)
		count := d.served[g]
		if first <= at && int(first)+n >= int(at)+2 {
			count++
			counted = append(counted, g)
		}
		m.put(t, at, []uint16{uint16(count >> 16), uint16(count)})
	}
	return counted
}

func response(t profile.Table, words []uint16) []byte {
	if t.IsBit() {
		pdu := make([]byte, 2+(len(words)+7)/8)
		pdu[0], pdu[1] = byte(t), byte(len(pdu)-2)
		for i, w := range words {
			if w != 0 {
				pdu[2+i/8] |= 1 << (i % 8)
			}
		}
		return pdu
	}
	pdu := make([]byte, 2, 2+2*len(words))
	pdu[0], pdu[1] = byte(t), byte(2*len(words))
	for _, w := range words {
		pdu = binary.BigEndian.AppendUint16(pdu, w)
	}
	return pdu
}

var tables = map[string]profile.Table{"coil": profile.Coil, "discrete": profile.Discrete, "holding": profile.Holding, "input": profile.Input}
