package physics

import (
	"math"
	"testing"
)

// TestColdRoomsKeepTheirHeat adds up, tick by tick over a day, what heat comes
// in and goes out of rooms and suction lines: the difference is what air,
// goods and coils have gained.
func TestColdRoomsKeepTheirHeat(t *testing.T) {
	c, q := newColdChain(4), newQuantities()
	c.step(q, 0, 0)
	stored := func() (j float64) {
		for _, r := range c.rooms {
			g := q.of(r.name)
			j += r.air*g.get("air") + r.goods*g.get("goods") + r.coil*g.get("coil")
		}
		for _, k := range c.racks {
			j += k.mass * q.of(k.name).get("evaporating")
		}
		return j
	}
	begin, in, out, wh := stored(), 0.0, 0.0, 0.0
	for n := range int(24 * 3600 / Tick) {
		c.step(q, Tick, math.Mod(float64(n+1)*Tick/3600, 24))
		in += q.of("dock").get("door_heat") * Tick
		for _, r := range c.rooms {
			g := q.of(r.name)
			in += (g.get("wall_heat") + g.get("frost_heat") + g.get("fan_power") + g.get("light_power") + g.get("heater_power") + r.breathing) * Tick
			out += g.get("melt_heat") * Tick
		}
		for _, k := range c.racks {
			g := q.of(k.name)
			in += (g.get("line_heat") + g.get("power")) * Tick
			out += g.get("heat_out") * Tick
			wh += g.get("power") * Tick / 3600
		}
	}
	if diff := in - out - (stored() - begin); math.Abs(diff) > 0.01*in {
		t.Errorf("%.0f MJ came in, %.0f went out, %.0f are stored: %.1f are missing", in/1e6, out/1e6, (stored()-begin)/1e6, diff/1e6)
	}
	if gained := stored() - begin; math.Abs(gained) > 0.1*in {
		t.Errorf("the rooms gained %.0f of %.0f MJ: they do not hold", gained/1e6, in/1e6)
	}
	if heat := in/3.6e3 - wh; heat/wh < 1.4 || heat/wh > 4 {
		t.Errorf("%.0f kWh of cold for %.0f kWh of electricity", heat/1e3, wh/1e3)
	}
}
