package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/wire"
)

// bubble runs f with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// after lets so much time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestAnnouncesBeforeItSends(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		q.before(t, 7, Label("0ld", oldCfg), 3)
		var settled []string
		b := start(t, n, q, func(c *Config) {
			c.Version = "1.2"
			c.Meta[oldCfg] = []byte(`{"old":1}`)
			c.Meta["bbbb0000"] = []byte(`{"older":1}`)
			c.MetaSettled = func(cfg string) { settled = append(settled, cfg) }
		})
		after(0)
		l := n.link()
		expect(t, "subscribed", strings.Join(l.subscribe, " "), base+"state luquan/v1/hub/+/time "+base+"committed")
		expect(t, "refreshed", b.refreshed(), "connected")
		ps := l.take()
		var topics []string
		for _, p := range ps {
			topics = append(topics, strings.TrimPrefix(p.Topic, base))
		}
		expect(t, "published", strings.Join(topics, " "), "state meta/"+oldCfg+" meta/"+cfg+" meta/bbbb0000 backfill")
		for _, p := range ps[:4] {
			if !p.Retained || p.QoS != 1 {
				t.Errorf("%s is not retained or not QoS 1", p.Topic)
			}
		}
		if len(ps[3].Payload) != 0 || len(settled) != 1 || settled[0] != "bbbb0000" {
			t.Errorf("the document of a settled cfg: cleared with %q, told %v", ps[3].Payload, settled)
		}
		st, err := wire.ParseState(ps[0].Payload)
		if err != nil || !st.Online || st.Epoch != 1000 || st.Boot != boot || st.Cfg != cfg || st.Version != "1.2" ||
			st.Holds[7] != [2]uint64{1, 3} || st.Holds[1000] != [2]uint64{1, 0} {
			t.Errorf("state is %+v, %v", st, err)
		}
		will, err := wire.ParseState(l.will.Payload)
		if err != nil || will.Online || will.Session != st.Session || !l.will.Retained || l.will.Topic != base+"state" {
			t.Errorf("will is %+v, %v", will, err)
		}
		rs := rows(t, ps)
		expect(t, "rows", said(rs), "backfill 7/1 2 3")
		if rs[0].boot != "0ld" || rs[0].cfg != oldCfg {
			t.Errorf("records of the old epoch say boot %s cfg %s", rs[0].boot, rs[0].cfg)
		}
		// When the old epoch is settled its document goes and the state says so.
		l.commit("h/1", map[uint64]wire.CommitEpoch{7: {Upto: 3}})
		after(11 * time.Second)
		topics = nil
		for _, p := range l.take() {
			topics = append(topics, strings.TrimPrefix(p.Topic, base))
		}
		expect(t, "published then", strings.Join(topics, " "), "meta/"+oldCfg+" state")
		expect(t, "settled", fmt.Sprint(settled), "[bbbb0000 "+oldCfg+"]")
	})
}

func TestCleanStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		n.delay = func(int) time.Time { return time.Now().Add(300 * time.Millisecond) }
		b := start(t, n, q, func(c *Config) { c.Linger = 30 * time.Second })
		after(time.Second)
		b.poll(3)
		synctest.Wait()
		l := n.link()
		l.take()
		began := time.Now()
		b.stop()
		ps := l.take()
		expect(t, "drained", said(rows(t, ps)), "live 1000/1 2 3")
		st, err := wire.ParseState(ps[len(ps)-1].Payload)
		if err != nil || st.Online || !ps[len(ps)-1].Retained || !l.closed {
			t.Errorf("last word %+v, %v, closed %v", st, err, l.closed)
		}
		if d := time.Since(began); d > 700*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}

// TestStopIsBounded although the broker says nothing more.
func TestStopIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{silent: true}, newQueue()
		b := start(t, n, q, nil)
		b.poll(500)
		after(time.Second)
		began := time.Now()
		b.stop()
		if d := time.Since(began); d > 1600*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if q.left() != 500 {
			t.Errorf("%d left", q.left())
		}
	})
}

func TestStopWhileItWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, &network{refuse: errors.New("no")}, newQueue(), func(c *Config) { c.Backoff = func(int) time.Duration { return time.Hour } })
		after(time.Minute)
		began := time.Now()
		b.stop()
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
	})
}

func TestBackoffCountsFailuresInARow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var got []int
		n := &network{refuse: errors.New("no")}
		start(t, n, newQueue(), func(c *Config) {
			c.Backoff = func(f int) time.Duration { got = append(got, f); return time.Second }
		})
		after(2500 * time.Millisecond)
		n.mu.Lock()
		n.refuse = nil
		n.mu.Unlock()
		after(time.Second)
		n.link().cut() // at once: counts on
		after(2 * time.Second)
		after(5 * time.Minute)
		n.link().cut() // after a good while: counts anew
		after(2 * time.Second)
		expect(t, "failures", fmt.Sprint(got), "[1 2 3 4 1]")
	})
}

func TestOverwrittenStateComesAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		start(t, n, q, nil)
		after(time.Second)
		l := n.link()
		own := l.take()[0]
		l.tell(own.Topic, own.Payload, nil) // our own echo
		l.handler(Message{Topic: own.Topic, Retained: true, Payload: bytes.Replace(own.Payload, []byte("true"), []byte("false"), 1)})
		after(time.Minute)
		if ps := l.take(); len(ps) != 0 {
			t.Errorf("published %d for nothing", len(ps))
		}
		will := bytes.Replace(own.Payload, []byte(`"session":"`), []byte(`"session":"0`), 1)
		will = bytes.Replace(will, []byte("true"), []byte("false"), 1)
		for range 50 {
			l.tell(own.Topic, will, nil)
			after(10 * time.Millisecond)
		}
		if ps := l.take(); len(ps) != 3 || !bytes.Equal(ps[0].Payload, own.Payload) {
			t.Errorf("%d states at once, want three like the first", len(ps))
		}
		after(15 * time.Second)
		if ps := l.take(); len(ps) != 1 {
			t.Errorf("%d states later, want one", len(ps))
		}
	})
}

func TestHubTimeIsHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &network{}
		var heard []time.Time
		start(t, n, newQueue(), func(c *Config) { c.HubTime = func(hub time.Time, _ time.Duration) { heard = append(heard, hub) } })
		after(time.Second)
		doc, err := wire.HubTime{Hub: "h/1", Time: 12345}.Marshal()
		l := n.link()
		l.tell("luquan/v1/hub/h/time", doc, err)
		l.tell("luquan/v1/hub/h/time", []byte("x"), nil)
		l.handler(Message{Topic: "luquan/v1/hub/h/time", Payload: doc, Retained: true}) // old: not a clock
		if len(heard) != 1 || heard[0].UnixNano() != 12345 {
			t.Errorf("heard %v", heard)
		}
	})
}

func TestClockSteps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		var off time.Duration
		b := start(t, n, q, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(off) } })
		after(time.Second)
		for _, o := range []time.Duration{0, 900 * time.Millisecond, time.Hour, time.Hour, -time.Hour} {
			off = o
			b.poll(1)
			after(10 * time.Second)
		}
		var steps []int
		for _, p := range n.link().take() {
			if topic, _ := wire.ParseTopic(p.Topic); topic.What == wire.Live {
				d, err := wire.Decode(topic, p.Payload)
				if err != nil {
					t.Fatal(err)
				}
				steps = append(steps, d.Header.Step)
			}
		}
		expect(t, "steps", fmt.Sprint(steps), "[0 0 1 1 2]")
	})
}

func TestNewRefuses(t *testing.T) {
	n := &network{}
	good := Config{Site: site, Gateway: gateway, Boot: boot, Cfg: cfg, Meta: map[string][]byte{cfg: {}}, Dial: n.dial,
		Backoff: func(int) time.Duration { return 0 }}
	for what, change := range map[string]func(*Config){
		"commit":  func(c *Config) { c.Commit = "maybe" },
		"meta":    func(c *Config) { c.Meta = nil },
		"dial":    func(c *Config) { c.Dial = nil },
		"backoff": func(c *Config) { c.Backoff = nil },
		"site":    func(c *Config) { c.Site = "X" },
		"boot":    func(c *Config) { c.Boot = "a b" },
		"cfg":     func(c *Config) { c.Cfg = "x"; c.Meta = map[string][]byte{"x": {}} },
	} {
		c := good
		change(&c)
		if _, err := New(newQueue(), c); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if _, err := New(newQueue(), good); err != nil {
		t.Error(err)
	}
}
