package plant

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/alarm"
	"luquan/gateway/telemetry"
)

// What the balances below are reckoned with, written down once more: a constant
// that the physics changes by mistake shows.
const (
	waterHeat  = 4186.0 // J per kg and K
	makeupArea = 1.2    // m2
	wellArea   = 4.0    // m2
	sphere     = 1000.0 // m3
)

var siteNames = map[string]string{"heating-plant": "heating-east", "sewage-works": "sewage-west", "computing-centre": "compute-north",
	"substation": "substation-south", "gas-storage": "gas-storage-1", "cold-chain": "cold-chain-1"}

func loadSite(t *testing.T, dir string, seed uint64) *Plant {
	t.Helper()
	p, err := Load(firmwareconfig.FS, "sites/"+dir, Options{Seed: seed, Start: time.Date(2025, 1, 15, 9, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// registers asks a device for n words, through the same code that answers a
// gateway but without a line.
func registers(t *testing.T, p *Plant, device string, fn byte, first, n uint16) []uint16 {
	t.Helper()
	var out []byte
	d := p.byName[device]
	if d == nil {
		t.Fatalf("no device %s", device)
	}
	p.serve(d, read(fn, first, n), manners{}, func(pdu []byte) []byte { return pdu }, garbleHeader, func(b []byte) bool { out = b; return true })
	if profile.Table(fn).IsBit() {
		bits := make([]uint16, n)
		for i := range bits {
			bits[i] = uint16(out[2+i/8] >> (i % 8) & 1)
		}
		return bits
	}
	return words(t, out)
}

func u32(w []uint16) float64 { return float64(uint32(w[0])<<16 | uint32(w[1])) }
func f32(w []uint16) float64 { return float64(math.Float32frombits(uint32(w[0])<<16 | uint32(w[1]))) }
func s64(w []uint16) float64 {
	return float64(int64(uint64(w[0])<<48 | uint64(w[1])<<32 | uint64(w[2])<<16 | uint64(w[3])))
}

// within fails when got is further than 1 % from want.
func within(t *testing.T, what string, got, want float64) {
	t.Helper()
	if want == 0 || math.Abs(got-want) > 0.01*math.Abs(want) {
		t.Errorf("%s: %v, want %v within 1 %%", what, got, want)
	}
}

// TestRegistersOfEnergyAreTheIntegralOfPower reads the encoded registers over
// a simulated day and adds up the power itself.
func TestRegistersOfEnergyAreTheIntegralOfPower(t *testing.T) {
	meter := func(p *Plant, dev string) (power, energy float64) { // kW, Wh
		return 1000 * f32(registers(t, p, dev, 3, 3059, 2)), s64(registers(t, p, dev, 3, 3203, 4))
	}
	pump := func(p *Plant, dev string) (power, energy float64) {
		return u32(registers(t, p, dev, 4, 311, 2)), 1000 * u32(registers(t, p, dev, 4, 331, 2))
	}
	heat := func(p *Plant, dev string) (power, energy float64) { // register in W (0.001 kW), kWh
		return u32(registers(t, p, dev, 4, 353, 2)), 1000 * u32(registers(t, p, dev, 4, 351, 2))
	}
	flow := func(p *Plant, dev string) (litersPerHour, liters float64) { // 0.1 m3/h, 0.01 m3
		return 100 * float64(registers(t, p, dev, 4, 301, 1)[0]), 10 * u32(registers(t, p, dev, 4, 356, 2))
	}
	ups := func(p *Plant, dev string) (power, energy float64) { // percent/256 of rated
		return float64(registers(t, p, dev, 3, 136, 1)[0]) / 25600 * float64(registers(t, p, dev, 3, 589, 1)[0]), u32(registers(t, p, dev, 3, 145, 2))
	}
	type counter struct {
		device, what string
		read         func(*Plant, string) (float64, float64)
		last, sum    float64 // power at the last reading, its integral
		begin        float64 // of the counter
	}
	for dir, counters := range map[string][]*counter{
		"heating-plant": {
			{device: "plant-meter", what: "electricity", read: meter},
			{device: "supply-pump", what: "electricity", read: pump},
			{device: "supply-pump", what: "heat", read: heat},
			{device: "supply-pump", what: "water", read: flow},
			{device: "makeup-pump", what: "water", read: flow},
		},
		"sewage-works": {
			{device: "blower-meter", what: "electricity", read: meter},
			{device: "works-meter", what: "electricity", read: meter},
			{device: "inlet-pump-1", what: "electricity", read: pump},
			{device: "inlet-pump-2", what: "water", read: flow},
		},
		"computing-centre": {
			{device: "row-a", what: "electricity", read: meter},
			{device: "row-b", what: "electricity", read: meter},
			{device: "cdu-pump", what: "electricity", read: pump},
			{device: "cdu-pump", what: "heat", read: heat},
			{device: "ups-1", what: "electricity", read: ups},
			{device: "ups-2", what: "electricity", read: ups},
		},
	} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			p := loadSite(t, dir, 3)
			for _, c := range counters {
				c.last, c.begin = c.read(p, c.device)
			}
			const step, hours = 5 * time.Second, 24
			for range int(hours * time.Hour / step) {
				p.Step(step)
				for _, c := range counters {
					power, _ := c.read(p, c.device)
					c.sum += (c.last + power) / 2 * step.Hours()
					c.last = power
				}
			}
			for _, c := range counters {
				_, end := c.read(p, c.device)
				within(t, c.device+" "+c.what+", counter against the integral", end-c.begin, c.sum)
			}
		})
	}
}

// TestHeatIsFlowTimesDifference checks the heat meter's registers against each other.
func TestHeatIsFlowTimesDifference(t *testing.T) {
	for _, tt := range []struct {
		site, device string
		litersPerSec float64 // of one unit of the flow register
	}{
		{"heating-plant", "heat-meter-1", 1.0 / 3600},
		{"computing-centre", "loop-meter", 1 / 3.6},
	} {
		p := loadSite(t, tt.site, 5)
		for range 50 {
			p.Step(20 * time.Second)
			w := registers(t, p, tt.device, 3, 0, 10)
			flow, power, warm, cold := f32(w)*tt.litersPerSec, 1000*f32(w[4:]), f32(w[6:]), f32(w[8:])
			within(t, tt.device+" power", power, flow*(warm-cold)*4186)
		}
	}
}

// TestLevelsAreTheIntegralOfFlows follows the two tanks by what their level
// transmitters and their pumps' flow registers say; what no device measures
// (inflow, fill, spill) is the plant's own.
func TestLevelsAreTheIntegralOfFlows(t *testing.T) {
	flow := func(p *Plant, dev string) float64 { return float64(registers(t, p, dev, 4, 301, 1)[0]) / 36 } // L/s
	own := func(p *Plant, name string) float64 {
		v, ok := p.Quantity(name)
		if !ok {
			t.Fatalf("no quantity %s", name)
		}
		return v
	}
	for _, tt := range []struct {
		site, tank string
		unit, area float64 // m a count, m2
		net        func(p *Plant) float64
	}{
		{"heating-plant", "makeup-tank", 0.001, makeupArea, func(p *Plant) float64 { return own(p, "makeup_fill") - flow(p, "makeup-pump") }},
		{"sewage-works", "wet-well", 0.001, wellArea, func(p *Plant) float64 {
			return own(p, "inflow") - own(p, "spill") - flow(p, "inlet-pump-1") - flow(p, "inlet-pump-2")
		}},
	} {
		t.Run(tt.tank, func(t *testing.T) {
			p := loadSite(t, tt.site, 11)
			level := func() float64 {
				return float64(int16(registers(t, p, tt.tank, 3, 4, 1)[0])) * tt.unit * tt.area * 1000 // L
			}
			moved, low, high := 0.0, math.Inf(1), math.Inf(-1)
			at, sum := level(), 0.0
			begin := at
			const step = 100 * time.Millisecond
			for range int(2 * time.Hour / step) {
				sum += tt.net(p) * step.Seconds()
				moved += math.Abs(tt.net(p)) * step.Seconds()
				p.Step(step)
				at = level()
				low, high = min(low, at), max(high, at)
			}
			// what went through is far more than what stayed: 1 % of the first
			if diff := math.Abs((at - begin) - sum); diff > 0.01*moved {
				t.Errorf("level moved by %.1f L, flows by %.1f L, %.1f L went through", at-begin, sum, moved)
			}
			if swing := (high - low) / tt.area / 1000; swing < 0.5 || swing > 2.2 {
				t.Errorf("level swings by %.2f m in two hours: it should fill and empty", swing)
			}
		})
	}
}

func TestSameSeedSamePlant(t *testing.T) {
	for dir := range siteNames {
		a, b, c := loadSite(t, dir, 1), loadSite(t, dir, 1), loadSite(t, dir, 2)
		a.Step(10 * time.Minute)
		for range 6000 { // in other portions
			b.Step(100 * time.Millisecond)
		}
		c.Step(10 * time.Minute)
		differ := 0
		for _, name := range a.world.Names() {
			va, _ := a.Quantity(name)
			vb, _ := b.Quantity(name)
			vc, _ := c.Quantity(name)
			if va != vb {
				t.Errorf("%s: %s is %v or %v by how the time was cut", dir, name, va, vb)
			}
			if va != vc {
				differ++
			}
		}
		if differ < 10 {
			t.Errorf("%s: another seed changes only %d quantities", dir, differ)
		}
	}
}

// believable bounds every unit; a point outside them would make a visitor
// doubt the screen.
var believable = map[string][2]float64{
	"degC": {-30, 110}, "K": {0, 60}, "bar": {0, 10}, "L/s": {0, 80}, "m": {0, 4}, "%": {0, 100}, "rpm": {0, 3000}, "Hz": {0, 51}, "V": {0, 260},
	"A": {0, 400}, "W": {0, 3e6}, "var": {0, 2e5}, "VA": {0, 2e5}, "Wh": {0, 1e11}, "varh": {0, 1e11}, "m3": {0, 1e7}, "h": {0, 1e6}, "s": {0, 1e5},
	"mg/L": {0, 10}, "pH": {5, 9}, "NTU": {0, 60}, "mA": {4, 20},
	"%LEL": {0, 5}, "ppm": {0, 3}, "Nm3/h": {200, 8000}, "Nm3": {1, 1e9}, "m/s": {0.1, 430}, "MJ/Nm3": {30, 42},
}

// wider are the bounds at the sites that have more of something than the others.
var wider = map[string]map[string][2]float64{
	"cold-chain":       {"degC": {-40, 110}, "bar": {0, 20}}, // of the refrigerant
	"computing-centre": {"m": {0, 60}, "mA": {0, 1}},         // a sensing cable, and the current that leaks through it
	"gas-storage":      {"bar": {0, 17}, "L/s": {0, 450}, "W": {0, 6e7}, "Wh": {0, 1e12}, "V": {20, 260}, "m3": {0, 1e8}, "%": {0, 80}, "h": {0, 5e4}},
	"substation":       {"A": {0, 650}, "V": {0, 10_700}, "W": {0, 9e5}, "var": {0, 3e5}, "VA": {0, 9e5}},
}

// board is the part of gateway.yaml that this test looks at.
type board struct {
	Site, Gateway string
	Buses         []struct {
		Name    string
		RTU     *struct{ Baud, StopBits int }
		TCP     *struct{ Address string }
		Devices []struct {
			Name    string
			Profile any
			Unit    int
			Points  []string
		}
	}
}

func boards(t *testing.T, dir string) []board {
	t.Helper()
	files, err := fs.Glob(firmwareconfig.FS, "sites/"+dir+"/gateway*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no gateway.yaml: %v", dir, err)
	}
	var list []board
	for _, f := range files {
		data, err := fs.ReadFile(firmwareconfig.FS, f)
		if err != nil {
			t.Fatal(err)
		}
		var b board
		if err := yaml.Unmarshal(data, &b); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		list = append(list, b)
	}
	return list
}

// TestSitesServeWhatTheirBoardsPoll walks every board's configuration: each
// device is on the bus of that name, and each polled point has a believable
// value at any time of an hour.
func TestSitesServeWhatTheirBoardsPoll(t *testing.T) {
	total := 0
	for dir, site := range siteNames {
		p := loadSite(t, dir, 21)
		if p.Site() != site {
			t.Errorf("%s is site %s, want %s", dir, p.Site(), site)
		}
		rtu, tcp, seen := 0, 0, map[string]bool{}
		type polled struct {
			device string
			point  *profile.Point
		}
		var points []polled
		for _, b := range boards(t, dir) {
			if b.Site != site || !telemetry.ValidName(b.Gateway) {
				t.Errorf("%s: board %q of site %q", dir, b.Gateway, b.Site)
			}
			for _, bus := range b.Buses {
				switch ours := p.bus(bus.Name).(type) {
				case *rtuBus:
					rtu++
					if bus.RTU == nil || bus.RTU.Baud != ours.baud {
						t.Errorf("%s: bus %s is a line of %d baud", dir, bus.Name, ours.baud)
					}
				case *tcpBus:
					tcp++
					if bus.TCP == nil {
						t.Errorf("%s: bus %s is TCP", dir, bus.Name)
					}
				default:
					t.Errorf("%s: the plant has no bus %s", dir, bus.Name)
				}
				for _, d := range bus.Devices {
					ours := p.byName[d.Name]
					if ours == nil || ours.bus != bus.Name || int(ours.unit) != d.Unit {
						t.Fatalf("%s: device %s, unit %d is not on bus %s", dir, d.Name, d.Unit, bus.Name)
					}
					if seen[d.Name] {
						t.Errorf("%s: device %s is polled by two boards", dir, d.Name)
					}
					seen[d.Name] = true
					if len(d.Points) == 0 {
						d.Points = ours.profile.PointNames()
					}
					for _, name := range d.Points {
						pt, ok := ours.profile.Point(name)
						if f := ours.feed(name); !ok || f == nil || f.absent {
							t.Errorf("%s: %s/%s is polled, and nothing feeds it", dir, d.Name, name)
							continue
						}
						points = append(points, polled{d.Name, pt})
					}
				}
			}
		}
		if len(seen) != len(p.devices) || rtu == 0 || tcp == 0 {
			t.Errorf("%s: %d of %d devices are polled, over %d lines and %d TCP buses", dir, len(seen), len(p.devices), rtu, tcp)
		}
		total += len(points)
		for range 60 {
			p.Step(time.Minute)
			for _, pl := range points {
				v, ok := p.Value(pl.device, pl.point.Name)
				r, known := believable[pl.point.Unit]
				if w, more := wider[dir][pl.point.Unit]; more {
					r, known = w, true
				}
				if ok && known && (v < r[0] || v > r[1]) {
					t.Errorf("%s: %s/%s is %v %s", dir, pl.device, pl.point.Name, v, pl.point.Unit)
				} else if ok && !known && pl.point.Unit != "" {
					t.Errorf("%s: no bounds for unit %s", dir, pl.point.Unit)
				}
				registers(t, p, pl.device, byte(pl.point.Table), pl.point.Address, pl.point.Words)
			}
		}
	}
	if total < 100 {
		t.Errorf("the sites poll %d points, want 100 and more", total)
	}
	t.Logf("%d points", total)
}

func TestSitesShowLifeWithinTheDemo(t *testing.T) {
	for dir := range siteNames {
		p := loadSite(t, dir, 21)
		before := map[string][]uint16{}
		shown := func(d *device, f feed) []uint16 {
			return registers(t, p, d.name, byte(f.point.Table), f.point.Address, f.point.Words)
		}
		for _, d := range p.devices {
			for _, f := range d.feeds {
				if f.quantity != "" {
					before[d.name+"/"+f.point.Name] = shown(d, f)
				}
			}
		}
		p.Step(20 * time.Second)
		moved := 0
		for _, d := range p.devices {
			for _, f := range d.feeds {
				if f.quantity != "" && !slices.Equal(shown(d, f), before[d.name+"/"+f.point.Name]) {
					moved++
				}
			}
		}
		if moved*3 < len(before) {
			t.Errorf("%s: %d of %d registers move within 20 s", dir, moved, len(before))
		}
	}
}

func TestSiteRulesAndFaultsFit(t *testing.T) {
	var sets []*alarm.RuleSet
	for dir, site := range siteNames {
		file := path.Join("sites", dir, "rules.yaml")
		data, err := fs.ReadFile(firmwareconfig.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		set, err := alarm.ParseFile(file, data)
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, set)
		p := loadSite(t, dir, 1)
		var rules struct {
			Rules []struct {
				ID, Points string
				Message    telemetry.Label
			}
		}
		if err := yaml.Unmarshal(data, &rules); err != nil {
			t.Fatal(err)
		}
		for _, r := range rules.Rules {
			hits := 0
			for _, d := range p.devices {
				for _, f := range d.feeds {
					if telemetry.Match(r.Points, telemetry.FullName(site, d.name, f.point.Name)) {
						hits++
					}
				}
			}
			if hits == 0 {
				t.Errorf("%s: rule %s matches no point (%s)", dir, r.ID, r.Points)
			}
			if r.Message.En == "" || r.Message.Zh == "" {
				t.Errorf("%s: rule %s does not speak both languages", dir, r.ID)
			}
		}
		file = path.Join("sites", dir, "faults.yaml")
		if data, err = fs.ReadFile(firmwareconfig.FS, file); err != nil {
			t.Fatal(err)
		}
		script, err := ParseFaults(file, data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Load(firmwareconfig.FS, "sites/"+dir, Options{Faults: script}); err != nil || len(script) == 0 {
			t.Errorf("%s: %d faults, %v", file, len(script), err)
		}
	}
	if _, err := alarm.Merge(sets...); err != nil {
		t.Error(err)
	}
}
