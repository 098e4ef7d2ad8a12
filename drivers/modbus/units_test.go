package modbus

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
	"luquan/drivers/modbus/bus"
)

// twoUnits is one device that answers under two unit addresses.
const twoUnits = `
name: lan
%s
timeout: 200ms
devices:
  - name: ups
    unit: 3
    every: 1s
    profile:
      kind: probe
      label: {en: Probe}
      source: {where: test, confidence: high}
      limits: {gaps: ok, max_registers: 20}
      points:
        - {name: a, label: {en: A}, table: holding, address: 10, type: u16}
        - {name: b, label: {en: B}, table: holding, address: 11, type: u16, unit_offset: 2}
        - {name: c, label: {en: C}, table: holding, address: 10, type: u16, unit_offset: 2, unit: m, scale_from: {address: 12, rule: times}}
        - {name: d, label: {en: D}, table: coil, address: 10, type: bit, unit_offset: 2}
`

func overTCP(text string) string { return fmt.Sprintf(text, "tcp: {address: plc}") }

// byUnit makes each register tell whose it is, and silences the units of the map.
func byUnit(r *rig, silent map[byte]bool) {
	r.slave.Value = func(unit, _ byte, a uint16) (uint16, bool) { return 100*uint16(unit) + a, true }
	answers := r.slave.Script
	r.slave.Script = func(n int, req, ans []byte) []drivertest.Step {
		r.mu.Lock()
		quiet := silent[req[6]]
		r.mu.Unlock()
		if quiet {
			return nil
		}
		return answers(n, req, ans)
	}
}

// asked returns unit:address+count of every request.
func (r *rig) asked() (out []string) {
	for i, q := range r.slave.Requests() {
		out = append(out, fmt.Sprintf("%d:%s", q[6], r.requests()[i]))
	}
	return out
}

// TestTwoUnits: a device under two unit addresses is one device, its requests
// never mix them, and the silence of one makes its own points bad only.
func TestTwoUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, overTCP(twoUnits))
		defer r.close()
		silent := map[byte]bool{}
		byUnit(r, silent)
		s := r.poll(t)
		if got, want := text(s), "good: a=310 b=511 c=261120 d=0"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := r.asked(), []string{"3:10+1", "5:10+1", "5:10+3"}; !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
		r.mu.Lock()
		silent[5] = true
		r.mu.Unlock()
		before := time.Now()
		s = r.poll(t)
		if got, want := text(s), "good: a=310 b=/no reply c=/no reply d=/no reply"; got != want {
			t.Errorf("with unit 5 silent: got %q, want %q", got, want)
		}
		if late := s.Time.Sub(before); late > 10*time.Millisecond {
			t.Errorf("the value of the unit that answers is stamped %v after it came", late)
		}
		if got := r.asked()[3:]; !slices.Equal(got, []string{"3:10+1", "5:10+1"}) {
			t.Errorf("with unit 5 silent asked %v: its second request only costs another time-out", got)
		}
		asked := len(r.asked())
		if got, want := text(r.poll(t)), "good: a=310 b=/no reply c=/no reply d=/no reply"; got != want {
			t.Errorf("with unit 5 left alone: got %q, want %q", got, want)
		}
		if got := r.asked()[asked:]; !slices.Equal(got, []string{"3:10+1"}) {
			t.Errorf("unit 5 was silent a moment ago, and asked were %v", got)
		}
		time.Sleep(leastQuiet)
		r.mu.Lock()
		silent[3], silent[5] = true, false
		r.mu.Unlock()
		if got, want := text(r.poll(t)), "good: a=/no reply b=511 c=261120 d=0"; got != want {
			t.Errorf("with unit 3 silent: got %q, want %q", got, want)
		}
		r.mu.Lock()
		silent[5] = true
		r.mu.Unlock()
		s = r.poll(t) // unit 3 is left alone
		if got, want := text(s), "no reply:"; got != want {
			t.Errorf("with both silent: got %q, want %q", got, want)
		}
		var units []string
		for _, x := range r.Trace() {
			units = append(units, fmt.Sprint(x.Unit))
		}
		if got := strings.Join(units, " "); !strings.HasPrefix(got, "3 5 5 3 5") {
			t.Errorf("the evidence is of the units %s", got)
		}
	})
}

// TestTwoUnitsHoles: a hole of one unit is none of the other.
func TestTwoUnitsHoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, overTCP(`
name: lan
%s
devices:
  - name: m
    unit: 3
    profile:
      kind: probe
      label: {en: Probe}
      source: {where: test, confidence: high}
      limits: {gaps: ok}
      points:
        - {name: a, table: holding, address: 10, type: u16}
        - {name: b, table: holding, address: 12, type: u16}
        - {name: a2, table: holding, address: 10, type: u16, unit_offset: 1}
        - {name: b2, table: holding, address: 12, type: u16, unit_offset: 1}
`))
		defer r.close()
		r.slave.Value = func(unit, _ byte, a uint16) (uint16, bool) { return 100*uint16(unit) + a, unit == 3 || a != 11 }
		for range 2 {
			if got, want := text(r.poll(t)), "good: a=310 b=312 a2=410 b2=412"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if got, want := r.asked(), []string{"3:10+3", "4:10+3", "4:10+1", "4:12+1", "3:10+3", "4:10+1", "4:12+1"}; !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
	})
}

// TestTwoUnitsOnALine is the same on a serial line, whose budget knows that
// the silent device holds it for a time-out of each unit.
func TestTwoUnitsOnALine(t *testing.T) {
	c, err := parse(t, fmt.Sprintf(twoUnits, "rtu: {port: /dev/none, baud: 9600}"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Budget(library(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	one := c.wait(c.mustPlan(t)[0].Span, c.response(c.Devices[0].resolved.Limits))
	if got := b.Loads[0]; got.Requests != 3 || got.Silent < 2*one-10*time.Millisecond || got.Silent > 2*one+10*time.Millisecond {
		t.Errorf("got %+v, want 3 requests and about twice %v when silent", got, one)
	}
	synctest.Test(t, func(t *testing.T) {
		slave := &drivertest.Slave{Value: func(unit, _ byte, a uint16) (uint16, bool) { return 100*uint16(unit) + a, true }}
		served := make(chan struct{})
		line, err := bus.DialTCP(bus.TCPOptions{Address: "server", RTU: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			near, far := drivertest.Pair()
			go func() { defer close(served); slave.ServeRTU(far) }()
			return near, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		_, cost, err := c.openLine()
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{Bus: c.build(line, cost, nil), slave: slave}
		if got, want := text(r.poll(t)), "good: a=310 b=511 c=261120 d=0"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		r.Close()
		<-served
	})
}

// TestSharedUnit: two meters behind one controller are two devices.
func TestSharedUnit(t *testing.T) {
	const shared = `
name: lan
%s
devices:
  - {name: m1, unit: 3, profile: {kind: probe, label: {en: P}, source: {where: test, confidence: high}, shares_unit: true, points: [{name: a, table: holding, address: 10, type: u16}]}}
  - {name: m2, unit: 3, profile: {kind: probe, label: {en: P}, source: {where: test, confidence: high}, points: [{name: a, table: holding, address: 110, type: u16}]}}
`
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, overTCP(shared))
		defer r.close()
		byUnit(r, nil)
		for i, want := range []string{"good: a=310", "good: a=410"} {
			s, _ := r.Devices()[i].Poll(context.Background(), 0)
			if got := text(s); got != want || s.Device != fmt.Sprintf("m%d", i+1) {
				t.Errorf("%s: got %q, want %q", s.Device, got, want)
			}
		}
	})
	third := strings.Replace(shared, "%s", "tcp: {address: plc}", 1) + "  - {name: m3, unit: 3, profile: xy-md02}\n"
	if _, err := parse(t, third); err == nil || !strings.Contains(err.Error(), `gateway.yaml:7:22: unit 3 is already that of device "m2"`) {
		t.Errorf("got %v, want m3 refused for m2's sake, as neither shares", err)
	}
}

// TestUnitsTaken: the addresses that a profile adds are taken too.
func TestUnitsTaken(t *testing.T) {
	const other = "  - {name: other, unit: %d, profile: xy-md02}\n"
	for unit, want := range map[int]string{
		3: `unit 3 is already that of device "ups" on this bus; two devices with one address answer at once`,
		5: `unit 5 is already that of device "ups" on this bus`,
		4: "",
	} {
		_, err := parse(t, overTCP(twoUnits)+fmt.Sprintf(other, unit))
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("unit %d: %v, want %q", unit, err, want)
		}
	}
	_, err := parse(t, strings.Replace(fmt.Sprintf(twoUnits, "rtu: {port: x}"), "unit: 3", "unit: 246", 1))
	if want := "unit 248 (246 and 2, under which the profile reads some of its points) is beyond 247; give the device a lower address"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	chosen := strings.Replace(overTCP(twoUnits), "    every: 1s", "    every: 1s\n    points: [a]", 1)
	if _, err := parse(t, chosen+fmt.Sprintf(other, 5)); err != nil {
		t.Errorf("no chosen point stands under unit 5: %v", err)
	}
}

// mustPlan returns the first device's requests.
func (c *Config) mustPlan(t *testing.T) (out []request) {
	t.Helper()
	line, cost, err := c.openLine()
	if err != nil {
		t.Fatal(err)
	}
	b := c.build(line, cost, nil)
	defer b.Close()
	return b.devices[0].(*device).groups[0].requests
}

// TestSilentUnitOnTheLine: a unit address that stays silent while another one
// of the device answers costs a time-out twice a minute in the end, not in
// every poll, and is asked again soon after it is back.
func TestSilentUnitOnTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, overTCP(twoUnits))
		defer r.close()
		silent := map[byte]bool{5: true}
		byUnit(r, silent)
		start := time.Now()
		lost := 0
		for time.Since(start) < 10*time.Minute {
			from := time.Now()
			if got, want := text(r.poll(t)), "good: a=310 b=/no reply c=/no reply d=/no reply"; got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			if time.Since(from) > 100*time.Millisecond {
				lost++
			}
			time.Sleep(time.Until(from.Add(time.Second)))
		}
		if lost < 20 || lost > 26 {
			t.Errorf("%d of 600 polls waited for the silent unit, want 24: after 1, 2, 4, 8, 16 s, then every 30 s", lost)
		}
		r.mu.Lock()
		silent[5] = false
		r.mu.Unlock()
		back := time.Now()
		for text(r.poll(t)) != "good: a=310 b=511 c=261120 d=0" {
			if time.Since(back) > mostQuiet+2*time.Second {
				t.Fatal("unit 5 is back and not asked")
			}
			time.Sleep(time.Second)
		}
	})
}
