package alarm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Type is what a rule looks for.
type Type string

// The types of rules. NoGood is not written in files: on_bad makes it.
const (
	HighHigh Type = "high_high"
	High     Type = "high"
	Low      Type = "low"
	LowLow   Type = "low_low"
	Equals   Type = "equals"
	Stale    Type = "stale"
	Absent   Type = "absent"
	NoGood   Type = "no_good_value"
)

// timed reports whether the type looks at silence, by the hub's clock.
func (t Type) timed() bool { return t == Stale || t == Absent }

// limit reports whether the type compares with a number that has a side.
func (t Type) limit() bool { return t == HighHigh || t == High || t == Low || t == LowLow }

// outer returns the type that suppresses this one on the same point, or "".
func (t Type) outer() Type {
	switch t {
	case High:
		return HighHigh
	case Low:
		return LowLow
	}
	return ""
}

// order is the order in which a point's rules are judged: an outer limit
// before the one it suppresses, the absence of values last.
func (t Type) order() int {
	switch t {
	case HighHigh, LowLow:
		return 0
	case NoGood:
		return 2
	}
	return 1
}

// Priority is how fast somebody must act.
type Priority string

// The priorities, most urgent first.
const (
	Critical   Priority = "critical"
	HighPrio   Priority = "high"
	MediumPrio Priority = "medium"
	LowPrio    Priority = "low"
)

// What `late` may say: what becomes of that which happened and ended before
// the hub heard of it.
const (
	lateJournal = "journal"
	lateList    = "list"
	latePage    = "page"
)

// Rule is one rule of a file, checked and with its defaults filled in. It is
// immutable.
type Rule struct {
	ID      string
	Points  string // glob over site/device/point
	Type    Type
	Limit   float64         // for the types with a limit, in the point's unit
	Equals  telemetry.Value // for Equals: Int, Float or String as written
	Silence time.Duration   // for Stale and Absent

	Deadband          float64
	OnDelay, OffDelay time.Duration // between stamps
	Priority          Priority
	Page              string // a rota, "" for journal and console only
	MaxLate           time.Duration
	Late              string // journal, list or page
	Message, Help     telemetry.Label

	derived bool // made by on_bad, not written
}

// judge tells of a value: violates, that it satisfies the rule's condition;
// returned, that it is beyond the deadband on the safe side. Both are false in
// between; ok is false where the rule cannot judge the value.
func (r *Rule) judge(v telemetry.Value, q telemetry.Quality) (violates, returned, ok bool) {
	if r.Type == Equals {
		if v.IsZero() || q.Bad() {
			return false, false, false
		}
		same := r.equal(v)
		return same, !same, true
	}
	switch q {
	case telemetry.OverRange: // plus infinity
		up := r.Type == High || r.Type == HighHigh
		return up, !up, true
	case telemetry.UnderRange:
		down := r.Type == Low || r.Type == LowLow
		return down, !down, true
	}
	if q.Bad() || v.Class() != telemetry.Float && v.Class() != telemetry.Int {
		return false, false, false
	}
	x := v.Float()
	switch r.Type {
	case High, HighHigh:
		return x > r.Limit, x <= r.Limit-r.Deadband, true
	case Low, LowLow:
		return x < r.Limit, x >= r.Limit+r.Deadband, true
	}
	return false, false, false
}

func (r *Rule) equal(v telemetry.Value) bool {
	if v.Class() == telemetry.String || r.Equals.Class() == telemetry.String {
		return v.String() == r.Equals.String()
	}
	if v.Class() == telemetry.Int && r.Equals.Class() == telemetry.Int {
		return v.Int() == r.Equals.Int()
	}
	return v.Float() == r.Equals.Float()
}

// blindSuffix ends the id of a rule made by on_bad; a written id has no dot.
const blindSuffix = ".no-good-value"

// noGood returns the rule that watches for the blindness of r.
func (r *Rule) noGood() *Rule {
	return &Rule{
		ID: r.ID + blindSuffix, Points: r.Points, Type: NoGood, Priority: r.Priority, Page: r.Page,
		MaxLate: r.MaxLate, Late: lateJournal, Help: r.Help, derived: true,
		Message: telemetry.Label{
			Zh: "无有效数据，无法判断：" + cmp.Or(r.Message.Zh, r.Message.En, r.ID),
			En: "no good value, cannot judge: " + cmp.Or(r.Message.En, r.Message.Zh, r.ID),
		},
	}
}

// RuleSet is the content of a rule file. It is immutable and may be shared.
type RuleSet struct {
	rules []*Rule // in the order of the files, a derived rule after its own
	tests []ruleTest
	names []string // files
	paged []paged  // where rules name their rota
}

type paged struct {
	file      string
	line, col int
	rota      string
}

// Rules returns the rules as written, without those on_bad makes.
func (s *RuleSet) Rules() []Rule {
	var out []Rule
	for _, r := range s.rules {
		if !r.derived {
			out = append(out, *r)
		}
	}
	return out
}

// CheckRotas reports every place where a rule pages a rota that is not among
// those of the page file called page; "" when there is no such file. The error
// is conffile.Errors.
func (s *RuleSet) CheckRotas(page string, rotas []string) error {
	var errs []error
	for _, p := range s.paged {
		msg := fmt.Sprintf("the rule pages rota %q, but hub.yaml names no page file; add page: page.yaml", p.rota)
		if page != "" {
			if slices.Contains(rotas, p.rota) {
				continue
			}
			msg = fmt.Sprintf("the rule pages rota %q, which is not in %s", p.rota, page)
			if near := conffile.Nearest(p.rota, rotas); near != "" {
				msg += fmt.Sprintf("; did you mean %q?", near)
			} else {
				msg += "; there are " + strings.Join(rotas, ", ")
			}
		}
		errs = append(errs, &conffile.Error{File: p.file, Line: p.line, Col: p.col, Msg: msg})
	}
	return conffile.Join(errs...)
}

// parseScalar reads the operand of equals: a whole number, a number, true,
// false or a text.
func parseScalar(s string) telemetry.Value {
	switch s {
	case "true":
		return telemetry.IntValue(1)
	case "false":
		return telemetry.IntValue(0)
	}
	if i, err := strconv.ParseInt(s, 0, 64); err == nil {
		return telemetry.IntValue(i)
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if v := telemetry.FloatValue(f); !v.IsZero() {
			return v
		}
	}
	return telemetry.StringValue(s)
}
