package plant

import (
	"math"
	"testing"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
)

// decoded is what the point's registers say, by the profile's own decoder.
func decoded(f *feed, img image) (telemetry.Value, telemetry.Quality) {
	v, _, q := f.point.Decode(func(t profile.Table, a uint16) (uint16, telemetry.Quality) {
		w, there := img[cell{t, a}]
		if !there {
			return 0, telemetry.Refused
		}
		return w, telemetry.Good
	})
	return v, q
}

// balance holds that what a counter or a vessel gained is the integral of what
// flowed, in units of stock.
type balance struct {
	what  string
	p     *Plant
	stock func() float64
	flow  func() float64 // net, in stock a second

	begun             bool
	began, sum, moved float64
	last              float64
	was, grain        float64 // of stock: the last, and the smallest step seen
}

// add is called after each step of pollEvery.
func (b *balance) add() {
	now := b.flow()
	if !b.begun {
		b.begun, b.began, b.grain = true, b.stock(), math.Inf(1)
		b.was = b.began
	} else {
		mean := (b.last + now) / 2 * pollEvery.Seconds()
		b.sum += mean
		b.moved += math.Abs(mean)
	}
	b.last = now
	stock := b.stock()
	if step := math.Abs(stock - b.was); step > 0 {
		b.grain = min(b.grain, step)
	}
	b.was = stock
}

// check fails where the two differ by more than 1 % of what went through, and
// more than one step of a counter that counts whole kWh.
func (b *balance) check(t *testing.T) {
	t.Helper()
	gained := b.stock() - b.began
	if b.moved == 0 || math.IsInf(b.grain, 0) {
		t.Errorf("%s: nothing moved in a day", b.what)
	}
	if diff := math.Abs(gained - b.sum); diff > max(0.01*b.moved, b.grain) {
		t.Errorf("%s: gained %.6g, flows say %.6g, %.6g went through: %.2f %% off", b.what, gained, b.sum, b.moved, 100*diff/b.moved)
	}
}

// read returns the value of a point as its registers say it, canonical unit.
func (p *Plant) read(device, point string) float64 {
	d := p.byName[device]
	if d == nil {
		panic("BUG: no device " + device)
	}
	f := d.feed(point)
	if f == nil {
		panic("BUG: no point " + point + " of " + device)
	}
	img, err := p.image(d.face(f.point))
	if err != nil {
		panic(err)
	}
	v, q := decoded(f, img)
	if q != telemetry.Good {
		panic("BUG: " + device + "/" + point + " is " + q.String())
	}
	return v.Float()
}

// counters are pairs of (rate, counter) that any device may show, and how many
// of the counter's unit one of the rate's makes in a second.
var counters = []struct {
	rate, total string
	perSecond   float64
}{
	{"power", "energy", 1.0 / 3600},               // W, Wh
	{"p_total", "energy_import", 1.0 / 3600},      // W, Wh
	{"q_total", "reactive_import", 1.0 / 3600},    // var, varh
	{"output_power", "output_energy", 1.0 / 3600}, // W, Wh
	{"heat_power", "heat_energy", 1.0 / 3600},     // W, Wh
	{"flow", "volume", 1.0 / 1000},                // L/s, m3
	{"flow_base", "volume_base", 1.0 / 3600},      // Nm3/h, Nm3
}

// balances are those of a site: every counter beside its rate, and the site's
// own vessels.
func balances(p *Plant) (list []*balance) {
	for _, d := range p.devices {
		for _, c := range counters {
			rate, total := d.feed(c.rate), d.feed(c.total)
			if rate == nil || total == nil || rate.absent || total.absent || rate.quantity == "" || total.quantity == "" {
				continue
			}
			list = append(list, &balance{what: d.name + " " + c.total, p: p,
				stock: func() float64 { return p.read(d.name, c.total) },
				flow:  func() float64 { return p.read(d.name, c.rate) * c.perSecond }})
		}
	}
	own := func(name string) float64 {
		v, ok := p.Quantity(name)
		if !ok {
			panic("BUG: no quantity " + name)
		}
		return v
	}
	vessel := func(what string, stock, flow func() float64) {
		list = append(list, &balance{what: what, p: p, stock: stock, flow: flow})
	}
	switch p.modelName {
	case "gas-storage": // n = p V / (Z R T), counted at 20 degC and 1.01325 bar
		vessel("spheres (Nm3)", func() float64 {
			sum := 0.0
			for _, v := range []struct{ pressure, thermometer, point string }{
				{"vessel-a", "vessel-temp-1", "temperature_1"}, {"vessel-b", "vessel-temp-1", "temperature_2"}, {"vessel-c", "vessel-temp-2", "temperature_1"},
			} {
				bar, kelvin := p.read(v.pressure, "pressure")+1.01325, p.read(v.thermometer, v.point)+273.15
				z := (1 - 0.002*bar) / (1 - 0.002*1.01325)
				sum += bar / 1.01325 * sphere * 293.15 / kelvin / z
			}
			return sum
		}, func() float64 { return (p.read("inlet-flow", "flow_base") - p.read("outlet-flow", "flow_base")) / 3600 })
	case "heating-plant":
		vessel("make-up tank (L)", func() float64 { return p.read("makeup-tank", "level") * makeupArea * 1000 },
			func() float64 { return own("makeup_fill") - p.read("makeup-pump", "flow") })
	case "substation": // what came in less what went out is what the transformers lost
		vessel("transformers (Wh)", func() float64 {
			sum := p.read("incoming-meter", "energy_import") - p.read("station-supply", "energy_total")
			for _, feeder := range []string{"feeder-1", "feeder-2", "feeder-3", "feeder-4"} {
				sum -= p.read(feeder, "energy_import")
			}
			return sum
		}, func() float64 { return own("losses") / 3600 })
	case "sewage-works":
		vessel("wet well (L)", func() float64 { return p.read("wet-well", "level") * wellArea * 1000 },
			func() float64 {
				return own("inflow") - own("spill") - p.read("inlet-pump-1", "flow") - p.read("inlet-pump-2", "flow")
			})
	}
	return list
}
