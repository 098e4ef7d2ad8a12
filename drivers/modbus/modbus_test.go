package modbus

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/drivers/drivertest"
	"luquan/drivers/modbus/bus"
	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// builtIn is read once: every rig needs it.
var builtIn = sync.OnceValues(func() (*profile.Library, error) { return profile.Load(firmwareconfig.FS, "devices") })

func library(t testing.TB) *profile.Library {
	t.Helper()
	lib, err := builtIn()
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

// parse reads one bus from YAML.
func parse(t testing.TB, text string) (Config, error) {
	t.Helper()
	var c Config
	doc, _ := conffile.Parse("gateway.yaml", []byte(text), &c)
	c.Validate(doc, nil, library(t))
	return c, doc.Err()
}

// rig is a bus over in-memory Modbus TCP.
type rig struct {
	*Bus
	slave   *drivertest.Slave
	mu      sync.Mutex
	silent  bool
	serving sync.WaitGroup
}

func newRig(t testing.TB, text string) *rig {
	t.Helper()
	c, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	_, cost, err := c.openLine()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{slave: &drivertest.Slave{}}
	r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.silent {
			return nil
		}
		return []drivertest.Step{{Wait: time.Millisecond, Bytes: ans}}
	}
	line, err := bus.DialTCP(bus.TCPOptions{Address: "plc", Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := drivertest.Pair()
		r.serving.Go(func() { r.slave.ServeTCP(far) })
		return near, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.Bus = c.build(line, cost, nil)
	return r
}

func (r *rig) close() {
	r.Close()
	r.serving.Wait()
}

func (r *rig) silence(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = on
}

// requests returns address+count of every request so far.
func (r *rig) requests() (out []string) {
	for _, q := range r.slave.Requests() {
		out = append(out, fmt.Sprintf("%d+%d", int(q[8])<<8|int(q[9]), int(q[10])<<8|int(q[11])))
	}
	return out
}

// poll reads group 0 of the first device.
func (r *rig) poll(t testing.TB) telemetry.Sample {
	t.Helper()
	s, ok := r.Devices()[0].Poll(context.Background(), 0)
	if !ok {
		t.Fatal("poll was cancelled")
	}
	return s
}

// text writes a sample's outcome as "status: point=value/quality ...".
func text(s telemetry.Sample) string {
	var b strings.Builder
	b.WriteString(s.Status.String() + ":")
	for _, r := range s.Readings {
		fmt.Fprintf(&b, " %s=%v", r.Point, r.Value)
		if r.Quality != telemetry.Good {
			fmt.Fprintf(&b, "/%v", r.Quality)
		}
	}
	return b.String()
}

// meter is a device of four registers and a coil: a, b joined, c beyond a hole that may be read, d far off.
const meter = `
name: lan
tcp: {address: plc}
timeout: 200ms
devices:
  - name: m1
    unit: 3
    every: 1s
    profile:
      kind: probe
      label: {en: Probe}
      source: {where: test, confidence: high}
      limits: {gaps: ok, max_registers: 20}
      points:
        - {name: a, label: {en: A}, table: holding, address: 10, type: u16, scale: 0.1, unit: degC}
        - {name: b, label: {en: B}, table: holding, address: 11, type: u32}
        - {name: c, label: {en: C}, table: holding, address: 15, type: u16, range: {min: 0, max: 20}}
        - {name: d, label: {en: D}, table: holding, address: 500, type: u16, invalid: [500]}
`

func TestConformance(t *testing.T) {
	lib := library(t)
	for _, id := range lib.Names() {
		t.Run(id, func(t *testing.T) {
			var params []string // those that gateway.yaml must say
			for _, p := range lib.Params(id) {
				if p.Default == "" {
					params = append(params, fmt.Sprintf("%s: %q", p.Name, p.OneOf[0]))
				}
			}
			id := fmt.Sprintf("{base: %s, params: {%s}}", id, strings.Join(params, ", "))
			drivertest.TestDevice(t, func(t *testing.T) drivertest.Plant {
				r := newRig(t, "name: lan\ntcp: {address: plc}\ntimeout: 200ms\ndevices: [{name: d1, unit: 1, profile: "+id+"}, {name: d2, unit: 124, profile: "+id+"}]")
				return drivertest.Plant{Bus: r.Bus, Silence: r.silence, Close: r.serving.Wait}
			})
		})
	}
}

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, meter)
		defer r.close()
		before := time.Now()
		s := r.poll(t)
		if got, want := text(s), "good: a=1 b=720908 c=15 d=/invalid"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := r.requests(); !slices.Equal(got, []string{"10+6", "500+1"}) {
			t.Errorf("requests %v", got)
		}
		if s.Time != before.Add(2*time.Millisecond) {
			t.Errorf("stamped %v after the start, want the last answer's arrival at 2ms", s.Time.Sub(before))
		}
	})
}

// TestRefusedWhole: one register the device does not have costs its own point only.
func TestRefusedWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, meter)
		defer r.close()
		missing := map[uint16]bool{13: true} // in the hole between b and c
		r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, !missing[a] }
		want := "good: a=1 b=720908 c=15 d=/invalid"
		for range 2 {
			if got := text(r.poll(t)); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		// The first poll tries the whole, at last the two sides of the hole; the second knows.
		if got := r.requests(); !slices.Equal(got, []string{"10+6", "500+1", "10+3", "15+1", "10+3", "15+1", "500+1"}) {
			t.Errorf("requests %v", got)
		}
		missing[11] = true // now a wanted one
		if got, want := text(r.poll(t)), "good: a=1 b=/refused c=15 d=/invalid"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		for a := range uint16(600) { // everything
			missing[a] = true
		}
		if got, want := text(r.poll(t)), "refused:"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestRefusedForAWhile: a device that refuses everything is not divided for ever.
func TestRefusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, meter)
		defer r.close()
		busy := true
		r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, !busy }
		r.poll(t)
		busy = false
		n := len(r.requests())
		r.poll(t)
		if got := r.requests()[n:]; !slices.Equal(got, []string{"10+6", "500+1"}) {
			t.Errorf("requests %v", got)
		}
	})
}

// TestStatus: what the sample says for each failure, and that a device that
// does not answer is not asked on.
func TestStatus(t *testing.T) {
	exception := func(code byte) func([]byte) []byte {
		return func(ans []byte) []byte {
			return append(append([]byte(nil), ans[:4]...), 0, 3, ans[6], ans[7]|0x80, code)
		}
	}
	silent := func([]byte) []byte { return nil }
	for name, tt := range map[string]struct {
		first, second func([]byte) []byte // what becomes of each answer
		want          string
		requests      int
	}{
		"first silent":     {silent, nil, "no reply:", 1},
		"second silent":    {nil, silent, "good: a=1 b=720908 c=15 d=/no reply", 2},
		"garbled":          {func(b []byte) []byte { b[6] = 9; return b }, nil, "good: a=/garbled b=/garbled c=/garbled d=/invalid", 2},
		"busy":             {exception(6), exception(6), "refused:", 2},
		"gateway target":   {exception(11), nil, "no reply:", 1},
		"gateway target 2": {nil, exception(11), "good: a=1 b=720908 c=15 d=/no reply", 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, meter)
				defer r.close()
				r.slave.Script = func(_ int, req, ans []byte) []drivertest.Step {
					change := tt.first
					if req[8] == 500>>8 {
						change = tt.second
					}
					if change != nil {
						ans = change(ans)
					}
					return []drivertest.Step{{Bytes: ans}}
				}
				if got := text(r.poll(t)); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if n := len(r.requests()); n != tt.requests {
					t.Errorf("%d requests, want %d", n, tt.requests)
				}
			})
		})
	}
}

func TestDeadband(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, strings.Replace(meter, "    every: 1s\n", `    every: 1s
    points: [{name: a, deadband: 0.5, max_silence: 1m}, {name: b, deadband: 1%}, c]
`, 1))
		defer r.close()
		a, b := uint16(100), uint16(1000)
		r.slave.Value = func(_, _ byte, at uint16) (uint16, bool) {
			switch at {
			case 10:
				return a, true
			case 12:
				return b, true
			case 15:
				return 1, true
			}
			return 0, true
		}
		step := func(what, want string) {
			t.Helper()
			if got := text(r.poll(t)); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
			time.Sleep(time.Second)
		}
		step("the first carries all", "good: a=10 b=1000 c=1")
		step("nothing moved; c has no deadband", "good: c=1")
		a, b = 104, 1009
		step("moved within", "good: c=1")
		a = 106
		step("0.6 from the last sent", "good: a=10.6 c=1")
		b = 989
		step("1.1 % from the last sent", "good: b=989 c=1")
		r.Devices()[0].(*device).Refresh()
		step("refreshed", "good: a=10.6 b=989 c=1")
		step("once", "good: c=1")
		time.Sleep(time.Minute)
		step("max_silence", "good: a=10.6 c=1")
		r.silence(true)
		step("silent", "no reply:")
		r.silence(false)
		step("after a silence all is told again", "good: a=10.6 b=989 c=1")
	})
}

// TestGroups: points of one period are one group, the profile's slow ones stay slow.
func TestGroups(t *testing.T) {
	c, err := parse(t, `
name: lan
tcp: {address: plc}
devices:
  - {name: ups, unit: 1, every: 5s, profile: apc-smart-ups-modbus, tags: {system: power, area: hall}, label: {zh: 电源}}
  - {name: ups-2, unit: 2, profile: apc-smart-ups-modbus, points: [serial, {name: output_energy, every: 2s}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	line, cost, err := c.openLine()
	if err != nil {
		t.Fatal(err)
	}
	b := c.build(line, cost, nil)
	defer b.Close()
	describe := func(i int) (out []string) {
		for _, g := range b.Devices()[i].Info().Groups {
			out = append(out, fmt.Sprintf("%v:%d", g.Every, len(g.Points)))
		}
		return out
	}
	if got := describe(0); len(got) != 3 || !strings.HasPrefix(got[0], "5s:") || got[1] != "1m0s:1" || !strings.HasPrefix(got[2], "1h0m0s:") {
		t.Errorf("groups %v", got)
	}
	if got := describe(1); !slices.Equal(got, []string{"2s:1", "1h0m0s:1"}) {
		t.Errorf("groups %v", got)
	}
	info := b.Devices()[0].Info()
	if info.Bus != "lan" || info.Profile != "apc-smart-ups-modbus" || info.Kind != "ups" || info.Label.Zh != "电源" ||
		!slices.Equal(info.Tags, []telemetry.Tag{{Key: "area", Value: "hall"}, {Key: "system", Value: "power"}}) {
		t.Errorf("info %+v", info)
	}
	if l := b.Devices()[1].Info().Label; l.Zh == "" {
		t.Error("without a label of its own the device has not the profile's")
	}
}

// TestMistakes: each is told once, where it stands, with what to do.
func TestMistakes(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want string }{
		"same unit": {`
name: lan
tcp: {address: plc}
devices:
  - {name: one, unit: 1, profile: xy-md02}
  - {name: two, unit: 1, profile: xy-md02}`,
			`gateway.yaml:6:23: unit 1 is already that of device "one"`},
		"unit range rtu": {`
name: line
rtu: {port: /dev/x}
devices: [{name: one, unit: 248, profile: xy-md02}]`, `:4:29: unit 248 is outside 1 to 247`},
		"unit range tcp": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 256, profile: xy-md02}]`, `:4:29: unit 256 is outside 0 to 255`},
		"no unit": {`
name: lan
tcp: {address: plc}
devices: [{name: one, profile: xy-md02}]`, `device "one" has no unit`},
		"unknown profile": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 1, profile: xy-md03}]`, `did you mean "xy-md02"?`},
		"unknown point": {`
name: lan
tcp: {address: plc}
devices:
  - {name: one, unit: 1, profile: xy-md02, points: [temperature, humidty]}`,
			`:5:66: profile xy-md02 has no point "humidty"; did you mean "humidity"?`},
		"point twice": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 1, profile: xy-md02, points: [humidity, {name: humidity, every: 5s}]}]`, `chosen twice`},
		"too fast": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 1, every: 50ms, profile: xy-md02}]`, `:4:39: a period of 50ms is outside 100ms to 24h`},
		"tag": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 1, profile: xy-md02, tags: {systm: x}}]`, `no tag "systm"; did you mean "system"?`},
		"deadband": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 1, profile: xy-md02, points: [{name: humidity, deadband: much}]}]`, `"much" is not a deadband`},
		"silence alone": {`
name: lan
tcp: {address: plc}
devices: [{name: one, unit: 1, profile: xy-md02, points: [{name: humidity, max_silence: 1m}]}]`, `no meaning without a deadband`},
		"neither": {`
name: lan
devices: [{name: one, unit: 1, profile: xy-md02}]`, `bus "lan" has neither rtu nor tcp`},
		"both": {`
name: lan
tcp: {address: plc}
rtu: {port: x}
devices: [{name: one, unit: 1, profile: xy-md02}]`, `make it two buses`},
		"parity":     {"\nname: l\nrtu: {port: x, parity: evn}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `:3:24: parity is "evn"; it is one of: even, odd, none`},
		"port":       {"\nname: l\nrtu: {baud: 9600}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `port is missing`},
		"baud":       {"\nname: l\nrtu: {port: x, baud: 1}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `baud 1 is outside`},
		"stop bits":  {"\nname: l\nrtu: {port: x, stop_bits: 3}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `stop_bits is 3`},
		"address":    {"\nname: l\ntcp: {address: 'a:b:c'}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `:3:16: address "a:b:c" is not host:port`},
		"framing":    {"\nname: l\ntcp: {address: a, framing: ascii}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `framing is "ascii"`},
		"timeout":    {"\nname: l\ntimeout: 1h\ntcp: {address: a}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `:3:10: a timeout of 1h0m0s`},
		"name":       {"\nname: My Bus\ntcp: {address: a}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `:2:7: "My Bus" cannot name a bus`},
		"no devices": {"\nname: l\ntcp: {address: a}", `bus "l" has no devices`},
		"key":        {"\nname: l\ntcp: {adress: a}\ndevices: [{name: one, unit: 1, profile: xy-md02}]", `did you mean "address"?`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parse(t, tt.yaml)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if b, err := Open(c, library(t), nil); err == nil && name != "key" && name != "deadband" {
				b.Close()
				t.Error("Open takes it all the same")
			}
		})
	}
}
