package physics

import (
	"math"
	"math/rand/v2"
)

// coldChain is a cold-chain warehouse in a mild climate: two freezers, a
// chiller and the dock between them and the lorries. Each room is a heat
// balance; two racks of compressors take what the evaporators take in, at a
// coefficient of performance that the weather sets.
type coldChain struct {
	weather, airing, work *noise
	rooms                 [4]*coldRoom
	racks                 [2]*rack
	grid                  *grid
	rackMeter, siteMeter  *meter
}

// Properties of ice and air.
const (
	iceMelt    = 334e3  // J/kg
	iceFrost   = 2.83e6 // J/kg from vapour to ice
	atmosphere = 1.013  // bar; gauges show what is above
	latentPer  = 0.35   // latent heat that comes in with one J of sensible heat through a door
)

// Indexes of coldChain.rooms. The dock comes first: the other rooms open into it.
const (
	dock = iota
	freezer1
	freezer2
	chiller
)

// roomPlan is what a room is built as. Heat conductances are in W/K, heat
// capacities in J/K, powers in W, times in s.
type roomPlan struct {
	name              string
	goal, band        float64 // degC: cooling starts at goal+band and stops at goal-band
	wall              float64 // through walls, roof and floor to the outdoor air
	door              float64 // through the open door, to the dock (the dock's own: outdoors)
	perHour, openFor  float64 // door openings an hour of work, and how long one lasts
	air, goods, coil  float64 // heat capacities
	toGoods           float64 // from the air to the goods
	toCoil, toBoiling float64 // from the air to the coil, from the coil to the refrigerant
	most              float64 // W that the expansion valve lets through
	fans, lights      float64 // running; lights (and people) at full work
	breathing         float64 // heat of fruit, and of goods that came in too warm
	damp              float64 // W that moisture out of the goods brings to the coil
	heater            float64 // of the defrost
	thawFirst         float64 // h of the day of the first defrost
	thawEvery         float64 // h; 0: the room is warm enough to do without
	thawAt, thawMost  float64 // the coil's degC that ends it, and the longest it takes
	rack              int
}

var roomPlans = [4]roomPlan{
	dock: {name: "dock", goal: 10, band: 1, wall: 700, door: 1300, perHour: 4, openFor: 420, air: 5e6, goods: 3e7, coil: 9e4, toGoods: 900,
		toCoil: 3200, toBoiling: 5000, most: 36e3, fans: 1400, lights: 4200, rack: 1},
	freezer1: {name: "freezer_1", goal: -20, band: 0.9, wall: 360, door: 1500, perHour: 8, openFor: 40, air: 7e6, goods: 8e8, coil: 1.5e5, toGoods: 3000,
		toCoil: 7500, toBoiling: 11000, most: 58e3, fans: 2600, lights: 1100, breathing: 900, damp: 150, heater: 18e3, thawFirst: 2, thawEvery: 6, thawAt: 10, thawMost: 2400, rack: 0},
	freezer2: {name: "freezer_2", goal: -20, band: 0.9, wall: 330, door: 1500, perHour: 6, openFor: 45, air: 6e6, goods: 7e8, coil: 1.4e5, toGoods: 2700,
		toCoil: 7000, toBoiling: 10500, most: 55e3, fans: 2400, lights: 1000, breathing: 800, damp: 150, heater: 17e3, thawFirst: 4.5, thawEvery: 6, thawAt: 10, thawMost: 2400, rack: 0},
	chiller: {name: "chiller_1", goal: 4, band: 0.8, wall: 300, door: 1200, perHour: 11, openFor: 35, air: 4e6, goods: 5.4e8, coil: 8e4, toGoods: 2500,
		toCoil: 3600, toBoiling: 5200, most: 30e3, fans: 1500, lights: 900, breathing: 4500, damp: 700, heater: 6e3, thawFirst: 0.5, thawEvery: 8, thawAt: 8, thawMost: 1800, rack: 1},
}

// The controllers' times, s.
const (
	leastOff   = 180.0 // between two coolings
	dripTime   = 300.0 // after a defrost nothing runs, so that the water can leave
	fanDelay   = 240.0 // at most; and until the coil is cold again
	probeTau   = 40.0  // of an air probe
	valveTau   = 8.0
	doorGrace  = 300.0  // the controllers' own door alarm
	alarmDelay = 2400.0 // of their temperature alarms
	haccpTau   = 900.0  // of the probe that stands for the goods
)

// Phases of a controller.
const (
	phaseIdle = iota
	phaseCooling
	phaseDefrost
	phaseDrip
	phaseFanDelay
)

// stateCodes are what the quantity <room>.state tells of the phases, by the codes
// that the AK-CC controllers show.
var stateCodes = [...]float64{phaseIdle: 11, phaseCooling: 0, phaseDefrost: 14, phaseDrip: 4, phaseFanDelay: 15}

// coldRoom is a room with its controller.
type coldRoom struct {
	roomPlan
	rng                     *rand.Rand
	probe, valve, fan, slow lag
	warm, cold              float64 // s outside the controller's own limits
	peak                    float64
	flutter                 *noise
	phase                   int
	inPhase, sinceOff       float64 // s
	doorLeft                float64 // s that the door stays open; below 0: none
	openFor                 float64 // s the door has been open
	clock                   bool    // thawed is known
	thawed                  int     // the last defrost of the day, as thaw counts
}

func newColdRoom(p roomPlan, rng *rand.Rand) *coldRoom {
	return &coldRoom{roomPlan: p, rng: rng, probe: lag{tau: probeTau, x: p.goal}, slow: lag{tau: haccpTau, x: p.goal}, peak: p.goal, valve: lag{tau: valveTau}, fan: lag{tau: 3, x: 1},
		flutter: newNoise(rng, 15, 0.04), sinceOff: leastOff}
}

// thaw is the number of the day's defrost that was due last, -1 before the
// first; always 0 in a room without.
func (r *coldRoom) thaw(hour float64) int {
	if r.thawEvery == 0 {
		return 0
	}
	return int(math.Floor((hour - r.thawFirst) / r.thawEvery))
}

// temps are a room's stored heat, before a step.
type temps struct{ air, goods, coil, frost float64 }

func (r *coldRoom) temps(g *group) temps {
	return temps{
		air:   g.add("air", "degC", r.goal+0.2, 0),
		goods: g.add("goods", "degC", r.goal, 0),
		coil:  g.add("coil", "degC", r.goal-2, 0),
		frost: g.add("frost", "kg", 2, 0),
	}
}

// control is the thermostat and the defrost clock: it reads the probe.
func (r *coldRoom) control(g *group, dt, hour, reading, coil float64) {
	r.inPhase += dt
	r.sinceOff += dt
	due := r.thaw(hour)
	if !r.clock || due < r.thawed { // at the start, and at midnight
		r.thawed, r.clock = due, true
	}
	next := r.phase
	switch r.phase {
	case phaseIdle:
		if reading > r.goal+r.band && r.sinceOff >= leastOff {
			next = phaseCooling
		}
	case phaseCooling:
		if reading < r.goal-r.band {
			next = phaseIdle
		}
	case phaseDefrost:
		if coil >= r.thawAt || r.inPhase >= r.thawMost {
			next = phaseDrip
		}
	case phaseDrip:
		if r.inPhase >= dripTime {
			next = phaseFanDelay
		}
	case phaseFanDelay:
		if coil < r.goal-4 || r.inPhase >= fanDelay {
			next = phaseCooling
		}
	}
	if due > r.thawed && (r.phase == phaseIdle || r.phase == phaseCooling) {
		next, r.thawed = phaseDefrost, due
	}
	if g.get("defrost_stuck") > 0 {
		next = phaseDefrost
	}
	if next != r.phase {
		if r.phase == phaseCooling {
			r.sinceOff = 0
		}
		r.phase, r.inPhase = next, 0
	}
}

// traffic opens and shuts the door; work is 0 to 1.
func (r *coldRoom) traffic(g *group, dt, work float64) (open float64) {
	if r.doorLeft > 0 {
		r.doorLeft -= dt
	} else if dt > 0 && r.rng.Float64() < r.perHour*work*dt/3600 {
		r.doorLeft = r.roomPlan.openFor * (0.4 + 1.2*r.rng.Float64())
	}
	if r.doorLeft > 0 {
		open = 1
	}
	open = g.put("door", "", open)
	r.openFor = count(r.openFor, dt, open > 0)
	return open
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// step advances the room: beside is the air its door opens to, boiling the
// temperature at which the refrigerant evaporates. It returns the heat that
// went through the door (which the dock loses) and the electric power.
func (r *coldRoom) step(q *quantities, dt, hour, work, outdoor, beside, boiling, drawn float64) (door, watts float64) {
	g := q.of(r.name)
	t := r.temps(g)
	reading := g.put("air_temp", "degC", r.probe.step(dt, t.air)+r.flutter.step(dt))
	g.put("defrost_stuck", "", 0) // for faults: a welded contactor
	r.control(g, dt, hour, reading, t.coil)
	open := r.traffic(g, dt, work)

	thawing := r.phase == phaseDefrost
	cooling := g.put("compressor", "", flag(r.phase == phaseCooling || r.phase == phaseFanDelay))
	defrost := g.put("defrost", "", flag(thawing))
	fan := g.put("fan", "", flag(r.phase == phaseIdle || r.phase == phaseCooling))
	valve := r.valve.step(dt, cooling)
	blown := 0.05 + 0.95*r.fan.step(dt, fan)

	wall := g.put("wall_heat", "W", r.wall*(outdoor-t.air))
	door = g.put("door_heat", "W", open*r.door*(beside-t.air))
	latent := g.put("frost_heat", "W", (latentPer*max(0, door)+r.damp)*flag(t.coil < 0))
	fans := g.put("fan_power", "W", r.fans*r.fan.x)
	lights := g.put("light_power", "W", r.lights*(0.05+0.95*work))
	g.put("light", "", flag(work > 0.02))
	g.put("light", "", flag(work > 0.02))
	heater := g.put("heater_power", "W", r.heater*defrost)
	frozen := 1 / (1 + t.frost/80) // frost insulates
	toGoods := r.toGoods * (t.air - t.goods)
	toCoil := r.toCoil * blown * frozen * (t.air - t.coil)
	cold := g.put("cooling_power", "W", valve*clamp(r.toBoiling*(t.coil-boiling), 0, r.most))

	// the coil stays at 0 degC while its frost melts
	toIce := heater + toCoil - cold
	melt := 0.0
	if t.coil >= 0 && t.frost > 0 && toIce > 0 {
		melt = min(toIce, t.frost*iceMelt/max(dt, Tick))
	}
	g.put("melt_heat", "W", melt)

	g.put("air", "degC", t.air+(wall+door-drawn+fans+lights+r.breathing*0.5-toGoods-toCoil)*dt/r.air)
	g.put("goods", "degC", t.goods+(toGoods+r.breathing*0.5)*dt/r.goods)
	g.put("coil", "degC", t.coil+(toIce+latent-melt)*dt/r.coil)
	g.put("frost", "kg", max(0, t.frost+(latent/iceFrost-melt/iceMelt)*dt))

	g.put("evaporator_temp", "degC", t.coil+r.flutter.x)
	g.put("air_out_temp", "degC", t.air-toCoil/(1.5*r.toCoil)+r.flutter.x)
	g.put("goods_temp", "degC", t.goods)
	g.put("setpoint", "degC", r.goal)
	g.put("state", "", stateCodes[r.phase])
	r.alarms(g, dt, reading)
	return door, fans + lights + heater
}

// alarms are the controller's own, and the words in which one shows them.
func (r *coldRoom) alarms(g *group, dt, reading float64) {
	r.warm = count(r.warm, dt, reading > r.goal+5)
	r.cold = count(r.cold, dt, reading < r.goal-4)
	high, low := flag(r.warm > alarmDelay), flag(r.cold > alarmDelay)
	door := flag(r.openFor > doorGrace && r.name != "dock")
	late := flag(r.phase == phaseDefrost && r.inPhase > r.thawMost+60)
	g.put("alarm_high_temp", "", high)
	g.put("alarm_low_temp", "", low)
	g.put("alarm_door", "", door)
	g.put("defrost_timeout", "", late)
	g.put("alarm", "", max(high, low, door, late))
	haccp := g.put("haccp_temp", "degC", r.slow.step(dt, reading))
	r.peak = max(r.peak, haccp)
	g.put("haccp_peak_temp", "degC", r.peak)
	g.put("alarm_bits", "", 32*high+64*low+128*door)
	g.put("timeout_bits", "", late)
}

// count is how long something has been so, s.
func count(was, dt float64, so bool) float64 {
	if so {
		return was + dt
	}
	return 0
}

// rack is a set of two compressors on one suction line: the first by an
// inverter, the second on or off.
type rack struct {
	name            string
	goal            float64 // degC: evaporating temperature to hold
	each            float64 // W of cooling of one compressor at the goal
	line            float64 // W/K that the suction line takes from the air around
	mass            float64 // J/K of what is in the suction line
	integral        float64
	second          bool
	first           bool
	idle, atEnd     float64 // s
	hours, hours2   float64
	suctionB, condB lag
}

func newRack(name string, goal, each float64, hours [2]float64) *rack {
	return &rack{name: name, goal: goal, each: each, line: 60, mass: 6e4, integral: 0.5, hours: hours[0], hours2: hours[1], idle: 120,
		suctionB: lag{tau: 4, x: goal}, condB: lag{tau: 60, x: 30}}
}

// boiling is the evaporating temperature of the rack, degC.
func (k *rack) boiling(q *quantities) float64 {
	return q.of(k.name).add("evaporating", "degC", k.goal, 0)
}

// step takes load (W of cooling) from the rooms and returns the electric power.
func (k *rack) step(q *quantities, dt, load, outdoor float64) (watts float64) {
	g := q.of(k.name)
	t := k.boiling(q)
	trip1, trip2 := g.put("trip_1", "", 0), g.put("trip_2", "", 0) // for faults
	over := t - k.goal
	k.idle += dt
	switch {
	case !k.first && over > 2 && k.idle >= 60:
		k.first, k.integral = true, 0.3
	case k.first && over < -5:
		k.first, k.second, k.idle = false, false, 0
	}
	speed := 0.0
	if k.first {
		k.integral = clamp(k.integral+0.004*over*dt, 0.25, 1)
		speed = clamp(k.integral+0.12*over, 0.25, 1)
		k.atEnd += dt
		switch {
		case !k.second && speed >= 0.99 && over > 1:
			if k.atEnd > 30 {
				k.second, k.integral, k.atEnd = true, 0.3, 0
			}
		case k.second && speed <= 0.3 && over < -1:
			if k.atEnd > 60 {
				k.second, k.integral, k.atEnd = false, 0.9, 0
			}
		default:
			k.atEnd = 0
		}
	}
	one := g.put("compressor_1", "", flag(k.first && trip1 == 0))
	two := g.put("compressor_2", "", flag((k.second || k.first && trip1 != 0) && trip2 == 0))
	speed = g.put("inverter_output", "%", 100*speed*one)
	gain := max(0.1, 1+0.035*over)
	cooling := g.put("cooling_power", "W", k.each*gain*(speed/100+two))
	lineHeat := g.put("line_heat", "W", k.line*(outdoor-t))
	g.put("evaporating", "degC", t+(load+lineHeat-cooling)*dt/k.mass)

	condensing := g.put("condensing", "degC", k.condB.step(dt, max(22, outdoor+6+9*cooling/(2*k.each))))
	carnot := (t + 273.15 - 3) / max(8, condensing+3-t)
	cop := g.put("cop", "", clamp(0.5*carnot, 0.6, 7))
	watts = g.put("power", "W", cooling/cop)
	g.put("heat_out", "W", cooling+watts)
	g.put("suction_pressure", "bar", saturated(t)-atmosphere)
	g.put("discharge_pressure", "bar", saturated(condensing)-atmosphere)
	g.put("suction_setpoint", "bar", saturated(k.goal)-atmosphere)
	fans := flag(cooling > 0)
	g.put("fan_1", "", fans)
	g.put("fan_2", "", fans*flag(condensing > 28))
	g.put("alarm_compressor_1", "", flag(trip1 != 0))
	g.put("alarm_compressor_2", "", flag(trip2 != 0))
	g.put("alarm_low_suction", "", flag(saturated(t) < saturated(k.goal-9)))
	g.put("alarm_high_suction", "", flag(saturated(t) > saturated(k.goal+12)))
	g.put("alarm_high_discharge", "", flag(condensing > 55))
	g.put("unit_status", "", flag(trip1 != 0 && trip2 != 0))
	g.add("compressor_1_hours", "h", k.hours, one*dt/3600)
	g.add("compressor_2_hours", "h", k.hours2, two*dt/3600)
	return watts
}

// saturated is the pressure (bar, absolute) of boiling R404A, within 3 % from
// -40 to 50 degC: the line through its two points at -30 and 40 degC in 1/T.
func saturated(degC float64) float64 { return math.Exp(10.510 - 2381/(degC+273.15)) }

func newColdChain(seed uint64) *coldChain {
	rng := newRand(seed, 6)
	c := &coldChain{
		weather: newNoise(rng, 1800, 0.7), airing: newNoise(rng, 200, 0.6), work: newNoise(rng, 1200, 0.08),
		grid:      newGrid(rng),
		racks:     [2]*rack{newRack("rack_lt", -31, 52e3, [2]float64{24310, 19870}), newRack("rack_mt", -7, 34e3, [2]float64{23120, 17440})},
		rackMeter: &meter{name: "rack_meter", pf: 0.87, share: [3]float64{0.335, 0.333, 0.332}, energy0: 214_300_000},
		siteMeter: &meter{name: "site_meter", pf: 0.9, share: [3]float64{0.339, 0.333, 0.328}, energy0: 402_700_000},
	}
	for i, p := range roomPlans {
		c.rooms[i] = newColdRoom(p, rng)
	}
	for _, i := range []int{freezer1, chiller} { // some rooms are cooling already, and their racks run
		c.rooms[i].phase, c.rooms[i].valve.x = phaseCooling, 1
	}
	for _, k := range c.racks {
		k.first = true
	}
	return c
}

// working is how busy the warehouse is, 0 to 1: it opens at six and shuts at
// eight in the evening, with the lorries of the morning and of the afternoon.
func working(hour float64) float64 {
	open := clamp(hour-6, 0, 1) * clamp(20-hour, 0, 1)
	return open * (0.55 + 0.25*math.Exp(-(hour-9)*(hour-9)/4) + 0.35*math.Exp(-(hour-15.5)*(hour-15.5)/5))
}

func (c *coldChain) step(q *quantities, dt, hour float64) {
	outdoor := q.put("outdoor_temp", "degC", 17+5*daily(hour, 14.5)+c.weather.step(dt))
	work := q.put("work", "", clamp(working(hour)*(1+c.work.step(dt)), 0, 1))
	var load [2]float64
	power, doors := 0.0, 0.0
	// the dock last: it loses what went into the rooms
	for i := len(c.rooms) - 1; i >= 0; i-- {
		r := c.rooms[i]
		beside, drawn := q.of("dock").add("air", "degC", roomPlans[dock].goal+0.2, 0), 0.0
		if i == dock {
			beside, drawn = outdoor, doors
		}
		door, watts := r.step(q, dt, hour, work, outdoor, beside, c.racks[r.rack].boiling(q), drawn)
		load[r.rack] += q.of(r.name).get("cooling_power")
		doors += door
		power += watts
	}
	compressors := 0.0
	for i, k := range c.racks {
		compressors += k.step(q, dt, load[i], outdoor)
	}
	compressors = q.put("compressor_power", "W", compressors)
	c.grid.step(q, dt)
	c.rackMeter.step(q, dt, compressors+900)
	c.dockAir(q, dt)
	c.lighting(q, dt)
	c.siteMeter.step(q, dt, q.of("rack_meter").get("p_total")+power+3200+4200*work)
}

// dockAir is the probe in the dock.
func (c *coldChain) dockAir(q *quantities, dt float64) {
	g := q.of("dock")
	t := g.put("temperature", "degC", g.get("air_temp"))
	rh := g.put("humidity", "%", clamp(72-1.5*(t-10)+c.airing.step(dt), 30, 98))
	x := math.Log(rh/100) + 17.62*t/(243.12+t)
	g.put("dew_point", "degC", 243.12*x/(17.62-x))
	g.put("absolute_humidity", "mg/L", 216.7*rh/100*6.112*math.Exp(17.62*t/(243.12+t))/(273.15+t))
}

// lighting is the dock's lighting and door heaters, on one phase with a meter of its own.
func (c *coldChain) lighting(q *quantities, dt float64) {
	g := q.of("dock_meter")
	u := g.put("u_l1", "V", q.of("grid").get("u_l1"))
	p := g.put("p_total", "W", 0.4*(q.of("dock").get("light_power"))+650)
	i := 0.0
	if u > 1 {
		i = p / (u * 0.95)
	}
	g.put("i_l1", "A", i)
	g.put("pf_total", "", 0.95)
	g.put("frequency", "Hz", q.of("grid").get("frequency"))
	g.energy("energy_import", "Wh", 31_420_000, p, dt)
}
