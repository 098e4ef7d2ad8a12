package plant

import (
	"math"
	"testing"
	"time"
)

// TestColdRoomsHoldAndDefrost follows the rooms over a day: they hold their
// temperature, defrost by the clock and warm a little while they do.
func TestColdRoomsHoldAndDefrost(t *testing.T) {
	p := loadSite(t, "cold-chain", 77)
	value := func(name string) float64 { v, _ := p.Quantity(name); return v }
	type seen struct {
		low, high       float64
		defrosts, opens int
		was, open       float64
		inDefrost, most float64 // min
	}
	rooms := map[string]*seen{"freezer_1": {}, "freezer_2": {}, "chiller_1": {}, "dock": {}}
	for _, s := range rooms {
		s.low, s.high = math.Inf(1), math.Inf(-1)
	}
	for range 24 * 360 {
		p.Step(10 * time.Second)
		for name, s := range rooms {
			v := value(name + ".air_temp")
			s.low, s.high = min(s.low, v), max(s.high, v)
			if d := value(name + ".defrost"); d > s.was {
				s.defrosts, s.inDefrost, s.was = s.defrosts+1, 0, d
			} else {
				s.inDefrost += d / 6
				s.most, s.was = max(s.most, s.inDefrost), d
			}
			if d := value(name + ".door"); d > s.open {
				s.opens, s.open = s.opens+1, d
			} else {
				s.open = d
			}
		}
	}
	for _, tt := range []struct {
		room                 string
		low, high, rise      float64 // the highest is at least rise, by the defrost
		defrosts, least, max int     // and the door's openings
	}{
		{"freezer_1", -22, -15, -18.5, 4, 30, 150},
		{"freezer_2", -22, -15, -18.5, 4, 20, 120},
		{"chiller_1", 2, 6, 4.8, 3, 50, 200},
		{"dock", 5, 14, 10, 0, 15, 60},
	} {
		s := rooms[tt.room]
		t.Logf("%s: %.1f to %.1f degC, %d defrosts of at most %.0f min, %d openings", tt.room, s.low, s.high, s.defrosts, s.most, s.opens)
		if s.low < tt.low || s.high > tt.high || s.high < tt.rise {
			t.Errorf("%s is at %.2f to %.2f degC", tt.room, s.low, s.high)
		}
		if s.defrosts != tt.defrosts || s.most > 40 {
			t.Errorf("%s has %d defrosts of up to %.0f min", tt.room, s.defrosts, s.most)
		}
		if s.opens < tt.least || s.opens > tt.max {
			t.Errorf("%s is opened %d times", tt.room, s.opens)
		}
	}
}
