package physics

import (
	"math"
	"math/rand/v2"
)

// computing is a hall of an AI computing centre: jobs come and go on two rows
// of racks, a liquid loop takes most of their heat away, the air the rest; both
// give it to the chilled water, which warms up when its chiller (quantity
// chiller, 1 or 0) trips. A UPS carries the control and network gear.
type computing struct {
	rng       *rand.Rand
	rows      [2]*row
	loop      lag
	pump      *pump
	grid      *grid
	coolant   *noise
	aisles    [2]*noise
	air       [2]lag
	mains     *noise
	ups       [2]*ups
	settled   bool
	pumpNoise *noise
}

// row is one row of racks: its load goes from job to job.
type row struct {
	meter *meter
	job   float64 // share of full load that the present job wants
	left  float64 // seconds it goes on
	load  lag
	work  *noise
}

const (
	rowFull  = 120_000.0 // W of one row at full load
	toLiquid = 0.82      // share of the racks' heat that the loop carries
	loopFlow = 5.5       // L/s at full load, which warms by 9 K

	reservoirArea = 0.5  // m2
	rackPF        = 0.97 // of the racks' power supplies

	chilledGoal  = 14.0   // degC
	chilledTau   = 200.0  // s
	chilledWater = 4000.0 // kg in the loop and its buffer
)

func newComputing(seed uint64) *computing {
	rng := newRand(seed, 3)
	newRow := func(name string, wh float64) *row {
		return &row{meter: &meter{name: name, pf: 0.97, share: [3]float64{0.336, 0.334, 0.33}, energy0: wh},
			job: 0.7, load: lag{tau: 6, x: 0.7}, work: newNoise(rng, 10, 0.015)}
	}
	return &computing{
		rng:  rng,
		rows: [2]*row{newRow("row_a", 2_204_000_000), newRow("row_b", 1_998_500_000)},
		loop: lag{tau: 45},
		pump: newPump("cdu_pump", 3.4, 0.006, 2900, 9120, 11_900_000, 64),
		grid: newGrid(rng), coolant: newNoise(rng, 60, 0.15), pumpNoise: newNoise(rng, 20, 0.03),
		aisles: [2]*noise{newNoise(rng, 120, 0.25), newNoise(rng, 120, 0.3)},
		mains:  newNoise(rng, 30, 1.5),
		ups:    [2]*ups{newUPS(rng, "ups_1", 0.62, 1_204_000), newUPS(rng, "ups_2", 0.55, 1_118_000)},
	}
}

func (c *computing) step(q *quantities, dt, hour float64) {
	c.grid.step(q, dt)
	total := 0.0
	for _, r := range c.rows {
		if r.left -= dt; r.left <= 0 && dt > 0 {
			r.left = 20 + 100*c.rng.Float64()
			r.job = clamp(0.62+0.1*daily(hour, 16)+0.28*(2*c.rng.Float64()-1), 0.2, 0.98)
		}
		share := clamp(r.load.step(dt, r.job)+r.work.step(dt), 0.12, 1)
		watts := q.of(r.meter.name).put("load", "W", rowFull*share)
		r.meter.step(q, dt, watts)
		total += watts
	}
	total = q.put("it_load", "W", total)
	liquid := total * toLiquid
	if !c.settled {
		c.loop.x, c.settled = liquid, true
	}
	heat := c.loop.step(dt, liquid)
	flow := q.put("coolant_flow", "L/s", clamp(loopFlow*(0.55+0.45*total/(2*rowFull))+c.pumpNoise.step(dt), 1, 12))
	chilled := q.add("chilled_water", "degC", chilledGoal, 0)
	warming := total / (chilledWater * waterHeat)
	if q.put("chiller", "", 1) != 0 {
		warming = (chilledGoal - chilled) / chilledTau
	}
	chilled = q.add("chilled_water", "degC", chilledGoal, warming*dt)
	cold := q.put("coolant_supply", "degC", max(24, chilled+4)+c.coolant.step(dt)) // a valve holds 24 while it can
	warm := q.put("coolant_return", "degC", cold+heat/(flow*waterHeat))
	heat = q.put("coolant_heat", "W", heatMeter(q, "loop_meter", dt, flow, warm, cold, 1_630_000_000))
	c.pump.step(q, dt, flow, 1.2+0.8*(flow/loopFlow)*(flow/loopFlow), warm)
	q.of("cdu_pump").energy("heat_energy", "Wh", 1_630_000_000, heat, dt)
	q.of("cdu_pump").put("heat_power", "W", heat)
	q.of("cdu_pump").put("heat_dt", "K", warm-cold)
	for i, a := range c.aisles {
		name := [2]string{"aisle_a", "aisle_b"}[i]
		goal := chilled + 7.5 + 3.2*total/(2*rowFull) + 0.1*max(0, warm-34) // racks that the coolant leaves hot warm the air
		if c.air[i].tau == 0 {
			c.air[i] = lag{tau: 120, x: goal}
		}
		t := q.of(name).put("temperature", "degC", c.air[i].step(dt, goal)+a.step(dt))
		q.of(name).put("humidity", "%", clamp(48-1.8*(t-23)+0.5*a.x, 20, 80))
	}
	c.rackPDU(q)
	// the loop's reservoir loses a little by evaporation and is topped up by hand
	leak := q.put("leak", "L/s", 0)
	q.add("reservoir_level", "m", 0.84, -2e-8*dt-min(leak/1000*dt/reservoirArea, q.get("reservoir_level")))
	leakDetector(q, leak)
	mains := q.put("mains", "V", 230+c.mains.step(dt))
	for _, u := range c.ups {
		u.step(q, dt, mains)
	}
}

// rackPDU is one of the two feeds of one of the eight racks of row A.
func (c *computing) rackPDU(q *quantities) {
	g, grid := q.of("rack_pdu_a"), q.of("grid")
	volts := g.put("inlet_voltage", "V", grid.get("u_l1"))
	watts := g.put("inlet_power", "W", q.of("row_a").get("p_total")/16)
	g.put("inlet_pf", "", rackPF)
	va := g.put("inlet_va", "VA", watts/rackPF)
	g.put("inlet_var", "var", math.Sqrt(max(0, va*va-watts*watts)))
	amps := 0.0
	if volts > 1 {
		amps = va / volts
	}
	amps = g.put("inlet_current", "A", amps)
	g.put("inlet_frequency", "Hz", grid.get("frequency"))
	g.put("ocp_current", "A", amps/2) // two branches share it
}

// leakDetector is the sensing cable under the coolant pipes: liquid between its
// wires lets a current through, from which the detector reckons where it is.
func leakDetector(q *quantities, leak float64) {
	g := q.of("leak_detector")
	wet := clamp(leak/0.01, 0, 1)
	g.put("device_status", "", flag(leak > 0.002))
	g.put("leak_current", "mA", 0.008+0.19*wet)
	g.put("leak_distance", "m", 17*flag(leak > 0.002))
	g.put("cable_length", "m", 46)
}

// ups puts the quantities of one uninterruptible power supply, <name>.<quantity>.
type ups struct {
	name    string
	base    float64 // share of its rating that the load wants
	energy0 float64 // Wh given so far at the start
	busy    *noise
	warm    lag
}

const (
	upsRated    = 8000.0 // W
	upsRatedVA  = 10_000.0
	upsBattery  = 2600.0 // Wh
	upsCharging = 700.0  // W while charging
	upsLowest   = 170.0  // V: below it the input is not accepted
)

func newUPS(rng *rand.Rand, name string, base, wh float64) *ups {
	return &ups{name: name, base: base, energy0: wh, busy: newNoise(rng, 25, 0.012), warm: lag{tau: 600, x: 26}}
}

func (u *ups) step(q *quantities, dt, mains float64) {
	g := q.of(u.name)
	in := g.put("input_voltage", "V", mains)
	share := clamp(u.base+u.busy.step(dt), 0.05, 1)
	charge := g.add("charge", "%", 100, 0)
	onBattery := in < upsLowest
	if charge <= 0 && onBattery {
		share = 0 // the battery is empty: the load is down
	}
	load := g.put("load", "%", 100*share)
	watts := g.put("output_power", "W", upsRated*load/100)
	status, cause := 1<<1, 0.0
	switch {
	case onBattery:
		status, cause = 1<<2|1<<6, 2
		charge = g.add("charge", "%", 100, -min(charge, watts/0.94*dt/3600/upsBattery*100))
		g.put("battery_voltage", "V", 192*(0.90+0.08*charge/100))
	default:
		charge = g.add("charge", "%", 100, min(100-charge, upsCharging*dt/3600/upsBattery*100))
		g.put("battery_voltage", "V", 218-6*(1-charge/100))
	}
	if watts == 0 {
		status |= 1 << 4
	}
	g.put("device_status", "", float64(status))
	g.put("transfer_cause", "", cause)
	runtime := 0.0
	if watts > 0 {
		runtime = charge / 100 * upsBattery * 0.94 / watts * 3600
	}
	low := 0.0
	if onBattery && runtime < 120 {
		low = 1 << 1
	}
	g.put("shutdown_signal", "", low)
	g.put("power_system_error", "", 0)
	g.put("battery_error", "", 0)
	g.put("input_status", "", 0)
	g.put("runtime", "s", runtime)
	g.put("battery_temp", "degC", u.warm.step(dt, 25+3*share))
	out := 0.0
	if watts > 0 {
		out = 230
	}
	g.put("output_voltage", "V", out)
	g.put("output_current", "A", watts/(230*0.95))
	g.put("output_frequency", "Hz", out/230*q.of("grid").get("frequency"))
	g.put("efficiency", "%", 94.5-2*(1-share))
	g.put("rated_va", "VA", upsRatedVA)
	g.put("rated_w", "W", upsRated)
	g.energy("output_energy", "Wh", u.energy0, watts, dt)
}
