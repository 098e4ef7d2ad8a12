package physics

import "math"

// A transformer of 630 kVA, 10/0.4 kV, filled with oil and cooled by air alone.
// Its losses are those of its standard size; its temperatures follow IEC
// 60076-7 with the exponents and time constants given there for distribution
// transformers: the oil rises above the room with the losses, the winding's hot
// spot above the oil with the current.
type transformer struct {
	name          string
	oil, gradient lag
}

const (
	transformerVA = 630_000.0
	lossIron      = 810.0  // W, always
	lossCopper    = 6200.0 // W at full load
	shortCircuit  = 0.045  // impedance voltage
	magnetising   = 0.006  // no-load current
	oilRise       = 55.0   // K above the room at full load
	hotSpotRise   = 23.0   // K of the hot spot above the oil at full load
	oilExponent   = 0.8
	windExponent  = 1.6
	oilTau        = 180 * 60.0
	windingTau    = 4 * 60.0
)

// step carries the load and returns what is lost on the way.
func (t *transformer) step(q *quantities, dt float64, load power, mv, room float64, begin bool) (lost power) {
	g := q.of(t.name)
	k := load.apparent() / transformerVA
	volts := 0.0
	if g.get("in_service") > 0.5 {
		lost = power{lossIron + lossCopper*k*k, transformerVA * (magnetising + shortCircuit*k*k)}
		volts = mv * lvRatio * (1 - (0.01*load.p+shortCircuit*load.q)/transformerVA)
	}
	g.put("section_voltage", "V", volts)
	g.put("p_in", "W", load.p+lost.p)
	g.put("q_in", "var", load.q+lost.q)
	load.p = g.put("p_total", "W", load.p)
	g.put("load", "%", 100*k)
	heat := 0.0
	if lost.p > 0 {
		const ratio = lossCopper / lossIron
		heat = math.Pow((1+ratio*k*k)/(1+ratio), oilExponent)
	}
	if begin {
		t.oil.x, t.gradient.x = room+oilRise*heat, hotSpotRise*math.Pow(k, windExponent)
	}
	oil := g.put("oil_temp", "degC", t.oil.step(dt, room+oilRise*heat))
	g.put("winding_temp", "degC", oil+t.gradient.step(dt, hotSpotRise*math.Pow(k, windExponent)))
	return lost
}

// volts returns the voltage between two phases of the transformer's section;
// a section that hangs on the other transformer has that one's.
func (t *transformer) volts(q *quantities, other *transformer) float64 {
	u := q.of(t.name).get("section_voltage")
	if u == 0 && q.get("section_tie") > 0.5 {
		u = q.of(other.name).get("section_voltage")
	}
	return u
}

// capacitors is the bank of a section: four steps, switched one at a time so
// that a little reactive power is left and none is sent back.
type capacitors struct {
	name  string
	steps float64 // switched on
	wait  float64 // s until the next switching
}

const (
	capacitorSteps = 4
	capacitorStep  = 40_000.0 // var
	capacitorWait  = 30.0     // s between two switchings
)

// step returns what the bank gives (var).
func (c *capacitors) step(q *quantities, dt float64, load power, begin bool) float64 {
	g := q.of(c.name)
	enabled := g.put("enabled", "", 1) > 0.5
	left := load.q - c.steps*capacitorStep
	if begin {
		c.steps = clamp(math.Floor(load.q/capacitorStep), 0, capacitorSteps)
	}
	switch c.wait -= dt; {
	case !enabled:
		c.steps = 0
	case c.wait > 0 || dt == 0:
	case left > 1.15*capacitorStep && c.steps < capacitorSteps:
		c.steps, c.wait = c.steps+1, capacitorWait
	case left < 0 && c.steps > 0:
		c.steps, c.wait = c.steps-1, capacitorWait
	}
	steps := g.put("steps", "", c.steps)
	for i, name := range bankSteps {
		on := 0.0
		if float64(i) < steps {
			on = 1
		}
		g.put(name, "", on)
	}
	return steps * capacitorStep
}
