package alarm

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"luquan/internal/conffile"
)

const good = `
rules:
  - id: supply-temp-low  # stable
    points: "*/heat-exchanger-*/supply_temp"
    low: 60
    deadband: 3
    on_delay: 2m
    off_delay: 1m
    priority: high
    page: heating
    max_late: 90s
    message: {zh: "供水温度低", en: "supply temperature low"}
    help: {zh: "检查泵", en: "look at the pump"}
  - {id: pump-gone, points: "*/supply-pump/flow", absent: 5m, priority: critical, page: heating}
  - {id: mode, points: "*/*/mode", equals: 3}
tests:
  - name: a pump trip pages once
    points: {"heating-east/heat-exchanger-1/supply_temp": "84x20 55x40 84x20"}
    every: 10s
    expect:
      - {at: 5m10s, alarm: supply-temp-low, state: normal, pages: 0}
      - {at: 5m20s, alarm: supply-temp-low, state: unacknowledged, pages: 1}
      - {at: 20m, alarm: supply-temp-low, state: returned_unacknowledged, pages: 1}
  - name: wrong on purpose
    points: {"heating-east/heat-exchanger-1/supply_temp": "84x20 cut(55x20) 84x20 restart _x4 60+5x3"}
    every: 10s
    expect: [{at: 5m20s, alarm: supply-temp-low, state: unacknowledged, pages: 1}]
`

func TestParseFile(t *testing.T) {
	set := rules(t, good)
	rs := set.Rules()
	if len(rs) != 3 {
		t.Fatalf("%d rules", len(rs))
	}
	r := rs[0]
	if r.Type != Low || r.Limit != 60 || r.Deadband != 3 || r.OnDelay != 2*time.Minute || r.OffDelay != time.Minute ||
		r.Priority != HighPrio || r.Page != "heating" || r.MaxLate != 90*time.Second || r.Late != "list" || r.Message.Zh != "供水温度低" {
		t.Errorf("got %+v", r)
	}
	if rs[1].Late != "page" || rs[1].Silence != 5*time.Minute {
		t.Errorf("critical: got %+v", rs[1])
	}
	if rs[2].Late != "journal" || rs[2].Priority != MediumPrio || rs[2].MaxLate != time.Minute || rs[2].Message.En != "mode" {
		t.Errorf("defaults: got %+v", rs[2])
	}
	if err := set.CheckRotas("page.yaml", []string{"duty", "heating"}); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		page  string
		rotas []string
		want  string
	}{
		{"page.yaml", []string{"duty", "heatign"}, `: the rule pages rota "heating", which is not in page.yaml; did you mean "heatign"?`},
		{"page.yaml", []string{"duty", "night"}, `: the rule pages rota "heating", which is not in page.yaml; there are duty, night`},
		{"", nil, `: the rule pages rota "heating", but hub.yaml names no page file; add page: page.yaml`},
	} {
		err := set.CheckRotas(tt.page, tt.rotas)
		var list conffile.Errors
		if !errors.As(err, &list) || list[0].Line == 0 || !strings.HasSuffix(list[0].Error(), tt.want) {
			t.Errorf("got %v, want file:line:col%s", err, tt.want)
		}
	}
	res := set.RunTests()
	if len(res) != 2 || len(res[0].Failures) != 0 {
		t.Errorf("tests: %+v", res)
	}
	want := []string{
		"at 5m20s: alarm supply-temp-low is [normal], expected unacknowledged",
		"at 5m20s: alarm supply-temp-low has paged 0 times, expected 1",
	}
	if !reflect.DeepEqual(res[1].Failures, want) {
		t.Errorf("got %q", res[1].Failures)
	}
}

func TestParseFileRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "no rules here; write at least one under rules:"},
		{"unknown key", "rules: [{id: a, points: '*/*/*', high: 1, pirority: low}]", `r.yaml:1:43: unknown key "pirority"; did you mean "priority"?`},
		{"no type", "rules:\n  - id: a\n    points: '*/*/*'\n", "r.yaml:2:5: the rule says not what to look for; give it one of high_high, high, low, low_low, equals, stale, absent"},
		{"two types", "rules: [{id: a, points: '*/*/*', high: 1, low: 2}]", "r.yaml:1:48: the rule has both high and low; write one rule for each, with an id of its own"},
		{"later type", "rules: [{id: a, points: '*/*/*', rate: 5}]", "r.yaml:1:40: rules of type rate are not supported by this version; it knows high_high, high, low, low_low, equals, stale, absent"},
		{"number", "rules: [{id: a, points: '*/*/*', high: hot}]", `r.yaml:1:40: "hot" is not a number`},
		{"id", "rules: [{id: A b, points: '*/*/*', high: 1}]", `id "A b": use lower-case letters`},
		{"no id", "rules: [{points: '*/*/*', high: 1}]", "the rule has no id"},
		{"same id", "rules:\n  - {id: a, points: '*/*/*', high: 1}\n  - {id: a, points: '*/*/*', low: 1}\n", `r.yaml:3:10: rule "a" stands already at line 2`},
		{"glob", "rules: [{id: a, points: 'supply_temp', high: 1}]", `points "supply_temp": want three levels site/device/point`},
		{"no points", "rules: [{id: a, high: 1}]", "the rule has no points"},
		{"deadband", "rules: [{id: a, points: '*/*/*', high: 1, deadband: -1}]", "deadband -1 is negative"},
		{"deadband without limit", "rules: [{id: a, points: '*/*/*', equals: 1, deadband: 1}]", "a rule of type equals has no limit"},
		{"delay", "rules: [{id: a, points: '*/*/*', high: 1, on_delay: -1s}]", "on_delay -1s is negative"},
		{"on_delay of absent", "rules: [{id: a, points: '*/*/*', absent: 1m, on_delay: 1s}]", "make absent longer instead of on_delay"},
		{"zero silence", "rules: [{id: a, points: '*/*/*', absent: 0s}]", "absent must be longer than 0s"},
		{"priority", "rules: [{id: a, points: '*/*/*', high: 1, priority: urgent}]", `priority "urgent" is none of critical, high, medium, low`},
		{"late", "rules: [{id: a, points: '*/*/*', high: 1, late: maybe}]", `late "maybe" is none of journal, list, page`},
		{"late page", "rules: [{id: a, points: '*/*/*', high: 1, late: page}]", "late: page needs a rota to page"},
		{"on_bad", "rules: [{id: a, points: '*/*/*', high: 1, on_bad: ring}]", `on_bad "ring" is none of alarm, hold`},
		{"on_bad of stale", "rules: [{id: a, points: '*/*/*', stale: 1m, on_bad: alarm}]", "is itself about missing values"},
		{"max_late", "rules: [{id: a, points: '*/*/*', high: 1, max_late: 1ms}]", "max_late 1ms is too short"},
		{"page", "rules: [{id: a, points: '*/*/*', high: 1, page: The Boss}]", `page "The Boss": write the name of a rota`},
		{"test alarm", "rules: [{id: a, points: '*/*/*', high: 1}]\ntests: [{name: x, points: {a/b/c: 1x2}, every: 1s, expect: [{at: 1s, alarm: b, state: normal}]}]", `r.yaml:2:77: alarm "b" is no rule of this file`},
		{"test series", "rules: [{id: a, points: '*/*/*', high: 1}]\ntests: [{name: x, points: {a/b/c: 1y2}, every: 1s, expect: [{at: 1s, alarm: a, state: normal}]}]", `r.yaml:2:35: "1y2" is no part of a series`},
		{"test every", "rules: [{id: a, points: '*/*/*', high: 1}]\ntests: [{name: x, points: {a/b/c: 1x2}, expect: [{at: 1s, alarm: a, state: normal}]}]", "every is how often the points are polled"},
		{"test state", "rules: [{id: a, points: '*/*/*', high: 1}]\ntests: [{name: x, points: {a/b/c: 1x2}, every: 1s, expect: [{at: 1s, alarm: a, state: red}]}]", `state "red" is none of`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := ParseFile("r.yaml", []byte(tt.in))
			if err == nil || set != nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "r.yaml") {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestMergeRefusesSameID(t *testing.T) {
	a, err1 := ParseFile("a.yaml", []byte("rules: [{id: x, points: '*/*/*', high: 1}]"))
	b, err2 := ParseFile("b.yaml", []byte("rules: [{id: x, points: '*/*/*', low: 1}]"))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if _, err := Merge(a, b); err == nil || err.Error() != `b.yaml: rule "x" stands in a.yaml too; ids are unique over all rule files` {
		t.Errorf("got %v", err)
	}
	c, _ := ParseFile("c.yaml", []byte("rules: [{id: y, points: '*/*/*', low: 1, page: duty}]"))
	if all, err := Merge(a, c); err != nil || len(all.Rules()) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestSeries(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"84x3", "84 84 84"},
		{"60+5x3", "60 65 70"},
		{"60-5x3 -1.5", "60 55 50 -1.5"},
		{"_x2 1", "_ _ 1"},
		{"1 outage:20s 2", "1 . . 2"},
		{"cut(84x2 _) 3", "c84 c84 c_ 3"},
		{"1x0", `"1x0": after x comes how many polls, 1 or more`},
		{"cut(1", "cut( needs one ) and holds no other cut"},
		{"outage:soon", `"outage:soon": write outage: and a duration such as outage:10m, outside of cut()`},
		{"1x9999999", "the series has more than 700000 polls"},
	} {
		s, err := parseSeries(tt.in, 10*time.Second)
		if got := s.text(); err != nil && err.Error() != tt.want || err == nil && got != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func (s series) text() string {
	var out []string
	for _, p := range s.polls {
		w := ""
		if p.cut {
			w = "c"
		}
		switch {
		case p.absent:
			w += "."
		case p.none:
			w += "_"
		default:
			b, _ := json.Marshal(p.value)
			w += string(b)
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

func TestAlarmJSON(t *testing.T) {
	e := New(rules(t, good))
	e.Observe(t0, Reading{Point: "a/b/mode", Value: parseScalar("3"), Time: t0})
	feed(e, 0, 0, 55)
	for i := range 13 {
		feed(e, time.Duration(i)*10*time.Second, 0, 55)
	}
	if len(e.Alarms()) != 2 {
		t.Fatalf("got %d alarms", len(e.Alarms()))
	}
	for _, a := range e.Alarms() {
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Alarm
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, back) {
			t.Errorf("%s\ngot  %+v\nwant %+v", b, back, a)
		}
	}
	var a Alarm
	if err := json.Unmarshal([]byte(`{"class":"float","value":"x"}`), &a); err == nil {
		t.Error("a text was taken as a float")
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("rules: [{id: a, points: '*/*/*', high: 1}]\ntests: [{name: x, points: {a/b/c: cut(1x2}, every: 1s}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseFile("r.yaml", data)
		if (set == nil) == (err == nil) {
			t.Fatalf("set %v, error %v", set, err)
		}
	})
}
