package physics

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Properties of water, for heat and pump power.
const (
	waterHeat    = 4186.0 // J per kg and K; one litre is taken as one kilogram
	pumpOverall  = 0.55   // hydraulic power / electrical power of a pump with its motor
	threePhase   = 1.7320508
	motorVoltage = 400.0
	motorPF      = 0.85
)

// quantity is one physical value in a canonical unit of the project. A held
// one keeps the value a fault gave it: the model sees the held value too, so
// that what depends on it follows (a supply temperature forced to 55 takes the
// heat power with it).
type quantity struct {
	unit  string
	value float64
	held  *float64
}

// quantities are a site's physical values by their full name. Those of one
// machine form a group, <group>.<name>; the site's own have no prefix.
type quantities struct {
	by     map[string]*quantity
	groups map[string]*group
	*group // the site's own
}

// group is the part of the quantities that one machine puts.
type group struct {
	all    *quantities
	prefix string
	own    map[string]*quantity // by the name without the prefix
}

func newQuantities() *quantities {
	q := &quantities{by: map[string]*quantity{}, groups: map[string]*group{}}
	q.group = &group{all: q, own: map[string]*quantity{}}
	return q
}

// of returns the group of that name.
func (q *quantities) of(name string) *group {
	g := q.groups[name]
	if g == nil {
		g = &group{all: q, prefix: name + ".", own: map[string]*quantity{}}
		q.groups[name] = g
	}
	return g
}

// put sets a quantity and returns what it now is: v, or the held value.
func (g *group) put(name, unit string, v float64) float64 {
	e := g.own[name]
	if e == nil {
		e = &quantity{unit: unit}
		g.own[name], g.all.by[g.prefix+name] = e, e
	}
	if e.held != nil {
		v = *e.held
	}
	e.value = v
	return v
}

// get returns a quantity, 0 before it was first put.
func (g *group) get(name string) float64 {
	if e := g.own[name]; e != nil {
		return e.value
	}
	return 0
}

// add puts what a quantity was plus delta: counters and contents of tanks.
func (g *group) add(name, unit string, start, delta float64) float64 {
	if e := g.own[name]; e != nil {
		start = e.value
	}
	return g.put(name, unit, start+delta)
}

// energy adds power (W or var) over dt seconds to a counter in Wh or varh.
func (g *group) energy(name, unit string, start, power, dt float64) {
	g.add(name, unit, start, power*dt/3600)
}

// value returns a quantity by its full name.
func (q *quantities) value(name string) float64 { return q.by[name].value }

func (q *quantities) names() []string {
	names := make([]string, 0, len(q.by))
	for n := range q.by {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// noise is a value that wanders around zero: standard deviation sigma,
// forgetting with time constant tau (an Ornstein-Uhlenbeck process).
type noise struct {
	rng        *rand.Rand
	tau, sigma float64
	x          float64
}

func newNoise(rng *rand.Rand, tau, sigma float64) *noise {
	return &noise{rng: rng, tau: tau, sigma: sigma, x: sigma * rng.NormFloat64()}
}

func (n *noise) step(dt float64) float64 {
	if dt > 0 {
		n.x += -n.x*dt/n.tau + n.sigma*math.Sqrt(2*dt/n.tau)*n.rng.NormFloat64()
	}
	return n.x
}

// lag follows a target with time constant tau (first order).
type lag struct {
	tau, x float64
}

func (l *lag) step(dt, target float64) float64 {
	l.x += (target - l.x) * min(1, dt/l.tau)
	return l.x
}

func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// daily is a cosine over the day with its top at hour peak, -1 to 1.
func daily(hour, peak float64) float64 { return math.Cos(2 * math.Pi * (hour - peak) / 24) }

func clamp(x, lo, hi float64) float64 { return max(lo, min(hi, x)) }

// pump puts the quantities of one electric pump, <name>.<quantity>.
type pump struct {
	name            string
	ratedHead       float64 // bar at full speed without flow
	curve           float64 // bar lost per (L/s)^2 inside the pump
	ratedSpeed      float64 // rpm
	hours0, energy0 float64 // counters at the start: h, Wh
	starts0         float64
	warm            lag
	wasOn           bool
}

func newPump(name string, head, curve, speed, hours, energy, starts float64) *pump {
	return &pump{name: name, ratedHead: head, curve: curve, ratedSpeed: speed,
		hours0: hours, energy0: energy, starts0: starts, warm: lag{tau: 120, x: 35}}
}

// step puts what follows from flow (L/s) and head (bar): by the affinity laws
// head = rated head * speed^2 - curve * flow^2.
func (p *pump) step(q *quantities, dt, flow, head, liquid float64) {
	on := flow > 0.01
	speed, power := 0.0, 4.0 // the electronics alone
	if on {
		speed = math.Sqrt(max(0, head+p.curve*flow*flow) / p.ratedHead)
		power += head * 1e5 * flow * 1e-3 / pumpOverall
	} else {
		head = 0
	}
	start := 0.0
	if on && !p.wasOn && dt > 0 {
		start = 1
	}
	p.wasOn = on
	g := q.of(p.name)
	status := 0.0
	if on {
		status = 1 << 9
		if speed > 0.995 {
			status += 1 << 13
		}
	}
	g.put("device_status", "", status)
	g.put("alarm_code", "", 0)
	g.put("warning_code", "", 0)
	g.put("flow", "L/s", flow)
	g.put("head", "bar", head)
	g.put("differential_pressure", "bar", head)
	g.put("performance", "%", clamp(speed*100, 0, 100))
	g.put("speed", "rpm", speed*p.ratedSpeed)
	g.put("frequency", "Hz", speed*50)
	power = g.put("power", "W", power)
	g.put("motor_current", "A", power/(threePhase*motorVoltage*motorPF))
	g.put("liquid_temp", "degC", liquid)
	g.put("electronics_temp", "degC", p.warm.step(dt, 32+20*speed*speed))
	hours := 0.0
	if on {
		hours = dt / 3600
	}
	g.add("operating_hours", "h", p.hours0, hours)
	g.add("starts", "", p.starts0, start)
	g.energy("energy", "Wh", p.energy0, power, dt)
	g.add("volume", "m3", 5120, flow*dt/1000)
}

// phase names the quantities of each phase.
var phase = [3]struct{ u, i, p string }{{"u_l1", "i_l1", "p_l1"}, {"u_l2", "i_l2", "p_l2"}, {"u_l3", "i_l3", "p_l3"}}

// grid is the supply of a site: three phase voltages and a frequency.
type grid struct {
	volts [3]*noise
	hz    *noise
}

func newGrid(rng *rand.Rand) *grid {
	return &grid{hz: newNoise(rng, 20, 0.015),
		volts: [3]*noise{newNoise(rng, 40, 1.2), newNoise(rng, 40, 1.2), newNoise(rng, 40, 1.2)}}
}

func (g *grid) step(q *quantities, dt float64) {
	out := q.of("grid")
	for i, v := range g.volts {
		out.put(phase[i].u, "V", 230+v.step(dt))
	}
	out.put("frequency", "Hz", 50+g.hz.step(dt))
}

// meter puts the quantities of one three-phase power meter, <name>.<quantity>.
type meter struct {
	name    string
	pf      float64    // cos phi of the load
	share   [3]float64 // of each phase
	energy0 float64    // Wh at the start
}

func (m *meter) step(q *quantities, dt, watts float64) {
	g, grid := q.of(m.name), q.of("grid")
	total := g.put("p_total", "W", watts)
	var sumI, sumU float64
	for i, share := range m.share {
		u := g.put(phase[i].u, "V", grid.get(phase[i].u))
		p := g.put(phase[i].p, "W", total*share)
		cur := 0.0
		if u > 1 {
			cur = p / (u * m.pf)
		}
		sumI += g.put(phase[i].i, "A", cur)
		sumU += u
	}
	g.put("i_avg", "A", sumI/3)
	g.put("u_avg", "V", sumU/3)
	reactive := g.put("q_total", "var", total*math.Sqrt(1-m.pf*m.pf)/m.pf)
	g.put("s_total", "VA", total/m.pf)
	g.put("pf_total", "", m.pf)
	g.put("frequency", "Hz", grid.get("frequency"))
	g.energy("energy_import", "Wh", m.energy0, total, dt)
	g.energy("energy_import_l1", "Wh", m.energy0*m.share[0], total*m.share[0], dt)
	g.energy("reactive_import", "varh", m.energy0*0.4, reactive, dt)
	g.put("energy_export", "Wh", 0)
	g.put("reactive_export", "varh", 0)
}

// heatMeter puts the quantities of one heat meter, <name>.<quantity>, and the
// heat it measured: power = flow * (warm - cold) * heat of water.
func heatMeter(q *quantities, name string, dt, flow, warm, cold, energy0 float64) (watts float64) {
	g := q.of(name)
	flow = g.put("flow", "L/s", flow)
	warm = g.put("flow_temp", "degC", warm)
	cold = g.put("return_temp", "degC", cold)
	watts = g.put("power", "W", flow*(warm-cold)*waterHeat)
	g.energy("energy", "Wh", energy0, watts, dt)
	g.add("volume", "m3", 84210, flow*dt/1000)
	return watts
}
