package physics

import (
	"math"
	"testing"
)

// run lets hours of a model pass, each called after every simulated second.
func run(m stepper, q *quantities, from, hours float64, each func(hour float64)) {
	for i := range int(hours * 36000) {
		hour := math.Mod(from+float64(i+1)/36000, 24)
		m.step(q, 0.1, hour)
		if each != nil && i%10 == 9 {
			each(hour)
		}
	}
}

type stepper interface {
	step(q *quantities, dt, hour float64)
}

// hold keeps a quantity at a value, as a fault does; it must have been put.
func hold(q *quantities, name string, v float64) { q.by[name].held = &v }

func release(q *quantities) {
	for _, e := range q.by {
		e.held = nil
	}
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %v, want %v within %v", what, got, want, tolerance)
	}
}

var feeders = []string{"feeder_1", "feeder_2", "feeder_3", "feeder_4"}

func TestSubstationTakesInWhatItGivesAndLoses(t *testing.T) {
	m, q := newSubstation(7), newQuantities()
	m.step(q, 0, 9)
	outs := func(unit string) float64 {
		sum := q.value("station_supply." + map[string]string{"p_total": "p_total", "energy_import": "energy_total"}[unit])
		for _, f := range feeders {
			sum += q.value(f + "." + unit)
		}
		return sum
	}
	in0, out0 := q.value("incoming.energy_import"), outs("energy_import")
	run(m, q, 9, 24, func(hour float64) {
		if in, out := q.value("incoming.p_total"), outs("p_total")+q.value("losses"); math.Abs(in-out) > 1 {
			t.Fatalf("at %.2f h %v W come in, and %v W go out or are lost", hour, in, out)
		}
	})
	in, out := q.value("incoming.energy_import")-in0, outs("energy_import")-out0
	near(t, "energy that came in", in, out+q.value("loss_energy"), in/1e6)
	if lost := (in - out) / in; lost < 0.003 || lost > 0.02 {
		t.Errorf("%.2f %% are lost in the transformers, want 0.3 to 2 %%", 100*lost)
	}
}

func TestFeedersFollowTheirDay(t *testing.T) {
	m, q := newSubstation(7), newQuantities()
	m.step(q, 0, 0)
	sum, n := map[string]map[int]float64{}, map[int]float64{}
	run(m, q, 0, 24, func(hour float64) {
		n[int(hour)]++
		for _, f := range feeders {
			if sum[f] == nil {
				sum[f] = map[int]float64{}
			}
			sum[f][int(hour)] += q.value(f + ".p_total")
		}
		if pf := q.value("incoming.pf_total"); pf < 0.92 {
			t.Errorf("at %.1f h the power factor is %.3f in spite of the capacitors", hour, pf)
		}
	})
	for _, tt := range []struct {
		feeder         string
		busy, lazy     int // hours
		atLeast, times float64
	}{
		{"feeder_1", 10, 3, 200e3, 4},
		{"feeder_2", 2, 9, 180e3, 2.5}, // the furnace waits for the cheap hours
		{"feeder_3", 19, 3, 200e3, 2},
		{"feeder_4", 1, 17, 150e3, 4},
	} {
		busy, lazy := sum[tt.feeder][tt.busy]/n[tt.busy], sum[tt.feeder][tt.lazy]/n[tt.lazy]
		if busy < tt.atLeast || busy < tt.times*lazy {
			t.Errorf("%s takes %.0f W at %d h and %.0f W at %d h", tt.feeder, busy, tt.busy, lazy, tt.lazy)
		}
	}
}

// TestTransformerKeepsToTheLoadingGuide holds a transformer at its rated load.
// IEC 60076-7 gives 55 K of the top oil over the air and 23 K of the hot spot
// over the oil, and 63 % of a step after a time constant.
func TestTransformerKeepsToTheLoadingGuide(t *testing.T) {
	m, q := &transformer{name: "t", oil: lag{tau: oilTau}, gradient: lag{tau: windingTau}}, newQuantities()
	q.of("t").put("in_service", "", 1)
	const room = 20
	m.step(q, 0, power{}, mvNominal, room, true)
	idle := q.value("t.oil_temp")
	near(t, "oil at no load", idle, room+oilRise*math.Pow(1/(1+lossCopper/lossIron), oilExponent), 0.01)
	load := power{transformerVA * 0.9, transformerVA * math.Sqrt(1-0.81)}
	for range int(oilTau) {
		m.step(q, 1, load, mvNominal, room, false)
	}
	near(t, "oil after one time constant", q.value("t.oil_temp"), idle+(room+oilRise-idle)*(1-math.Exp(-1)), 0.1)
	near(t, "hot spot over oil", q.value("t.winding_temp")-q.value("t.oil_temp"), hotSpotRise, 0.01)
	for range int(10 * oilTau) {
		m.step(q, 1, load, mvNominal, room, false)
	}
	near(t, "oil at rated load", q.value("t.oil_temp"), room+oilRise, 0.1)
	lost := m.step(q, 1, load, mvNominal, room, false)
	near(t, "loss at rated load", lost.p, lossIron+lossCopper, 0.1)
}

func TestSwitchingAtTheSubstation(t *testing.T) {
	m, q := newSubstation(7), newQuantities()
	m.step(q, 0, 19)
	run(m, q, 19, 0.02, nil)
	before := q.value("incoming.p_total")
	carried := q.value("transformer_1.p_total") + q.value("transformer_2.p_total")

	hold(q, "feeder_1.closed", 0)
	was := q.value("feeder_1.p_total")
	m.step(q, 0, 19)
	near(t, "power of an open feeder", q.value("feeder_1.p_total"), 0, 0)
	near(t, "current of an open feeder", q.value("feeder_1.i_l2"), 0, 0)
	near(t, "its trip contact", q.value("switchgear.di_8"), 1, 0)
	near(t, "what comes in without it", q.value("incoming.p_total"), before-was, was*0.02)

	release(q)
	hold(q, "transformer_2.in_service", 0)
	m.step(q, 0, 19)
	near(t, "a section without its transformer", q.value("feeder_3.p_total")+q.value("feeder_3.u_l1"), 0, 0)
	hold(q, "section_tie", 1)
	m.step(q, 0, 19)
	near(t, "one transformer with both sections", q.value("transformer_1.p_total"), carried, carried*0.001)
	near(t, "the other", q.value("transformer_2.p_total"), 0, 0)
	near(t, "voltage of the section over the tie", q.value("feeder_3.u_l1"), 231, 12)

	release(q)
	hold(q, "station_supply.u_l1", 0)
	run(m, q, 19, 0.02, nil)
	near(t, "UPS status", q.value("control_ups.device_status"), 1<<2|1<<6, 0)
	if c := q.value("control_ups.charge"); c >= 100 || c < 95 {
		t.Errorf("after a minute on battery the UPS has %v %%", c)
	}
}

// TestTransformerHotWithoutFansAndNeighbour is the afternoon of the scripted
// day: one transformer carries all, and its room is not aired.
func TestTransformerHotWithoutFansAndNeighbour(t *testing.T) {
	m, q := newSubstation(7), newQuantities()
	m.step(q, 0, 13.5)
	run(m, q, 13.5, 0.5, nil)
	hold(q, "transformer_2.in_service", 0)
	hold(q, "section_tie", 1)
	hold(q, "room_fans", 0)
	run(m, q, 14, 6, nil)
	if oil, winding := q.value("transformer_1.oil_temp"), q.value("transformer_1.winding_temp"); oil < 72 || oil > 100 || winding < 98 || winding > 125 {
		t.Errorf("after six hours alone the oil has %.1f degC and the winding %.1f", oil, winding)
	}
	release(q)
	run(m, q, 20, 2, nil)
	if oil, winding := q.value("transformer_1.oil_temp"), q.value("transformer_1.winding_temp"); oil > 80 || winding > 90 {
		t.Errorf("two hours later the oil still has %.1f degC and the winding %.1f", oil, winding)
	}
}
