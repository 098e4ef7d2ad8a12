package physics

import "math"

// substation is a transformer station of 10/0.4 kV in winter: a 10 kV cable
// comes in, two transformers feed a bus-bar section each, two feeders hang on
// each section, and a capacitor bank keeps its power factor. The feeders
// follow shifts, tariffs and habits. What comes in is what they take, the
// station's own supply, and the losses of the transformers.
type substation struct {
	due          float64 // seconds gathered for the next whole step
	weather, hz  *noise
	mv           *noise    // what the grid adds to the 10 kV voltage
	lean         [3]*noise // and to each phase
	feeders      [4]*branch
	transformers [2]*transformer
	banks        [2]*capacitors
	room         lag
	ups          *ups
	damp, stray  *noise
	rooms        [2]*noise
	settled      bool
}

const (
	mvNominal = 10_250.0          // V between two phases on the 10 kV side
	lvRatio   = 0.4 / 10 * 1.0125 // of the transformers at their tap
	roomFans  = 600.0             // W/K that leave the transformer room with its fans
	roomStill = 130.0             // W/K without them

	// slowStep is the step, in seconds, of models that know nothing faster.
	slowStep = 1.0
)

func newSubstation(seed uint64) *substation {
	rng := newRand(seed, 4)
	feeder := func(name string, watts, pf float64, share [3]float64, wh, sigma float64, want func(float64) float64) *branch {
		return &branch{name: name, watts: watts, pf: pf, share: share, energy0: wh, want: want,
			ramp: lag{tau: 240}, busy: newNoise(rng, 45, sigma), lean: newNoise(rng, 200, 0.006)}
	}
	air := func() *noise { return newNoise(rng, 300, 0.3) }
	return &substation{
		weather: newNoise(rng, 1800, 0.8), hz: newNoise(rng, 20, 0.012), mv: newNoise(rng, 600, 25),
		lean: [3]*noise{newNoise(rng, 60, 6), newNoise(rng, 60, 6), newNoise(rng, 60, 6)},
		feeders: [4]*branch{
			feeder("feeder_1", 280_000, 0.80, [3]float64{0.337, 0.331, 0.332}, 1_904_300_000, 0.03, shifts),
			feeder("feeder_2", 262_000, 0.86, [3]float64{0.334, 0.333, 0.333}, 2_311_800_000, 0.04, cheapHours),
			feeder("feeder_3", 285_000, 0.95, [3]float64{0.344, 0.321, 0.335}, 8_204_000, 0.02, homes),
			feeder("feeder_4", 225_000, 0.98, [3]float64{0.333, 0.334, 0.333}, 6_117_000, 0.03, chargers),
		},
		transformers: [2]*transformer{
			{name: "transformer_1", oil: lag{tau: oilTau}, gradient: lag{tau: windingTau}},
			{name: "transformer_2", oil: lag{tau: oilTau}, gradient: lag{tau: windingTau}},
		},
		banks: [2]*capacitors{{name: "capacitor_1"}, {name: "capacitor_2"}},
		room:  lag{tau: 1200},
		ups:   newUPS(rng, "control_ups", 0.21, 884_000),
		damp:  newNoise(rng, 900, 1.5), stray: newNoise(rng, 30, 0.04),
		rooms: [2]*noise{air(), air()},
	}
}

// bump is a hill of height 1 over the day at an hour, width hours to each side.
func bump(hour, at, width float64) float64 {
	d := math.Abs(hour - at)
	d = min(d, 24-d) / width
	return math.Exp(-d * d)
}

// The tariffs: valley from 23 to 7, peak from 8 to 11 and from 17 to 21.
const (
	valley = 1
	flat   = 2
	peak   = 3
)

func tariff(hour float64) int {
	switch {
	case hour >= 23 || hour < 7:
		return valley
	case hour >= 8 && hour < 11, hour >= 17 && hour < 21:
		return peak
	}
	return flat
}

// shifts is a workshop of two shifts with its breaks.
func shifts(hour float64) float64 {
	if hour >= 8 && hour < 12 || hour >= 13.5 && hour < 17.5 || hour >= 18.5 && hour < 22 {
		return 0.95
	}
	return 0.16
}

// cheapHours is a furnace that melts when electricity is cheap.
func cheapHours(hour float64) float64 {
	return [...]float64{valley: 0.92, flat: 0.58, peak: 0.26}[tariff(hour)]
}

// homes is a housing estate.
func homes(hour float64) float64 {
	return 0.36 + 0.22*bump(hour, 7.5, 1.5) + 0.14*bump(hour, 12, 1.5) + 0.55*bump(hour, 19.5, 2.4)
}

// chargers is a charging station for vehicles: at night, and over lunch.
func chargers(hour float64) float64 {
	return 0.12 + 0.76*bump(hour, 1.5, 3) + 0.3*bump(hour, 13, 1.5)
}

func (s *substation) step(q *quantities, dt, hour float64) {
	if s.due += dt; dt > 0 {
		if s.due < slowStep-1e-6 {
			return
		}
		dt, s.due = s.due, 0
	}
	outdoor := q.put("outdoor_temp", "degC", -6+4*daily(hour, 15)+s.weather.step(dt))
	q.put("tariff", "", float64(tariff(hour)))
	hz := q.put("frequency", "Hz", 50+s.hz.step(dt))
	q.of("grid").put("frequency", "Hz", hz)
	mv := q.put("mv_voltage", "V", mvNominal+s.mv.step(dt))

	// the loads of the two sections; the station's own hangs on the first
	var load [2]power
	own := s.ownSupply(q, dt, outdoor, mv, hz)
	load[0] = power{own, own * 0.29}
	for i, f := range s.feeders {
		load[i/2] = load[i/2].plus(f.take(q, dt, hour, !s.settled))
	}
	for i, b := range s.banks {
		load[i].q -= b.step(q, dt, load[i], !s.settled)
	}
	s.share(q, &load)

	// through the transformers, with their losses, to the 10 kV side
	if !s.settled {
		s.room.x = outdoor + 9
	}
	var in power
	losses := 0.0
	for i, t := range s.transformers {
		lost := t.step(q, dt, load[i], mv, s.room.x, !s.settled)
		losses += lost.p
		in = in.plus(load[i]).plus(lost)
	}
	losses = q.put("losses", "W", losses)
	q.energy("loss_energy", "Wh", 0, losses, dt)
	for i, f := range s.feeders {
		f.measure(q, dt, s.transformers[i/2].volts(q, s.transformers[1-i/2]), hz)
	}
	s.mvSide(q, dt, in, mv, hz)
	s.climate(q, dt, outdoor, losses)
	s.contacts(q)
	s.settled = true
}

// power is active (W) and reactive (var) power.
type power struct{ p, q float64 }

func (a power) plus(b power) power { return power{a.p + b.p, a.q + b.q} }
func (a power) apparent() float64  { return math.Hypot(a.p, a.q) }

// ownSupply puts the station's own supply, one phase for light, heating and the
// control room's UPS, and returns what it takes (W).
func (s *substation) ownSupply(q *quantities, dt, outdoor, mv, hz float64) float64 {
	g := q.of("station_supply")
	volts := g.put("u_l1", "V", mv*lvRatio/threePhase*0.985)
	s.ups.step(q, dt, volts)
	watts := 0.0
	if volts > upsLowest {
		watts = 1150 + 1600*clamp((12-outdoor)/25, 0.1, 1) + q.of("control_ups").get("output_power")/0.93
	}
	watts = g.put("p_total", "W", watts)
	g.put("i_l1", "A", watts/(max(volts, 1)*0.96))
	g.put("frequency", "Hz", hz)
	g.put("pf_total", "", 0.96)
	g.energy("energy_total", "Wh", 1_204_000, watts, dt)
	return watts
}

// share moves the loads to the transformers that are in service: both sections
// hang together when the tie is closed, and a section that hangs on none is
// dead.
func (s *substation) share(q *quantities, load *[2]power) {
	tie := q.put("section_tie", "", 0) > 0.5
	var on [2]bool
	for i, t := range s.transformers {
		on[i] = q.of(t.name).put("in_service", "", 1) > 0.5
	}
	for i := range load {
		switch {
		case on[i]:
		case tie && on[1-i]:
			load[1-i] = load[1-i].plus(load[i])
			fallthrough
		default:
			load[i] = power{}
		}
	}
	if tie && on[0] && on[1] {
		all := load[0].plus(load[1])
		load[0], load[1] = power{all.p / 2, all.q / 2}, power{all.p / 2, all.q / 2}
	}
}

// mvSide puts what comes in at 10 kV, and the cable to transformer 2 with its
// fault passage indicator.
func (s *substation) mvSide(q *quantities, dt float64, in power, mv, hz float64) {
	var u [3]float64
	for i := range u {
		u[i] = mv/threePhase + s.lean[i].step(dt)
	}
	readings(q.of("incoming"), in, u, [3]float64{0.335, 0.332, 0.333}, hz)
	counts(q.of("incoming"), dt, 41_806_200_000)
	t2 := q.of("transformer_2")
	readings(q.of("cable_2"), power{t2.get("p_in"), t2.get("q_in")}, u, [3]float64{0.336, 0.33, 0.334}, hz)
	stray := q.of("cable_2").put("i_residual", "A", math.Abs(0.15+s.stray.step(dt)))
	q.of("incoming").put("i_residual", "A", stray+0.05) // the relay sees both cables
	q.of("incoming").put("i_residual_sum", "A", stray+0.1)
}

// climate puts the rooms: that of the transformers keeps their losses unless
// its fans run.
func (s *substation) climate(q *quantities, dt, outdoor, losses float64) {
	fans := q.put("room_fans", "", 1)
	goal := outdoor + losses/(roomStill+(roomFans-roomStill)*fans)
	if !s.settled {
		s.room.x = goal
	}
	room := q.of("transformer_room")
	t := room.put("temperature", "degC", s.room.step(dt, goal))
	room.put("humidity", "%", clamp(58-1.1*(t-outdoor)+s.damp.step(dt), 12, 90))
	for i, name := range [2]string{"switch_room", "control_room"} {
		warm := [2]float64{14 + 0.15*outdoor, 21 + 0.05*outdoor}[i] + s.rooms[i].step(dt)
		q.of(name).put("temperature", "degC", warm)
		q.of(name).put("humidity", "%", clamp([2]float64{44, 36}[i]-1.2*s.rooms[i].x, 10, 90))
	}
}

// contacts puts the auxiliary contacts of the switchgear as its I/O module
// sees them: 1 closed.
func (s *substation) contacts(q *quantities) {
	io := q.of("switchgear")
	io.put("di_0", "", q.of("incoming").put("closed", "", 1))
	for i, t := range s.transformers {
		io.put([2]string{"di_1", "di_2"}[i], "", q.of(t.name).get("in_service"))
	}
	io.put("di_3", "", q.get("section_tie"))
	for i, f := range s.feeders {
		g := q.of(f.name)
		io.put([4]string{"di_4", "di_5", "di_6", "di_7"}[i], "", g.get("closed"))
		io.put([4]string{"di_8", "di_9", "di_10", "di_11"}[i], "", g.get("tripped"))
	}
	io.put("di_12", "", q.get("room_fans"))
	steps := q.of("capacitor_panel")
	for i, b := range s.banks {
		for j, name := range bankSteps {
			steps.put(panelInputs[i*capacitorSteps+j], "", q.of(b.name).get(name))
		}
	}
}

// bankSteps are the steps of a bank, panelInputs where the contactors of both
// banks are wired.
var (
	bankSteps   = [capacitorSteps]string{"step_1", "step_2", "step_3", "step_4"}
	panelInputs = [2 * capacitorSteps]string{"di_1", "di_2", "di_3", "di_4", "di_5", "di_6", "di_7", "di_8"}
)

// branch is one feeder on the low-voltage side.
type branch struct {
	name    string
	watts   float64 // at the most
	pf      float64
	share   [3]float64 // of each phase
	energy0 float64    // Wh at the start
	want    func(hour float64) float64
	ramp    lag
	busy    *noise
	lean    *noise // how the load wanders between the phases
	now     power
}

// take returns what the feeder takes: nothing while its breaker is open.
func (b *branch) take(q *quantities, dt, hour float64, begin bool) power {
	g := q.of(b.name)
	goal := b.want(hour)
	if begin {
		b.ramp.x = goal
	}
	b.now = power{}
	demand := g.put("demand", "W", b.watts*clamp(b.ramp.step(dt, goal)*(1+b.busy.step(dt)), 0.02, 1.1))
	if closed := g.put("closed", "", 1); closed > 0.5 {
		b.now = power{demand, demand * math.Sqrt(1-b.pf*b.pf) / b.pf}
		g.put("tripped", "", 0)
	} else {
		g.put("tripped", "", 1)
	}
	return b.now
}

// measure puts what the feeder's meter and its breaker's trip unit see.
func (b *branch) measure(q *quantities, dt float64, volts, hz float64) {
	lean := b.lean.step(dt)
	share := [3]float64{b.share[0] + lean, b.share[1] - lean/2, b.share[2] - lean/2}
	u := volts / threePhase
	if volts == 0 {
		b.now, hz = power{}, 0
	}
	readings(q.of(b.name), b.now, [3]float64{u * 1.001, u * 0.998, u * 1.001}, share, hz)
	counts(q.of(b.name), dt, b.energy0)
}

// phases names the quantities that a meter has of each phase.
var phases = [3]struct{ u, i, p, q, pf string }{
	{"u_l1", "i_l1", "p_l1", "q_l1", "pf_l1"}, {"u_l2", "i_l2", "p_l2", "q_l2", "pf_l2"}, {"u_l3", "i_l3", "p_l3", "q_l3", "pf_l3"},
}

// readings puts what a three-phase meter shows of a load at phase voltages u
// (V), of which each phase carries its share.
func readings(g *group, load power, u, share [3]float64, hz float64) {
	p := g.put("p_total", "W", load.p)
	r := g.put("q_total", "var", load.q)
	va := math.Hypot(p, r)
	pf := 1.0
	if va > 1 {
		pf = p / va
	}
	var sumU, sumI float64
	for i, n := range phases {
		volts := g.put(n.u, "V", u[i])
		amps := 0.0
		if volts > 1 {
			amps = va * share[i] / volts
		}
		sumU += volts
		sumI += g.put(n.i, "A", amps)
		g.put(n.p, "W", p*share[i])
		g.put(n.q, "var", r*share[i])
		g.put(n.pf, "", pf)
	}
	g.put("i_avg", "A", sumI/3)
	g.put("u_avg", "V", sumU/3)
	sumU = 0
	for i, name := range [3]string{"u_l12", "u_l23", "u_l31"} {
		a, b := u[i], u[(i+1)%3]
		sumU += g.put(name, "V", math.Sqrt(a*a+b*b+a*b)) // 120 degrees apart
	}
	g.put("u_avg_ll", "V", sumU/3)
	g.put("s_total", "VA", va)
	g.put("pf_total", "", pf)
	g.put("frequency", "Hz", hz)
}

// counts puts the counters of the meter of that group after readings has put
// its powers; wh is what it had counted at the start.
func counts(g *group, dt, wh float64) {
	p, r := g.get("p_total"), g.get("q_total")
	g.energy("energy_import", "Wh", wh, p, dt)
	g.energy("energy_import_l1", "Wh", wh/3, g.get("p_l1"), dt)
	g.put("energy_total", "Wh", g.get("energy_import"))
	g.put("energy_export", "Wh", 0)
	g.energy("reactive_import", "varh", wh*0.3, max(0, r), dt)
	g.energy("reactive_export", "varh", wh*0.01, max(0, -r), dt)
	g.put("reactive_total", "varh", g.get("reactive_import")-g.get("reactive_export"))
	g.energy("apparent_total", "VAh", wh*1.05, g.get("s_total"), dt)
}
