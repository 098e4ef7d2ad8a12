package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"luquan/gateway/telemetry"
)

var t0 = time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)

// site is one board with two buses: a line with two devices of two points, and
// an endpoint with one device of one point. All of it is well at t0.
func site() World {
	w := World{
		Start:  t0.Add(-time.Hour),
		Boards: []Board{{Site: "heat", Name: "b1", Heard: true, Online: true, StateAt: t0.Add(-time.Hour), PayloadAt: t0}},
	}
	for _, name := range []string{"line/meter/flow", "line/meter/temp", "line/tank/level", "line/tank/temp", "lan/ups/load"} {
		part := strings.Split(name, "/")
		w.Points = append(w.Points, Point{Site: "heat", Gateway: "b1", Bus: part[0], Device: part[1], Point: part[2], Name: "heat/" + part[1] + "/" + part[2],
			Period: 10 * time.Second, Polled: true, Good: t0})
	}
	return w
}

// each applies f to the points whose name begins with prefix, after heat/.
func each(w *World, prefix string, f func(*Point)) {
	for i := range w.Points {
		if strings.HasPrefix(w.Points[i].Name, "heat/"+prefix) {
			f(&w.Points[i])
		}
	}
}

func status(q telemetry.Quality) func(*Point) {
	return func(p *Point) { p.Status, p.Quality, p.Good = q, q, t0.Add(-time.Minute) }
}

func quality(q telemetry.Quality) func(*Point) { return func(p *Point) { p.Quality = q } }

func stale(p *Point) { p.Stale, p.Good = true, t0.Add(-5*time.Minute) }
func never(p *Point) { p.Polled, p.Good = false, time.Time{} }

// TestCauses: what the hub knows, and the one cause of each silence.
func TestCauses(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*World)
		want string // causes as level:where(silent points), the highest first
	}{
		"all is well":  {func(*World) {}, ""},
		"a sensor":     {func(w *World) { each(w, "meter/temp", quality(telemetry.Invalid)) }, "sensor:heat/b1/line/meter/temp(1)"},
		"doubted only": {func(w *World) { each(w, "", quality(telemetry.Frozen)) }, ""},
		"every sensor of a device, which answers": {func(w *World) { each(w, "tank", quality(telemetry.OverRange)) },
			"sensor:heat/b1/line/tank/level(1) sensor:heat/b1/line/tank/temp(1)"},
		"a device":                     {func(w *World) { each(w, "meter", status(telemetry.NoReply)) }, "device:heat/b1/line/meter(2)"},
		"one group of a device":        {func(w *World) { each(w, "meter/flow", status(telemetry.NoReply)) }, "sensor:heat/b1/line/meter/flow(1)"},
		"a device never read":          {func(w *World) { each(w, "meter", never) }, "device:heat/b1/line/meter(2)"},
		"a device that is not polled":  {func(w *World) { each(w, "meter", stale) }, "device:heat/b1/line/meter(2)"},
		"the only device of a bus":     {func(w *World) { each(w, "ups", status(telemetry.NoReply)) }, "device:heat/b1/lan/ups(1)"},
		"the endpoint of the only one": {func(w *World) { each(w, "ups", status(telemetry.NotConnected)) }, "bus:heat/b1/lan(1)"},
		"all devices of a bus": {func(w *World) {
			each(w, "meter", status(telemetry.NoReply))
			each(w, "tank", status(telemetry.Garbled))
		}, "bus:heat/b1/line(4)"},
		"one device's endpoint, another answers": {func(w *World) { each(w, "meter", status(telemetry.NotConnected)) }, "device:heat/b1/line/meter(2)"},
		"two buses, apart": {func(w *World) {
			each(w, "meter", status(telemetry.NoReply))
			each(w, "ups", status(telemetry.NotConnected))
		}, "bus:heat/b1/lan(1) device:heat/b1/line/meter(2)"},
		"the board sends nothing": {func(w *World) {
			each(w, "", stale)
			w.Boards[0].PayloadAt = t0.Add(-4 * time.Minute)
		}, "board:heat/b1(5)"},
		"the board reads, and it arrives late": {func(w *World) { each(w, "", stale) }, "link:heat/b1(5)"},
		"the board is offline": {func(w *World) {
			each(w, "", stale)
			w.Boards[0].Online, w.Boards[0].StateAt = false, t0.Add(-5*time.Minute)
		}, "link:heat/b1(5)"},
		"offline a moment ago: what was read is still believed": {func(w *World) {
			w.Boards[0].Online, w.Boards[0].StateAt = false, t0.Add(-time.Second)
		}, "link:heat/b1(0)"},
		"not heard since the hub's start": {func(w *World) { each(w, "", never); w.Boards = nil }, "link:heat/b1(5)"},
		"the hub has just started":        {func(w *World) { each(w, "", never); w.Boards = nil; w.Start = t0.Add(-2 * time.Second) }, ""},
		"the board has just come":         {func(w *World) { each(w, "", never); w.Boards[0].StateAt = t0.Add(-2 * time.Second) }, ""},
		"a device broken before and the link now": {func(w *World) {
			each(w, "meter", status(telemetry.NoReply))
			each(w, "", stale)
			w.Boards[0].Online = false
		}, "link:heat/b1(5)"},
		"payloads nobody can read": {func(w *World) {
			each(w, "", stale)
			w.Boards[0].RefusedAt, w.Boards[0].Refused = t0.Add(time.Second), "version 9"
		}, "ingest:heat/b1(5)"},
		"the broker": {func(w *World) {
			each(w, "", stale)
			w.Boards[0].Online = false
			w.Broker = Part{Down: true, Since: t0.Add(-5 * time.Minute)}
		}, "broker:(5)"},
		"the store silences no screen": {func(w *World) {
			w.Store = Part{Down: true}
			each(w, "meter", status(telemetry.NoReply))
		}, "store:(0) device:heat/b1/line/meter(2)"},
		"a board without devices": {func(w *World) { w.Points = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := site()
			tt.edit(&w)
			r := new(Watch).Judge(t0, w)
			var got []string
			for _, n := range r.Causes() {
				got = append(got, fmt.Sprintf("%s:%s(%d)", n.Level, where(n.ID), n.Silent))
				if n.Why == (telemetry.Label{}) && n.Level < Broker {
					t.Errorf("%s says no reason", n.Level)
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("causes are %q, want %q", s, tt.want)
			}
			checkReport(t, r)
		})
	}
}

func where(id ID) string {
	var parts []string
	for _, s := range []string{id.Site, id.Gateway, id.Bus, id.Device, id.Point} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "/")
}

// checkReport holds what is true of every report: each silent point has one
// cause, or waits; below a broken node nothing is called broken or well.
func checkReport(t *testing.T, r *Report) {
	t.Helper()
	sum := r.Waiting
	for _, n := range r.Causes() {
		sum += n.Silent
	}
	if sum != r.Silent {
		t.Errorf("%d points are silent, and causes and waiting explain %d", r.Silent, sum)
	}
	for i := range r.world.Points {
		p := &r.world.Points[i]
		chain, ok := r.Chain(p.Name)
		if !ok || len(chain) != 8 {
			t.Fatalf("the chain of %s is %v", p.Name, chain)
		}
		for k, n := range chain {
			if n.Level != Level(k+1) {
				t.Errorf("%s: link %d is %s", p.Name, k, n.Level)
			}
			if n.Level == Store || n.State != Broken {
				continue
			}
			for _, below := range chain[:k] {
				if below.State != Unknown && !(n.Level == Ingest && (below.Level == Link || below.Level == Broker)) {
					t.Errorf("%s: %s is broken and %s below it is %s", p.Name, n.Level, below.Level, below.State)
				}
			}
		}
		cause, found := r.Cause(p.Name)
		if p.silent() && !found && r.Waiting == 0 {
			t.Errorf("%s is silent without a cause", p.Name)
		}
		if found && cause.State != Broken {
			t.Errorf("%s: the cause %s is %s", p.Name, cause.Level, cause.State)
		}
	}
}

// TestSince: a node keeps the time from which it has been as it is, also when
// what would tell it has changed.
func TestSince(t *testing.T) {
	var w Watch
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	device := func(r *Report) Node {
		chain, _ := r.Chain("heat/meter/flow")
		return chain[1]
	}
	world := site()
	r := w.Judge(at(0), world)
	if n := device(r); n.State != OK || !n.Since.Equal(at(0)) {
		t.Errorf("at first %+v", n)
	}
	broken := site()
	each(&broken, "meter", status(telemetry.NoReply))
	r = w.Judge(at(20), broken)
	if n := device(r); n.State != Broken || !n.Since.Equal(t0.Add(-time.Minute)) {
		t.Errorf("broken since its last value: %+v", n)
	}
	each(&broken, "meter", func(p *Point) { p.Good = time.Time{} })
	r = w.Judge(at(40), broken)
	if n := device(r); !n.Since.Equal(t0.Add(-time.Minute)) {
		t.Errorf("later it says since %v", n.Since)
	}
	r = w.Judge(at(60), site())
	if n := device(r); n.State != OK || !n.Since.Equal(at(60)) {
		t.Errorf("mended: %+v", n)
	}
	if _, ok := r.Chain("heat/meter/none"); ok {
		t.Error("a chain for a point that nobody announced")
	}
	if _, ok := r.Cause("heat/meter/none"); ok {
		t.Error("a cause for a point that nobody announced")
	}
}

func BenchmarkJudge(b *testing.B) {
	var world World
	world.Start = t0.Add(-time.Hour)
	for g := range 200 {
		name := fmt.Sprintf("b%d", g)
		world.Boards = append(world.Boards, Board{Site: "heat", Name: name, Heard: true, Online: g%10 != 0, StateAt: t0.Add(-time.Hour), PayloadAt: t0})
		for d := range 20 {
			for p := range 10 {
				dev, point := fmt.Sprintf("d%d-%d", g, d), fmt.Sprintf("p%d", p)
				world.Points = append(world.Points, Point{Site: "heat", Gateway: name, Bus: fmt.Sprintf("bus%d", d/5), Device: dev, Point: point,
					Name: "heat/" + dev + "/" + point, Period: 10 * time.Second, Polled: true, Stale: g%10 == 0, Good: t0})
			}
		}
	}
	var w Watch
	b.ReportAllocs()
	for b.Loop() {
		w.Judge(t0, world)
	}
}
