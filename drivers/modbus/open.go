package modbus

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"luquan/drivers"
	"luquan/drivers/modbus/bus"
	"luquan/drivers/modbus/plan"
	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Bus is an open Modbus bus with its devices. It implements drivers.Bus.
type Bus struct {
	name    string
	line    *bus.Bus
	network bool
	devices []drivers.Device
	noticed decoding
}

var (
	_ drivers.Bus       = (*Bus)(nil)
	_ drivers.Gatherer  = (*Bus)(nil)
	_ drivers.Device    = (*device)(nil)
	_ drivers.Refresher = (*device)(nil)
)

// Open makes the bus and its devices. The port is opened, or the peer
// dialled, by the first poll: one that is missing shows in the samples, not
// here. cfg need not have been validated; if it is wrong, that is the error.
// A nil logger is silent.
func Open(cfg Config, lib *profile.Library, log *slog.Logger) (*Bus, error) {
	cfg, err := cfg.checked(lib)
	if err != nil {
		return nil, err
	}
	line, cost, err := cfg.openLine()
	if err != nil {
		return nil, fmt.Errorf("open bus %q: %w", cfg.Name, err)
	}
	return cfg.build(line, cost, log), nil
}

// checked returns a copy with its profiles resolved.
func (c Config) checked(lib *profile.Library) (Config, error) {
	doc, _ := conffile.Parse("bus "+c.Name, nil, &struct{}{})
	c.Devices = slices.Clone(c.Devices)
	c.Validate(doc, nil, lib)
	return c, doc.Err()
}

// build hangs the devices of a validated configuration on the line.
func (c *Config) build(line *bus.Bus, cost plan.Line, log *slog.Logger) *Bus {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{name: c.Name, line: line, network: c.TCP != nil && c.TCP.Framing != "rtu"}
	for i := range c.Devices {
		d := c.newDevice(&c.Devices[i], line, cost, log)
		d.noticed = &b.noticed
		b.devices = append(b.devices, d)
	}
	return b
}

// Name implements drivers.Bus.
func (b *Bus) Name() string { return b.name }

// Devices implements drivers.Bus.
func (b *Bus) Devices() []drivers.Device { return b.devices }

// Gathers implements drivers.Gatherer: a network is, a serial line is not.
func (b *Bus) Gathers() bool { return b.network }

// Close implements drivers.Bus.
func (b *Bus) Close() error { return b.line.Close() }

// Trace returns the last transactions on the bus, oldest first: the evidence for its readings.
func (b *Bus) Trace() []bus.Transaction { return b.line.Trace() }

// Counters returns what was counted on the bus so far.
func (b *Bus) Counters() bus.Counters { return b.line.Counters() }

// Decoding returns what the decoder noticed on the bus so far.
func (b *Bus) Decoding() Decoding { return b.noticed.load() }

// roundTrip is what a request over TCP is taken to cost when requests are planned.
const roundTrip = 5 * time.Millisecond

// openLine returns the bus and what a transaction on it is taken to cost.
func (c *Config) openLine() (*bus.Bus, plan.Line, error) {
	if c.TCP != nil {
		b, err := bus.DialTCP(c.TCP.options())
		return b, c.cost(roundTrip), err
	}
	b, err := bus.OpenRTU(c.RTU.options())
	return b, c.cost(plan.DefaultTurnaround), err
}

func (t *TCP) options() bus.TCPOptions {
	return bus.TCPOptions{Address: t.Address, RTU: t.Framing == "rtu"}
}

func (r *RTU) options() bus.RTUOptions {
	return bus.RTUOptions{
		Port:     r.Port,
		Baud:     cmp.Or(r.Baud, defaultBaud),
		Parity:   map[string]bus.Parity{"": bus.ParityEven, "even": bus.ParityEven, "odd": bus.ParityOdd, "none": bus.ParityNone}[r.Parity],
		StopBits: cmp.Or(r.StopBits, 1),
		RS485:    map[string]bus.RTS{"high": bus.RTSHigh, "low": bus.RTSLow}[r.RS485.RTS],
		Echo:     r.Echo,
	}
}

// newDevice plans the device's groups.
func (c *Config) newDevice(cfg *Device, line *bus.Bus, cost plan.Line, log *slog.Logger) *device {
	p := cfg.resolved
	d := &device{
		readers:  map[uint8]reader{},
		inFlight: 1,
		log:      log.With("bus", c.Name, "device", cfg.Name, "unit", *cfg.Unit),
		info: telemetry.DeviceInfo{
			Name: cfg.Name, Kind: p.Kind, Bus: c.Name, Profile: cfg.profileName(), Label: cfg.Label,
		},
	}
	if d.info.Label == (telemetry.Label{}) {
		d.info.Label = p.Label
	}
	for _, key := range slices.Sorted(maps.Keys(cfg.Tags)) {
		d.info.Tags = append(d.info.Tags, telemetry.Tag{Key: key, Value: cfg.Tags[key]})
	}
	d.limits = plan.Limits{MaxRegisters: p.Limits.MaxRegisters, Gaps: p.Limits.Gaps != profile.GapsError}
	if c.TCP != nil && c.TCP.Framing != "rtu" && p.Limits.InFlight > 1 {
		d.inFlight = p.Limits.InFlight
	}
	d.cost = cost
	d.cost.Fixed += max(0, p.Limits.Pause-cost.Silence)
	chosen, sharing := cfg.chosen(), map[time.Duration]int{}
	for _, offset := range cfg.offsets() {
		d.readers[offset] = line.Reader(byte(*cfg.Unit)+offset, bus.Timing{
			Response: c.response(p.Limits),
			Pause:    p.Limits.Pause,
			InFlight: p.Limits.InFlight,
		})
	}
	for i := range chosen {
		sharing[chosen[i].every]++
	}
	for i, every := range slices.Sorted(maps.Keys(sharing)) {
		n := sharing[every]
		g := &group{points: make([]point, 0, n), spans: make([]plan.Span, 0, n)}
		for _, pt := range chosen {
			if pt.every == every {
				g.points = append(g.points, pt)
			}
		}
		info := telemetry.Group{Index: i, Every: every, Points: make([]telemetry.Point, 0, n)}
		for _, pt := range g.points {
			info.Points = append(info.Points, pt.def.Point)
			for _, s := range pt.def.Needs() {
				g.spans = append(g.spans, needed(pt.def, s))
			}
		}
		d.groups = append(d.groups, g)
		d.info.Groups = append(d.info.Groups, info)
	}
	d.replan()
	return d
}

// offsets returns what is added to the device's unit address for its chosen
// points: [0] for most models.
func (d *Device) offsets() (out []uint8) {
	for _, pt := range d.chosen() {
		if !slices.Contains(out, pt.def.UnitOffset) {
			out = append(out, pt.def.UnitOffset)
		}
	}
	slices.Sort(out)
	return out
}

// chosen returns the points to read, in the profile's order, each with its period.
func (d *Device) chosen() []point {
	choice := map[string]*Point{}
	for i := range d.Points {
		choice[d.Points[i].Name] = &d.Points[i]
	}
	var out []point
	for i := range d.resolved.Points {
		def := &d.resolved.Points[i]
		c := choice[def.Name]
		if c == nil && len(d.Points) > 0 {
			continue
		}
		pt := point{def: def, own: ownSpan(def), every: d.period(def, c), frozenAfter: def.FrozenAfter}
		if c != nil {
			pt.deadband, pt.maxSilence = c.Deadband, cmp.Or(c.MaxSilence, defaultSilence)
			if c.FrozenAfter != nil {
				pt.frozenAfter = *c.FrozenAfter
			}
		}
		if pt.frozenAfter != 0 { // the profile did not know how seldom the point is read here
			pt.frozenAfter = max(pt.frozenAfter, 2*pt.every)
		}
		if pt.frozenAfter > 0 {
			pt.still = new(still)
		}
		if def.Counter {
			pt.count = new(count)
		}
		out = append(out, pt)
	}
	return out
}

// period is how often a point is read; c is what is written of it, or nil.
func (d *Device) period(def *profile.Point, c *Point) time.Duration {
	switch {
	case c != nil && c.Every != 0:
		return c.Every
	case def.Every == d.resolved.Every: // the profile says nothing of this point
		return cmp.Or(d.Every, d.resolved.Every)
	}
	return max(d.Every, def.Every)
}
