package plant

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"luquan/internal/conffile"
)

// Fault is one thing that goes wrong: a line of a fault script, or applied at
// run time with Plant.Fault.
//
//	silence   the device (or every device of the bus) does not answer
//	delay     it answers Delay late; others on the line are not held up
//	garble    its answers arrive damaged: bytes of the frame on a serial line,
//	          the header over TCP (which has no check sum of its own)
//	refuse    it answers with the exception code Value (4 when 0)
//	freeze    a point, or every point of the device, stops moving
//	sentinel  a point reads as the model's "not available"
//	set       Quantity, or what a Point shows, is Value (canonical unit). A
//	          quantity takes with it what depends on it; a point lies alone
//	cut       the bus is gone: the pseudo-terminal closed, TCP connections
//	          dropped and refused
type Fault struct {
	At       time.Duration // after Start, or after the call of Plant.Fault
	For      time.Duration // 0: until cleared
	Bus      string
	Device   string
	Point    string
	Quantity string
	Do       string
	Value    float64
	Delay    time.Duration
}

var deeds = []string{"silence", "delay", "garble", "refuse", "freeze", "sentinel", "set", "cut"}

// running is a fault with its place in time.
type running struct {
	Fault
	from, until time.Time // until zero: no end
	on, cleared bool
	frozen      map[string][]uint16 // point -> words, while a freeze is on
	incident    *Incident           // that begins and ends with it; nil: none
}

func (r *running) due(now time.Time) bool {
	return !r.cleared && !now.Before(r.from) && (r.until.IsZero() || now.Before(r.until))
}

// over reports that the fault can never be on again.
func (r *running) over(now time.Time) bool {
	return r.cleared || !r.until.IsZero() && !now.Before(r.until)
}

// ParseFaults reads a fault script: {faults: [{at, for, device|bus, do, ...}]}.
// What the script names is checked when it is given to Load or Fault.
func ParseFaults(file string, data []byte) ([]Fault, error) {
	var script struct{ Faults []Fault }
	doc, _ := conffile.Parse(file, data, &script)
	for i, f := range script.Faults {
		if !slices.Contains(deeds, f.Do) {
			doc.Errorf(conffile.Path{"faults", i, "do"}, "do is %q; it is one of %s", f.Do, strings.Join(deeds, ", "))
		}
	}
	return script.Faults, doc.Err()
}

// check says what is wrong with a fault for this site.
func (p *Plant) check(f Fault) error {
	what := strings.TrimSpace(f.Do + " " + f.Bus + f.Device + f.Quantity)
	if f.At < 0 || f.For < 0 || f.Delay < 0 {
		return fmt.Errorf("fault %s: a time is negative", what)
	}
	var d *device
	if f.Device != "" {
		if d = p.byName[f.Device]; d == nil {
			return fmt.Errorf("fault %s: site %s has no device %q", what, p.site, f.Device)
		}
	}
	if f.Bus != "" && p.bus(f.Bus) == nil {
		return fmt.Errorf("fault %s: site %s has no bus %q", what, p.site, f.Bus)
	}
	if f.Point != "" {
		var at *feed
		if d != nil {
			at = d.feed(f.Point)
		}
		if at == nil {
			return fmt.Errorf("fault %s: device %q has no point %q that is simulated", what, f.Device, f.Point)
		}
		if at.view {
			return fmt.Errorf("fault %s: %s shares its register %d with another point; name that one", what, f.Point, at.point.Address)
		}
	}
	switch f.Do {
	case "silence", "delay", "garble", "refuse":
		if (f.Bus == "") == (f.Device == "") {
			return fmt.Errorf("fault %s: name either a bus or a device", what)
		}
	case "freeze", "sentinel":
		if d == nil || f.Bus != "" {
			return fmt.Errorf("fault %s: name a device", what)
		}
	case "set":
		if (f.Quantity == "") == (f.Point == "") {
			return fmt.Errorf("fault %s: name either a quantity, or a device and its point", what)
		}
	case "cut":
		if f.Bus == "" || f.Device != "" {
			return fmt.Errorf("fault %s: name a bus", what)
		}
	default:
		return fmt.Errorf("fault %s: do is one of %s", what, strings.Join(deeds, ", "))
	}
	if f.Do == "delay" && f.Delay == 0 {
		return fmt.Errorf("fault %s: delay is missing", what)
	}
	if f.Do == "refuse" && (f.Value < 0 || f.Value > 255 || f.Value != math.Trunc(f.Value)) {
		return fmt.Errorf("fault %s: value is the exception code, 1 to 255", what)
	}
	if f.Do == "sentinel" {
		if f.Point == "" {
			return fmt.Errorf("fault %s: point is missing", what)
		}
		if _, ok := notAvailable(d.feed(f.Point).point); !ok {
			return fmt.Errorf("fault %s: the model has no raw value by which %s is not available", what, f.Point)
		}
	}
	if f.Quantity != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		if _, _, ok := p.world.Quantity(f.Quantity); !ok {
			return fmt.Errorf("fault %s: model %s has no quantity %q", what, p.modelName, f.Quantity)
		}
	}
	return nil
}

// Fault applies f, f.At from now, for f.For or until clear is called. clear
// may be called more than once.
func (p *Plant) Fault(f Fault) (clear func(), err error) {
	if err := p.check(f); err != nil {
		return nil, err
	}
	r := p.schedule(f, time.Now())
	p.refresh(time.Now())
	return func() {
		p.mu.Lock()
		r.cleared = true
		p.mu.Unlock()
		p.refresh(time.Now())
	}, nil
}

func (p *Plant) schedule(f Fault, now time.Time) *running {
	r := &running{Fault: f, from: now.Add(f.At)}
	if f.For > 0 {
		r.until = r.from.Add(f.For)
	}
	p.mu.Lock()
	p.faults = append(p.faults, r)
	p.mu.Unlock()
	return r
}

// refresh switches the faults whose time has come or gone.
func (p *Plant) refresh(now time.Time) {
	p.cuts.Lock() // switches of one bus come in order
	defer p.cuts.Unlock()
	touched, told := p.switches(now)
	for _, b := range touched {
		b.cut(p.cutNow(b.label()))
	}
	for _, r := range told {
		if p.onIncident != nil {
			p.onIncident(*r.incident, !r.over(now))
		}
	}
}

// mend brings back what should be there and is not: the port of a cut bus may
// have been taken in the meantime.
func (p *Plant) mend() {
	p.cuts.Lock()
	defer p.cuts.Unlock()
	for _, b := range p.buses {
		if !p.cutNow(b.label()) {
			b.cut(false)
		}
	}
}

// switches brings the faults up to now and returns the buses to switch, and
// the faults with which an incident begins or ends.
func (p *Plant) switches(now time.Time) (touched []bus, told []*running) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := false
	for _, r := range p.faults {
		on := r.due(now)
		if on == r.on {
			continue
		}
		r.on = on
		if r.incident != nil {
			told = append(told, r)
		}
		p.log.Info("fault switched", "do", r.Do, "bus", r.Bus, "device", r.Device, "point", r.Point, "quantity", r.Quantity, "on", on)
		switch {
		case r.Do == "freeze" && on:
			r.frozen = p.freeze(r)
		case r.Do == "cut":
			touched = append(touched, p.bus(r.Bus))
		case r.Quantity != "":
			held = true
		}
	}
	if held {
		p.world.Free()
		for _, r := range p.faults {
			if r.on && r.Quantity != "" {
				p.world.Hold(r.Quantity, r.Value)
			}
		}
		p.world.Step(0, p.hour())
	}
	p.faults = slices.DeleteFunc(p.faults, func(r *running) bool { return !r.on && r.over(now) })
	return touched, told
}

// freeze returns what the fault's points show now. p.mu is held.
func (p *Plant) freeze(r *running) map[string][]uint16 {
	d := p.byName[r.Device]
	frozen := map[string][]uint16{}
	for _, f := range d.feeds {
		if r.Point != "" && r.Point != f.point.Name {
			continue
		}
		m, err := p.image(d.face(f.point))
		if err != nil { // Load tried it
			panic("BUG: " + err.Error())
		}
		words := make([]uint16, f.point.Words)
		for i := range words {
			words[i] = m[cell{f.point.Table, f.point.Address + uint16(i)}]
		}
		frozen[f.point.Name] = words
	}
	return frozen
}

// overlay gathers the faults on one point. p.mu is held.
func (p *Plant) overlay(device, point string) (o overlay) {
	for _, r := range p.faults {
		if !r.on || r.Device != device {
			continue
		}
		switch {
		case r.Do == "freeze" && r.frozen[point] != nil:
			o.words = r.frozen[point]
		case r.Do == "set" && r.Point == point:
			o.value = &r.Value
		case r.Do == "sentinel" && r.Point == point:
			o.absent = true
		}
	}
	return o
}

// manners are the faults on a device's answers as a whole.
type manners struct {
	silent, garbled bool
	delay           time.Duration
	refuse          byte // exception code, 0: none
}

// manners returns how the device behaves now.
func (p *Plant) manners(d *device) (m manners) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.faults {
		if !r.on || r.Device != d.name && (r.Bus != d.bus || r.Bus == "") {
			continue
		}
		switch r.Do {
		case "silence":
			m.silent = true
		case "garble":
			m.garbled = true
		case "delay":
			m.delay = max(m.delay, r.Delay)
		case "refuse":
			m.refuse = byte(r.Value)
			if m.refuse == 0 {
				m.refuse = 4
			}
		}
	}
	return m
}

// cutNow reports whether a cut of the bus is on.
func (p *Plant) cutNow(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.faults, func(r *running) bool { return r.on && r.Do == "cut" && r.Bus == name })
}
