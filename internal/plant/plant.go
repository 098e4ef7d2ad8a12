package plant

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
	"luquan/internal/plant/physics"
)

// Options are what a run may choose. The zero Options are good for a test:
// free ports on loopback, a directory of its own.
type Options struct {
	Seed   uint64 // of the physics; the same seed and the same simulated time give the same values
	Dir    string // where each line's pseudo-terminal gets the name of its bus; "": a new temporary directory
	Listen string // address of the TCP buses without port; "": 127.0.0.1
	// PortBase is the port of the first TCP bus, the next has the one after it.
	// 0: free ports. SitePorts: those plant.yaml names.
	PortBase int
	Start    time.Time // local time of day at which the physics begin; zero: now
	Frozen   bool      // begin with FreezeAll(true)
	Faults   []Fault   // counted from Start
	// Day is what happens at which time of the plant's day; OnIncident, which
	// may be nil, is told when one begins and when it is over.
	Day        []Incident
	OnIncident func(i Incident, begins bool)
	// Speed is how much faster than ours the plant's time goes, physics,
	// counters and Day; 0 means 1, at most MaxSpeed. Lines keep their pace.
	Speed float64
	// OnWrite is told of every request that could change a plant, before it is
	// refused, from the goroutine of its bus or connection. nil: a panic.
	OnWrite func(Write)
	// Library is the device models, where they were read already; nil: those in
	// devices/ of Load's files.
	Library *profile.Library
	Logger  *slog.Logger
}

// MaxSpeed is the largest Options.Speed: a day in a minute and a half.
const MaxSpeed = 1000

// SitePorts is the PortBase that takes the ports of plant.yaml.
const SitePorts = -1

// Bus describes one bus of a plant as it runs.
type Bus struct {
	Name    string   `json:"name"`
	Addr    string   `json:"addr,omitempty"` // host:port of a TCP bus
	Port    string   `json:"port,omitempty"` // stable path of a serial line's pseudo-terminal
	Baud    int      `json:"baud,omitempty"`
	Parity  string   `json:"parity,omitempty"`
	Devices []Device `json:"devices"`
}

// Device describes one simulated device.
type Device struct {
	Name    string `json:"name"`
	Profile string `json:"profile"`
	Unit    int    `json:"unit"`
}

// bus is one line or endpoint that serves devices.
type bus interface {
	label() string
	open() error
	// cut takes the bus away or brings it back; saying it again is harmless.
	cut(bool)
	// close ends it and waits for its goroutines.
	close()
	describe() Bus
}

// Plant is one simulated site. Its methods are safe for concurrent use.
type Plant struct {
	site, modelName string
	label           telemetry.Label
	log             *slog.Logger
	onWrite         func(Write)
	buses           []bus
	devices         []*device
	byName          map[string]*device
	script          []Fault
	incidents       []Incident
	onIncident      func(Incident, bool)
	speed           float64
	dir             string
	ownDir          bool

	cuts sync.Mutex // orders the switching of buses

	mu     sync.Mutex // guards what follows
	world  *physics.World
	clock  float64 // seconds of physics since midnight
	rest   time.Duration
	frozen bool
	faults []*running
	writes uint64
	rng    *rand.Rand // for garbling

	stop context.CancelFunc
	done sync.WaitGroup
}

// Load reads siteDir/plant.yaml from fsys, where the profiles are in devices/
// (firmware-config's FS), and builds the plant; nothing runs and no port is
// taken until Start.
func Load(fsys fs.FS, siteDir string, o Options) (*Plant, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1"
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	start := o.Start
	if start.IsZero() {
		start = time.Now()
	}
	if o.OnWrite == nil {
		o.OnWrite = func(w Write) { panic("BUG: " + w.String()) }
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	if !(o.Speed >= 1 && o.Speed <= MaxSpeed) {
		return nil, fmt.Errorf("the plant's time cannot go %v times as fast; choose 1 to %d", o.Speed, MaxSpeed)
	}
	p := &Plant{
		incidents: o.Day, onIncident: o.OnIncident, speed: o.Speed,
		log: log, onWrite: o.OnWrite, byName: map[string]*device{}, dir: o.Dir, frozen: o.Frozen, script: o.Faults,
		clock: float64(start.Hour()*3600+start.Minute()*60) + float64(start.Second()),
		rng:   rand.New(rand.NewPCG(o.Seed, 99)),
	}
	if err := p.load(fsys, siteDir, o); err != nil {
		return nil, err
	}
	for _, d := range p.devices {
		for _, face := range append([]*device{d}, d.faces...) {
			if _, err := p.image(face); err != nil {
				return nil, fmt.Errorf("site %s: %w", p.site, err)
			}
		}
	}
	for _, f := range o.Faults {
		if err := p.check(f); err != nil {
			return nil, err
		}
	}
	for _, i := range o.Day {
		for _, f := range i.Faults {
			if err := p.check(f); err != nil {
				return nil, fmt.Errorf("the incident at %s: %w", i.At, err)
			}
		}
	}
	return p, nil
}

// Start takes the ports, makes the pseudo-terminals and lets time run, until
// ctx ends or Close. After an error nothing is left behind.
func (p *Plant) Start(ctx context.Context) (err error) {
	if p.stop != nil {
		return fmt.Errorf("the plant %s was started before; load it again", p.site)
	}
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "plant-"); err != nil {
			return fmt.Errorf("make a directory for the serial lines: %w", err)
		}
		p.ownDir = true
	} else if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return fmt.Errorf("make the directory for the serial lines: %w", err)
	}
	ctx, p.stop = context.WithCancel(ctx)
	// ports before lines: a second plant of the same site is refused by its
	// ports before it takes the first one's lines over
	for _, serial := range []bool{false, true} {
		for _, b := range p.buses {
			if _, is := b.(*rtuBus); is != serial {
				continue
			}
			if err := b.open(); err != nil {
				p.Close()
				return err
			}
		}
	}
	now := time.Now()
	for _, f := range p.script {
		p.schedule(f, now)
	}
	p.day(now)
	p.refresh(now)
	p.done.Go(func() { p.run(ctx) })
	return nil
}

// run lets time pass until ctx ends, then closes the buses.
func (p *Plant) run(ctx context.Context) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			for _, b := range p.buses {
				b.close()
			}
			return
		case <-t.C:
		}
		now := time.Now()
		p.Step(time.Duration(float64(now.Sub(last)) * p.speed))
		last = now
		p.refresh(now)
		p.mend()
	}
}

// Close stops the plant, closes its ports and waits until all is still.
func (p *Plant) Close() {
	if p.stop != nil {
		p.stop()
	}
	p.done.Wait()
	for _, b := range p.buses {
		b.close()
	}
	if p.ownDir {
		_ = os.RemoveAll(p.dir) // our own temporary directory: nothing of it is needed
	}
}

// Step lets d of simulated time pass, in whole ticks of 0.1 s; the rest is
// kept for the next Step. A running plant steps by itself.
func (p *Plant) Step(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen {
		return
	}
	const whole = time.Duration(physics.Tick * float64(time.Second))
	for p.rest += d; p.rest >= whole; p.rest -= whole {
		p.clock += physics.Tick
		p.world.Step(physics.Tick, p.hour())
	}
}

// hour is the simulated hour of the day. p.mu is held.
func (p *Plant) hour() float64 {
	h := p.clock / 3600
	return h - 24*float64(int(h/24))
}

// FreezeAll stops or resumes the physics: while frozen every register keeps
// its value, the serial registers excepted.
func (p *Plant) FreezeAll(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
}

// Site returns the site's name.
func (p *Plant) Site() string { return p.site }

// Label returns the site's name for people.
func (p *Plant) Label() telemetry.Label { return p.label }

// Buses describes the buses in the order of plant.yaml.
func (p *Plant) Buses() []Bus {
	list := make([]Bus, len(p.buses))
	for i, b := range p.buses {
		list[i] = b.describe()
	}
	return list
}

// Addr returns the host:port of a TCP bus, "" when there is none of that name
// or it was not started.
func (p *Plant) Addr(name string) string {
	if b := p.bus(name); b != nil {
		return b.describe().Addr
	}
	return ""
}

// Port returns the path of a serial line's pseudo-terminal, "" when there is
// none of that name. The path stays the same through a cut.
func (p *Plant) Port(name string) string {
	if b := p.bus(name); b != nil {
		return b.describe().Port
	}
	return ""
}

// Value returns what a point truly measures now, in its canonical unit, before
// the device's rounding and its faults; false where nothing is measured.
func (p *Plant) Value(device, point string) (float64, bool) {
	d := p.byName[device]
	if d == nil {
		return 0, false
	}
	f := d.feed(point)
	if f == nil || f.absent || f.point.Type == profile.Text {
		return 0, false
	}
	if f.quantity == "" {
		return f.constant, true
	}
	return p.Quantity(f.quantity)
}

// Quantity returns a quantity of the site's physics, in its canonical unit.
func (p *Plant) Quantity(name string) (float64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	value, _, ok := p.world.Quantity(name)
	return value, ok
}

// Served returns how many complete reads of each group's serial register the
// device has answered; nil for an unknown device.
func (p *Plant) Served(device string) []uint32 {
	d := p.byName[device]
	if d == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(d.served[:])
}

func (p *Plant) bus(name string) bus {
	for _, b := range p.buses {
		if b.label() == name {
			return b
		}
	}
	return nil
}

func (d *device) feed(point string) *feed {
	for i := range d.feeds {
		if d.feeds[i].point.Name == point {
			return &d.feeds[i]
		}
	}
	return nil
}

// image makes a device's registers as they are now. p.mu is held, or the plant
// not yet shared.
func (p *Plant) image(d *device) (image, error) {
	return d.image(p.world.Value, func(point string) overlay { return p.overlay(d.name, point) })
}

// serve lets d answer one request: frame makes a frame of the answer's PDU,
// send hands it over whole or says false. Only then do its serials count.
func (p *Plant) serve(d *device, req []byte, m manners, frame func(pdu []byte) []byte, garble func(*rand.Rand, []byte), send func([]byte) bool) {
	d.sending.Lock()
	defer d.sending.Unlock()
	p.mu.Lock()
	a, err := d.answer(req, func() (image, error) { return p.image(d) })
	if m.refuse != 0 && len(req) > 0 {
		a = refusal(req[0], m.refuse)
	}
	if err != nil { // a fault set a value that cannot be encoded
		p.log.Error("no answer", "device", d.name, "error", err)
		p.mu.Unlock()
		return
	}
	out := frame(a.pdu)
	if m.garbled {
		garble(p.rng, out)
		a.counted = nil
	}
	p.mu.Unlock()
	if send(out) && len(a.counted) > 0 {
		p.mu.Lock()
		for _, g := range a.counted {
			d.served[g]++
		}
		p.mu.Unlock()
	}
}

// listenAddr joins host and port.
func listenAddr(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
