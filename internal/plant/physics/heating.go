package physics

import "math/rand/v2"

// heating is a district heating plant in winter: the outdoor temperature, of
// the hour and of the fronts that pass, sets the demand and, by a heating curve,
// the supply temperature; the consumers' valves set the flow; a circulation pump
// keeps the pressure; a pressurisation tank loses what the network leaks and is
// filled between two levels. Without its boilers (quantity boilers, 1 or 0) the
// supply cools down to the return while the consumers open their valves.
type heating struct {
	rng                             *rand.Rand
	weather, valves, boiler, consum *noise
	supply, ret, flow               lag
	pump, makeup                    *pump
	grid                            *grid
	meter                           *meter
	air, front                      *noise
	filling                         bool
	warm                            bool // lags are settled
}

func newHeating(seed uint64) *heating {
	rng := newRand(seed, 1)
	return &heating{
		rng:     rng,
		weather: newNoise(rng, 1800, 0.8),
		valves:  newNoise(rng, 25, 0.02),
		boiler:  newNoise(rng, 40, 0.35),
		consum:  newNoise(rng, 90, 0.25),
		air:     newNoise(rng, 300, 0.4),
		supply:  lag{tau: 240}, ret: lag{tau: 180}, flow: lag{tau: 20},
		pump:   newPump("supply_pump", 3.2, 0.004, 2900, 18250, 41_300_000, 212),
		makeup: newPump("makeup_pump", 4.5, 0.5, 2900, 3120, 1_210_000, 9034),
		grid:   newGrid(rng),
		meter:  &meter{name: "plant_meter", pf: 0.92, share: [3]float64{0.34, 0.335, 0.325}, energy0: 912_400_000},
		front:  newNoise(rng, 36_000, 1.5),
	}
}

const (
	makeupArea  = 1.2       // m2 of the make-up tank
	makeupLow   = 1.3       // m: the fill valve opens
	makeupHigh  = 2.1       // m: it closes
	makeupFill  = 1.2       // L/s through the valve
	makeupLoss  = 0.4 / 3.6 // L/s that a sound network loses: 2 % of what circulates
	heatLossUA  = 42_000.0
	indoorGoal  = 20.0
	nominalFlow = 10.0 // L/s
	mostFlow    = 13.5 // L/s: all valves open, the pump at full speed
)

func (h *heating) step(q *quantities, dt, hour float64) {
	outdoor := q.put("outdoor_temp", "degC", -6+4*daily(hour, 15)+h.front.step(dt)+h.weather.step(dt))
	demand := q.put("heat_demand", "W", heatLossUA*max(0, indoorGoal-outdoor)*(1+0.08*daily(hour, 7)+h.valves.step(dt)))
	goal := q.put("supply_goal", "degC", clamp(48+1.35*(indoorGoal-outdoor), 60, 95))
	cooled := func(supply float64) float64 { return 38 + 0.12*(supply-60) } // by the consumers
	if !h.warm {
		h.supply.x, h.ret.x = goal, cooled(goal)
		h.flow.x = demand / (waterHeat * (goal - h.ret.x))
		h.warm = true
	}
	if q.put("boilers", "", 1) == 0 {
		goal = min(goal, h.ret.x)
	}
	supply := q.put("supply_temp", "degC", h.supply.step(dt, goal)+h.boiler.step(dt))
	ret := q.put("return_temp", "degC", min(h.ret.step(dt, cooled(h.supply.x))+h.consum.step(dt), supply))
	flow := q.put("network_flow", "L/s", h.flow.step(dt, clamp(demand/(waterHeat*max(8, supply-ret)), 1.5, mostFlow)))
	heat := q.put("heat_power", "W", heatMeter(q, "heat_meter", dt, flow, supply, ret, 6_812_000_000))
	q.of("heat_meter").put("t3", "degC", q.put("boiler_temp", "degC", supply+1.8))
	head := q.put("network_head", "bar", 1.1+0.75*(flow/nominalFlow)*(flow/nominalFlow))
	h.pump.step(q, dt, flow, head, ret)
	q.of("supply_pump").energy("heat_energy", "Wh", 6_812_000_000, heat, dt)
	q.of("supply_pump").put("heat_power", "W", heat)
	q.of("supply_pump").put("heat_dt", "K", supply-ret)

	h.tank(q, dt)
	q.of("room").put("temperature", "degC", 27.5+h.air.step(dt))
	q.of("room").put("humidity", "%", 31-1.5*h.air.x)
	h.grid.step(q, dt)
	h.meter.step(q, dt, 6200+q.of("supply_pump").get("power")+q.of("makeup_pump").get("power")+0.0022*heat)
}

// tank moves water from the town main into the make-up tank and from there
// into the network: its level is the integral of the two flows.
func (h *heating) tank(q *quantities, dt float64) {
	level := q.add("makeup_level", "m", 1.72, 0)
	if level < makeupLow {
		h.filling = true
	} else if level > makeupHigh {
		h.filling = false
	}
	fill := 0.0
	if h.filling {
		fill = makeupFill
	}
	fill = q.put("makeup_fill", "L/s", fill)
	leak := q.put("makeup_flow", "L/s", makeupLoss*(1+0.05*h.valves.x/h.valves.sigma))
	if level < 0.02 {
		leak = q.put("makeup_flow", "L/s", 0) // the pump draws air and stops
	}
	h.makeup.step(q, dt, leak, 2.6, 12)
	q.add("makeup_level", "m", 1.72, (fill-leak)*dt/1000/makeupArea)
}
