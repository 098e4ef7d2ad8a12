package e2e

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	firmwareconfig "luquan/firmware-config"
	"luquan/internal/plant"
)

// instruments stand on the test bench, once on a serial line and once over
// TCP: every model, with values that a wrong sign, width, word order, scale or
// unit would change. Feeds are in canonical units.
var instruments = []struct{ name, profile, plant string }{
	{"heat-a", "kamstrup-multical-603",
		"feeds: {flow: 12.3456789, power: 1234567.8, flow_temp: 81.37, return_temp: 44.21, t3: -12.75}"}, // flow_2, t4: not there
	{"heat-b", "{base: kamstrup-multical-603, params: {flow_unit: m3/h, power_unit: MW, table: input, word_order: little}}",
		"feeds: {flow: 0.1, flow_2: 333.3, power: 98765432, flow_temp: 130.05, return_temp: 70.1, t3: -0.1}"},
	{"pump", "grundfos-cim-pump", // what is not fed the pump does not have
		"hole: 0xFFFF, feeds: {device_status: 41728, control_mode: 128, alarm_code: 65000, warning_code: 0, feedback_max: 6, " +
			"head: 1.234, flow: 25.25, performance: 98.76, speed: 2950, frequency: 49.3, setpoint_actual: 55.5, motor_current: 12.3, power: 100000, " +
			"electronics_temp: 45.67, liquid_temp: -3.21, operating_hours: 123456, energy: 987654000, starts: 70001, heat_power: 123456.789, " +
			"heat_dt: -5.25, volume: 1234567.89}"},
	{"power", "schneider-iem3000-pm5xxx",
		"feeds: {i_l1: 12.345, i_l2: 0, i_l3: 999.9, i_avg: 337.415, u_l1: 229.87, u_l2: 231.4, u_l3: 230.05, u_avg: 230.44, p_l1: 1234.5, " +
			"p_l2: -77.7, p_l3: 0.1, p_total: 1156.9, q_total: -3210.5, s_total: 3412.7, frequency: 49.987, energy_import: 9876543210123, " +
			"energy_export: 4294967296, reactive_import: 65536, reactive_export: -42, energy_import_l1: 1}"},
	{"level-cm", "qdy30a", "feeds: {level: 3.217, unit_code: 1}, settings: [{table: holding, address: 3, value: 1}]"},
	{"level-mm", "qdy30a", "feeds: {level: -0.125, unit_code: 2}, settings: [{table: holding, address: 3, value: 0}]"},
	{"pressure", "{base: qdy30a, params: {quantity: pressure}}",
		"feeds: {pressure: 0.0123, unit_code: 5}, settings: [{table: holding, address: 3, value: 3}]"},
	{"oxygen", "{base: remond-water-probe, params: {probe: do}}",
		"feeds: {do: 7.89, temperature: 18.43, output_current: 11.11, warning: 2, upper_limit: 20, lower_limit: 0.25, value_offset: -0.125, " +
			"temp_offset: -1.5, damping: 3, modbus_address: 21, baud: 2, adc: 51234}, settings: [{table: holding, address: 8, value: 1}]"},
	{"redox", "{base: remond-water-probe, params: {probe: orp}}",
		"feeds: {orp: -210.5, temperature: -0.05, output_current: 4, warning: 4, upper_limit: 1000, lower_limit: -1000, value_offset: 0.5, " +
			"temp_offset: 0.25, damping: 0, modbus_address: 22, baud: 4, adc: 1}, settings: [{table: holding, address: 8, value: 1}]"},
	{"turbidity", "{base: remond-water-probe, params: {probe: turbidity}}",
		"feeds: {turbidity: 0.012, temperature: 20.1, output_current: 4.02, warning: 0, upper_limit: 100, lower_limit: 0, value_offset: -3.5, " +
			"temp_offset: 0, damping: 10, modbus_address: 23, baud: 0, adc: 65535}"},
	{"ups", "apc-smart-ups-modbus",
		"feeds: {device_status: 2105348, transfer_cause: 9, shutdown_signal: 2, power_system_error: 12304, battery_error: 65, runtime: 100000, " +
			"charge: 99.5, battery_voltage: 218.03125, battery_temp: -4.25, load: 63.4, output_power: 5000, output_current: 40.5, output_voltage: 229.9, " +
			"output_frequency: 50.02, output_energy: 5000001, input_status: 96, input_voltage: none, efficiency: none, firmware: UPS 09.8, " +
			"model: Smart-UPS SRT 10000, serial: AS2145120001, rated_va: 10000, rated_w: 9000, battery_date: 8430, transfer_high: 253, transfer_low: 170}"},
	{"air-a", "xy-md02", "feeds: {temperature: -12.3, humidity: 45.6}"},
	{"air-b", "{base: xy-md02, params: {table: holding}}", "feeds: {temperature: 31.4, humidity: 100}"},
}

// truth is what some of the feeds come to, worked out by hand: mbpoll and the
// console read the same registers and would agree on wrong ones.
var truth = map[string]any{
	"heat-a/flow_temp": 81.37, "heat-a/t4": nil, "heat-b/t3": -0.1,
	"heat-b/power":       98765434.0, // the float32 next to 98.765432 MW is 98.765434
	"pump/device_status": 41728.0, "pump/power": 100000.0, "pump/liquid_temp": -3.21, "pump/heat_dt": -5.25,
	"pump/energy": 987654000.0, "pump/volume": 1234567.89, "pump/differential_pressure": nil, "pump/heat_energy": nil,
	"power/q_total": -3210.5, "power/energy_import": 9876543210123.0, "power/reactive_export": -42.0,
	"level-cm/level": 3.217, "level-mm/level": -0.125, "pressure/pressure": 0.0123,
	"redox/orp": -210.5, "redox/warning": 4.0,
	"ups/device_status": 2105348.0, "ups/battery_temp": -4.25, "ups/input_voltage": nil, "ups/battery_date": "2023-01-30",
	"ups/output_power":  5705.859375, // 63.4 % is 16230/256 %, of 9000 W
	"air-a/temperature": -12.3, "air-b/humidity": 100.0,
}

// benchSite is firmware-config with the bench as one more site.
func benchSite(t *testing.T) fs.FS {
	t.Helper()
	var floor, board strings.Builder
	floor.WriteString("site: bench\nlabel: {en: Bench, zh: 试验台}\nmodel: heating-plant\nbuses:\n")
	board.WriteString("site: bench\ngateway: board\nuplink: {broker: mqtt://127.0.0.1:1883}\nbuffer: {dir: /unused}\nbuses:\n")
	for _, b := range []struct{ name, prefix, floor, board string }{
		{"serial", "r-", "rtu: {baud: 38400, parity: odd}", "rtu: {port: /unused, baud: 38400, parity: odd}"},
		{"network", "t-", "tcp: {port: 1502}", "tcp: {address: 127.0.0.1:1502}"},
	} {
		fmt.Fprintf(&floor, "  - name: %s\n    %s\n    devices:\n", b.name, b.floor)
		fmt.Fprintf(&board, "  - name: %s\n    %s\n    devices:\n", b.name, b.board)
		for i, d := range instruments {
			fmt.Fprintf(&floor, "      - {name: %s%s, unit: %d, profile: %s, %s}\n", b.prefix, d.name, 11+i, d.profile, d.plant)
			fmt.Fprintf(&board, "      - {name: %s%s, unit: %d, profile: %s, every: 10s}\n", b.prefix, d.name, 11+i, d.profile)
		}
	}
	site := fstest.MapFS{
		"sites/bench/plant.yaml":   {Data: []byte(floor.String())},
		"sites/bench/gateway.yaml": {Data: []byte(board.String())},
	}
	files, err := fs.Glob(firmwareconfig.FS, "devices/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := fs.ReadFile(firmwareconfig.FS, f)
		if err != nil {
			t.Fatal(err)
		}
		site[f] = &fstest.MapFile{Data: data}
	}
	return site
}

// TestMbpollReadsEveryModelOverBothTransports puts every model on a serial line
// and on TCP, all points of each.
func TestMbpollReadsEveryModelOverBothTransports(t *testing.T) {
	need(t, "mbpoll")
	fsys := benchSite(t)
	p, err := plant.Load(fsys, "sites/bench", plant.Options{Frozen: true, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	buses := p.Buses()
	points := shownByConsole(t, siteConfigs(t, fsys, "sites/bench", buses), map[string][]plant.Bus{"bench": buses})["bench"]
	for _, b := range buses {
		for _, d := range b.Devices {
			if served := p.Served(d.Name); served[0] != 0 {
				t.Errorf("the serial register of %s was read %d times before mbpoll came", d.Name, served[0])
			}
		}
	}
	agreed := agreement{}
	compare(t, "bench", buses, points, agreed)
	for _, b := range buses {
		for _, d := range b.Devices {
			if served := p.Served(d.Name); served[0] != 3 {
				t.Errorf("the plant has served the serial register of %s %d times, mbpoll has read it 3 times", d.Name, served[0])
			}
			if d.Profile != "qdy30a" && d.Profile != "remond-water-probe" { // one measured value of several
				for point := range book(t, d) {
					if _, ok := points[d.Name+"/"+point]; !ok {
						t.Errorf("the console does not show %s of %s", point, d.Name)
					}
				}
			}
		}
	}
	for _, model := range []string{"kamstrup-multical-603", "grundfos-cim-pump", "schneider-iem3000-pm5xxx", "qdy30a", "remond-water-probe",
		"apc-smart-ups-modbus", "xy-md02"} {
		enough(t, agreed, "rtu "+model, "tcp "+model)
	}
	for name, want := range truth {
		for _, prefix := range []string{"r-", "t-"} {
			if got := points[prefix+name]; !got.equal(want) {
				t.Errorf("%s%s is fed %v, the console shows %v (%s)", prefix, name, want, got.Value, got.Quality)
			}
		}
	}
	if n := p.WriteAttempts(); n != 0 {
		t.Errorf("%d requests would have written", n)
	}
}
