package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"luquan/internal/plant"
)

// TestHealthNamesTheBrokenLink breaks the chain at each of its links, with a
// real broker and a real store, and asks the hub for the cause of the silence.
func TestHealthNamesTheBrokenLink(t *testing.T) {
	mqtt, mosquitto := startMosquitto(t)
	db, influxd := startInfluxServer(t)
	l := startLine(t, "heating-plant", lineOptions{broker: mqtt, influx: &db})

	type node struct {
		Level, State, Site, Gateway, Bus, Device, Point string
		Silent                                          int
	}
	type answer struct {
		Silent, Waiting int
		Causes          []node
	}
	var last answer
	// causes waits until exactly these are told, in this order, whatever they silence.
	causes := func(what string, want ...string) {
		t.Helper()
		list := func() string {
			last = answer{}
			l.get("/health", &last)
			var got []string
			for _, n := range last.Causes {
				parts := []string{n.Level}
				for _, s := range []string{n.Gateway, n.Bus, n.Device, n.Point} {
					if s != "" {
						parts = append(parts, s)
					}
				}
				got = append(got, strings.Join(parts, " "))
			}
			return strings.Join(got, ", ")
		}
		defer func() {
			if t.Failed() {
				t.Logf("last told: %s, %+v", list(), last)
			}
		}()
		eventually(t, 60*time.Second, what+" is told as its one cause", func() bool {
			return list() == strings.Join(want, ", ") && last.Waiting == 0
		})
	}
	fault := func(f plant.Fault) (mend func()) {
		t.Helper()
		mend, err := l.plant.Fault(f)
		if err != nil {
			t.Fatal(err)
		}
		return mend
	}
	const board = "boiler-house-1"

	causes("a plant that is well")
	if last.Silent != 0 {
		t.Errorf("%d points are silent in a plant that is well", last.Silent)
	}
	mend := []func(){
		fault(plant.Fault{Device: "heat-meter-1", Point: "t3", Do: "sentinel"}),
		fault(plant.Fault{Device: "boiler-room", Do: "silence"}),
		fault(plant.Fault{Bus: "power-lan", Do: "cut"}),
	}
	causes("a sensor, a device and a bus", "bus "+board+" power-lan", "device "+board+" meters boiler-room", "sensor "+board+" meters heat-meter-1 t3")
	var chain struct {
		Cause *node
		Chain []node
	}
	l.get("/health?point=heating-east/plant-meter/p_total", &chain)
	if chain.Cause == nil || chain.Cause.Level != "bus" || len(chain.Chain) != 8 || chain.Chain[1].State != "unknown" || chain.Chain[3].State != "ok" {
		t.Errorf("the chain of a meter behind a cut bus: %+v", chain)
	}

	// What is behind a broken link is out of sight.
	l.gateways.stop(t)
	l.gateways = nil
	causes("the board's link", "link "+board)
	if last.Silent == 0 || last.Causes[0].Silent != last.Silent {
		t.Errorf("%d points are silent, the link explains %d", last.Silent, last.Causes[0].Silent)
	}
	mosquitto.kill()
	causes("the broker", "broker")
	for _, f := range mend {
		f()
	}
	mosquitto.start()
	l.startGateways()
	causes("a plant that is well again")

	influxd.kill()
	causes("the store", "store")
	if last.Silent != 0 {
		t.Errorf("%d points are silent because of the store", last.Silent)
	}
	if err := getJSON(l.api+"/health?point=heating-east/none/none", &chain); err == nil || !strings.Contains(fmt.Sprint(err), "404") {
		t.Errorf("a point that nobody announced: %v", err)
	}
}
