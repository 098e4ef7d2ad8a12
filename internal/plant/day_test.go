package plant

import (
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/alarm"
	"luquan/gateway/telemetry"
)

// watch is a site in a time of its own: its physics, its faults, and the alarm
// engine of the hub with the site's rules, which reads the devices' registers.
type watch struct {
	t      *testing.T
	p      *Plant
	dir    string
	now    time.Time
	engine *alarm.Engine
	points []watched
	raised map[string]time.Time // rule -> first raised
}

// watched is a point that some rule of the site looks at.
type watched struct {
	d    *device
	feed *feed
	name string
}

const pollEvery = 5 * time.Second

func watchSite(t *testing.T, dir string, o Options) *watch {
	t.Helper()
	file := path.Join("sites", dir, "rules.yaml")
	data, err := fs.ReadFile(firmwareconfig.FS, file)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := alarm.ParseFile(file, data)
	if err != nil {
		t.Fatal(err)
	}
	if o.Day, err = LoadDay(firmwareconfig.FS, "sites/"+dir); err != nil {
		t.Fatal(err)
	}
	p, err := Load(firmwareconfig.FS, "sites/"+dir, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{t: t, p: p, dir: dir, now: o.Start, engine: alarm.New(rules), raised: map[string]time.Time{}}
	polled := map[string]bool{}
	for _, b := range boards(t, dir) {
		for _, bus := range b.Buses {
			for _, d := range bus.Devices {
				for _, name := range d.Points {
					polled[d.Name+"/"+name] = true
				}
				if d.Points == nil {
					polled[d.Name] = true
				}
			}
		}
	}
	var infos []alarm.PointInfo
	for _, d := range p.devices {
		for i := range d.feeds {
			f := &d.feeds[i]
			name := telemetry.FullName(p.Site(), d.name, f.point.Name)
			judged := slices.ContainsFunc(rules.Rules(), func(r alarm.Rule) bool { return telemetry.Match(r.Points, name) })
			if judged && (polled[d.name] || polled[d.name+"/"+f.point.Name]) {
				w.points = append(w.points, watched{d, f, name})
				infos = append(infos, alarm.PointInfo{Name: name, Period: pollEvery, Unit: f.point.Unit})
			}
		}
	}
	w.engine.Points(w.now, infos)
	return w
}

// run lets d pass, polls and judges; each time after is called, which may be nil.
func (w *watch) run(d time.Duration, after func()) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.p.Step(pollEvery)
		w.now = w.now.Add(pollEvery)
		w.p.switches(w.now)
		w.poll()
		if after != nil {
			after()
		}
	}
}

func (w *watch) poll() {
	images := map[*device]image{}
	for _, x := range w.points {
		m := w.p.manners(x.d)
		r := alarm.Reading{Point: x.name, Time: w.now, Received: w.now, Period: pollEvery}
		switch {
		case w.p.cutNow(x.d.bus):
			r.Quality = telemetry.NotConnected
		case m.silent || m.delay >= time.Second:
			r.Quality = telemetry.NoReply
		case m.garbled:
			r.Quality = telemetry.Garbled
		case m.refuse != 0:
			r.Quality = telemetry.Refused
		default:
			face := x.d.face(x.feed.point)
			img := images[face]
			if img == nil {
				var err error
				if img, err = w.p.image(face); err != nil {
					w.t.Fatal(err)
				}
				images[face] = img
			}
			r.Value, r.Quality = decoded(x.feed, img)
		}
		w.note(w.engine.Observe(w.now, r))
	}
	w.note(w.engine.Tick(w.now))
}

func (w *watch) note(events []alarm.Event) {
	for _, e := range events {
		if _, known := w.raised[e.Alarm.Rule]; !known && e.Transition == alarm.Raised {
			w.raised[e.Alarm.Rule] = w.now
		}
	}
}

// active are the alarms that stand.
func (w *watch) active() (list []string) {
	for _, a := range w.engine.Alarms() {
		if a.State == alarm.Unacknowledged || a.State == alarm.Acknowledged {
			list = append(list, fmt.Sprintf("%s of %s (%s)", a.Rule, a.Point, a.Value))
		}
	}
	return list
}

func eachSite(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	for _, dir := range slices.Sorted(maps.Keys(siteNames)) {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			f(t, dir)
		})
	}
}

// sound is where values stay on a day on which nothing happens, with a margin to the
// limits of the rules.
var sound = []struct {
	site, device, point string
	low, high           float64
}{
	{"heating-plant", "heat-meter-1", "flow_temp", 67, 100},
	{"heating-plant", "heat-meter-1", "return_temp", 20, 58},
	{"heating-plant", "makeup-tank", "level", 1, 2.4},
	{"heating-plant", "supply-pump", "electronics_temp", 0, 72},
	{"sewage-works", "wet-well", "level", 0.9, 2.8},
	{"sewage-works", "do-probe-1", "do", 1, 4},
	{"sewage-works", "turbidity-probe-1", "turbidity", 0, 35},
	{"computing-centre", "cold-aisle-a", "temperature", 18, 26},
	{"computing-centre", "cold-aisle-b", "temperature", 18, 26},
	{"computing-centre", "loop-meter", "flow_temp", 20, 38},
	{"computing-centre", "loop-meter", "flow", 3, 13},
	{"computing-centre", "ups-1", "input_voltage", 190, 260},
	{"computing-centre", "ups-2", "charge", 55, 100},
	{"cold-chain", "freezer-1", "air_temp", -22, -15.5},
	{"cold-chain", "freezer-2", "air_temp", -22, -15.5},
	{"cold-chain", "chiller-1", "air_temp", 2, 6.5},
	{"cold-chain", "dock-air", "temperature", 5, 14},
	{"cold-chain", "goods-probes", "temperature_1", -22, -19},
	{"cold-chain", "rack-lt", "discharge_pressure", 8, 18.5},
}

// TestADayWithoutIncidents: on a sound plant no rule fires from one midnight to
// the next, and the balances hold: what a counter counted is the integral of
// what its meter showed, what a vessel gained is what went in less what went
// out. All is read from registers.
func TestADayWithoutIncidents(t *testing.T) {
	eachSite(t, func(t *testing.T, dir string) {
		w := watchSite(t, dir, Options{Seed: 77, Start: time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)})
		sums := balances(w.p)
		if len(sums) < 3 {
			t.Errorf("%d balances are reckoned, want at least 3", len(sums))
		}
		told := map[string]bool{}
		w.run(24*time.Hour, func() {
			for _, b := range sums {
				b.add()
			}
			for _, l := range sound {
				if l.site != dir || told[l.device+l.point] {
					continue
				}
				if v, ok := w.p.Value(l.device, l.point); !ok || v < l.low || v > l.high {
					t.Errorf("%s/%s is %v at %s, want %v to %v", l.device, l.point, v, w.now.Format("15:04:05"), l.low, l.high)
					told[l.device+l.point] = true
				}
			}
		})
		for _, b := range sums {
			b.check(t)
		}
		for rule, at := range w.raised {
			t.Errorf("%s was raised at %s: it cries wolf", rule, at.Format("15:04:05"))
		}
	})
}

// TestDayOfIncidents: each incident of the day raises the rules it names, and
// others only for the same reason; some time after it all is well again.
func TestDayOfIncidents(t *testing.T) {
	eachSite(t, func(t *testing.T, dir string) {
		day, err := LoadDay(firmwareconfig.FS, "sites/"+dir)
		if err != nil || len(day) < 4 {
			t.Fatalf("%d incidents, %v", len(day), err)
		}
		for i, inc := range day {
			if len(inc.Raises) == 0 {
				t.Errorf("%s: nothing tells it", inc.At)
			}
			start := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC).Add(time.Duration(inc.At) - 10*time.Minute)
			w := watchSite(t, dir, Options{Seed: 5, Start: start})
			w.p.incidents = day[i : i+1]
			w.p.day(w.now)
			w.run(10*time.Minute-pollEvery, nil)
			if list := w.active(); len(list) != 0 {
				t.Fatalf("%s: before it stands %s", inc.At, strings.Join(list, ", "))
			}
			w.run(inc.For+pollEvery, nil)
			for _, rule := range inc.Raises {
				if _, ok := w.raised[rule]; !ok {
					t.Errorf("%s %s: rule %s does not tell it (told: %v)", inc.At, inc.Label.En, rule, slices.Sorted(maps.Keys(w.raised)))
				}
			}
			for rule, at := range w.raised {
				// What takes the values away is told by each rule that needs them.
				if _, blind := strings.CutSuffix(rule, ".no-good-value"); !blind && !slices.Contains(inc.Raises, rule) {
					t.Errorf("%s %s: %s was raised too, at %s", inc.At, inc.Label.En, rule, at.Format("15:04:05"))
				}
			}
			for waited := time.Duration(0); len(w.active()) > 0; waited += 5 * time.Minute {
				if waited > 3*time.Hour {
					t.Errorf("%s %s: three hours after it still stands %s", inc.At, inc.Label.En, strings.Join(w.active(), ", "))
					break
				}
				w.run(5*time.Minute, nil)
			}
		}
	})
}

// TestDayIsPlayed: the incidents come at their times of the day, as fast as the
// plant's time goes, and are told.
func TestDayIsPlayed(t *testing.T) {
	start := time.Date(2026, 1, 15, 13, 30, 0, 0, time.UTC)
	var told []string
	p, err := Load(firmwareconfig.FS, "sites/computing-centre", Options{Start: start, Speed: 60,
		Day: []Incident{
			{At: Clock(7 * time.Hour), For: time.Hour, Label: telemetry.Label{En: "morning"}, Faults: []Fault{{Do: "silence", Device: "ups-1"}}},
			{At: Clock(14 * time.Hour), For: 30 * time.Minute, Label: telemetry.Label{En: "afternoon"}, Faults: []Fault{{Do: "silence", Device: "ups-1"}, {Do: "silence", Device: "ups-2", At: 10 * time.Minute}}},
		},
		OnIncident: func(i Incident, begins bool) { told = append(told, fmt.Sprint(i.Label.En, " ", begins)) }})
	if err != nil {
		t.Fatal(err)
	}
	p.day(start)
	silent := func(device string) bool { return p.manners(p.byName[device]).silent }
	for _, step := range []struct {
		after    time.Duration // of ours
		one, two bool
		told     string
	}{
		{29 * time.Second, false, false, ""},
		{30 * time.Second, true, false, "afternoon true"},
		{41 * time.Second, true, true, ""},
		{61 * time.Second, false, false, "afternoon false"},
		{1049 * time.Second, false, false, ""},
		{1051 * time.Second, true, false, "morning true"},
		{1111 * time.Second, false, false, "morning false"},
		{1471 * time.Second, false, false, ""}, // it comes once
	} {
		told = nil
		p.refresh(start.Add(step.after))
		if silent("ups-1") != step.one || silent("ups-2") != step.two || strings.Join(told, ", ") != step.told {
			t.Errorf("after %v: silent %v %v, told %v; want %+v", step.after, silent("ups-1"), silent("ups-2"), told, step)
		}
	}
	for _, speed := range []float64{-1, 0.5, 1001, math.NaN()} {
		if _, err := Load(firmwareconfig.FS, "sites/computing-centre", Options{Speed: speed}); err == nil || !strings.Contains(err.Error(), "choose 1 to 1000") {
			t.Errorf("speed %v: %v", speed, err)
		}
	}
}

func TestBadDays(t *testing.T) {
	for text, want := range map[string]string{
		"incidents: [{for: 5m, label: {en: a, zh: b}, faults: [{do: silence, device: d}]}]":                                    "1:13: at is missing",
		`incidents: [{at: "25:00", for: 5m, label: {en: a, zh: b}, faults: [{do: silence, device: d}]}]`:                       `"25:00" is no time of the day`,
		`incidents: [{at: "06:40", label: {en: a, zh: b}, faults: [{do: silence, device: d}]}]`:                                "say how long it lasts",
		`incidents: [{at: "06:40", for: 5m, label: {en: a}, faults: [{do: silence, device: d}]}]`:                              "label needs en and zh",
		`incidents: [{at: "06:40", for: 5m, label: {en: a, zh: b}}]`:                                                           "faults is missing",
		`incidents: [{at: "06:40", for: 5m, label: {en: a, zh: b}, faults: [{do: explode, device: d}]}]`:                       `do is "explode"`,
		`incidents: [{at: "06:40", for: 5m, label: {en: a, zh: b}, faults: [{do: silence, device: d, at: 4m, for: 2m}]}]`:      "does not lie within its incident",
		`incidents: [{at: "06:40", for: 5m, label: {en: a, zh: b}, faults: [{do: silence, device: d}], colour: red}]`:          "colour",
		`incidents: [{at: "06:40", for: 5m, label: {en: a, zh: b}, faults: [{do: silence, device: d}], raises: {rule: here}}]`: "want a list here",
	} {
		if _, err := ParseDay("day.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "day.yaml:") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadDay(firmwareconfig.FS, "sites/atlantis"); err == nil || !strings.Contains(err.Error(), "has no day.yaml") {
		t.Errorf("%v", err)
	}
}
