package plant

import (
	"context"
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"

	firmwareconfig "luquan/firmware-config"
)

func TestFaultsAreChecked(t *testing.T) {
	p := bench(t, Options{})
	for _, tt := range []struct {
		f    Fault
		want string
	}{
		{Fault{Do: "silence", Device: "nobody"}, `site bench-1 has no device "nobody"`},
		{Fault{Do: "cut", Bus: "nowhere"}, `site bench-1 has no bus "nowhere"`},
		{Fault{Do: "explode", Bus: "lan"}, "do is one of"},
		{Fault{Do: "silence"}, "name either a bus or a device"},
		{Fault{Do: "cut", Device: "tcp-a"}, "name a bus"},
		{Fault{Do: "delay", Device: "tcp-a"}, "delay is missing"},
		{Fault{Do: "sentinel", Device: "tcp-a", Point: "energy"}, "no raw value by which energy is not available"},
		{Fault{Do: "set", Quantity: "gravity"}, `no quantity "gravity"`},
		{Fault{Do: "set", Device: "tcp-a", Point: "colour"}, `no point "colour"`},
		{Fault{Do: "silence", Device: "tcp-a", At: -1}, "negative"},
		{Fault{Do: "refuse", Device: "tcp-a", Value: 300}, "exception code"},
	} {
		if _, err := p.Fault(tt.f); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want one that says %s", tt.f, err, tt.want)
		}
	}
	_, err := ParseFaults("f.yaml", []byte("faults:\n  - {at: soon, do: explode}\n  - {do: cut, colour: red}\n"))
	for _, want := range []string{"f.yaml:2:10:", `do is "explode"`, "colour"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s in it", err, want)
		}
	}
}

func TestBadSiteFiles(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"wrong key", "site: bench-1", "site: bench-1\ncolour: red", "sites/bench/plant.yaml:3:1:"},
		{"wrong model", "heating-plant", "heatingplant", `there is no model "heatingplant"`},
		{"wrong profile", "tcp-b, profile: bench-gaps", "tcp-b, profile: banch", `profile "banch" is not known`},
		{"a unit twice", "unit: 7", "unit: 1", `unit 1 is already taken by "rtu-a"`},
		{"a device twice", "name: rtu-b", "name: tcp-a", `"tcp-a" cannot name this device`},
		{"wrong quantity", "flow_temp: supply_temp, power", "flow_temp: supply_tmp, power", `no quantity "supply_tmp"`},
		{"wrong unit of a quantity", "flow_temp: supply_temp, power", "flow_temp: heat_power, power", `quantity heat_power is in "W", and flow_temp in "degC"`},
		{"wrong point", "flow_temp: 12.34", "flow_tamp: 12.34", `no point "flow_tamp"`},
		{"not sayable", "energy: heat_meter.energy", "energy: none", "no raw value by which energy is not available"},
		{"wrong parity", "parity: none", "parity: strange", `parity is "strange"`},
		{"two kinds of bus", "rtu: {baud", "tcp: {port: 1}\n    rtu: {baud", `bus "line" needs one of rtu and tcp`},
	} {
		site := strings.Replace(benchSite, tt.old, tt.new, 1)
		if site == benchSite {
			t.Fatalf("%s: nothing was changed", tt.name)
		}
		_, err := Load(benchFS(site), "sites/bench", Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "plant.yaml:") {
			t.Errorf("%s: error %v, want %s at file:line:col", tt.name, err, tt.want)
		}
	}
	if _, err := Load(benchFS(benchSite), "sites/atlantis", Options{}); err == nil || err.Error() != `there is no site "atlantis"; the sites are bench` {
		t.Errorf("unknown site: %v", err)
	}
}

func TestAPortInUseIsOneSentence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	p, err := Load(benchFS(benchSite), "sites/bench", Options{PortBase: ln.Addr().(*net.TCPAddr).Port, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = p.Start(context.Background())
	if err == nil || !strings.Contains(err.Error(), "bus lan cannot listen at "+ln.Addr().String()) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(read(3, 0, 2))
	f.Add(read(4, 65000, 2))
	f.Add(read(3, 65535, 125))
	f.Add([]byte{16, 0, 0, 0, 1, 2, 0, 1})
	f.Add([]byte{})
	p, err := Load(firmwareconfig.FS, "sites/computing-centre", Options{Seed: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, req []byte) {
		for _, d := range p.devices {
			a, err := d.answer(req, func() (image, error) { return p.image(d) })
			if err != nil || len(a.pdu) < 2 || len(a.pdu) > 253 {
				t.Fatalf("%s: request % x: answer % x, %v", d.name, req, a.pdu, err)
			}
			if a.pdu[0]&0x80 != 0 {
				if len(a.pdu) != 2 || len(a.counted) > 0 {
					t.Fatalf("refusal % x counts %v", a.pdu, a.counted)
				}
				continue
			}
			if n := int(binary.BigEndian.Uint16(req[3:])); req[0] > 2 && int(a.pdu[1]) != 2*n {
				t.Fatalf("request % x for %d words: answer % x", req, n, a.pdu)
			}
		}
	})
}
