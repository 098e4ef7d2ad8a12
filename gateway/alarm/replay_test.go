package alarm

import (
	"testing"
	"time"

	"luquan/gateway/telemetry"
)

// Live at 0 s and again at 600 s; what is between arrives afterwards.
func TestReplay(t *testing.T) {
	const s = time.Second
	back := func(e *Engine, at time.Duration, v float64) []Event { return feed(e, at*s, (610-at)*s, v) }
	for _, tt := range []struct {
		name, late string
		play       func(e *Engine) []Event
		want, list string
	}{
		{"came and went, list", "list", func(e *Engine) []Event {
			ev := append(feed(e, 0, 0, 80), feed(e, 600*s, 0, 80)...)
			ev = append(ev, back(e, 100, 90)...)
			return append(ev, back(e, 200, 80)...)
		}, "high raised@1m40s suppressed; high cleared@3m20s returned_unacknowledged", "returned_unacknowledged"},
		{"came and went, page", "page", func(e *Engine) []Event {
			ev := append(feed(e, 0, 0, 80), feed(e, 600*s, 0, 80)...)
			ev = append(ev, back(e, 100, 90)...)
			return append(ev, back(e, 200, 80)...)
		}, "high raised@1m40s suppressed; high cleared@3m20s returned_unacknowledged !raised", "returned_unacknowledged"},
		{"came and went while the alarm stands anew: the list keeps what stands", "list", func(e *Engine) []Event {
			ev := append(feed(e, 0, 0, 80), feed(e, 600*s, 0, 90)...)
			ev = append(ev, back(e, 100, 90)...)
			return append(ev, back(e, 200, 80)...)
		}, "high raised@10m0s unacknowledged !raised; high raised@1m40s suppressed; high cleared@3m20s normal", "unacknowledged"},
		{"sent a second time: found once", "journal", func(e *Engine) []Event {
			feed(e, 0, 0, 80)
			ev := feed(e, 600*s, 0, 80)
			for range 3 {
				ev = append(ev, back(e, 100, 90)...)
				ev = append(ev, back(e, 200, 80)...)
			}
			return ev
		}, "high raised@1m40s suppressed; high cleared@3m20s normal", ""},
		{"the replay breaks off: returned at the latest when live showed it", "journal", func(e *Engine) []Event {
			ev := append(feed(e, 0, 0, 80), feed(e, 600*s, 0, 80)...)
			ev = append(ev, back(e, 100, 90)...)
			ev = append(ev, e.Tick(t0.Add(669*s))...)
			if d := e.NextDeadline(); !d.Equal(t0.Add(670 * s)) {
				t.Errorf("next deadline %s", d)
			}
			return append(ev, e.Tick(t0.Add(670*s))...)
		}, "high raised@1m40s suppressed; high cleared@10m0s normal", ""},
		{"no value since the cut: silence clears nothing", "journal", func(e *Engine) []Event {
			ev := feed(e, 0, 0, 80)
			ev = append(ev, e.Observe(t0.Add(600*s), Reading{Point: pt, Quality: telemetry.NoReply, Time: t0.Add(600 * s), Period: 10 * s})...)
			ev = append(ev, back(e, 100, 90)...)
			ev = append(ev, e.Tick(t0.Add(670*s))...)
			return append(ev, e.Tick(t0.Add(730*s))...)
		}, "high raised@1m40s suppressed; high announced@12m10s unacknowledged !raised", "unacknowledged"},
		{"acknowledged in the meantime: the start moves, the acknowledgement stays", "journal", func(e *Engine) []Event {
			ev := append(feed(e, 0, 0, 80), feed(e, 600*s, 0, 90)...)
			ack, err := e.Ack(t0.Add(605*s), ev[0].Alarm.ID, "wang")
			if err != nil {
				t.Error(err)
			}
			ev = append(ev, ack...)
			ev = append(ev, back(e, 100, 90)...)
			return append(ev, e.Tick(t0.Add(700*s))...)
		}, "high raised@10m0s unacknowledged !raised; high acknowledged@10m5s acknowledged !acknowledged; high backdated@1m40s acknowledged", "acknowledged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, page: duty, on_bad: hold, late: "+tt.late+"}]"))
			if got := brief(tt.play(e)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			list := ""
			for _, a := range e.Alarms() {
				list += string(a.State)
			}
			if list != tt.list {
				t.Errorf("list: got %q, want %q", list, tt.list)
			}
		})
	}
}

// A confirmation within the gap is the value before it once more: without it
// the on_delay would not be reached.
func TestReplayJudgesConfirmations(t *testing.T) {
	const s = time.Second
	e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85, on_delay: 20s, on_bad: hold}]"))
	ev := append(feed(e, 0, 0, 80), feed(e, 600*s, 0, 80)...)
	ev = append(ev, feed(e, 100*s, 500*s, 90)...)
	for _, at := range []time.Duration{110 * s, 120 * s} {
		ev = append(ev, e.Observe(t0.Add(601*s), Reading{Point: pt, Confirmed: true, Time: t0.Add(at), Lateness: 480 * s})...)
	}
	ev = append(ev, feed(e, 130*s, 480*s, 80)...)
	if got, want := brief(ev), "high raised@1m40s suppressed; high cleared@2m10s normal"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestReplayHasBounds: a link that flaps for ever costs a bounded amount.
func TestReplayHasBounds(t *testing.T) {
	e := New(rules(t, "rules: [{id: high, points: '*/*/*', high: 85}]"))
	for i := range 1000 {
		feed(e, time.Duration(i)*time.Minute, 0, 80)
	}
	if n := len(e.points[pt].gaps); n != maxGaps {
		t.Errorf("%d gaps kept", n)
	}
	e.Withdraw(t0, []string{pt})
	if len(e.open) != 0 || len(e.points) != 0 {
		t.Error("a withdrawn point leaves something behind")
	}
}
