package plant

import (
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
	"time"
)

const (
	twoUnits = `
id: two-units
kind: pump
source: {where: test, confidence: low}
points:
  - {name: temp, table: holding, address: 0, type: s16, scale: 0.1, unit: degC}
  - {name: pressure, table: holding, address: 0, type: u16, scale: 0.01, unit: bar, unit_offset: 2}
  - {name: flow, table: holding, address: 4, type: u16, unit: L/s, unit_offset: 2, scale_from: {address: 5, rule: decimals}}
  - {name: decimals, table: holding, address: 5, type: u16, unit_offset: 2}
`
	proxied = `
id: proxied
kind: heat_meter
shares_unit: true
source: {where: test, confidence: low}
params: {meter: {default: 1, one_of: [1, 2]}}
points:
  - {name: flow_temp, table: holding, address: "100*${meter}", type: s16, scale: 0.1, unit: degC}
`
	unitsSite = `
site: bench-1
model: heating-plant
buses:
  - name: lan
    tcp: {port: 15999}
    devices:
      - {name: two, profile: two-units, unit: 1, feeds: {temp: 21.5, pressure: 6.25, flow: 1.5, decimals: 2}}
      - {name: m1, profile: proxied, unit: 2, feeds: {flow_temp: 80}}
      - {name: m2, profile: {base: proxied, params: {meter: 2}}, unit: 2, feeds: {flow_temp: 90}}
`
)

func unitsFS(site string) fs.FS {
	return fstest.MapFS{
		"devices/two-units.yaml": {Data: []byte(twoUnits)}, "devices/proxied.yaml": {Data: []byte(proxied)},
		"sites/bench/plant.yaml": {Data: []byte(site)},
	}
}

// TestSeveralUnits: a device stands at each of its unit addresses, several
// devices at one that is shared, and a fault on a device is on all of it.
func TestSeveralUnits(t *testing.T) {
	p := start(t, unitsFS(unitsSite), "sites/bench", Options{})
	c := dial(t, p, "lan")
	check := func(what string, unit byte, at, n uint16, want ...uint16) {
		t.Helper()
		if got := words(t, c.ask(unit, read(3, at, n), soon)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("under its own address", 1, 0, 1, 215)
	check("under the second", 3, 0, 1, 625)
	check("scaled by a register there", 3, 4, 2, 150, 2)
	check("the first meter", 2, 100, 1, 800)
	check("the second meter", 2, 200, 1, 900)
	if got := c.ask(1, read(3, 4, 1), soon); !slices.Equal(got, []byte{0x83, 2}) {
		t.Errorf("the first address has a register of the second: % x", got)
	}
	if got := c.ask(2, read(3, 300, 1), soon); !slices.Equal(got, []byte{0x83, 2}) {
		t.Errorf("no meter has that: % x", got)
	}
	if _, err := p.Fault(Fault{Device: "two", Point: "pressure", Do: "freeze"}); err != nil {
		t.Fatal(err)
	}
	check("frozen", 3, 0, 1, 625)
	if _, err := p.Fault(Fault{Device: "two", Do: "silence"}); err != nil {
		t.Fatal(err)
	}
	for _, unit := range []byte{1, 3} {
		if got := c.ask(unit, read(3, 0, 1), 50*time.Millisecond); got != nil {
			t.Errorf("unit %d of a silent device answers % x", unit, got)
		}
	}
}
