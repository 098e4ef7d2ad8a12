package alarm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"luquan/gateway/telemetry"
)

const pt = "heating-east/heat-exchanger-1/supply_temp"

func rules(t testing.TB, body string) *RuleSet {
	t.Helper()
	set, err := ParseFile("rules.yaml", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// play runs a series through one rule and returns the journal: each event with
// its true time, and what people were told.
func play(t testing.TB, every time.Duration, rule, text string) (*bench, string) {
	t.Helper()
	set := rules(t, "rules:\n"+rule)
	s, err := parseSeries(text, every)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(set, every)
	b.run(&ruleTest{every: every, points: map[string]series{pt: s}})
	return b, b.journal()
}

func (b *bench) journal() string {
	var out []string
	for _, e := range b.events {
		s := fmt.Sprintf("%s@%s", e.Transition, e.Time.Sub(b.start))
		if e.Alarm.Type == NoGood {
			s = "blind-" + s
		}
		if e.Tell != "" {
			s += "!" + string(e.Tell)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestConditions(t *testing.T) {
	const low = "  - {id: low, points: '*/*/*', low: 60, deadband: 3, on_delay: 2m, off_delay: 1m, page: heating, on_bad: hold}\n"
	const high = "  - {id: high, points: '*/*/*', high: 85, page: heating, on_bad: hold}\n"
	const absent = "  - {id: gone, points: '*/*/*', absent: 60s, page: heating}\n"
	const stale = "  - {id: gone, points: '*/*/*', stale: 60s, page: heating}\n"
	for _, tt := range []struct {
		name, rule, series, want string
	}{
		{"normal", low, "84x40", ""},
		{"low raises after on_delay, clears after off_delay, at true times", low, "84x20 55x40 84x20",
			"raised@3m20s!raised cleared@10m0s!cleared"},
		{"too short for on_delay", low, "84x20 55x12 84x20", ""},
		{"exactly on_delay", low, "84x20 55x13 84x20", "raised@3m20s!raised cleared@5m30s!cleared"},
		{"deadband: 62 is not back", low, "55x20 62x20 63x10", "raised@0s!raised cleared@6m40s!cleared"},
		{"deadband: below the limit begins anew", low, "55x10 61x1 55x10 84x10", ""},
		{"off_delay begins anew", low, "55x20 84x5 62x1 84x8", "raised@0s!raised cleared@4m20s!cleared"},
		{"at the limit is no alarm", high, "85x20", ""},
		{"swings across the limit within the delay", low, strings.Repeat("84x2 55x2 ", 900), ""},
		{"silence never clears", low, "55x20 outage:2h", "raised@0s!raised"},
		{"no reply never clears", low, "55x20 _x600", "raised@0s!raised"},
		{"high, cut, still high: one alarm", high, "80x3 90x3 outage:1h 90x10", "raised@30s!raised"},
		{"a short gap with the violation on both sides is one run", low, "55x5 outage:40s 55x5", "raised@0s!raised"},
		{"flapping link, 15 s up and 15 s down", low, strings.Repeat("55x2 outage:20s ", 10), "raised@0s!raised"},
		{"a long gap begins anew", low, "55x5 outage:10m 55x12", ""},
		{"no reply in a run does not end it", low, "55x5 _x3 55x5", "raised@0s!raised"},
		{"absent, at its true start", absent, "80x7 outage:5m 80x3", "raised@1m0s!raised cleared@6m10s!cleared"},
		{"absent counts no reply as nothing", absent, "80x7 _x12 80x1", "raised@1m0s!raised cleared@3m10s!cleared"},
		{"absent for a point that never came", absent, "outage:2m", "raised@0s!raised"},
		{"stale needs to have seen a value", stale, "_x20", ""},
		{"stale", stale, "80x1 _x20", "raised@0s!raised"},
		{"restart keeps the alarm and pages once", low, "55x20 restart 55x20 restart 84x20", "raised@0s!raised cleared@6m40s!cleared"},
		{"restart with the cable cut", low, "55x20 restart outage:1h 84x20", "raised@0s!raised cleared@1h3m20s!cleared"},
		{"absent over a restart", absent, "80x1 outage:2m restart outage:2m 80x1", "raised@0s!raised cleared@4m10s!cleared"},
		{"came and went while the link was cut: two entries at true times, no page", high, "80x3 cut(90x30) 80x3", "raised@30s cleared@5m30s"},
		{"began while the link was cut, still holds: one page, then the true start", high, "80x3 cut(80x5 90x5) 90x3 80x1",
			"raised@2m10s!raised backdated@1m20s cleared@2m40s!cleared"},
		{"on_delay that ends after the cut counts from within it", low, "80x3 cut(80x20 55x20) 55x3 80x10",
			"raised@3m50s announced@7m20s!raised cleared@7m40s!cleared"},
		{"stood before the cut, went and came within it: one alarm", high, "90x3 cut(90x5 80x5 90x5) 90x3", "raised@0s!raised"},
		{"back before the link was", high, "90x3 cut(90x5 80x5) 80x3", "raised@0s!raised cleared@2m10s!cleared"},
		{"50 excursions in a backlog: 50 pairs, no page", high, "80x3 cut(" + strings.Repeat("90x2 80x2 ", 50) + ") 80x3", pairs(50)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := play(t, 10*time.Second, tt.rule, tt.series); got != tt.want {
				t.Errorf("%s\ngot  %s\nwant %s", tt.series, got, tt.want)
			}
		})
	}
}

func pairs(n int) string {
	var out []string
	for i := range n {
		at := 30*time.Second + time.Duration(i)*40*time.Second
		out = append(out, fmt.Sprintf("raised@%s cleared@%s", at, at+20*time.Second))
	}
	return strings.Join(out, " ")
}

func TestOnBad(t *testing.T) {
	const rule = "  - {id: high, points: '*/*/*', high: 85, page: heating}\n"
	for _, tt := range []struct{ name, series, want string }{
		{"two bad polls", "80x3 _x2 80x3", ""},
		{"three bad polls, told from the first", "80x3 _x3 80x1", "blind-raised@30s!raised blind-cleared@1m0s!cleared"},
		{"nothing at all is not the sensor's fault", "80x3 outage:10m 80x1", ""},
		{"not while the alarm itself stands", "90x3 _x30 80x1", "raised@0s!raised cleared@5m30s!cleared"},
		{"restart", "80x3 _x4 restart _x4 80x1", "blind-raised@30s!raised blind-cleared@1m50s!cleared"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := play(t, 10*time.Second, rule, tt.series); got != tt.want {
				t.Errorf("%s\ngot  %s\nwant %s", tt.series, got, tt.want)
			}
		})
	}
	if _, got := play(t, 10*time.Second, "  - {id: high, points: '*/*/*', high: 85, page: heating, on_bad: hold}\n", "80x3 _x30"); got != "" {
		t.Errorf("on_bad: hold raised %s", got)
	}
}

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// feed observes value v with the stamp t0+at, received after late more.
func feed(e *Engine, at, late time.Duration, v float64) []Event {
	now := t0.Add(at + late)
	return e.Observe(now, Reading{Point: pt, Value: telemetry.FloatValue(v), Time: t0.Add(at), Received: now, Lateness: late, Period: 10 * time.Second})
}

func brief(ev []Event) string {
	var out []string
	for _, e := range ev {
		s := fmt.Sprintf("%s %s@%s %s", e.Alarm.Rule, e.Transition, e.Time.Sub(t0), e.Alarm.State)
		if e.Tell != "" {
			s += " !" + string(e.Tell)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestLateInOrder(t *testing.T) {
	const hour = time.Hour
	for _, tt := range []struct {
		name, late string
		play       func(e *Engine) []Event
		want       string
	}{
		{"came and went, journal", "journal", func(e *Engine) []Event {
			return append(feed(e, 0, hour, 90), feed(e, 10*time.Second, hour, 80)...)
		}, "high raised@0s suppressed; high cleared@10s normal"},
		{"came and went, list", "list", func(e *Engine) []Event {
			return append(feed(e, 0, hour, 90), feed(e, 10*time.Second, hour, 80)...)
		}, "high raised@0s suppressed; high cleared@10s returned_unacknowledged"},
		{"came and went, page", "page", func(e *Engine) []Event {
			return append(feed(e, 0, hour, 90), feed(e, 10*time.Second, hour, 80)...)
		}, "high raised@0s suppressed; high cleared@10s returned_unacknowledged !raised"},
		{"still holds on catch-up", "journal", func(e *Engine) []Event {
			ev := append(feed(e, 0, hour, 90), feed(e, 10*time.Second, hour, 90)...)
			return append(ev, feed(e, hour, 0, 90)...)
		}, "high raised@0s suppressed; high announced@1h0m0s unacknowledged !raised"},
		{"back on catch-up", "list", func(e *Engine) []Event {
			return append(feed(e, 0, hour, 90), feed(e, hour, 0, 80)...)
		}, "high raised@0s suppressed; high cleared@1h0m0s returned_unacknowledged"},
		{"the replay breaks off: told after max_late", "journal", func(e *Engine) []Event {
			ev := feed(e, 0, hour, 90)
			ev = append(ev, feed(e, 30*time.Second, hour, 90)...)
			ev = append(ev, e.Tick(t0.Add(hour+89*time.Second))...)
			return append(ev, e.Tick(t0.Add(hour+90*time.Second))...)
		}, "high raised@0s suppressed; high announced@1h1m30s unacknowledged !raised"},
		{"50 excursions in a backlog", "journal", func(e *Engine) []Event {
			var ev []Event
			for i := range 50 {
				ev = append(ev, feed(e, time.Duration(2*i)*time.Minute, 6*hour, 90)...)
				ev = append(ev, feed(e, time.Duration(2*i+1)*time.Minute, 6*hour, 80)...)
			}
			if n := len(e.Alarms()); n != 0 {
				t.Errorf("%d alarms on the list after a backlog", n)
			}
			if len(ev) != 100 {
				t.Errorf("%d journal entries, want 100", len(ev))
			}
			return ev[98:]
		}, "high raised@1h38m0s suppressed; high cleared@1h39m0s normal"},
		{"late readings clear what stands, with a note", "journal", func(e *Engine) []Event {
			return append(feed(e, 0, 0, 90), feed(e, 10*time.Second, hour, 80)...)
		}, "high raised@0s unacknowledged !raised; high cleared@10s returned_unacknowledged !cleared"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold, late: "+tt.late+"}]"))
			if got := brief(tt.play(e)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLateReadingsEndNoSilence(t *testing.T) {
	e := New(rules(t, "rules: [{id: gone, points: '*/*/*', absent: 60s}]"))
	e.Points(t0, []PointInfo{{Name: pt, Period: 10 * time.Second}})
	feed(e, 0, 0, 80)
	if got := brief(e.Tick(t0.Add(60 * time.Second))); got != "gone raised@0s unacknowledged" {
		t.Fatalf("got %s", got)
	}
	if got := brief(feed(e, 10*time.Second, time.Hour, 80)); got != "" {
		t.Errorf("a backfilled reading ended the silence: %s", got)
	}
	if got := brief(feed(e, 2*time.Hour, time.Second, 80)); got != "gone cleared@2h0m1s returned_unacknowledged" {
		t.Errorf("got %s", got)
	}
}

func TestHighHighSuppressesHigh(t *testing.T) {
	set := rules(t, `
rules:
  - {id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold}
  - {id: hh, points: '*/*/*', high_high: 95, page: duty, on_bad: hold}
`)
	t.Run("jump over both", func(t *testing.T) {
		e := New(set)
		ev := append(feed(e, 0, 0, 99), feed(e, 10*time.Second, 0, 90)...)
		ev = append(ev, feed(e, 20*time.Second, 0, 80)...)
		want := "hh raised@0s unacknowledged !raised; high raised@0s suppressed; " +
			"hh cleared@10s returned_unacknowledged !cleared; high announced@10s unacknowledged !raised; " +
			"high cleared@20s returned_unacknowledged !cleared"
		if got := brief(ev); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("both return at once", func(t *testing.T) {
		e := New(set)
		ev := append(feed(e, 0, 0, 99), feed(e, 10*time.Second, 0, 80)...)
		want := "hh raised@0s unacknowledged !raised; high raised@0s suppressed; " +
			"hh cleared@10s returned_unacknowledged !cleared; high cleared@10s normal"
		if got := brief(ev); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("an open high stays open", func(t *testing.T) {
		e := New(set)
		feed(e, 0, 0, 90)
		feed(e, 10*time.Second, 0, 99)
		a := e.Alarms()
		if len(a) != 2 || a[0].State != Unacknowledged || a[1].State != Unacknowledged {
			t.Errorf("got %v", a)
		}
	})
}

func TestQualities(t *testing.T) {
	const file = `
rules:
  - {id: hh, points: '*/*/*', high_high: 95, on_bad: hold}
  - {id: ll, points: '*/*/*', low_low: 5, on_bad: hold}
  - {id: on, points: '*/*/*', equals: 3, on_bad: hold}
`
	for _, tt := range []struct {
		name string
		v    telemetry.Value
		q    telemetry.Quality
		want string
	}{
		{"over range is plus infinity", telemetry.Value{}, telemetry.OverRange, "hh raised@0s unacknowledged"},
		{"under range is minus infinity", telemetry.Value{}, telemetry.UnderRange, "ll raised@0s unacknowledged"},
		{"uncertain is judged", telemetry.FloatValue(99), telemetry.OutOfRange, "hh raised@0s unacknowledged"},
		{"invalid is not judged", telemetry.Value{}, telemetry.Invalid, ""},
		{"a bad quality's value is not judged", telemetry.FloatValue(99), telemetry.Garbled, ""},
		{"ints are judged by limits", telemetry.IntValue(99), telemetry.Good, "hh raised@0s unacknowledged"},
		{"equals, int and float", telemetry.FloatValue(3), telemetry.Good, "on raised@0s unacknowledged; ll raised@0s unacknowledged"},
		{"a text is no number", telemetry.StringValue("99"), telemetry.Good, ""},
		{"equals, text", telemetry.StringValue("3"), telemetry.Good, "on raised@0s unacknowledged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := New(rules(t, file))
			got := brief(e.Observe(t0, Reading{Point: pt, Value: tt.v, Quality: tt.q, Time: t0}))
			parts := strings.Split(got, "; ")
			for _, w := range strings.Split(tt.want, "; ") {
				if !strings.Contains(got, w) || len(parts) != len(strings.Split(tt.want, "; ")) {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
			}
		})
	}
}

func TestBadReadingShowsQualityAndOldStamp(t *testing.T) {
	e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, on_bad: hold}]"))
	feed(e, 0, 0, 90)
	e.Observe(t0.Add(10*time.Second), Reading{Point: pt, Quality: telemetry.NoReply, Time: t0.Add(10 * time.Second)})
	a := e.Alarms()[0]
	if a.State != Unacknowledged || a.Quality != telemetry.NoReply || a.Value.Float() != 90 || !a.ValueAt.Equal(t0) {
		t.Errorf("got %+v", a)
	}
}

func TestConfirmationIsAReading(t *testing.T) {
	e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, on_delay: 30s, on_bad: hold}]"))
	feed(e, 0, 0, 90)
	var ev []Event
	for s := 10 * time.Second; s <= 30*time.Second; s += 10 * time.Second {
		ev = append(ev, e.Observe(t0.Add(s), Reading{Point: pt, Confirmed: true, Time: t0.Add(s)})...)
	}
	if got := brief(ev); got != "high raised@0s unacknowledged" {
		t.Fatalf("got %s", got)
	}
	if a := e.Alarms()[0]; !a.ValueAt.Equal(t0) {
		t.Errorf("the confirmation gave the old value a new stamp: %s", a.ValueAt)
	}
	e2 := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, on_bad: hold}]"))
	e2.Restore(t0, e.Snapshot())
	e3 := New(rules(t, "rules: [{id: low, points: '*/*/*', low: 95, on_bad: hold}]"))
	e3.Restore(t0, e.Snapshot())
	if ev := e3.Observe(t0.Add(time.Minute), Reading{Point: pt, Confirmed: true, Time: t0.Add(time.Minute)}); ev != nil {
		t.Errorf("a value from before the restart was judged: %s", brief(ev))
	}
}

func TestClocks(t *testing.T) {
	const rule = "rules: [{id: high, points: '*/*/*', high: 85, on_bad: hold}]"
	obs := func(e *Engine, received, stamp time.Duration, v float64) string {
		return brief(e.Observe(t0.Add(received), Reading{Point: pt, Value: telemetry.FloatValue(v), Time: t0.Add(stamp), Received: t0.Add(received)}))
	}
	t.Run("20 minutes slow: raised at once", func(t *testing.T) {
		e := New(rules(t, rule))
		if got := obs(e, 20*time.Minute, 0, 90); got != "high raised@0s unacknowledged" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("years ahead: taken as its receipt, and the next one still counts", func(t *testing.T) {
		e := New(rules(t, rule))
		if got := obs(e, time.Second, 100_000*time.Hour, 90); got != "high raised@1s unacknowledged" {
			t.Errorf("got %s", got)
		}
		if got := obs(e, 11*time.Second, 11*time.Second, 80); got != "high cleared@11s returned_unacknowledged" {
			t.Errorf("got %s", got)
		}
		if e.Stats().Future != 1 {
			t.Errorf("Future = %d", e.Stats().Future)
		}
	})
	t.Run("set back an hour: not blind for an hour", func(t *testing.T) {
		e := New(rules(t, rule))
		obs(e, 2*time.Hour, 2*time.Hour, 80)
		if got := obs(e, 2*time.Hour+10*time.Second, time.Hour, 90); got != "high raised@1h0m0s unacknowledged" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("the same payload twice is history", func(t *testing.T) {
		e := New(rules(t, rule))
		obs(e, 10*time.Second, 10*time.Second, 80)
		if got := obs(e, 20*time.Second, 5*time.Second, 90); got != "" {
			t.Errorf("got %s", got)
		}
		if e.Stats().History != 1 {
			t.Errorf("History = %d", e.Stats().History)
		}
	})
}

func TestAck(t *testing.T) {
	set := rules(t, "rules: [{id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold}]")
	e := New(set)
	id := feed(e, 0, 0, 90)[0].Alarm.ID
	if want := fmt.Sprintf("high|%s|%d", pt, t0.UnixNano()); id != want {
		t.Fatalf("id %q, want %q", id, want)
	}
	if _, err := e.Ack(t0, "high|x|1", "wang"); err == nil {
		t.Error("an unknown id was acknowledged")
	}
	ev, err := e.Ack(t0.Add(time.Minute), id, "wang")
	if got := brief(ev); err != nil || got != "high acknowledged@1m0s acknowledged !acknowledged" || ev[0].By != "wang" {
		t.Fatalf("got %s, %v", got, err)
	}
	if ev, err := e.Ack(t0.Add(2*time.Minute), id, "li"); err != nil || ev != nil || e.Alarms()[0].AckedBy != "wang" {
		t.Errorf("a second acknowledgement did %s, %v", brief(ev), err)
	}
	if got := brief(feed(e, 10*time.Minute, 0, 80)); got != "high cleared@10m0s normal !cleared" {
		t.Errorf("got %s", got)
	}
	if len(e.Alarms()) != 0 {
		t.Errorf("still listed: %v", e.Alarms())
	}

	id = feed(e, 20*time.Minute, 0, 90)[0].Alarm.ID
	feed(e, 21*time.Minute, 0, 80)
	if got := brief(feed(e, 22*time.Minute, 0, 90)); got != "high superseded@22m0s normal; high raised@22m0s unacknowledged !raised" {
		t.Errorf("got %s", got)
	}
	if _, err := e.Ack(t0, id, "wang"); err == nil {
		t.Error("the superseded alarm was acknowledged")
	}
	feed(e, 23*time.Minute, 0, 80)
	ev, err = e.Ack(t0.Add(24*time.Minute), e.Alarms()[0].ID, "wang")
	if got := brief(ev); err != nil || got != "high acknowledged@24m0s normal !acknowledged" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestRuleRemoved(t *testing.T) {
	e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold}, {id: low, points: '*/*/*', low: 100, on_bad: hold}]"))
	feed(e, 0, 0, 90)
	next := New(rules(t, "rules: [{id: low, points: '*/*/*', low: 110, priority: high, on_bad: hold}]"))
	got := brief(next.Restore(t0.Add(time.Minute), e.Snapshot()))
	if got != "high removed@1m0s normal !cleared" {
		t.Errorf("got %s", got)
	}
	a := next.Alarms()
	if len(a) != 1 || a[0].Rule != "low" || *a[0].Limit != 110 || a[0].Priority != HighPrio || a[0].Value.Float() != 90 {
		t.Errorf("got %+v", a)
	}
	if got := brief(next.Withdraw(t0.Add(2*time.Minute), []string{pt})); got != "low removed@2m0s normal" {
		t.Errorf("got %s", got)
	}
	if next.Alarms(); len(next.Alarms()) != 0 {
		t.Error("withdrawn points keep alarms")
	}
}

func TestNextDeadline(t *testing.T) {
	e := New(rules(t, "rules: [{id: gone, points: '*/*/*', absent: 60s}]"))
	if !e.NextDeadline().IsZero() {
		t.Error("a deadline without points")
	}
	e.Points(t0, []PointInfo{{Name: pt}})
	feed(e, 10*time.Second, 0, 1)
	if got := e.NextDeadline(); !got.Equal(t0.Add(70 * time.Second)) {
		t.Errorf("got %s", got)
	}
	if ev := e.Tick(e.NextDeadline().Add(-1)); ev != nil {
		t.Errorf("before the deadline: %s", brief(ev))
	}
	if ev := e.Tick(e.NextDeadline()); len(ev) != 1 {
		t.Errorf("at the deadline: %s", brief(ev))
	}
}
