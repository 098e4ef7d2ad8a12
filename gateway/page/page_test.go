package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/alarm"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a channel that answers as it is told; Opener and Channel in one.
type script struct {
	Fail string `yaml:"fail"`

	name    string
	mu      sync.Mutex
	answers []answer // then success
	got     []string // at, key, may repeat
	hang    bool
}

type answer struct {
	retry bool
	err   error
}

type config struct {
	Script *script `yaml:"script"`
}

func (c config) Open(name, dir string) (Channel, error) {
	if c.Script == nil {
		return nil, errors.New("channel has no kind; write one of script")
	}
	if c.Script.Fail != "" {
		return nil, errors.New(c.Script.Fail)
	}
	c.Script.name = name
	return c.Script, nil
}

func (s *script) Name() string { return s.name }

func (s *script) Notify(ctx context.Context, m Message) (bool, error) {
	s.mu.Lock()
	repeat := ""
	if m.MayRepeat {
		repeat = " may repeat"
	}
	s.got = append(s.got, fmt.Sprintf("%s%s", m.Key(), repeat))
	hang := s.hang
	a := answer{}
	if len(s.answers) > 0 {
		a, s.answers = s.answers[0], s.answers[1:]
	}
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return true, ctx.Err()
	}
	return a.retry, a.err
}

func (s *script) sent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, ", ")
}

// outbox is an Outbox in memory that can be made to fail.
type outbox struct {
	mu      sync.Mutex
	entries []Entry
	done    map[string]Outcome
	log     []string
	failing map[Outcome]int // how many of these marks fail
}

func (o *outbox) Pending(ctx context.Context, channel string) ([]Entry, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []Entry
	for _, e := range o.entries {
		if o.done[e.Key()] == "" && (channel == "" || e.Channel == channel) {
			out = append(out, e)
		}
	}
	return out, ctx.Err()
}

func (o *outbox) Mark(ctx context.Context, a Attempt) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing[a.Outcome] > 0 {
		o.failing[a.Outcome]--
		return errors.New("disk full")
	}
	for i := range o.entries {
		e := &o.entries[i]
		if e.Key() != a.Key {
			continue
		}
		if a.Outcome == Sending {
			e.Attempts++
		}
		e.Begun, e.Next = a.Outcome == Sending, a.Next
		if a.Outcome == Delivered || a.Outcome == Refused {
			if o.done == nil {
				o.done = map[string]Outcome{}
			}
			o.done[a.Key] = a.Outcome
		}
	}
	o.log = append(o.log, string(a.Outcome))
	return nil
}

func (o *outbox) add(channel, id string, t alarm.Transition) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries = append(o.entries, Entry{Created: time.Now(), Page: Page{Rota: "duty", Channel: channel, Message: Message{ID: id, Transition: t}}})
}

func (o *outbox) marks() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.log, " ")
}

// run runs a pager for d of simulated time.
func run(d time.Duration, box *outbox, chans ...*script) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var cs []Channel
	for _, c := range chans {
		cs = append(cs, c)
	}
	NewPager(cs, box, nil).Run(ctx)
}

var (
	again = answer{true, errors.New("503")}
	final = answer{false, errors.New("404")}
)

func TestPagerDelivers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []answer
		hang    bool
		failing map[Outcome]int
		d       time.Duration
		sent    string
		marks   string
	}{
		{name: "in order", d: time.Second, sent: "a|raised, a|cleared, b|raised", marks: "sending delivered sending delivered sending delivered"},
		{name: "a failing page holds back its alarm, not another's", answers: []answer{again}, d: time.Minute,
			sent:  "a|raised, b|raised, a|raised, a|cleared",
			marks: "sending failed sending delivered sending delivered sending delivered"},
		{name: "a refused page is not tried again", answers: []answer{final}, d: time.Hour,
			sent:  "a|raised, a|cleared, b|raised",
			marks: "sending refused sending delivered sending delivered"},
		{name: "an outbox that cannot write sends nothing yet", failing: map[Outcome]int{Sending: 1}, d: time.Minute,
			sent:  "b|raised, a|raised, a|cleared",
			marks: "sending delivered sending delivered sending delivered"},
		{name: "an answer that cannot be written is not sent again", failing: map[Outcome]int{Delivered: 3}, d: time.Minute,
			sent:  "a|raised, b|raised, a|cleared",
			marks: "sending sending delivered delivered sending delivered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &script{name: "hook", answers: tt.answers, hang: tt.hang}
				box := &outbox{failing: tt.failing}
				box.add("hook", "a", alarm.Raised)
				box.add("hook", "a", alarm.Cleared)
				box.add("hook", "b", alarm.Raised)
				run(tt.d, box, c)
				if got := c.sent(); got != tt.sent {
					t.Errorf("sent\ngot  %s\nwant %s", got, tt.sent)
				}
				if got := box.marks(); got != tt.marks {
					t.Errorf("marks\ngot  %s\nwant %s", got, tt.marks)
				}
			})
		})
	}
}

func TestPagerPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &script{name: "hook"}
		for range 1000 {
			c.answers = append(c.answers, again)
		}
		box := &outbox{}
		box.add("hook", "a", alarm.Raised)
		run(time.Hour, box, c)
		n := len(c.got) // 2+4+...+256 s, then one each 150 to 300 s: each pause between a half and the whole
		if n < 8+10 || n > 9+24 {
			t.Errorf("%d attempts in an hour", n)
		}
		if box.done != nil {
			t.Error("given up within the hour")
		}
		run(30*time.Hour, box, c)
		if box.done["a|raised|hook"] != Refused {
			t.Error("still tried after a day")
		}
	})
}

func TestPagerWakesAndHangingChannelHoldsUpOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := &script{name: "slow", hang: true}, &script{name: "quick"}
		box := &outbox{}
		box.add("slow", "a", alarm.Raised)
		ctx, cancel := context.WithCancel(context.Background())
		p := NewPager([]Channel{slow, quick}, box, nil)
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		box.add("quick", "a", alarm.Raised)
		start := time.Now()
		p.Wake()
		synctest.Wait()
		if quick.sent() != "a|raised" || time.Since(start) != 0 {
			t.Errorf("quick got %q after %s", quick.sent(), time.Since(start))
		}
		time.Sleep(attemptTimeout) // simulated
		synctest.Wait()
		if !strings.Contains(box.marks(), "failed") {
			t.Errorf("the hanging attempt has no end: %s", box.marks())
		}
		time.Sleep(longestPause) // simulated: into the next attempt
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestStoppedAttemptMayRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &script{name: "hook", hang: true}
		box := &outbox{}
		box.add("hook", "a", alarm.Raised)
		run(time.Second, box, c)
		if box.marks() != "sending" {
			t.Fatalf("marks %s", box.marks())
		}
		c.hang = false
		run(time.Second, box, c)
		if got, want := c.sent(), "a|raised, a|raised may repeat"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestOrphansAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{}
		box.add("gone", "a", alarm.Raised)
		run(time.Second, box, &script{name: "hook"})
		if box.done["a|raised|gone"] != Refused {
			t.Errorf("done %v", box.done)
		}
	})
}

func TestParseFile(t *testing.T) {
	const head = "channels:\n  a: {script: {}}\n  b: {script: {}}\n"
	p, err := ParseFile[config]("page.yaml", []byte(head+"rotas: {duty: {notify: [b, a]}, night: {notify: [a]}}"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Channels()) != 2 || p.Channels()[0].Name() != "a" {
		t.Errorf("channels %v", p.Channels())
	}
	if got := strings.Join(p.Rotas(), " "); got != "duty night" {
		t.Errorf("rotas %s, want duty night", got)
	}
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "no rotas here"},
		{"unknown channel", head + "rotas: {duty: {notify: [a, x]}}", `page.yaml:4:28: channel "x" is not under channels:; there are a, b`},
		{"twice", head + "rotas: {duty: {notify: [a, a]}}", `page.yaml:4:28: channel "a" stands in the list already`},
		{"nobody", head + "rotas: {duty: {}}", `rota "duty" tells nobody`},
		{"unknown key", head + "rotas: {duty: {notfy: [a]}}", `unknown key "notfy"; did you mean "notify"?`},
		{"names", "channels: {A: {script: {}}}\nrotas: {B: {notify: [A]}}", `channel "A": use lower-case letters`},
		{"no kind", "channels: {a: {}}\nrotas: {b: {notify: [a]}}", "page.yaml:1:15: channel has no kind; write one of script"},
		{"channel's own error", "channels:\n  a: {script: {fail: no url}}\nrotas: {b: {notify: [a]}}", "page.yaml:2:6: no url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParseFile[config]("page.yaml", []byte(tt.in))
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestPages(t *testing.T) {
	p, err := ParseFile[config]("page.yaml", []byte("channels: {a: {script: {}}, b: {script: {}}}\nrotas: {duty: {notify: [a, b]}}"))
	if err != nil {
		t.Fatal(err)
	}
	set, err := alarm.ParseFile("r.yaml", []byte("rules: [{id: high, points: '*/*/*', high: 85, page: duty, priority: critical, message: {zh: 高, en: high}}, {id: quiet, points: '*/*/*', high: 85}]"))
	if err != nil {
		t.Fatal(err)
	}
	e := alarm.New(set)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	e.Points(now, []alarm.PointInfo{{Name: "east/hx-1/temp", Unit: "degC"}})
	ev := e.Observe(now, alarm.Reading{Point: "east/hx-1/temp", Value: telemetry.FloatValue(90.5), Time: now})
	pages, err := p.Pages(ev, func(a alarm.Alarm) string { return "http://hub/#" + a.Rule })
	if err != nil || len(pages) != 2 {
		t.Fatalf("got %v, %v", pages, err)
	}
	id := fmt.Sprintf("high|east/hx-1/temp|%d", now.UnixNano())
	if pages[0].Key() != id+"|raised|a" || pages[1].Key() != id+"|raised|b" || pages[0].Rota != "duty" {
		t.Errorf("keys %s, %s", pages[0].Key(), pages[1].Key())
	}
	b, err := json.Marshal(pages[0].Message)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"` + id + `","transition":"raised","rule":"high","type":"high","site":"east","device":"hx-1","point":"temp",` +
		`"value":90.5,"value_at":"2026-01-01T00:00:00Z","quality":"good","unit":"degC","limit":85,"priority":"critical",` +
		`"message":{"en":"high","zh":"高"},"start":"2026-01-01T00:00:00Z","at":"2026-01-01T00:00:00Z","link":"http://hub/#high"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	ev[0].Alarm.Page = "gone"
	if _, err := p.Pages(ev, nil); err == nil {
		t.Error("a rota that is not there was paged")
	}
}
