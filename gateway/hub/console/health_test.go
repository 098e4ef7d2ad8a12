package console

import (
	"testing"
	"time"

	"luquan/gateway/hub/health"
	"luquan/gateway/telemetry"
)

type healthAnswer struct {
	State           string
	Silent, Waiting int
	Causes          []healthNode
	Cause           *healthNode
	Chain           []healthNode
}

type healthNode struct {
	Level, State, Site, Gateway, Bus, Device, Point string
	Since                                           time.Time
	Why                                             telemetry.Label
	Silent                                          int
}

// TestChainOfAPoint: two boards, one of them away; a device of the other is
// silent.
func TestChainOfAPoint(t *testing.T) {
	b := newBench(t, nil)
	now := time.Now()
	gone := now.Add(-time.Minute).Truncate(time.Millisecond)
	b.world = health.World{Start: now.Add(-time.Hour), Boards: []health.Board{
		{Site: "heat", Name: "b1", Heard: true, Online: true, StateAt: now.Add(-time.Hour), PayloadAt: now},
		{Site: "cool", Name: "b2", Heard: true, StateAt: gone},
	}}
	point := func(site, board, device, name string, q telemetry.Quality, stale bool) {
		b.world.Points = append(b.world.Points, health.Point{Site: site, Gateway: board, Bus: "line", Device: device, Point: name,
			Name: site + "/" + device + "/" + name, Period: time.Second, Polled: true, Status: q, Quality: q, Stale: stale, Good: gone})
	}
	point("heat", "b1", "meter", "flow", telemetry.Good, false)
	point("heat", "b1", "tank", "level", telemetry.NoReply, false)
	point("cool", "b2", "ups", "load", telemetry.Good, true)
	point("cool", "b2", "ups", "charge", telemetry.Good, true)

	all := decode[healthAnswer](t, b.get(t, "/api/v1/health"))
	if all.State != "warn" || all.Silent != 3 || len(all.Causes) != 2 || all.Causes[0].Level != "link" || all.Causes[0].Silent != 2 || all.Causes[1].Level != "device" {
		t.Errorf("%+v", all)
	}
	if c := all.Causes[0]; c.Site != "cool" || c.Gateway != "b2" || !c.Since.Equal(gone) || c.Why.Zh == "" || c.Why.En == "" {
		t.Errorf("the first cause is %+v", c)
	}
	heat := decode[healthAnswer](t, b.get(t, "/api/v1/health?site=heat"))
	if heat.Silent != 1 || len(heat.Causes) != 1 || heat.Causes[0].Device != "tank" {
		t.Errorf("of one site: %+v", heat)
	}
	for name, want := range map[string]struct{ state, cause, sensor string }{
		"heat/meter/flow": {"ok", "", "ok"},
		"heat/tank/level": {"broken", "device", "unknown"},
		"cool/ups/load":   {"broken", "link", "unknown"},
	} {
		p := decode[healthAnswer](t, b.get(t, "/api/v1/health?point="+name))
		cause := ""
		if p.Cause != nil {
			cause = p.Cause.Level
		}
		if p.State != want.state || cause != want.cause || len(p.Chain) != 8 || p.Chain[0].State != want.sensor || p.Chain[7].Level != "store" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for path, status := range map[string]int{"/api/v1/health?point=heat/none/flow": 404, "/api/v1/health?point=heat/meter/flow&site=heat": 400, "/api/v1/health?sites=heat": 400} {
		if resp := b.get(t, path); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, status)
		}
	}
}
