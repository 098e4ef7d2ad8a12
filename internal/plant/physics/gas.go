package physics

import "math"

// gasStorage is a station that stores natural gas in three spheres, in winter:
// gas comes in from the long-distance line at the pace that was agreed for the
// day, the town takes what it needs by the hour, and the spheres take up the
// difference. What goes out is warmed, brought down to the pressure of the
// town's network, which cools it, and odorised. Gas detectors watch three places.
//
// The gas in a sphere is counted in base cubic metres (20 degC, 1.01325 bar, as
// gas is sold in China), Nm3 in what follows; its pressure follows from p V = Z
// n R T with Z falling by 0.2 % a bar.
type gasStorage struct {
	due                   float64 // seconds gathered for the next whole step
	weather, taste, offer *noise
	gate, town            *noise
	vessels               [3]*vessel
	heater, exit          lag
	zones                 [3]*zone
	grid                  *grid
	meter                 *meter
	rooms                 [2]*noise
	damp                  *noise
	spilt                 float64 // ppm of odorant in its room
	settled               bool
}

const (
	zeroC      = 273.15
	baseBar    = 1.01325
	baseK      = zeroC + 20
	gasGamma   = 1.3
	gasHeat    = 2200.0 // J per kg and K
	gasDensity = 0.70   // kg/Nm3
	gasValue   = 35.9   // MJ/Nm3
	gasLEL     = 5.0    // % by volume of methane
	jouleThom  = 0.42   // K of cooling for each bar of pressure lost

	gateBar   = 16.5   // absolute, in the long-distance line
	gateValve = 700.0  // Nm3/h for each bar of sqrt(p1^2 - p2^2)
	sharing   = 6000.0 // Nm3/h between two spheres for each bar between them
	townBar   = 4.05   // absolute, behind the regulator
	agreed    = 2700.0 // Nm3/h that come in over the day
	inventory = 36_000.0
	heaterTop = 45_000.0 // W of the electric heater before the regulator
	heaterTo  = 8.0      // degC it keeps behind the regulator
)

func newGasStorage(seed uint64) *gasStorage {
	rng := newRand(seed, 5)
	v := func(name string, n, t float64) *vessel { return &vessel{name: name, n0: n, t0: t, volume: 1000} }
	z := func(name string, volume, ppm float64) *zone {
		return &zone{name: name, volume: volume, drift: newNoise(rng, 120, 0.25), base: ppm, warm: newNoise(rng, 300, 0.4)}
	}
	return &gasStorage{
		weather: newNoise(rng, 1800, 0.8), taste: newNoise(rng, 90, 0.02), offer: newNoise(rng, 200, 12),
		gate: newNoise(rng, 120, 0.04), town: newNoise(rng, 30, 0.008),
		vessels: [3]*vessel{v("vessel_a", 12_040, -2.6), v("vessel_b", 11_980, -2.9), v("vessel_c", 12_010, -3.1)},
		heater:  lag{tau: 90}, exit: lag{tau: 60, x: heaterTo},
		zones: [3]*zone{z("gas_detector_1", 60, 1.1), z("gas_detector_2", 30, 1.4), z("gas_detector_3", 40, 0.9)},
		grid:  newGrid(rng),
		meter: &meter{name: "station_meter", pf: 0.93, share: [3]float64{0.336, 0.33, 0.334}, energy0: 402_700_000},
		rooms: [2]*noise{newNoise(rng, 300, 0.4), newNoise(rng, 300, 0.3)}, damp: newNoise(rng, 900, 1.5),
	}
}

// townTake is what the town takes, as a share of the day's mean: cooking and
// heating in the morning, at noon and in the evening.
func townTake(hour float64) float64 {
	return 0.58 + 0.75*bump(hour, 7.2, 1.6) + 0.55*bump(hour, 12, 1.5) + 1.05*bump(hour, 18.8, 2.3)
}

func (s *gasStorage) step(q *quantities, dt, hour float64) {
	if s.due += dt; dt > 0 {
		if s.due < slowStep-1e-6 {
			return
		}
		dt, s.due = s.due, 0
	}
	outdoor := q.put("outdoor_temp", "degC", -6+4*daily(hour, 15)+s.weather.step(dt))
	for _, v := range s.vessels {
		v.put(q)
	}
	header := s.header()
	in := s.inlet(q, dt, header)
	out := s.outlet(q, dt, hour, outdoor, header)
	leak := 0.0
	for _, z := range s.zones {
		leak += z.step(q, dt, outdoor)
	}
	if q.of("header").put("pressure", "bar", header) <= baseBar {
		leak = 0
	}
	s.move(q, dt, in, out+leak, outdoor)
	stored := 0.0
	for _, v := range s.vessels {
		stored += v.n
	}
	q.put("inventory", "Nm3", stored)

	// what the outlet needs of odorant: 20 mg for each Nm3, of 0.85 kg/L, from a tank of 0.12 m2
	q.add("odorant_level", "m", 0.62, -out*dt/3600*20e-6/0.85/1000/0.12)
	q.of("control_room").put("temperature", "degC", 21+0.05*outdoor+s.rooms[0].step(dt))
	q.of("control_room").put("humidity", "%", clamp(36-1.2*s.rooms[0].x+s.damp.step(dt)/2, 10, 90))
	q.of("regulator_house").put("temperature", "degC", outdoor+11+s.rooms[1].step(dt))
	q.of("regulator_house").put("humidity", "%", clamp(46-1.2*s.rooms[1].x+s.damp.x, 10, 90))
	s.odorantRoom(q, dt, outdoor)
	s.grid.step(q, dt)
	fans := q.of("gas_detector_1").get("fan") + q.of("gas_detector_2").get("fan") + q.of("gas_detector_3").get("fan")
	s.meter.step(q, dt, 5200+1100*fans+q.of("heater").get("power")/0.98)
	s.contacts(q)
	s.settled = true
}

// header returns the pressure (bar absolute) where the open spheres meet, or
// 0 when none is open.
func (s *gasStorage) header() float64 {
	var p, volume float64
	for _, v := range s.vessels {
		if v.open {
			p += v.bar * v.volume
			volume += v.volume
		}
	}
	if volume == 0 {
		return 0
	}
	return p / volume
}

// inlet puts what the inlet's flow computer measures and returns the flow
// (Nm3/h): as agreed, corrected over hours by what is stored, and no more than
// the pressure before the valve can push in.
func (s *gasStorage) inlet(q *quantities, dt, header float64) float64 {
	stored := 0.0
	for _, v := range s.vessels {
		stored += v.n
	}
	bar := q.put("gate_pressure", "bar", gateBar+s.gate.step(dt))
	want := q.put("nomination", "Nm3/h", max(0, agreed+(inventory-stored)/24+s.offer.step(dt)))
	most := 0.0
	if header > 0 {
		most = gateValve * math.Sqrt(max(0, bar*bar-header*header))
	}
	open := q.of("esd").put("inlet_open", "", 1)
	flow := 0.0
	if open > 0.5 {
		flow = min(want, most)
	}
	return gasMeter(q.of("inlet_flow"), dt, flow, bar, 6+0.4*s.gate.x/0.04*0.2, 0.0177, 91_204_600, 5_902_100)
}

// outlet puts heater, regulator and outlet flow computer and returns the flow
// (Nm3/h) into the town's network.
func (s *gasStorage) outlet(q *quantities, dt, hour, outdoor, header float64) float64 {
	cold := 1 + 0.012*(-6-outdoor)
	want := q.put("town_demand", "Nm3/h", agreed*townTake(hour)*cold*(1+s.taste.step(dt)))
	open := q.of("esd").put("outlet_open", "", 1)
	flow := 0.0
	if open > 0.5 && header > townBar+0.5 {
		flow = want
	}
	// the gas from the spheres, as warm as they are
	gas, n := 0.0, 0
	for _, v := range s.vessels {
		if v.open {
			gas += v.t
			n++
		}
	}
	if n > 0 {
		gas /= float64(n)
	}
	bar := q.of("regulator").put("outlet_pressure", "bar", townBar-0.12*flow/4000+s.town.step(dt))
	drop := jouleThom * max(0, header-bar)
	carries := flow / 3600 * gasDensity * gasHeat // W/K
	run := q.of("heater").put("run", "", 1)
	goal := clamp((heaterTo-gas+drop)*carries, 0, heaterTop)
	if run < 0.5 {
		goal = 0
	}
	if !s.settled {
		s.heater.x = goal
	}
	watts := q.of("heater").put("power", "W", s.heater.step(dt, goal))
	q.of("heater").energy("energy", "Wh", 0, watts, dt)
	target := outdoor + 11 // no flow: as warm as the house
	if carries > 20 {
		target = clamp(gas+watts/carries-drop, -45, 60)
	}
	behind := q.of("regulator").put("outlet_temp", "degC", s.exit.step(dt, target))
	return gasMeter(q.of("outlet_flow"), dt, flow, bar, behind, 0.0314, 61_317_200, 15_704_300)
}

// move moves gas into and out of the open spheres, and between them until
// their pressures are alike, and balances their heat.
func (s *gasStorage) move(q *quantities, dt, in, out, outdoor float64) {
	header := s.header()
	volume := 0.0
	for _, v := range s.vessels {
		if v.open {
			volume += v.volume
		}
	}
	for _, v := range s.vessels {
		into, from := 0.0, 0.0
		if v.open && volume > 0 {
			share := v.volume / volume
			into, from = in*share, out*share
			if even := sharing * (header - v.bar); even > 0 {
				into += even
			} else {
				from -= even
			}
		}
		v.move(dt, into, from, outdoor)
	}
}

// odorantRoom puts the toxic gas detector beside the odorant's tank: what is
// spilt (g/h) evaporates into the room's air.
func (s *gasStorage) odorantRoom(q *quantities, dt, outdoor float64) {
	const (
		room   = 25.0         // m3
		change = 180.0        // s
		perMg  = 24.45 / 88.2 // ppm for each mg/m3 of tetrahydrothiophene
	)
	g := q.of("odorant_room")
	spill := g.put("spill", "", 0)
	s.spilt += (spill*1000/3600/room*perMg - s.spilt/change) * dt
	g.put("gas_ppm", "ppm", max(0, s.spilt+0.2+0.3*s.zones[2].drift.x))
	g.put("temperature", "degC", outdoor+14)
	g.add("heartbeat", "", 0, dt)
}

// contacts puts what the I/O module of the emergency shut-down sees.
func (s *gasStorage) contacts(q *quantities) {
	io, esd := q.of("esd_io"), q.of("esd")
	io.put("di_1", "", esd.get("inlet_open"))
	io.put("di_2", "", esd.get("outlet_open"))
	for i, v := range s.vessels {
		io.put([3]string{"di_3", "di_4", "di_5"}[i], "", q.of(v.name).get("open"))
	}
	io.put("di_6", "", q.of("heater").get("run"))
	fan := 0.0
	for _, z := range s.zones {
		fan = max(fan, q.of(z.name).get("fan"))
	}
	io.put("di_7", "", fan)
	tripped := 0.0
	if esd.get("inlet_open") < 0.5 || esd.get("outlet_open") < 0.5 {
		tripped = 1
	}
	io.put("di_8", "", tripped)
}

// compressibility is Z of the gas at a pressure (bar absolute).
func compressibility(bar float64) float64 { return 1 - 0.002*bar }

// gasMeter puts what a flow computer shows of flow (Nm3/h) at a pressure (bar
// absolute) and a temperature in a pipe of an area (m2), and returns the flow.
func gasMeter(g *group, dt, flow, bar, temp, area, base0, actual0 float64) float64 {
	flow = g.put("flow_base", "Nm3/h", flow)
	bar = g.put("pressure", "bar", bar)
	temp = g.put("temperature", "degC", temp)
	z := g.put("compressibility", "", compressibility(bar))
	zb := g.put("compressibility_base", "", compressibility(baseBar))
	g.put("compressibility_ratio", "", z/zb)
	factor := g.put("conversion_factor", "", bar/baseBar*baseK/(zeroC+temp)*zb/z)
	actual := flow / factor // m3/h
	g.put("flow", "L/s", actual/3.6)
	g.put("velocity", "m/s", actual/3600/area)
	g.put("sound_speed", "m/s", 405*math.Sqrt((zeroC+temp)/zeroC)*(1-0.0008*bar))
	g.put("heat_value", "MJ/Nm3", gasValue)
	g.put("power", "W", flow*gasValue/3600*1e6)
	g.energy("energy", "Wh", base0*gasValue/3.6*1e3, flow*gasValue/3600*1e6, dt)
	g.put("volume_base_total", "Nm3", g.add("volume_base", "Nm3", base0, flow*dt/3600))
	g.add("volume", "m3", actual0, actual*dt/3600)
	return flow
}

// vessel is one sphere. Its gas and its temperature are what it keeps.
type vessel struct {
	name   string
	volume float64 // m3
	n0, t0 float64 // Nm3 and degC at the start
	n, t   float64
	bar    float64 // absolute
	open   bool
	begun  bool
}

// put puts what the sphere holds and what that makes its pressure. A pressure
// that is held is what the transmitter says, not what the gas does.
func (v *vessel) put(q *quantities) {
	if !v.begun {
		v.n, v.t, v.begun = v.n0, v.t0, true
	}
	g := q.of(v.name)
	v.n = g.put("content", "Nm3", v.n)
	v.t = g.put("temperature", "degC", v.t)
	ideal := v.n / v.volume * baseBar * (zeroC + v.t) / baseK / compressibility(baseBar)
	v.bar = ideal / (1 + 0.002*ideal)
	g.put("pressure", "bar", v.bar-baseBar)
	v.open = g.put("open", "", 1) > 0.5
}

// move lets gas in and out (Nm3/h). Gas that comes in is compressed and warms
// what is there, gas that goes out leaves the rest cooler; the steel, seven
// times as heavy in heat, goes along, and the air outside takes a day.
func (v *vessel) move(dt, in, out, outdoor float64) {
	if v.n <= 0 {
		return
	}
	const gasShare = 0.14
	abs := zeroC + v.t
	gain := (in*(gasGamma*(zeroC+6)-abs) - out*(gasGamma-1)*abs) / v.n // K/h of the gas alone
	v.t += (gain*gasShare + (outdoor-v.t)/22) * dt / 3600
	v.n = max(0, v.n+(in-out)*dt/3600)
}

// zone is a place with a gas detector: what leaks there mixes with its air,
// which is changed by itself, and faster when the fan runs. The detector starts the
// fan at a fifth of the lower explosive limit and stops it at a twentieth.
type zone struct {
	name   string
	volume float64 // m3
	base   float64 // zero drift of the detector, %LEL
	drift  *noise
	warm   *noise
	gas    float64 // %LEL
	fan    bool
}

const (
	airChange  = 120.0 // s
	fanChange  = 50.0  // s
	lelLow     = 20.0
	lelHigh    = 40.0
	lelFanStop = 5.0
)

// step returns what leaks (Nm3/h).
func (z *zone) step(q *quantities, dt, outdoor float64) float64 {
	g := q.of(z.name)
	leak := g.put("leak", "Nm3/h", 0)
	tau := airChange
	if z.fan {
		tau = fanChange
	}
	// what comes in a second, in % by volume, is 1/LEL of that in %LEL
	z.gas += (leak/3600/z.volume*100/gasLEL*100 - z.gas/tau) * dt
	lel := g.put("gas_lel", "%LEL", clamp(z.gas+z.base+z.drift.step(dt), 0, 100))
	g.put("gas_share", "%", lel)
	if dt > 0 {
		z.fan = lel >= lelLow || z.fan && lel > lelFanStop
	}
	fan := 0.0
	if z.fan {
		fan = 1
	}
	z.fan = g.put("fan", "", fan) > 0.5
	alarm, relay1, relay2 := 0.0, 0.0, 0.0
	if lel >= lelLow {
		alarm, relay1 = 1, 1
	}
	if lel >= lelHigh {
		alarm, relay2 = 3, 1
	}
	g.put("active_alarm", "", alarm)
	g.put("alarm_bits", "", alarm*64)
	g.put("relay_1", "", relay1)
	g.put("relay_2", "", relay2)
	g.put("state", "", 1)
	g.put("fault_code", "", 0)
	g.put("active_fault", "", 0)
	g.put("temperature", "degC", outdoor+11+z.warm.step(dt))
	g.put("supply_voltage", "V", 24.1+0.02*z.warm.x)
	g.put("peak_lel", "%LEL", max(lel, g.get("peak_lel")))
	g.add("heartbeat", "", 0, dt)
	return leak
}
