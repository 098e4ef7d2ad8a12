package plant

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/telemetry"
)

// mbpoll runs the stock master and returns the values it printed.
func mbpoll(t *testing.T, args ...string) []string {
	t.Helper()
	exe, err := exec.LookPath("mbpoll")
	if err != nil {
		if os.Getenv("LUQUAN_REAL") != "" {
			t.Fatal("mbpoll is not installed; apt-get install mbpoll")
		}
		t.Skip("mbpoll is not installed; LUQUAN_REAL=1 makes that a failure")
	}
	out, err := exec.Command(exe, append([]string{"-1", "-q", "-o", "2"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mbpoll %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var values []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "[") {
			_, v, _ := strings.Cut(line, ":")
			values = append(values, strings.Fields(v)[0])
		}
	}
	return values
}

func TestMbpollReadsBothKindsOfBus(t *testing.T) {
	p := bench(t, Options{Frozen: true})
	host, port, _ := strings.Cut(p.Addr("lan"), ":")
	supply, _ := p.Quantity("supply_temp")
	want := []string{strconv.Itoa(int(supply*100 + 0.5))}
	if got := mbpoll(t, "-m", "tcp", "-p", port, "-a", "1", "-t", "4", "-0", "-r", "0", "-c", "1", host); !slices.Equal(got, want) {
		t.Errorf("over TCP %v, want %v", got, want)
	}
	line := []string{"-m", "rtu", "-b", "9600", "-P", "none", "-0", "-r", "0", "-c", "1", "-t", "4"}
	if got := mbpoll(t, append(line, "-a", "1", p.Port("line"))...); !slices.Equal(got, want) {
		t.Errorf("over the line %v, want %v", got, want)
	}
	if got := mbpoll(t, append(line, "-a", "7", p.Port("line"))...); !slices.Equal(got, []string{"1234"}) {
		t.Errorf("unit 7 over the line %v, want 1234", got)
	}
	out, err := exec.Command("mbpoll", "-1", "-q", "-o", "0.3", "-m", "rtu", "-b", "19200", "-P", "none", "-0", "-r", "0", "-t", "4", "-a", "7", p.Port("line")).CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("timed out")) {
		t.Errorf("a master at another speed was answered: %s", out)
	}
}

// shownPoint is a point of a profile on the bench.
type shownPoint struct {
	pt   *profile.Point
	feed *feed  // nil: its registers are settings of the device
	want string // what its registers mean
}

// showThree picks three points of a profile, fewer where it has fewer, that
// stand in registers of their own, with values for them; beside are the scales,
// units and signs of validity that they are read with.
func showThree(t *testing.T, rng *rand.Rand, prof *profile.Profile) (shown []shownPoint, beside image) {
	t.Helper()
	beside = image{}
	taken := image{}
	free := func(pt *profile.Point, img image) bool {
		for i := range pt.Words {
			if _, ok := img[cell{pt.Table, pt.Address + i}]; ok {
				return false
			}
		}
		return true
	}
	for i := range prof.Points {
		pt := &prof.Points[i]
		aux := around(rng, pt)
		for c := range aux {
			if v, ok := beside[c]; ok {
				aux[c] = v
			}
		}
		clash := !free(pt, aux) || !free(pt, beside) || !free(pt, taken)
		for c := range aux {
			_, held := taken[c]
			clash = clash || held
		}
		if len(shown) == 3 || pt.UnitOffset != 0 || clash {
			continue
		}
		for range 200 {
			f := &feed{point: pt, text: "Ab-9"[:min(4, pt.Length)]}
			img := maps.Clone(aux)
			if pt.Class == telemetry.String {
				f.constant = map[profile.Encoding]float64{profile.HHMM: 1742, profile.HiLoVersion: 3<<8 | 17, profile.Days2000: 9460}[pt.Encoding]
				if f.constant == 0 {
					f.constant = 1_764_043_200
				}
			} else {
				img.put(pt.Table, pt.Address, randomWords(rng, pt))
				v, q := decoded(f, img)
				if !q.HasValue() || v.IsZero() || pt.WrapsAt > 0 && v.Float() > float64(pt.WrapsAt)*math.Abs(pt.Scale) {
					continue // a sentinel by chance
				}
				f.constant = number(v)
			}
			words, err := (&device{}).words(f, img, nil, overlay{})
			if err != nil {
				t.Fatalf("%s/%s: %v", prof.ID, pt.Name, err)
			}
			img.put(pt.Table, pt.Address, words)
			v, q := decoded(f, img)
			taken.put(pt.Table, pt.Address, words)
			maps.Copy(beside, aux)
			shown = append(shown, shownPoint{pt, f, v.String() + " " + q.String()})
			break
		}
	}
	for i := range prof.Points { // of a small map what the others are read with counts too
		pt := &prof.Points[i]
		if _, ok := beside[cell{pt.Table, pt.Address}]; ok && pt.Words == 1 && len(shown) < 3 {
			v, q := decoded(&feed{point: pt}, beside)
			shown = append(shown, shownPoint{pt: pt, want: v.String() + " " + q.String()})
		}
	}
	return shown, beside
}

// TestMbpollReadsThreePointsOfEveryProfile puts every model of the library on
// one serial line and on TCP. The stock master reads three points of each, and
// what it printed means what the device was fed.
func TestMbpollReadsThreePointsOfEveryProfile(t *testing.T) {
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	var serial, network strings.Builder
	shown := map[string][]shownPoint{}
	beside := map[string]image{}
	unit := 1
	for _, id := range lib.Names() {
		prof, err := lib.Lookup(id, givenParams(lib, id))
		if err != nil {
			t.Fatal(err)
		}
		points, settings := showThree(t, rng, prof)
		if want := min(3, len(prof.Points)); len(points) < want {
			t.Errorf("%s: %d points can be shown, want %d", id, len(points), want)
		}
		var params, raw []string
		for k, v := range givenParams(lib, id) {
			params = append(params, fmt.Sprintf("%s: %q", k, v))
		}
		for c, v := range settings {
			raw = append(raw, fmt.Sprintf("{table: %s, address: %d, value: %d}", c.table, c.address, v))
		}
		for prefix, bus := range map[string]*strings.Builder{"r-": &serial, "t-": &network} {
			fmt.Fprintf(bus, "      - {name: %s%s, unit: %d, profile: {base: %s, params: {%s}}, settings: [%s]}\n",
				prefix, id, unit, id, strings.Join(params, ", "), strings.Join(raw, ", "))
			shown[prefix+id], beside[prefix+id] = points, settings
		}
		unit++
		for _, pt := range prof.Points {
			unit = max(unit, unit+int(pt.UnitOffset))
		}
	}
	floor := "site: bench\nlabel: {en: Bench, zh: 试验台}\nmodel: heating-plant\nbuses:\n" +
		"  - name: line\n    rtu: {baud: 115200, parity: none}\n    devices:\n" + serial.String() +
		"  - name: lan\n    tcp: {port: 0}\n    devices:\n" + network.String()
	p, err := Load(library(t, floor), "sites/bench", Options{Frozen: true, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range p.devices {
		d.feeds = nil
		for _, s := range shown[d.name] {
			if s.feed != nil {
				d.feeds = append(d.feeds, *s.feed)
			}
		}
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	line := []string{"-o", "5", "-m", "rtu", "-b", "115200", "-P", "none", p.Port("line")}
	host, port, _ := strings.Cut(p.Addr("lan"), ":")
	lan := []string{"-o", "5", "-m", "tcp", "-p", port, host}
	read := 0
	for _, d := range p.devices {
		bus := lan
		if d.bus == "line" {
			bus = line
		}
		for _, s := range shown[d.name] {
			pt := s.pt
			kind := map[profile.Table]string{profile.Coil: "0", profile.Discrete: "1", profile.Input: "3:hex", profile.Holding: "4:hex"}[pt.Table]
			got := mbpoll(t, append([]string{"-a", fmt.Sprint(d.unit), "-0", "-t", kind, "-r", fmt.Sprint(pt.Address), "-c", fmt.Sprint(pt.Words)}, bus...)...)
			img := maps.Clone(beside[d.name])
			for i, text := range got {
				w, err := strconv.ParseUint(text, 0, 16)
				if err != nil {
					t.Fatalf("%s/%s: mbpoll says %q", d.name, pt.Name, text)
				}
				img[cell{pt.Table, pt.Address + uint16(i)}] = uint16(w)
			}
			v, q := decoded(&feed{point: pt}, img)
			if is := v.String() + " " + q.String(); is != s.want || len(got) != int(pt.Words) {
				t.Errorf("%s/%s: mbpoll says %v, which means %s, want %s", d.name, pt.Name, got, is, s.want)
			}
			read++
		}
	}
	t.Logf("%d models, %d values read", len(lib.Names()), read)
}

// givenParams are the parameters of a profile as a site leaves them; where one
// has no default, its first choice.
func givenParams(lib *profile.Library, id string) map[string]string {
	params := map[string]string{}
	for _, p := range lib.Params(id) {
		if params[p.Name] = p.Default; p.Default == "" {
			params[p.Name] = p.OneOf[0]
		}
	}
	return params
}

// library is the library of devices with one site, sites/bench.
func library(t *testing.T, site string) fs.FS {
	t.Helper()
	all := fstest.MapFS{"sites/bench/plant.yaml": {Data: []byte(site)}}
	files, err := fs.Glob(firmwareconfig.FS, "devices/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := fs.ReadFile(firmwareconfig.FS, f)
		if err != nil {
			t.Fatal(err)
		}
		all[f] = &fstest.MapFile{Data: data}
	}
	return all
}
