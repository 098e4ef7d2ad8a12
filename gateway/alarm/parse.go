package alarm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// ruleYAML is a rule as written. The types not yet known are listed so that
// whoever writes one is told what is there, not that the key is unknown.
type ruleYAML struct {
	ID       string           `yaml:"id"`
	Points   string           `yaml:"points"`
	HighHigh *float64         `yaml:"high_high"`
	High     *float64         `yaml:"high"`
	Low      *float64         `yaml:"low"`
	LowLow   *float64         `yaml:"low_low"`
	Equals   *conffile.Scalar `yaml:"equals"`
	Stale    *time.Duration   `yaml:"stale"`
	Absent   *time.Duration   `yaml:"absent"`
	Deadband float64          `yaml:"deadband"`
	OnDelay  time.Duration    `yaml:"on_delay"`
	OffDelay time.Duration    `yaml:"off_delay"`
	Priority string           `yaml:"priority"`
	Page     string           `yaml:"page"`
	OnBad    string           `yaml:"on_bad"`
	MaxLate  *time.Duration   `yaml:"max_late"`
	Late     string           `yaml:"late"`
	Message  telemetry.Label  `yaml:"message"`
	Help     telemetry.Label  `yaml:"help"`
	Rate     conffile.Scalar  `yaml:"rate"`
	Deviat   conffile.Scalar  `yaml:"deviation"`
	Stuck    conffile.Scalar  `yaml:"stuck"`
	When     conffile.Scalar  `yaml:"when"`
}

type fileYAML struct {
	Rules []ruleYAML `yaml:"rules"`
	Tests []testYAML `yaml:"tests"`
}

const (
	typesToday     = "high_high, high, low, low_low, equals, stale, absent"
	defaultMaxLate = 60 * time.Second
)

var (
	ruleID   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	globForm = regexp.MustCompile(`^[a-z0-9_*-]+/[a-z0-9_*-]+/[a-z0-9_*-]+$`)
)

// ParseFile reads one rule file, called name in errors. Everything wrong in
// it is told at once, as conffile.Errors at file:line:col; then the set is nil.
func ParseFile(name string, data []byte) (*RuleSet, error) {
	var f fileYAML
	doc, readErr := conffile.Parse(name, data, &f)
	set := &RuleSet{names: []string{name}}
	seen := map[string]int{}
	for i := range f.Rules {
		p := conffile.Path{"rules", i}
		r := buildRule(doc, p, &f.Rules[i])
		if r.ID != "" {
			if line, dup := seen[r.ID]; dup {
				doc.Errorf(p.With("id"), "rule %q stands already at line %d; ids are unique, for alarms are known by them", r.ID, line)
			}
			seen[r.ID], _ = doc.Pos(p.With("id"))
		}
		set.rules = append(set.rules, r)
		if r.Page != "" {
			line, col := doc.Pos(p.With("page"))
			set.paged = append(set.paged, paged{name, line, col, r.Page})
		}
		if onBad(&f.Rules[i]) && !r.Type.timed() {
			set.rules = append(set.rules, r.noGood())
		}
	}
	if len(f.Rules) == 0 && readErr == nil {
		doc.Errorf(conffile.Path{"rules"}, "no rules here; write at least one under rules:")
	}
	for i := range f.Tests {
		set.tests = append(set.tests, buildTest(doc, conffile.Path{"tests", i}, &f.Tests[i], seen))
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return set, nil
}

// Merge joins the sets of several files. An id that stands in two of them is
// an error that names both files.
func Merge(sets ...*RuleSet) (*RuleSet, error) {
	all := &RuleSet{}
	from := map[string]string{}
	for _, s := range sets {
		for _, r := range s.rules {
			if other, dup := from[r.ID]; dup {
				return nil, fmt.Errorf("%s: rule %q stands in %s too; ids are unique over all rule files",
					strings.Join(s.names, ", "), r.ID, other)
			}
			from[r.ID] = strings.Join(s.names, ", ")
		}
		all.rules = append(all.rules, s.rules...)
		all.tests = append(all.tests, s.tests...)
		all.paged = append(all.paged, s.paged...)
		all.names = append(all.names, s.names...)
	}
	return all, nil
}

func onBad(y *ruleYAML) bool { return y.OnBad == "alarm" || y.OnBad == "" && y.Page != "" }

func buildRule(doc *conffile.Doc, p conffile.Path, y *ruleYAML) *Rule {
	r := &Rule{
		ID: y.ID, Points: y.Points, Deadband: y.Deadband, OnDelay: y.OnDelay, OffDelay: y.OffDelay,
		Priority: Priority(y.Priority), Page: y.Page, MaxLate: defaultMaxLate, Late: y.Late,
		Message: y.Message, Help: y.Help,
	}
	switch {
	case y.ID == "":
		doc.Errorf(p.With("id"), "the rule has no id; write a short stable one such as supply-temp-low")
	case !ruleID.MatchString(y.ID):
		doc.Errorf(p.With("id"), "id %q: use lower-case letters, digits and -, 63 at most, such as supply-temp-low", y.ID)
	}
	switch {
	case y.Points == "":
		doc.Errorf(p.With("points"), `the rule has no points; write a glob over site/device/point such as "*/heat-exchanger-*/supply_temp"`)
	case !globForm.MatchString(y.Points):
		doc.Errorf(p.With("points"), "points %q: want three levels site/device/point of lower-case letters, digits, -, _ and *", y.Points)
	}
	buildType(doc, p, y, r)
	buildTiming(doc, p, y, r)
	buildManners(doc, p, y, r)
	return r
}

// buildType finds the one type of the rule.
func buildType(doc *conffile.Doc, p conffile.Path, y *ruleYAML, r *Rule) {
	var found []string
	number := func(t Type, v *float64) {
		if v != nil {
			found, r.Type, r.Limit = append(found, string(t)), t, *v
		}
	}
	number(HighHigh, y.HighHigh)
	number(High, y.High)
	number(Low, y.Low)
	number(LowLow, y.LowLow)
	if y.Equals != nil {
		found, r.Type, r.Equals = append(found, "equals"), Equals, parseScalar(string(*y.Equals))
	}
	silence := func(t Type, v *time.Duration) {
		if v == nil {
			return
		}
		found, r.Type, r.Silence = append(found, string(t)), t, *v
		if *v <= 0 {
			doc.Errorf(p.With(string(t)), "%s must be longer than 0s, such as 5m", t)
		}
	}
	silence(Stale, y.Stale)
	silence(Absent, y.Absent)
	later := false
	for _, k := range []string{"rate", "deviation", "stuck", "when"} {
		if doc.Has(p.With(k)) {
			doc.Errorf(p.With(k), "rules of type %s are not supported by this version; it knows %s", k, typesToday)
			later = true
		}
	}
	wrong := slices.ContainsFunc(strings.Split(typesToday, ", "), func(k string) bool { return doc.Has(p.With(k)) })
	switch {
	case len(found) == 0 && !later && !wrong:
		doc.Errorf(p, "the rule says not what to look for; give it one of %s", typesToday)
	case len(found) > 1:
		doc.Errorf(p.With(found[1]), "the rule has both %s; write one rule for each, with an id of its own", strings.Join(found, " and "))
	}
}

func buildTiming(doc *conffile.Doc, p conffile.Path, y *ruleYAML, r *Rule) {
	if y.Deadband < 0 {
		doc.Errorf(p.With("deadband"), "deadband %g is negative; write how far back from the limit the value must come", y.Deadband)
	}
	for k, d := range map[string]time.Duration{"on_delay": y.OnDelay, "off_delay": y.OffDelay} {
		if d < 0 {
			doc.Errorf(p.With(k), "%s %s is negative", k, d)
		}
	}
	if doc.Has(p.With("deadband")) && r.Type != "" && !r.Type.limit() {
		doc.Errorf(p.With("deadband"), "a rule of type %s has no limit, so no deadband; remove it", r.Type)
	}
	if doc.Has(p.With("on_delay")) && r.Type.timed() {
		doc.Errorf(p.With("on_delay"), "a rule of type %s waits already; make %s longer instead of on_delay", r.Type, r.Type)
	}
	if y.MaxLate != nil {
		if r.MaxLate = *y.MaxLate; *y.MaxLate < time.Second {
			doc.Errorf(p.With("max_late"), "max_late %s is too short; every reading takes a moment to arrive: 1s or more", *y.MaxLate)
		}
	}
}

func buildManners(doc *conffile.Doc, p conffile.Path, y *ruleYAML, r *Rule) {
	oneOf := func(key, v string, allowed ...string) {
		if v != "" && !slices.Contains(allowed, v) {
			doc.Errorf(p.With(key), "%s %q is none of %s", key, v, strings.Join(allowed, ", "))
		}
	}
	oneOf("priority", y.Priority, string(Critical), string(HighPrio), string(MediumPrio), string(LowPrio))
	if r.Priority == "" {
		r.Priority = MediumPrio
	}
	oneOf("late", y.Late, lateJournal, lateList, latePage)
	if r.Late == latePage && r.Page == "" {
		doc.Errorf(p.With("late"), "late: page needs a rota to page; write page: and its name")
	}
	if r.Late == "" {
		switch {
		case r.Priority == Critical && r.Page != "":
			r.Late = latePage
		case r.Priority == Critical || r.Priority == HighPrio:
			r.Late = lateList
		default:
			r.Late = lateJournal
		}
	}
	oneOf("on_bad", y.OnBad, "alarm", "hold")
	if y.OnBad == "alarm" && r.Type.timed() {
		doc.Errorf(p.With("on_bad"), "a rule of type %s is itself about missing values; remove on_bad", r.Type)
	}
	if doc.Has(p.With("page")) && !ruleID.MatchString(y.Page) {
		doc.Errorf(p.With("page"), "page %q: write the name of a rota of page.yaml", y.Page)
	}
	if r.Message.En == "" && r.Message.Zh == "" {
		r.Message.En = r.ID
	}
}
