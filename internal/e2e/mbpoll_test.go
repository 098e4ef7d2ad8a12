package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/edge"
	"luquan/gateway/hub"
	"luquan/internal/plant"
)

// shown is a point as the console's API gives it.
type shown struct {
	Name, Device, Point, Class, Unit, Quality string
	Time                                      time.Time
	Period                                    float64
	Value                                     any // json.Number, string or nil
}

func (s shown) settled() bool {
	return !s.Time.IsZero() && (s.Quality == "good" || s.Quality == "invalid")
}

// consolePoints returns the points of a site by device/point.
func consolePoints(t *testing.T, addr, site string) map[string]shown {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/api/v1/points?match=" + site + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	var list []shown
	if err := dec.Decode(&list); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("points of %s: %s: %v", site, resp.Status, err)
	}
	points := make(map[string]shown, len(list))
	for _, p := range list {
		points[p.Device+"/"+p.Point] = p
	}
	return points
}

// equal reports whether the console shows want.
func (s shown) equal(want any) bool {
	switch want := want.(type) {
	case nil:
		return s.Value == nil && s.Quality == "invalid"
	case string:
		return s.Value == want && s.Quality == "good" && s.Class == "string"
	}
	n, ok := s.Value.(json.Number)
	if !ok || s.Quality != "good" {
		return false
	}
	if s.Class == "int" {
		return n.String() == strconv.FormatInt(int64(want.(float64)), 10)
	}
	f, err := n.Float64()
	return err == nil && f == want && s.Class == "float"
}

// mbpolled reads registers of one device with the real mbpoll.
type mbpolled struct {
	path string
	bus  plant.Bus
	unit int
}

var mbpollLine = regexp.MustCompile(`(?m)^\[(\d+)\]:\s+0x([0-9A-F]{4})\s*$`)

func (m mbpolled) read(t *testing.T, table string, address, n int) []uint16 {
	t.Helper()
	args := []string{"-0", "-1", "-o", "5", "-a", strconv.Itoa(m.unit), "-r", strconv.Itoa(address), "-c", strconv.Itoa(n),
		"-t", map[string]string{"input": "3:hex", "holding": "4:hex"}[table]}
	if m.bus.Addr != "" {
		host, port, err := net.SplitHostPort(m.bus.Addr)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "-m", "tcp", "-p", port, host)
	} else {
		args = append(args, "-m", "rtu", "-b", strconv.Itoa(m.bus.Baud), "-P", m.bus.Parity, m.bus.Port)
	}
	out, err := exec.CommandContext(t.Context(), m.path, args...).CombinedOutput()
	found := mbpollLine.FindAllSubmatch(out, -1)
	if err != nil || len(found) != n {
		t.Fatalf("mbpoll %s: %v, %d of %d registers:\n%s", strings.Join(args, " "), err, len(found), n, out)
	}
	words := make([]uint16, n)
	for i, f := range found {
		if string(f[1]) != strconv.Itoa(address+i) {
			t.Fatalf("mbpoll tells register %s where %d was expected", f[1], address+i)
		}
		w, err := strconv.ParseUint(string(f[2]), 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		words[i] = uint16(w)
	}
	return words
}

// registers reads each register of a device once, neighbours together.
func (m mbpolled) registers(t *testing.T, entries []entry) (read func(table string, address, n int) []uint16) {
	t.Helper()
	type cell struct {
		table   string
		address int
	}
	have := map[cell]uint16{}
	var want []cell
	for _, e := range entries {
		for i := range e.words() {
			want = append(want, cell{e.table, e.address + i})
		}
		if e.typ == "load" {
			want = append(want, cell{e.table, ratedWatts})
		}
	}
	slices.SortFunc(want, func(a, b cell) int {
		if c := strings.Compare(a.table, b.table); c != 0 {
			return c
		}
		return a.address - b.address
	})
	want = slices.Compact(want)
	for i := 0; i < len(want); {
		n := 1
		for i+n < len(want) && n < 100 && want[i+n] == (cell{want[i].table, want[i].address + n}) {
			n++
		}
		for j, w := range m.read(t, want[i].table, want[i].address, n) {
			have[want[i+j]] = w
		}
		i += n
	}
	return func(table string, address, n int) []uint16 {
		words := make([]uint16, n)
		for i := range words {
			w, ok := have[cell{table, address + i}]
			if !ok {
				t.Fatalf("register %d of the %s table was not read", address+i, table)
			}
			words[i] = w
		}
		return words
	}
}

// shownByConsole runs the gateways of all plants under one hub until every point was
// told, and returns what the console then showed of each site. Before it
// returns it has stopped the gateways: a serial line has one master.
func shownByConsole(t *testing.T, configs []edge.Config, sites map[string][]plant.Bus) map[string]map[string]shown {
	t.Helper()
	dir := t.TempDir()
	h, err := hub.New(t.Context(), hub.Config{
		Name: "mbpoll", Sites: []string{"*"}, MQTT: hub.MQTTConfig{Broker: "embedded", Listen: "127.0.0.1:0"},
		History: hub.HistoryConfig{Dir: filepath.Join(dir, "history"), Keep: 400},
		Console: hub.ConsoleConfig{Listen: "127.0.0.1:0"}, State: hub.StateConfig{Dir: filepath.Join(dir, "hub")},
	}, hub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopHub := inBackground(t, "hub", h.Run)
	defer stopHub()
	for _, cfg := range configs {
		cfg.Uplink.Broker = "mqtt://" + h.BrokerAddr()
		cfg.Buffer.Dir = filepath.Join(dir, "buffer", cfg.Site, cfg.Gateway)
		g, err := edge.New(cfg, edge.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer inBackground(t, cfg.Gateway, g.Run)()
	}
	first := map[string]map[string]shown{}
	for site, buses := range sites {
		eventually(t, 60*time.Second, "every point of "+site+" told", func() bool {
			first[site] = consolePoints(t, h.ConsoleAddr(), site)
			told := map[string]bool{}
			for _, p := range first[site] {
				if !p.settled() {
					return false
				}
				told[p.Device] = true
			}
			for _, b := range buses {
				for _, d := range b.Devices {
					if !told[d.Name] {
						return false
					}
				}
			}
			return true
		})
	}
	for site := range sites {
		var again map[string]shown
		eventually(t, 60*time.Second, "the points of "+site+" polled once more", func() bool {
			again = consolePoints(t, h.ConsoleAddr(), site)
			for name, p := range again {
				if p.Period < 30 && !p.Time.After(first[site][name].Time) {
					return false
				}
			}
			return true
		})
		for name, p := range again {
			if was := first[site][name]; p.Value != was.Value || p.Quality != was.Quality {
				t.Errorf("frozen, and yet %s/%s moved from %v (%s) to %v (%s)", site, name, was.Value, was.Quality, p.Value, p.Quality)
			}
		}
	}
	return first
}

// inBackground calls f until stop, which reports how f ended.
func inBackground(t *testing.T, what string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not end", what)
		}
	}
}

// agreement is, by transport and model, the points of which mbpoll and the
// console gave one value.
type agreement map[string][]string

func (a agreement) add(b plant.Bus, d plant.Device, point string) {
	key := "rtu " + d.Profile
	if b.Addr != "" {
		key = "tcp " + d.Profile
	}
	a[key] = append(a[key], d.Name+"/"+point)
}

// settle reads away the answer to a request that the gateway made as it was
// stopped. A serial port drops such bytes when nobody has it open any more; the
// plant keeps its pseudo-terminal open.
func settle(t *testing.T, port string) {
	t.Helper()
	f, err := os.OpenFile(port, os.O_RDONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for buf := make([]byte, 512); ; {
		if err := f.SetReadDeadline(time.Now().Add(time.Second)); err != nil { // the longest answer takes 0.6 s at 4800 baud
			t.Fatal(err)
		}
		if _, err := f.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// compare reads every device of the buses with mbpoll and holds it against
// what the console showed. It adds to agreed the points that have a value.
func compare(t *testing.T, site string, buses []plant.Bus, points map[string]shown, agreed agreement) {
	path := need(t, "mbpoll")
	seen := 0
	for _, b := range buses {
		if b.Port != "" {
			settle(t, b.Port)
		}
		for _, d := range b.Devices {
			m, entries := mbpolled{path, b, d.Unit}, book(t, d)
			var polled []entry
			for name, p := range points {
				if p.Device != d.Name {
					continue
				}
				e, ok := entries[p.Point]
				if !ok {
					t.Errorf("%s/%s stands in no book", site, name)
					continue
				}
				polled = append(polled, e)
			}
			read := m.registers(t, polled)
			for _, e := range polled {
				p := points[d.Name+"/"+e.point]
				want := e.value(t, func(address, n int) []uint16 { return read(e.table, address, n) })
				seen++
				if unit := strings.NewReplacer("-", "", "text", "").Replace(e.unit); p.Unit != unit {
					t.Errorf("%s is in %q, want %q", p.Name, p.Unit, unit)
				}
				if !p.equal(want) {
					t.Errorf("%s: mbpoll reads %v, the console shows %v (%s, %s)", p.Name, want, p.Value, p.Class, p.Quality)
				} else if want != nil {
					agreed.add(b, d, e.point)
				}
			}
			m.countsSerial(t)
		}
	}
	if seen != len(points) {
		t.Errorf("%d points of %s compared, the console has %d", seen, site, len(points))
	}
}

// countsSerial proves that the serial register of each table counts the reads
// of it, and nothing but those.
func (m mbpolled) countsSerial(t *testing.T) {
	t.Helper()
	count := func(table string) uint32 {
		w := m.read(t, table, 65000, 2)
		return uint32(w[0])<<16 | uint32(w[1])
	}
	before := count("holding")
	for i, table := range []string{"input", "holding"} {
		if got, want := count(table), before+1+uint32(i); got != want {
			t.Errorf("unit %d of %s: the serial register of the %s table is %d, want %d", m.unit, m.bus.Name, table, got, want)
		}
	}
}

// siteConfigs are a site's boards with the addresses of the buses.
func siteConfigs(t *testing.T, fsys fs.FS, dir string, buses []plant.Bus) (configs []edge.Config) {
	t.Helper()
	files, err := fs.Glob(fsys, path.Join(dir, "gateway*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no gateway in %s: %v", dir, err)
	}
	for _, f := range files {
		data, err := fs.ReadFile(fsys, f)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := edge.Parse(f, data)
		if err != nil {
			t.Fatal(err)
		}
		for i := range cfg.Buses {
			at := slices.IndexFunc(buses, func(b plant.Bus) bool { return b.Name == cfg.Buses[i].Name })
			if at < 0 {
				t.Fatalf("%s: the plant has no bus %s", f, cfg.Buses[i].Name)
			}
			if tcp := cfg.Buses[i].TCP; tcp != nil {
				tcp.Address = buses[at].Addr
			} else {
				cfg.Buses[i].RTU.Port = buses[at].Port
			}
		}
		configs = append(configs, cfg)
	}
	return configs
}

// enough fails where fewer than three points of a model agreed.
func enough(t *testing.T, agreed agreement, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if len(agreed[k]) < 3 {
			t.Errorf("%s: only %d points have a value that agrees: %v", k, len(agreed[k]), agreed[k])
		}
	}
}

// TestMbpollReadsWhatTheConsoleShows runs the real plantsim of each site, its
// values frozen: what the console shows is what mbpoll reads from the same
// registers over the transport of the site.
func TestMbpollReadsWhatTheConsoleShows(t *testing.T) {
	need(t, "mbpoll")
	bin := filepath.Join(t.TempDir(), "plantsim")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "luquan/cmd/plantsim").CombinedOutput(); err != nil {
		t.Fatalf("build plantsim: %v\n%s", err, out)
	}
	sites, dirs := map[string][]plant.Bus{}, map[string]string{}
	var configs []edge.Config
	var sims []*server
	for _, dir := range []string{"heating-plant", "sewage-works", "computing-centre"} {
		sim := newServer(t, bin, "--site", dir, "--freeze", "--json", "--port-base", "0", "--dir", filepath.Join(t.TempDir(), dir))
		sims = append(sims, sim)
		var told struct {
			Site  string
			Buses []plant.Bus
		}
		eventually(t, 20*time.Second, "plantsim tells its buses", func() bool {
			for line := range strings.Lines(sim.log.String()) {
				if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &told) == nil && len(told.Buses) > 0 {
					return true
				}
			}
			return false
		})
		sites[told.Site], dirs[told.Site] = told.Buses, dir
		configs = append(configs, siteConfigs(t, firmwareconfig.FS, "sites/"+dir, told.Buses)...)
	}
	points := shownByConsole(t, configs, sites)
	agreed := agreement{}
	for site, buses := range sites {
		t.Run(dirs[site], func(t *testing.T) { compare(t, site, buses, points[site], agreed) })
	}
	enough(t, agreed, "rtu kamstrup-multical-603", "rtu grundfos-cim-pump", "tcp schneider-iem3000-pm5xxx", "rtu qdy30a",
		"rtu remond-water-probe", "tcp apc-smart-ups-modbus", "rtu xy-md02")
	for _, sim := range sims {
		if strings.Contains(sim.log.String(), "request would write") {
			t.Errorf("somebody tried to write:\n%s", sim.log)
		}
	}
}
