package profile

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// meant says which dimensions a name promises: its last word, after the words
// of a phase or an extreme at its end were taken off.
var meant = map[string][]string{
	"temp":         {"temperature", "temperature difference"},
	"temperature":  {"temperature", "temperature difference"},
	"flow":         {"flow", "mass flow", "normal flow"},
	"pressure":     {"pressure"},
	"power":        {"power", "reactive power", "apparent power", "share"},
	"energy":       {"energy", "reactive energy", "apparent energy"},
	"volume":       {"volume", "normal volume"},
	"frequency":    {"frequency"},
	"humidity":     {"share", "concentration"},
	"voltage":      {"voltage", "share"},
	"current":      {"current", "share"},
	"hours":        {"time"},
	"runtime":      {"time"},
	"conductivity": {"conductivity"},
	"turbidity":    {"turbidity", "haze"},
}

// phases are the electrical names: u_l1, p_total.
var phases = map[string][]string{
	"u": {"voltage"}, "i": {"current"}, "p": {"power"}, "q": {"reactive power"}, "s": {"apparent power"}, "pf": {"", "share"},
}

var (
	phaseName = regexp.MustCompile(`^(u|i|p|q|s|pf)_(total|avg|l[123]|l12|l23|l31|n)$`)
	ending    = regexp.MustCompile(`(_(\d+|[a-z]?\d{1,2}|n|avg|min|max|total|actual))+$`)
)

// dimension tells of a unit that does not fit the name.
func (x *linter) dimension(p *Point) {
	var want []string
	if m := phaseName.FindStringSubmatch(p.Name); m != nil {
		want = phases[m[1]]
	} else {
		name := ending.ReplaceAllString(p.Name, "")
		want = meant[name[strings.LastIndexByte(name, '_')+1:]]
	}
	if want == nil || p.Class != telemetry.Float {
		return
	}
	dim := units[p.Unit].dim
	if slices.Contains(want, dim) {
		return
	}
	example := ""
	for _, u := range slices.Sorted(maps.Keys(units)) {
		if units[u].dim == want[0] && canonical(u) {
			example = u
			break
		}
	}
	if p.Unit == "" {
		x.warnf(p.at.With("name"), "point %s has no unit; a name that ends so is a %s: say unit: as the device counts (%s for example), or call it otherwise", p.Name, want[0], example)
		return
	}
	x.warnf(p.at.With("unit"), "point %s is in %s, a %s; a name that ends so is a %s: correct the unit or the name", p.Name, p.SourceUnit, dim, want[0])
}

// totals are the dimensions of what only grows.
var totals = []string{"energy", "reactive energy", "apparent energy", "volume", "normal volume"}

// counter tells of a total that is not said to be a counter.
func (x *linter) counter(p *Point) {
	i := p.at[1].(int)
	if x.raw.Points[i].Counter != nil || p.Class != telemetry.Float || !slices.Contains(totals, units[p.Unit].dim) {
		return
	}
	name := "_" + p.Name + "_"
	for _, no := range []string{"_net_", "_last_", "_day_", "_today_", "_month_", "_tank_", "_per_", "_pulse_"} {
		if strings.Contains(name, no) {
			return
		}
	}
	for _, word := range []string{"energy", "total", "volume", "import", "export", "heat"} {
		if strings.Contains(name, "_"+word+"_") {
			x.warnf(p.at.With("name"), "point %s is a total (%s); say counter: true, so that resets and rollovers are seen, or counter: false where it may also fall", p.Name, p.Unit)
			return
		}
	}
}

// falling are the dimensions of what rises and falls.
var falling = []string{"temperature", "temperature difference", "pressure", "flow", "mass flow", "normal flow", "power", "reactive power", "apparent power",
	"voltage", "current", "frequency", "share", "speed", "rotation", "concentration", "acidity", "conductivity", "turbidity"}

// falls tells of a counter that is none.
func (x *linter) falls(p *Point) {
	if dim := units[p.Unit].dim; p.Counter && slices.Contains(falling, dim) {
		x.warnf(p.at.With("counter"), "point %s is a %s, which falls too; counter: true is for totals that only grow: leave it out", p.Name, dim)
	}
}

// synonyms are names that are often chosen for what has another name here.
var synonyms = map[string][]string{
	"flow_temp":     {"supply_temp", "forward_temp", "flow_temperature", "supply_temperature", "forward_temperature", "temp_flow", "temp_supply", "temp_forward", "t_flow", "t_supply", "t1_flow"},
	"return_temp":   {"return_temperature", "temp_return", "t_return", "back_temp", "t2_return"},
	"flow":          {"flow_rate", "flowrate", "volume_flow", "water_flow"},
	"power":         {"thermal_power", "heat_power"},
	"energy":        {"thermal_energy", "heat_energy", "total_energy"},
	"p_total":       {"active_power", "total_power", "power_total", "total_active_power"},
	"q_total":       {"reactive_power", "total_reactive_power"},
	"s_total":       {"apparent_power", "total_apparent_power"},
	"pf_total":      {"power_factor", "pf", "cos_phi"},
	"frequency":     {"freq", "mains_frequency", "line_frequency"},
	"u_l1":          {"voltage_l1", "l1_voltage", "u_l1n", "u_a", "u_an", "voltage_a"},
	"u_l12":         {"voltage_l12", "u_ab", "voltage_ab"},
	"i_l1":          {"current_l1", "l1_current", "i_a", "current_a"},
	"energy_import": {"active_energy", "import_energy", "energy_in", "active_energy_import"},
	"energy_export": {"export_energy", "energy_out", "active_energy_export"},
	"temperature":   {"temp", "air_temp", "ambient_temp"},
	"humidity":      {"rh", "hum", "relative_humidity"},
}

// name tells of a quantity that other profiles of the kind call otherwise.
// used are the names of this file: what it has under both names is two things.
func (x *linter) name(p *Profile, pt *Point, used map[string]bool) {
	known := x.kinds[p.Kind]
	if _, there := known[pt.Name]; there || len(known) == 0 {
		return
	}
	at := pt.at.With("name")
	like := func(fits func(q quantity) bool) (quantity, bool) {
		for _, name := range slices.Sorted(maps.Keys(known)) {
			if q := known[name]; !used[name] && q.class == pt.Class && q.unit == pt.Unit && fits(q) {
				return q, true
			}
		}
		return quantity{}, false
	}
	if q, ok := like(func(q quantity) bool { return slices.Contains(synonyms[q.name], pt.Name) || misspelt(pt.Name, q.name) }); ok {
		x.warnf(at, "other profiles of the kind %s have no %s; did you mean %s (profile %s)?", p.Kind, pt.Name, q.name, q.by)
		return
	}
	if pt.Class != telemetry.Float {
		return
	}
	if q, ok := like(func(q quantity) bool { return sameWords(q.label.En, pt.Label.En) || sameWords(q.label.Zh, pt.Label.Zh) }); ok {
		x.warnf(at, "%s is called %s in the kind %s (profile %s, with the label %q): take its name, or tell the two apart by their labels", pt.Name, q.name, p.Kind, q.by, q.label.En)
	}
}

func sameWords(a, b string) bool { return a != "" && strings.EqualFold(a, b) }

// misspelt reports whether a looks like a slip of the pen for b: one letter
// off, in a long word. Another digit is another thing.
func misspelt(a, b string) bool {
	if len(a) < 6 || len(b) < 6 || digits(a) != digits(b) || distance(len(a), len(b)) > 1 {
		return false
	}
	if conffile.Nearest(a, []string{b}) == "" {
		return false
	}
	i, j := 0, 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	for j < len(a)-i && j < len(b)-i && a[len(a)-1-j] == b[len(b)-1-j] {
		j++
	}
	left := max(len(a), len(b)) - i - j
	return left <= 1 || left == 2 && len(a) == len(b) && a[i] == b[i+1] && a[i+1] == b[i] // or two swapped
}

func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}
