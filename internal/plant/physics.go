package plant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// tick is the step of the physics, in seconds. Every elapsed time is cut into
// whole ticks, so that a run depends on its seed and the time it simulates and
// on nothing else.
const tick = 0.1

// Properties of water, for heat and pump power.
const (
	waterHeat    = 4186.0 // J per kg and K; one litre is taken as one kilogram
	pumpOverall  = 0.55   // hydraulic power / electrical power of a pump with its motor
	threePhase   = 1.7320508
	motorVoltage = 400.0
	motorPF      = 0.85
)

// A model is the physics of one site. step advances it by dt seconds at the
// hour of the day (0 to 24) and puts every quantity of the site; step with
// dt 0 only puts them. Models keep no value of their own that a quantity holds.
type model interface {
	step(q *quantities, dt, hour float64)
}

// models are the sites we have physics for, by the name in plant.yaml.
func newModel(name string, seed uint64) (model, error) {
	switch name {
	case "heating-plant":
		return newHeating(seed), nil
	case "sewage-works":
		return newSewage(seed), nil
	case "computing-centre":
		return newComputing(seed), nil
	}
	return nil, fmt.Errorf("there is no model %q; the models are heating-plant, sewage-works and computing-centre", name)
}

// quantity is one physical value in a canonical unit of the project.
type quantity struct {
	unit  string
	value float64
}

// quantities are a site's physical values by name. A held one keeps the value
// a fault gave it: the model sees the held value too, so that what depends on
// it follows (a supply temperature forced to 55 takes the heat power with it).
type quantities struct {
	by   map[string]*quantity
	held map[string]float64
}

func newQuantities() *quantities {
	return &quantities{by: map[string]*quantity{}, held: map[string]float64{}}
}

// put sets a quantity and returns what it now is: v, or the held value.
func (q *quantities) put(name, unit string, v float64) float64 {
	if h, ok := q.held[name]; ok {
		v = h
	}
	e := q.by[name]
	if e == nil {
		e = &quantity{unit: unit}
		q.by[name] = e
	}
	e.value = v
	return v
}

// get returns a quantity, 0 before it was first put.
func (q *quantities) get(name string) float64 {
	if e := q.by[name]; e != nil {
		return e.value
	}
	return 0
}

// add puts what a quantity was plus delta: counters and contents of tanks.
func (q *quantities) add(name, unit string, start, delta float64) float64 {
	if e := q.by[name]; e != nil {
		start = e.value
	}
	return q.put(name, unit, start+delta)
}

// energy adds power (W or var) over dt seconds to a counter in Wh or varh.
func (q *quantities) energy(name, unit string, start, power, dt float64) {
	q.add(name, unit, start, power*dt/3600)
}

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
	put := func(name, unit string, v float64) float64 { return q.put(p.name+"."+name, unit, v) }
	status := 0.0
	if on {
		status = 1 << 9
		if speed > 0.995 {
			status += 1 << 13
		}
	}
	put("status", "", status)
	put("alarm_code", "", 0)
	put("warning_code", "", 0)
	put("flow", "L/s", flow)
	put("head", "bar", head)
	put("differential_pressure", "bar", head)
	put("performance", "%", clamp(speed*100, 0, 100))
	put("speed", "rpm", speed*p.ratedSpeed)
	put("frequency", "Hz", speed*50)
	power = put("power", "W", power)
	put("motor_current", "A", power/(threePhase*motorVoltage*motorPF))
	put("liquid_temp", "degC", liquid)
	put("electronics_temp", "degC", p.warm.step(dt, 32+20*speed*speed))
	hours := 0.0
	if on {
		hours = dt / 3600
	}
	q.add(p.name+".operating_hours", "h", p.hours0, hours)
	q.add(p.name+".starts", "", p.starts0, start)
	q.energy(p.name+".energy", "Wh", p.energy0, power, dt)
	q.add(p.name+".volume", "m3", 5120, flow*dt/1000)
}

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
	for i, v := range g.volts {
		q.put(fmt.Sprintf("grid.u_l%d", i+1), "V", 230+v.step(dt))
	}
	q.put("grid.frequency", "Hz", 50+g.hz.step(dt))
}

// meter puts the quantities of one three-phase power meter, <name>.<quantity>.
type meter struct {
	name    string
	pf      float64    // cos phi of the load
	share   [3]float64 // of each phase
	energy0 float64    // Wh at the start
}

func (m *meter) step(q *quantities, dt, watts float64) {
	put := func(name, unit string, v float64) float64 { return q.put(m.name+"."+name, unit, v) }
	total := put("p_total", "W", watts)
	var sumI, sumU float64
	for i, share := range m.share {
		u := put(fmt.Sprintf("u_l%d", i+1), "V", q.get(fmt.Sprintf("grid.u_l%d", i+1)))
		p := put(fmt.Sprintf("p_l%d", i+1), "W", total*share)
		cur := 0.0
		if u > 1 {
			cur = p / (u * m.pf)
		}
		sumI += put(fmt.Sprintf("i_l%d", i+1), "A", cur)
		sumU += u
	}
	put("i_avg", "A", sumI/3)
	put("u_avg", "V", sumU/3)
	reactive := put("q_total", "var", total*math.Sqrt(1-m.pf*m.pf)/m.pf)
	put("s_total", "VA", total/m.pf)
	put("frequency", "Hz", q.get("grid.frequency"))
	q.energy(m.name+".energy_import", "Wh", m.energy0, total, dt)
	q.energy(m.name+".energy_import_l1", "Wh", m.energy0*m.share[0], total*m.share[0], dt)
	q.energy(m.name+".reactive_import", "varh", m.energy0*0.4, reactive, dt)
	put("energy_export", "Wh", 0)
	put("reactive_export", "varh", 0)
}

// heatMeter puts the quantities of one heat meter, <name>.<quantity>, and the
// heat it measured: power = flow * (warm - cold) * heat of water.
func heatMeter(q *quantities, name string, dt, flow, warm, cold, energy0 float64) (watts float64) {
	flow = q.put(name+".flow_1", "L/s", flow)
	warm = q.put(name+".t1_flow", "degC", warm)
	cold = q.put(name+".t2_return", "degC", cold)
	watts = q.put(name+".power", "W", flow*(warm-cold)*waterHeat)
	q.energy(name+".energy", "Wh", energy0, watts, dt)
	q.add(name+".volume", "m3", 84210, flow*dt/1000)
	return watts
}
