package modbus

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"luquan/drivers/modbus/bus"
	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Config is one Modbus bus of gateway.yaml: rtu or tcp, and its devices.
type Config struct {
	Name string
	RTU  *RTU
	TCP  *TCP
	// Timeout is the response limit of devices whose profile names none; 0 means one second.
	Timeout time.Duration
	Devices []Device
}

// RTU is a serial line.
type RTU struct {
	Port     string
	Baud     int    // 0 means 19200, the standard's default
	Parity   string // even (default), odd, none
	StopBits int    `yaml:"stop_bits"` // 1 (default) or 2
	RS485    RS485
	Echo     bool // the adapter returns what is sent
}

// RS485 says how the line's driver is switched: rts none (default; the adapter
// does it), high or low (the kernel raises or lowers RTS while sending).
type RS485 struct{ RTS string }

// TCP is an endpoint: host:port, port 502 when left out. Framing is tcp
// (default) or rtu, for plain serial device servers.
type TCP struct {
	Address string
	Framing string
}

// Device is one device on the bus.
type Device struct {
	Name    string
	Profile profile.Ref
	Unit    *int // required
	// Every is the period of its points; 0 means the profile's. Points that
	// the profile marks as slower stay so.
	Every time.Duration
	// Points chooses among the profile's; none means all.
	Points []Point
	Tags   map[string]string
	Label  telemetry.Label

	resolved *profile.Profile // set by Validate
}

// Point is a chosen point: its name, or a mapping.
type Point struct {
	Name  string
	Every time.Duration // 0 means the device's
	// Deadband: a value that moved no further from the last one sent is left out.
	Deadband Deadband
	// MaxSilence is how long an unchanged value may be left out; 0 means ten minutes.
	MaxSilence time.Duration `yaml:"max_silence"`
	// FrozenAfter is how long the value may stand still, bit for bit, before
	// it is doubted: nil means the profile's, 0 for ever.
	FrozenAfter *time.Duration `yaml:"frozen_after"`
}

// UnmarshalScalar reads the short form, the point's name.
func (p *Point) UnmarshalScalar(text string) error {
	p.Name = text
	return nil
}

// Deadband is a distance in the point's unit, or a percentage of the last value sent.
type Deadband struct {
	Set      bool `yaml:"-"`
	Absolute float64
	Percent  float64
}

// UnmarshalScalar reads `0.5` or `2%`. 0 leaves out only what is exactly equal.
func (d *Deadband) UnmarshalScalar(text string) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || f < 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return fmt.Errorf("%q is not a deadband; write a distance in the point's unit (0.5) or a percentage (2%%)", text)
	}
	d.Set = true
	if percent {
		d.Percent = f
	} else {
		d.Absolute = f
	}
	return nil
}

// Bounds and defaults of what a technician may write.
const (
	minEvery       = 100 * time.Millisecond
	maxEvery       = 24 * time.Hour
	minTimeout     = 10 * time.Millisecond
	maxTimeout     = time.Minute
	maxFrozen      = 30 * 24 * time.Hour
	defaultSilence = 10 * time.Minute
	defaultBaud    = 19200
)

// tags are the optional tags a device may have.
var tags = []string{"area", "asset", "system"}

// Validate checks the bus written at the path at, and resolves its devices'
// profiles in lib. Every mistake is collected in doc. Names unique beyond this
// bus are the caller's to check.
func (c *Config) Validate(doc *conffile.Doc, at conffile.Path, lib *profile.Library) {
	switch {
	case c.Name == "":
		doc.Errorf(at, "the bus has no name")
	case !telemetry.ValidName(c.Name):
		doc.Errorf(at.With("name"), "%q cannot name a bus; use a-z, 0-9 and -", c.Name)
	}
	switch {
	case c.RTU == nil && c.TCP == nil:
		doc.Errorf(at, "bus %q has neither rtu nor tcp", c.Name)
	case c.RTU != nil && c.TCP != nil:
		doc.Errorf(at.With("tcp"), "bus %q has both rtu and tcp; make it two buses", c.Name)
	case c.RTU != nil:
		c.RTU.validate(doc, at.With("rtu"))
	default:
		c.TCP.validate(doc, at.With("tcp"))
	}
	if c.Timeout != 0 && (c.Timeout < minTimeout || c.Timeout > maxTimeout) {
		doc.Errorf(at.With("timeout"), "a timeout of %v is outside %v to %v", c.Timeout, minTimeout, maxTimeout)
	}
	if len(c.Devices) == 0 {
		doc.Errorf(at.With("devices"), "bus %q has no devices", c.Name)
	}
	units := map[int][]*Device{}
	for i := range c.Devices {
		d, dat := &c.Devices[i], at.With("devices", i)
		d.validate(doc, dat, lib)
		least, most := 1, 247
		if c.TCP != nil {
			least, most = 0, 255
		}
		switch {
		case doc.Has(dat.With("unit")) && d.Unit == nil: // not a number: told already
		case d.Unit == nil:
			doc.Errorf(dat, "device %q has no unit; name its Modbus address", d.Name)
		case *d.Unit < least || *d.Unit > most:
			doc.Errorf(dat.With("unit"), "unit %d is outside %d to %d", *d.Unit, least, most)
		default:
			d.claim(doc, dat.With("unit"), units, most)
		}
	}
}

// claim takes the device's unit addresses among those of its bus. Two devices
// have one address only where the profile of one says that it shares it.
func (d *Device) claim(doc *conffile.Doc, at conffile.Path, units map[int][]*Device, most int) {
	offsets := []uint8{0}
	if d.resolved != nil {
		offsets = d.offsets()
	}
	for _, offset := range offsets {
		unit := *d.Unit + int(offset)
		also := ""
		if offset > 0 {
			also = fmt.Sprintf(" (%d and %d, under which the profile reads some of its points)", *d.Unit, offset)
		}
		if unit > most {
			doc.Errorf(at, "unit %d%s is beyond %d; give the device a lower address", unit, also, most)
			return
		}
		for _, other := range units[unit] {
			if !d.shares() && !other.shares() {
				doc.Errorf(at, "unit %d%s is already that of device %q on this bus; two devices with one address answer at once", unit, also, other.Name)
				return
			}
		}
		units[unit] = append(units[unit], d)
	}
}

// shares reports whether the device's profile allows another one at its address.
func (d *Device) shares() bool { return d.resolved != nil && d.resolved.SharesUnit }

func (r *RTU) validate(doc *conffile.Doc, at conffile.Path) {
	if r.Port == "" {
		doc.Errorf(at, "port is missing; name the serial port, best by its path under /dev/serial/by-id")
	}
	if r.Baud != 0 && (r.Baud < 300 || r.Baud > 4_000_000) {
		doc.Errorf(at.With("baud"), "baud %d is outside 300 to 4000000", r.Baud)
	}
	oneOf(doc, at.With("parity"), "parity", r.Parity, "even", "odd", "none")
	if r.StopBits != 0 && r.StopBits != 1 && r.StopBits != 2 {
		doc.Errorf(at.With("stop_bits"), "stop_bits is %d; it is 1 or 2", r.StopBits)
	}
	oneOf(doc, at.With("rs485", "rts"), "rts", r.RS485.RTS, "none", "high", "low")
}

func (t *TCP) validate(doc *conffile.Doc, at conffile.Path) {
	if t.Address == "" {
		doc.Errorf(at, "address is missing; write host:port")
	} else if b, err := bus.DialTCP(bus.TCPOptions{Address: t.Address}); err != nil {
		doc.Fail(at.With("address"), err)
	} else {
		b.Close() // nothing was dialled
	}
	oneOf(doc, at.With("framing"), "framing", t.Framing, "tcp", "rtu")
}

func oneOf(doc *conffile.Doc, at conffile.Path, key, got string, known ...string) {
	if got != "" && !slices.Contains(known, got) {
		doc.Errorf(at, "%s is %q; it is one of: %s", key, got, strings.Join(known, ", "))
	}
}

func (d *Device) validate(doc *conffile.Doc, at conffile.Path, lib *profile.Library) {
	switch {
	case d.Name == "":
		doc.Errorf(at, "the device has no name")
	case !telemetry.ValidName(d.Name):
		doc.Errorf(at.With("name"), "%q cannot name a device; use a-z, 0-9 and -", d.Name)
	}
	period(doc, at.With("every"), d.Every)
	for _, key := range slices.Sorted(maps.Keys(d.Tags)) {
		if !slices.Contains(tags, key) {
			doc.Errorf(at.With("tags", key), "a device has no tag %q%s; known: %s", key, didYouMean(key, tags), strings.Join(tags, ", "))
		} else if d.Tags[key] == "" {
			doc.Errorf(at.With("tags", key), "tag %s is empty; leave it out", key)
		}
	}
	d.resolved = d.Profile.Resolve(lib, doc, at.With("profile"))
	if d.resolved == nil {
		return
	}
	if doc.Has(at.With("points")) && len(d.Points) == 0 {
		doc.Errorf(at.With("points"), "points is empty; leave it out to read all")
	}
	chosen := map[string]bool{}
	for i := range d.Points {
		p, pat := &d.Points[i], at.With("points", i)
		where := pat
		if doc.Has(pat.With("name")) {
			where = pat.With("name")
		}
		pt, known := d.resolved.Point(p.Name)
		switch {
		case p.Name == "":
			doc.Errorf(pat, "the point has no name")
		case !known:
			names := d.resolved.PointNames()
			hint := didYouMean(p.Name, names)
			if hint == "" {
				hint = "; it has " + strings.Join(names, ", ")
			}
			doc.Errorf(where, "profile %s has no point %q%s", d.profileName(), p.Name, hint)
		case chosen[p.Name]:
			doc.Errorf(where, "point %q is chosen twice", p.Name)
		case p.Deadband.Set && pt.Class == telemetry.String && (p.Deadband.Absolute != 0 || p.Deadband.Percent != 0):
			doc.Errorf(pat.With("deadband"), "point %q is a text; its deadband can only be 0", p.Name)
		}
		chosen[p.Name] = true
		period(doc, pat.With("every"), p.Every)
		if f := p.FrozenAfter; f != nil && known {
			every := d.period(pt, p)
			switch {
			case *f != 0 && pt.Class == telemetry.String:
				doc.Errorf(pat.With("frozen_after"), "point %q is a text, which may stand still for ever; leave frozen_after out", p.Name)
			case *f != 0 && (*f < 2*every || *f > maxFrozen):
				doc.Errorf(pat.With("frozen_after"), "frozen_after is %v; choose between two periods of the point (%v) and %v, or 0s for a point that may stand still", *f, 2*every, maxFrozen)
			}
		}
		if p.MaxSilence != 0 && !p.Deadband.Set {
			doc.Errorf(pat.With("max_silence"), "max_silence has no meaning without a deadband")
		} else if p.MaxSilence < 0 {
			doc.Errorf(pat.With("max_silence"), "max_silence is %v; it cannot be negative", p.MaxSilence)
		}
	}
}

// profileName is what the profile is called in gateway.yaml.
func (d *Device) profileName() string {
	if d.resolved.ID != "" {
		return d.resolved.ID
	}
	if d.Profile.Base != "" {
		return d.Profile.Base
	}
	return "inline"
}

func period(doc *conffile.Doc, at conffile.Path, every time.Duration) {
	if every != 0 && (every < minEvery || every > maxEvery) {
		doc.Errorf(at, "a period of %v is outside 100ms to 24h", every)
	}
}

func didYouMean(word string, known []string) string {
	if near := conffile.Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}
