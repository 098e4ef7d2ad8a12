package physics

import (
	"math"
	"testing"
)

var spheres = []string{"vessel_a", "vessel_b", "vessel_c"}

// stored is what the pressures and temperatures of the spheres say they hold
// (Nm3): n = p V / (Z R T), by the gauge, not by the model's own count.
func stored(q *quantities) float64 {
	sum := 0.0
	for _, v := range spheres {
		bar := q.value(v+".pressure") + 1.01325
		z := (1 - 0.002*bar) / (1 - 0.002*1.01325)
		sum += bar / 1.01325 * 1000 * 293.15 / (273.15 + q.value(v+".temperature")) / z
	}
	return sum
}

func TestSpheresHoldWhatCameInLessWhatWentOut(t *testing.T) {
	m, q := newGasStorage(7), newQuantities()
	m.step(q, 0, 9)
	begin := stored(q)
	in0, out0 := q.value("inlet_flow.volume_base"), q.value("outlet_flow.volume_base")
	low, high := math.Inf(1), math.Inf(-1)
	run(m, q, 9, 24, func(hour float64) {
		now := stored(q)
		low, high = min(low, now), max(high, now)
		through := q.value("inlet_flow.volume_base") - in0
		net := through - (q.value("outlet_flow.volume_base") - out0)
		if math.Abs(now-begin-net) > 0.001*begin {
			t.Fatalf("at %.2f h the spheres hold %.0f Nm3 more than at first, and %.0f came in and stayed", hour, now-begin, net)
		}
		if p := q.value("vessel_a.pressure"); p < 5 || p > 14 {
			t.Fatalf("at %.2f h sphere A has %.2f bar", hour, p)
		}
	})
	if high-low < 4000 {
		t.Errorf("the spheres breathe only %.0f Nm3 in a day", high-low)
	}
	near(t, "energy sent out for each Nm3", (q.value("outlet_flow.energy")-61_317_200*35.9/3.6*1e3)/(q.value("outlet_flow.volume_base")-out0), 35.9/3.6*1e3, 20)
}

func TestFlowComputerConverts(t *testing.T) {
	q := newQuantities()
	g := q.of("f")
	gasMeter(g, 3600, 1000, 11.01325, 15, 0.02, 0, 0)
	// by hand: 11.01325/1.01325 * 293.15/288.15 / ((1-0.0220265)/(1-0.0020265)) = 11.2837
	near(t, "conversion factor", q.value("f.conversion_factor"), 11.2837, 0.001)
	near(t, "flow (L/s)", q.value("f.flow"), 1000/11.2837/3.6, 0.01)
	near(t, "normal volume", q.value("f.volume_base"), 1000, 1e-9)
	near(t, "volume", q.value("f.volume"), 1000/11.2837, 0.01)
	near(t, "power (W)", q.value("f.power"), 1000*35.9e6/3600, 1)
}

// TestALeakIsSeenAndAired: the scripted leak passes 20 %LEL within half a minute,
// the fan starts and holds it under 40, and after the leak is closed the air is
// clean within a few minutes.
func TestALeakIsSeenAndAired(t *testing.T) {
	m, q := newGasStorage(7), newQuantities()
	m.step(q, 0, 9)
	run(m, q, 9, 0.05, nil)
	if lel := q.value("gas_detector_2.gas_lel"); lel > 4 {
		t.Fatalf("%v %%LEL before any leak", lel)
	}
	hold(q, "gas_detector_2.leak", 36)
	run(m, q, 9.05, 1.0/60, nil)
	if lel := q.value("gas_detector_2.gas_lel"); lel < 20 || q.value("gas_detector_2.fan") != 1 || q.value("esd_io.di_7") != 1 {
		t.Errorf("after a minute of leak: %v %%LEL, fan %v", lel, q.value("gas_detector_2.fan"))
	}
	run(m, q, 9.07, 0.2, func(hour float64) {
		if lel := q.value("gas_detector_2.gas_lel"); lel < 20 || lel > 40 {
			t.Fatalf("with the fan the leak stands at %v %%LEL", lel)
		}
	})
	if lel := q.value("gas_detector_1.gas_lel"); lel > 4 {
		t.Errorf("the neighbouring detector says %v %%LEL", lel)
	}
	release(q)
	run(m, q, 9.3, 0.1, nil)
	if lel := q.value("gas_detector_2.gas_lel"); lel > 5 || q.value("gas_detector_2.fan") != 0 {
		t.Errorf("six minutes after the leak was closed: %v %%LEL, fan %v", lel, q.value("gas_detector_2.fan"))
	}
}

func TestRegulatorFreezesWithoutItsHeater(t *testing.T) {
	m, q := newGasStorage(7), newQuantities()
	m.step(q, 0, 7)
	run(m, q, 7, 0.2, nil)
	near(t, "gas behind the regulator", q.value("outlet_flow.temperature"), heaterTo, 1.5)
	drop := jouleThom * (q.value("header.pressure") - q.value("outlet_flow.pressure"))
	if drop < 2 || drop > 5 {
		t.Errorf("the regulator cools by %.1f K", drop)
	}
	hold(q, "heater.run", 0)
	run(m, q, 7.2, 0.25, nil)
	near(t, "gas behind the regulator without heat", q.value("outlet_flow.temperature"), q.value("vessel_a.temperature")-drop, 1)
	if q.value("outlet_flow.temperature") > -2 {
		t.Error("that is not cold enough to freeze")
	}
	release(q)
	run(m, q, 7.5, 0.3, nil)
	near(t, "gas behind the regulator with heat again", q.value("outlet_flow.temperature"), heaterTo, 1.5)
}

// TestOneSphereAloneIsOverfilled: two spheres are shut while gas comes in.
func TestOneSphereAloneIsOverfilled(t *testing.T) {
	m, q := newGasStorage(7), newQuantities()
	m.step(q, 0, 1)
	hold(q, "vessel_a.open", 0)
	hold(q, "vessel_c.open", 0)
	hold(q, "nomination", 4500)
	a := q.value("vessel_a.pressure")
	run(m, q, 1, 2, nil)
	if p := q.value("vessel_b.pressure"); p < 14.6 || p > 15.6 {
		t.Errorf("sphere B has %.2f bar", p)
	}
	near(t, "a shut sphere's pressure", q.value("vessel_a.pressure"), a, 0.1)
	release(q)
	run(m, q, 3, 1, nil)
	near(t, "pressures after opening", q.value("vessel_b.pressure"), q.value("vessel_a.pressure"), 0.2)
}

func TestShutDownStopsTheGas(t *testing.T) {
	m, q := newGasStorage(7), newQuantities()
	m.step(q, 0, 9)
	hold(q, "esd.inlet_open", 0)
	hold(q, "esd.outlet_open", 0)
	m.step(q, 0, 9)
	near(t, "flow in and out", q.value("inlet_flow.flow_base")+q.value("outlet_flow.flow_base"), 0, 0)
	near(t, "the tripped contact", q.value("esd_io.di_8"), 1, 0)
	n := q.value("inventory")
	run(m, q, 9, 1, nil)
	near(t, "content", q.value("inventory"), n, 1e-6)
}
