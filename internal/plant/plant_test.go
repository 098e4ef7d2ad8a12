package plant

import (
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a small site that has one of everything; what the three real sites
// hold is tested in sites_test.go.
const (
	benchProfile = `
id: bench
vendor: Bench
model: bench
kind: heat_meter
label: {en: bench, zh: 测试}
source: {where: this test, confidence: high}
limits: {max_registers: 40, gaps: GAPS}
points:
  - {name: flow_temp, table: holding, address: 0, type: s16, scale: 0.01, unit: degC, invalid: [0x7FFF]}
  - {name: power, table: holding, address: 1, type: f32, word_order: little, unit: kW}
  - {name: energy, table: holding, address: 4, type: u64, unit: Wh, counter: true}
  - {name: flow, table: input, address: 7, type: u16, scale: 0.1, unit: m3/h, byte_order: little, invalid: [all-ones]}
  - {name: model_name, table: input, address: 20, type: "string:6"}
  - {name: spare, table: input, address: 24, type: u32, invalid: [all-ones]}
`
	benchSite = `
site: bench-1
model: heating-plant
buses:
  - name: lan
    tcp: {port: 15999}
    devices:
      - name: tcp-a
        profile: bench
        unit: 1
        feeds: {flow_temp: supply_temp, power: heat_power, energy: heat_meter.energy, flow: network_flow, model_name: ABCDE}
      - {name: tcp-b, profile: bench-gaps, unit: 2, hole: 0xFFFF, feeds: {flow_temp: 21.5, power: 1000}}
      - {name: tcp-c, profile: bench-fill, unit: 3, feeds: {flow_temp: -3.25}}
  - name: line
    rtu: {baud: 9600, parity: none}
    devices:
      - {name: rtu-a, profile: bench, unit: 1, feeds: {flow_temp: supply_temp, flow: network_flow}}
      - {name: rtu-b, profile: bench, unit: 7, feeds: {flow_temp: 12.34, flow: 1.5, power: 1000}}
`
)

func benchFS(site string) fs.FS {
	model := func(id, gaps string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(strings.NewReplacer("id: bench", "id: "+id, "GAPS", gaps).Replace(benchProfile))}
	}
	return fstest.MapFS{
		"devices/bench.yaml":         model("bench", "error"),
		"devices/bench-gaps.yaml":    model("bench-gaps", "ok"),
		"devices/bench-fill.yaml":    model("bench-fill", "zero-fill"),
		"sites/bench/plant.yaml":     {Data: []byte(site)},
		"sites/unrelated/rules.yaml": {Data: []byte("rules: []\n")},
	}
}

func start(t *testing.T, fsys fs.FS, dir string, o Options) *Plant {
	t.Helper()
	o.Seed, o.Start = 7, time.Date(2025, 1, 15, 9, 0, 0, 0, time.UTC)
	p, err := Load(fsys, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func bench(t *testing.T, o Options) *Plant { return start(t, benchFS(benchSite), "sites/bench", o) }

// client speaks Modbus TCP with raw bytes.
type client struct {
	t *testing.T
	net.Conn
	id uint16
}

func dial(t *testing.T, p *Plant, bus string) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr(bus))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{t: t, Conn: c}
}

// ask sends a PDU and returns the answer's PDU; nil when none came by limit.
func (c *client) ask(unit byte, pdu []byte, limit time.Duration) []byte {
	c.t.Helper()
	c.id++
	req := binary.BigEndian.AppendUint16(nil, c.id)
	req = binary.BigEndian.AppendUint16(req, 0)
	req = binary.BigEndian.AppendUint16(req, uint16(1+len(pdu)))
	req = append(append(req, unit), pdu...)
	if _, err := c.Write(req); err != nil {
		c.t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		c.t.Fatal(err)
	}
	var head [7]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil
	}
	if binary.BigEndian.Uint16(head[:]) != c.id || binary.BigEndian.Uint16(head[2:]) != 0 || head[6] != unit {
		c.t.Fatalf("answer header % x to request %d of unit %d", head, c.id, unit)
	}
	out := make([]byte, binary.BigEndian.Uint16(head[4:])-1)
	if _, err := io.ReadFull(c, out); err != nil {
		c.t.Fatal(err)
	}
	return out
}

func read(fn byte, first, n uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{fn}, first), n)
}

const soon = 2 * time.Second

// words returns the registers of a good answer, or its bits, one a word, with
// those that fill the last byte.
func words(t *testing.T, pdu []byte) []uint16 {
	t.Helper()
	if len(pdu) < 2 || pdu[0]&0x80 != 0 || int(pdu[1]) != len(pdu)-2 {
		t.Fatalf("answer % x is not one of registers", pdu)
	}
	var w []uint16
	if pdu[0] <= 2 {
		for i := range 8 * int(pdu[1]) {
			w = append(w, uint16(pdu[2+i/8]>>(i%8)&1))
		}
		return w
	}
	for i := 2; i < len(pdu); i += 2 {
		w = append(w, binary.BigEndian.Uint16(pdu[i:]))
	}
	return w
}

func TestRegistersHoldTheQuantities(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	c := dial(t, p, "lan")
	near := func(what string, got, want, within float64) {
		t.Helper()
		if math.Abs(got-want) > within {
			t.Errorf("%s: registers say %v, the plant %v", what, got, want)
		}
	}
	truth := func(point string) float64 {
		v, ok := p.Value("tcp-a", point)
		if !ok {
			t.Fatalf("nothing measures %s", point)
		}
		return v
	}
	w := words(t, c.ask(1, read(3, 0, 3), soon))
	near("s16 with a scale", float64(int16(w[0]))*0.01, truth("flow_temp"), 0.0051)
	near("f32, low word first, kW", float64(math.Float32frombits(uint32(w[2])<<16|uint32(w[1]))), truth("power")/1000, 0.001)
	w = words(t, c.ask(1, read(3, 4, 4), soon))
	near("u64", float64(uint64(w[0])<<48|uint64(w[1])<<32|uint64(w[2])<<16|uint64(w[3])), truth("energy"), 0.51)
	w = words(t, c.ask(1, read(4, 7, 1), soon))
	near("u16, bytes swapped, m3/h", float64(w[0]>>8|w[0]<<8)*0.1, truth("flow")*3.6, 0.051)
	if w = words(t, c.ask(1, read(4, 20, 3), soon)); !slices.Equal(w, []uint16{0x4142, 0x4344, 0x4500}) {
		t.Errorf("text is %x", w)
	}
	if w = words(t, c.ask(1, read(4, 24, 2), soon)); !slices.Equal(w, []uint16{0xFFFF, 0xFFFF}) {
		t.Errorf("a point that nothing feeds is %x, want the model's not available", w)
	}
	if v, ok := p.Value("tcp-a", "spare"); ok {
		t.Errorf("Value of a point that nothing feeds is %v", v)
	}
	if w = words(t, c.ask(3, read(3, 0, 1), soon)); w[0] != 0xFEBB {
		t.Errorf("-3.25 is %04x, want febb (-325)", w[0])
	}
}

func TestRefusals(t *testing.T) {
	p := bench(t, Options{OnWrite: func(Write) {}})
	c := dial(t, p, "lan")
	for _, tt := range []struct {
		name string
		unit byte
		pdu  []byte
		want []byte
	}{
		{"a gap of a strict model", 1, read(3, 0, 5), []byte{0x83, 2}},
		{"an undefined register", 1, read(3, 99, 1), []byte{0x83, 2}},
		{"more than the model allows", 1, read(3, 0, 41), []byte{0x83, 3}},
		{"nothing", 1, read(3, 0, 0), []byte{0x83, 3}},
		{"beyond the last address", 1, read(3, 65535, 2), []byte{0x83, 2}},
		{"a table without registers", 1, read(1, 0, 1), []byte{0x81, 2}},
		{"a short request", 1, []byte{3, 0}, []byte{0x83, 3}},
		{"an unknown function", 1, []byte{43, 14, 1, 0}, []byte{0xAB, 1}},
		{"a foreign unit", 9, read(3, 0, 1), []byte{0x83, 11}},
		{"a block that begins undefined, zero-fill", 3, read(3, 3, 3), []byte{0x83, 2}},
	} {
		if got := c.ask(tt.unit, tt.pdu, soon); !slices.Equal(got, tt.want) {
			t.Errorf("%s: answer % x, want % x", tt.name, got, tt.want)
		}
	}
	if n := p.WriteAttempts(); n != 0 {
		t.Errorf("%d write attempts counted, none was made", n)
	}
	if w := words(t, c.ask(2, read(3, 98, 3), soon)); !slices.Equal(w, []uint16{0xFFFF, 0xFFFF, 0xFFFF}) {
		t.Errorf("a model that fills gaps answers %x", w)
	}
	if w := words(t, c.ask(3, read(3, 0, 30), soon)); w[20] != 0 {
		t.Errorf("a hole of a zero-fill model is %x", w[20])
	}
	for i, pdu := range [][]byte{{5, 0, 1, 0xFF, 0}, {6, 0, 1, 0, 1}, {15, 0, 0, 0, 1, 1, 1}, {16, 0, 0, 0, 1, 2, 0, 1}, {22, 0, 0, 0, 0, 0, 0}, {23, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0}} {
		if got := c.ask(1, pdu, soon); !slices.Equal(got, []byte{pdu[0] | 0x80, 1}) {
			t.Errorf("write function %d: answer % x", pdu[0], got)
		}
		if n := p.WriteAttempts(); n != uint64(i+1) {
			t.Errorf("after %d attempts to write %d are counted", i+1, n)
		}
	}
}

func TestSerialRegisterCountsWholeReads(t *testing.T) {
	p := bench(t, Options{})
	c := dial(t, p, "lan")
	serial := func(fn byte, g uint16) uint32 {
		w := words(t, c.ask(1, read(fn, 65000+2*g, 2), soon))
		return uint32(w[0])<<16 | uint32(w[1])
	}
	for want := uint32(1); want <= 3; want++ {
		if got := serial(3, 1); got != want {
			t.Errorf("read %d answered serial %d", want, got)
		}
	}
	if got := serial(4, 1); got != 4 {
		t.Errorf("the input table counts by itself: %d", got)
	}
	if w := words(t, c.ask(1, read(3, 65003, 1), soon)); w[0] != 4 {
		t.Errorf("half a serial reads %d, want the count unmoved", w[0])
	}
	words(t, c.ask(1, read(3, 65000, 6), soon)) // groups 0, 1 and 2
	// An answer counts when it was handed over, which is after we have it.
	got, want := p.Served("tcp-a"), []uint32{1, 5, 1, 0, 0, 0, 0, 0}
	for end := time.Now().Add(soon); !slices.Equal(got, want) && time.Now().Before(end); got = p.Served("tcp-a") {
		runtime.Gosched()
	}
	if !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
	for _, do := range []string{"silence", "garble"} {
		clear, err := p.Fault(Fault{Device: "tcp-a", Do: do})
		if err != nil {
			t.Fatal(err)
		}
		func() { // a garbled header ends the conversation
			c := dial(t, p, "lan")
			c.id++
			if _, err := c.Write(append([]byte{0, 1, 0, 0, 0, 6, 1}, read(3, 65002, 2)...)); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			buf := make([]byte, 64)
			n, _ := c.Read(buf)
			if do == "silence" && n != 0 {
				t.Errorf("a silent device answered % x", buf[:n])
			}
			if do == "garble" && (n == 0 || buf[2] == 0 && buf[3] == 0) {
				t.Errorf("a garbled answer has the header % x", buf[:n])
			}
		}()
		clear()
		if got := p.Served("tcp-a")[1]; got != 5 {
			t.Errorf("under %s the serial moved to %d", do, got)
		}
	}
	if got := serial(3, 1); got != 6 {
		t.Errorf("afterwards serial %d, want 6", got)
	}
	if p.Served("nobody") != nil {
		t.Error("an unknown device served something")
	}
}

func TestFaults(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	c := dial(t, p, "lan")
	apply := func(f Fault) func() {
		t.Helper()
		clear, err := p.Fault(f)
		if err != nil {
			t.Fatal(err)
		}
		return clear
	}
	temp := func() int16 { return int16(words(t, c.ask(1, read(3, 0, 1), soon))[0]) }

	clear := apply(Fault{Device: "tcp-a", Do: "refuse", Value: 6})
	if got := c.ask(1, read(3, 0, 1), soon); !slices.Equal(got, []byte{0x83, 6}) {
		t.Errorf("refuse: % x", got)
	}
	clear()
	clear() // twice is harmless

	before := temp()
	clear = apply(Fault{Device: "tcp-a", Do: "freeze", Point: "flow_temp"})
	unset := apply(Fault{Do: "set", Quantity: "supply_temp", Value: 55})
	if got := temp(); got != before {
		t.Errorf("frozen at %d, reads %d", before, got)
	}
	clear()
	if got := temp(); got != 5500 {
		t.Errorf("supply_temp set to 55 reads %d", got)
	}
	if v, _ := p.Value("rtu-a", "flow_temp"); v != 55 {
		t.Errorf("another device sees %v of the same quantity", v)
	}
	flow, _ := p.Quantity("network_flow")
	ret, _ := p.Quantity("return_temp")
	if heat, _ := p.Quantity("heat_power"); math.Abs(heat-flow*(55-ret)*waterHeat) > 1 {
		t.Errorf("heat power %v does not follow the supply temperature", heat)
	}
	unset()

	clear = apply(Fault{Device: "tcp-a", Point: "flow_temp", Do: "set", Value: 99.5})
	if got := temp(); got != 9950 {
		t.Errorf("the point set alone reads %d", got)
	}
	clear()
	clear = apply(Fault{Device: "tcp-a", Point: "flow_temp", Do: "sentinel"})
	if got := temp(); got != 0x7FFF {
		t.Errorf("sentinel reads %x", got)
	}
	clear()

	clear = apply(Fault{Device: "tcp-a", Do: "delay", Delay: 150 * time.Millisecond})
	other := dial(t, p, "lan")
	begin := time.Now()
	done := make(chan time.Duration)
	go func() {
		c.ask(1, read(3, 0, 1), soon)
		done <- time.Since(begin)
	}()
	other.ask(2, read(3, 0, 1), soon)
	quick := time.Since(begin)
	if slow := <-done; slow < 150*time.Millisecond || quick >= slow {
		t.Errorf("delay 150ms: answered after %v, the other device after %v", slow, quick)
	}
	clear()

	clear = apply(Fault{Bus: "lan", Do: "cut"})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the cut")
	}
	if again, err := net.Dial("tcp", p.Addr("lan")); err == nil {
		again.Close()
		t.Error("a cut bus still accepts")
	}
	clear()
	c = dial(t, p, "lan")
	if got := temp(); got != before {
		t.Errorf("after the cut %d, before %d", got, before)
	}
}

func TestFaultScriptKeepsItsTimes(t *testing.T) {
	script, err := ParseFaults("faults.yaml", []byte(`
faults:
  - {at: 100ms, for: 300ms, device: tcp-b, do: refuse, value: 2}
  - {at: 100ms, for: 1h, do: set, quantity: supply_temp, value: 55}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := bench(t, Options{Faults: script})
	c := dial(t, p, "lan")
	seen := ""
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && seen != "good refused good "; {
		now := "good "
		if c.ask(2, read(3, 0, 1), soon)[0]&0x80 != 0 {
			now = "refused "
		}
		if !strings.HasSuffix(seen, now) {
			seen += now
		}
		<-time.After(5 * time.Millisecond)
	}
	if seen != "good refused good " {
		t.Errorf("the script's refusal showed as %q", seen)
	}
	if v, _ := p.Quantity("supply_temp"); v != 55 {
		t.Errorf("supply_temp is %v while it is set to 55", v)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	p, err := Load(benchFS(benchSite), "sites/bench", Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := dial(t, p, "lan")
	if _, err := os.Stat(p.Port("line")); err != nil {
		t.Error(err)
	}
	cancel()
	p.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the plant")
	}
	if _, err := os.Lstat(p.Port("line")); err == nil {
		t.Error("the line's link outlives the plant")
	}
	p.Close() // again is harmless
	if err := p.Start(context.Background()); err == nil {
		t.Error("a closed plant starts again")
	}
}

func TestCutBusComesBackWhenItsPortIsFree(t *testing.T) {
	p := bench(t, Options{})
	clear, err := p.Fault(Fault{Bus: "lan", Do: "cut"})
	if err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", p.Addr("lan"))
	if err != nil {
		t.Fatal(err)
	}
	clear()
	thief.Close()
	for end := time.Now().Add(5 * time.Second); ; {
		c, err := net.Dial("tcp", p.Addr("lan"))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the bus does not come back: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}
