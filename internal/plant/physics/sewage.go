package physics

import "math"

// sewage is the inlet and aeration of a sewage works: the inflow follows the
// hour of the day, with a peak in the morning and one in the evening, and the
// showers, a wet well collects it, two pumps in turn lift it between a
// start and a stop level, a blower keeps the oxygen in the aeration tank.
type sewage struct {
	rain, ripple, load *noise
	clouds             *noise
	pumps              [2]*pump
	ramp               [2]lag
	want               [2]bool
	lead               int
	blower             *meter
	works              *meter
	grid               *grid
	air                *noise
	acid               *noise
	turn               *noise
	integral           float64
	speed              lag
}

const (
	wellArea   = 4.0  // m2
	wellStop   = 1.2  // m: pumps stop
	wellStart  = 2.0  // m: the lead pump starts
	wellAssist = 2.5  // m: the second pump starts as well
	wellWeir   = 3.6  // m: above it the well spills into the storm basin
	pumpRated  = 52.0 // L/s of one inlet pump
	doGoal     = 2.0  // mg/L
	doFull     = 9.7  // mg/L: saturation at the tank's temperature
)

func newSewage(seed uint64) *sewage {
	rng := newRand(seed, 2)
	return &sewage{
		rain:   newNoise(rng, 900, 3),
		ripple: newNoise(rng, 15, 1.2),
		load:   newNoise(rng, 600, 0.06),
		air:    newNoise(rng, 300, 0.3),
		acid:   newNoise(rng, 400, 0.05),
		turn:   newNoise(rng, 60, 1.5),
		pumps: [2]*pump{
			newPump("inlet_pump_1", 1.9, 0.00022, 1470, 22840, 88_100_000, 40112),
			newPump("inlet_pump_2", 1.9, 0.00022, 1470, 22310, 86_400_000, 39871),
		},
		ramp:   [2]lag{{tau: 2}, {tau: 2}},
		blower: &meter{name: "blower_meter", pf: 0.9, share: [3]float64{0.334, 0.333, 0.333}, energy0: 1_420_300_000},
		works:  &meter{name: "works_meter", pf: 0.91, share: [3]float64{0.345, 0.33, 0.325}, energy0: 3_815_000_000},
		grid:   newGrid(rng),
		speed:  lag{tau: 8, x: 0.7}, integral: 0.7,
		clouds: newNoise(rng, 7200, 1),
	}
}

func (s *sewage) step(q *quantities, dt, hour float64) {
	day := 1 + 0.22*daily(hour, 14) + 0.2*math.Cos(2*math.Pi*(hour-20.5)/12)
	rain := q.put("rain", "L/s", 8*max(0, s.clouds.step(dt)-1))
	inflow := q.put("inflow", "L/s", max(4, 32*day+rain+s.rain.step(dt)+s.ripple.step(dt)))
	lifted := s.well(q, dt, inflow)
	s.aeration(q, dt, day)
	q.of("blower_room").put("temperature", "degC", 24+5*s.speed.x+s.air.step(dt))
	q.of("blower_room").put("humidity", "%", 52-2*s.air.x)
	s.grid.step(q, dt)
	blower := q.put("blower_power", "W", 37_000*math.Pow(q.get("blower_speed"), 3)+350)
	s.blower.step(q, dt, blower)
	s.works.step(q, dt, 11_500+blower+q.of("inlet_pump_1").get("power")+q.of("inlet_pump_2").get("power"))
	q.add("lifted_volume", "m3", 0, lifted*dt/1000)
}

// well is the wet well: what comes in, less what the pumps lift and the weir
// spills, is its level.
func (s *sewage) well(q *quantities, dt, inflow float64) (lifted float64) {
	level := q.add("well_level", "m", 1.6, 0)
	switch {
	case level <= wellStop:
		if s.want[s.lead] {
			s.lead = 1 - s.lead // next time the other one: equal hours
		}
		s.want = [2]bool{}
	case level >= wellAssist:
		s.want = [2]bool{true, true}
	case level >= wellStart:
		s.want[s.lead] = true
	}
	for i, p := range s.pumps {
		goal := 0.0
		if s.want[i] {
			goal = 1
		}
		goal = q.of(p.name).put("run", "", goal)
		s.ramp[i].step(dt, goal)
		flow, head := 0.0, 0.0
		if s.ramp[i].x > 0.05 {
			flow = pumpRated*s.ramp[i].x + 0.2*s.ripple.x
			head = 0.62 + 0.18*s.ramp[i].x*s.ramp[i].x + 0.0981*(wellWeir-level)
		}
		flow = q.of(p.name).put("lift", "L/s", max(0, flow))
		p.step(q, dt, flow, head, 14.5)
		lifted += flow
	}
	spill := q.put("spill", "L/s", 120*max(0, level-wellWeir))
	q.add("well_level", "m", 1.6, (inflow-lifted-spill)*dt/1000/wellArea)
	return lifted
}

// aeration: oxygen goes in with the blower's air and is used up by the load; a
// controller moves the blower's speed to hold the goal.
func (s *sewage) aeration(q *quantities, dt, day float64) {
	do := q.add("do", "mg/L", doGoal, 0)
	s.integral = clamp(s.integral+0.0006*(doGoal-do)*dt, 0.2, 1)
	speed := q.put("blower_speed", "", s.speed.step(dt, clamp(s.integral+0.12*(doGoal-do), 0.2, 1)))
	uptake := q.put("oxygen_uptake", "mg/L/s", 0.021*(0.7+0.3*day)*(1+s.load.step(dt)))
	do = q.add("do", "mg/L", doGoal, (0.004*speed*(doFull-do)-uptake*do/(do+0.2))*dt)
	temp := q.put("tank_temp", "degC", 16.2+0.4*s.load.x)
	ph := q.put("ph", "pH", 7.12+s.acid.step(dt))
	ntu := q.put("turbidity", "NTU", max(0.5, 14+4*(day-1)+s.turn.step(dt)))
	q.put("effluent_level", "m", 0.42+0.05*day)
	// the probes' equivalent loop currents: 4 to 20 mA over their ranges
	q.put("do_current", "mA", 4+16*clamp(do/20, 0, 1))
	q.put("ph_current", "mA", 4+16*clamp(ph/14, 0, 1))
	q.put("turbidity_current", "mA", 4+16*clamp(ntu/100, 0, 1))
	q.put("ph_temp", "degC", temp+0.1)
	q.put("turbidity_temp", "degC", temp-0.3)
}
