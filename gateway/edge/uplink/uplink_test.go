package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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

func TestLiveFirstThenBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{refuse: errors.New("no broker")}, newQueue()
		b := start(t, n, q, nil)
		b.poll(4)
		after(10 * time.Second)
		if s := b.up.Stats(); s.Connected || !strings.Contains(s.LastError, "no broker") {
			t.Errorf("stats are %+v", s)
		}
		n.mu.Lock()
		n.refuse, n.silent = nil, true
		n.mu.Unlock()
		after(time.Second)
		n.link().take()
		b.poll(2)
		synctest.Wait()
		n.link().ack()
		synctest.Wait()
		rs := rows(t, n.link().take())
		expect(t, "live", said(rs), "live 1000/5 6")
		for _, r := range rs {
			p, _ := q.Read(r.epoch, r.seq, 1, 1)
			if want, _ := wire.AppendLine(nil, p[0].Payload, r.epoch, r.seq); string(want) != r.line {
				t.Errorf("line %s, want %s", r.line, want)
			}
		}
		if q.left() != 6 {
			t.Errorf("%d records left before the hub's word", q.left())
		}
	})
}

func TestFreedOnCommitted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		b.poll(10)
		after(time.Second)
		l := n.link()
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 4, Also: [][2]uint64{{7, 8}}}, 55: {Upto: 9}})
		synctest.Wait()
		if q.left() != 4 {
			t.Errorf("%d left, want 5 6 9 10", q.left())
		}
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 11}})
		synctest.Wait()
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 5, Also: [][2]uint64{{7, 12}}}})
		synctest.Wait()
		l.tell(base+"committed", []byte("{"), nil)
		synctest.Wait()
		if q.left() != 4 {
			t.Errorf("%d left after words that cannot be true", q.left())
		}
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 10}})
		after(time.Second)
		if s := b.up.Stats(); q.left() != 0 || s.Unsettled != 0 || s.Published != 10 || s.Resent != 0 || s.Hub != "h/1" {
			t.Errorf("%d left, stats %+v", q.left(), s)
		}
	})
}

func TestFreedOnPuback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{silent: true}, newQueue()
		b := start(t, n, q, func(c *Config) { c.Commit, c.Compress = CommitBroker, true })
		b.poll(3)
		after(time.Second)
		l := n.link()
		if slices.Contains(l.subscribe, base+"committed") {
			t.Error("subscribed to a word it does not wait for")
		}
		if q.left() != 3 {
			t.Errorf("%d left without a PUBACK", q.left())
		}
		l.cut()
		after(2 * time.Second)
		n.link().ack()
		after(time.Second)
		ps := n.link().take()
		expect(t, "second connection", said(rows(t, ps)), "backfill 1000/1 2 3")
		if strings.HasSuffix(ps[len(ps)-1].Topic, ".zst") || q.left() != 0 {
			t.Errorf("sent on %s, %d left", ps[len(ps)-1].Topic, q.left())
		}
	})
}

func TestKeptByAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, func(c *Config) { c.Commit, c.Keep = CommitNone, time.Hour })
		after(time.Second)
		b.poll(3)
		after(time.Minute)
		expect(t, "first", said(rows(t, n.link().take())), "live 1000/1 2 3")
		n.link().cut()
		b.poll(2) // while it is down
		after(time.Minute)
		expect(t, "second", said(rows(t, n.link().take())), "backfill 1000/4 5")
		after(58*time.Minute + 30*time.Second)
		if q.left() != 2 {
			t.Errorf("%d left after an hour, want the last 2", q.left())
		}
		after(2 * time.Minute)
		if q.left() != 0 {
			t.Errorf("%d left", q.left())
		}
		if len(rows(t, n.link().take())) != 0 {
			t.Error("something was sent again")
		}
	})
}

// TestSentAgainByteForByte: what a lost connection did not get committed
// comes again, and every line is what it was.
func TestSentAgainByteForByte(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, func(c *Config) { c.Compress = true })
		after(time.Second)
		b.poll(6)
		after(time.Second)
		l := n.link()
		first := rows(t, l.take())
		expect(t, "first", said(first), "live 1000/1 2 3 4 5 6")
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 2, Also: [][2]uint64{{4, 4}}}})
		synctest.Wait()
		l.cut()
		after(5 * time.Second)
		again := rows(t, n.link().take())
		expect(t, "again", said(again), "backfill 1000/3 5 6")
		for _, r := range again {
			if r.line != first[r.seq-1].line {
				t.Errorf("was %s\nand is %s", first[r.seq-1].line, r.line)
			}
		}
	})
}

func TestPassedOverIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		for range 5 { // payloads apart
			b.poll(2)
			after(10 * time.Second)
		}
		l := n.link()
		expect(t, "sent", said(rows(t, l.take())), "live 1000/1 2 3 4 5 6 7 8 9 10")
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 2, Also: [][2]uint64{{5, 6}}}})
		after(30 * time.Second)
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 2, Also: [][2]uint64{{5, 7}}}})
		after(29 * time.Second)
		expect(t, "after 59 s", said(rows(t, l.take())), "")
		after(2 * time.Second)
		// 8 to 10 came later than what was committed: they are not passed over.
		expect(t, "after 61 s", said(rows(t, l.take())), "backfill 1000/3 4")
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 10}})
		after(time.Hour)
		expect(t, "in the end", said(rows(t, l.take())), "")
		if s := b.up.Stats(); s.Resent != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestStandstill: while the hub says nothing only the oldest payload comes,
// after 60 s, and then twice as long each time, to 15 min.
func TestStandstill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		for range 3 {
			b.poll(1)
			after(7 * time.Second)
		}
		l := n.link()
		zero := l.take()[2].at
		after(3 * time.Hour)
		var gaps []string
		for _, p := range l.take() {
			expect(t, "repeated", said(rows(t, []published{p})), "backfill 1000/1")
			gaps = append(gaps, p.at.Sub(zero).Round(2*time.Second).String())
			zero = p.at
		}
		expect(t, "gaps", strings.Join(gaps[:7], " "), "1m0s 2m0s 4m0s 8m0s 15m0s 15m0s 15m0s")
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 1}})
		after(62 * time.Second)
		expect(t, "after the hub's word", said(rows(t, l.take())), "backfill 1000/2")
	})
}

func TestHubChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		b.poll(4)
		after(time.Second)
		l := n.link()
		l.commit("h/1", map[uint64]wire.CommitEpoch{1000: {Upto: 1}})
		after(time.Second)
		l.take()
		b.refreshed()
		l.commit("h/2", map[uint64]wire.CommitEpoch{1000: {Upto: 2}})
		after(time.Second)
		expect(t, "sent again", said(rows(t, l.take())), "backfill 1000/3 4")
		expect(t, "refreshed", b.refreshed(), "hub changed")
		l.commit("h/2", map[uint64]wire.CommitEpoch{1000: {Upto: 2}})
		after(time.Second)
		expect(t, "the same hub", said(rows(t, l.take())), "")
	})
}

// TestLiveSkips: a link that is stuck for 12 s; then new records go first.
func TestLiveSkips(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		n.mu.Lock()
		n.silent = true
		n.mu.Unlock()
		l := n.link()
		l.take()
		b.refreshed()
		for range 120 {
			b.poll(1)
			after(100 * time.Millisecond)
		}
		if r := b.refreshed(); !strings.HasPrefix(r, "live skip") {
			t.Errorf("refreshed: %q", r)
		}
		before := rows(t, l.take())
		b.poll(1)
		synctest.Wait()
		l.ack()
		after(time.Second)
		rs := rows(t, l.take())
		if len(rs) == 0 || rs[0].lane != wire.Live || rs[len(rs)-1].lane != wire.Backfill {
			t.Fatalf("after the stall came %s", said(rs))
		}
		seen := map[uint64]int{}
		for _, r := range append(before, rs...) {
			seen[r.seq]++
		}
		for seq := range uint64(121) {
			if seen[seq+1] != 1 {
				t.Errorf("record %d was sent %d times", seq+1, seen[seq+1])
			}
		}
		if s := b.up.Stats(); s.Skips == 0 || s.Waiting != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestLiveOverASlowLink: 50 kB/s and a backlog of 3 MB. Live must not wait
// behind it, and the backlog must still use the link.
func TestLiveOverASlowLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const rate = 50e3
		n, q := &network{}, newQueue()
		q.before(t, 7, Label(boot, cfg), 20000)
		free := time.Now()
		n.delay = func(size int) time.Time { // one pipe, first in first out
			free = laterOf(free, time.Now()).Add(time.Duration(float64(size+40) / rate * 1e9))
			return free.Add(50 * time.Millisecond)
		}
		b := start(t, n, q, nil)
		born := map[uint64]time.Time{}
		for i := range 60 {
			b.poll(1)
			born[uint64(i+1)] = time.Now()
			after(500 * time.Millisecond)
		}
		rs := rows(t, n.link().take())
		old := 0
		for _, r := range rs {
			if r.epoch == 7 {
				old++
			} else if d := r.at.Sub(born[r.seq]); d > 2*time.Second {
				t.Errorf("record %d went out %v after it was read", r.seq, d)
			}
		}
		if depth := time.Until(free); depth > 4*time.Second {
			t.Errorf("%v of sending are queued in front of the next live record", depth)
		}
		size := len(rs[0].line) + 1
		if used := float64(old*size) / (30 * rate); used < 0.7 {
			t.Errorf("the backlog used %.0f %% of the link", 100*used)
		}
	})
}

// TestLinkThatBecomesSlow: from 500 to 20 kB/s in the middle of a backlog.
func TestLinkThatBecomesSlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rate := 500e3
		n, q := &network{}, newQueue()
		q.before(t, 7, Label(boot, cfg), 200_000)
		free := time.Now()
		n.delay = func(size int) time.Time {
			free = laterOf(free, time.Now()).Add(time.Duration(float64(size+40) / rate * 1e9))
			return free
		}
		b := start(t, n, q, nil)
		after(20 * time.Second)
		n.mu.Lock()
		rate = 20e3
		n.mu.Unlock()
		after(2 * time.Minute) // what is on its way cannot be called back
		worst := time.Duration(0)
		for range 120 {
			b.poll(1)
			after(time.Second)
			n.mu.Lock()
			worst = max(worst, time.Until(free))
			n.mu.Unlock()
		}
		if worst > 6*time.Second {
			t.Errorf("%v of sending were queued in front of the next live record", worst)
		}
	})
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestWindowFillsALongLink: 100 ms round trip.
func TestWindowFillsALongLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		q.before(t, 7, Label(boot, cfg), 50000)
		n.delay = func(int) time.Time { return time.Now().Add(100 * time.Millisecond) }
		b := start(t, n, q, nil)
		began := time.Now()
		for b.up.Stats().Waiting > 0 || time.Since(began) < time.Second {
			after(250 * time.Millisecond)
		}
		size := 0
		for _, p := range n.link().take() {
			size += len(p.Payload)
		}
		if speed := float64(size) / time.Since(began).Seconds(); speed < 3e6 {
			t.Errorf("%.1f MB/s", speed/1e6)
		}
	})
}

func TestBacklogRateIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		q.before(t, 7, Label(boot, cfg), 30000)
		start(t, n, q, func(c *Config) { c.Lanes.Rate = 100_000 })
		after(10 * time.Second)
		size := 0
		for _, p := range n.link().take() {
			size += len(p.Payload)
		}
		if size < 900_000 || size > 1_300_000 {
			t.Errorf("%d bytes in 10 s at 100 kB/s", size)
		}
	})
}

func TestLinger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, func(c *Config) { c.Linger = 30 * time.Second })
		after(time.Second)
		n.link().take()
		for range 29 {
			b.poll(1)
			after(time.Second)
		}
		if ps := n.link().take(); len(ps) != 0 {
			t.Errorf("published before the time: %s", said(rows(t, ps)))
		}
		after(2 * time.Second)
		if ps := n.link().take(); len(ps) != 1 || len(rows(t, ps)) != 29 {
			t.Errorf("%d payloads: %s", len(ps), said(rows(t, ps)))
		}
		b.poll(400) // over 16 KiB: what is full does not wait
		after(time.Second)
		ps := n.link().take()
		if len(ps) < 2 || len(rows(t, ps)) < 200 {
			t.Errorf("%d payloads, %d records", len(ps), len(rows(t, ps)))
		}
		for _, p := range ps {
			if len(p.Payload) > 16<<10+300 {
				t.Errorf("a payload of %d bytes", len(p.Payload))
			}
		}
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
		start(t, n, newQueue(), func(c *Config) { c.HubTime = func(hub, _ time.Time) { heard = append(heard, hub) } })
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

// TestUnreadableRecordHoldsUpNothing and reaches the quarantine.
func TestUnreadableRecordHoldsUpNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		n.link().take()
		b.poll(1)
		q.append([]byte("\x09 from the future"))
		q.append(bytes.Repeat([]byte{9}, 60<<10))
		b.poll(1)
		after(time.Second)
		var errs []bool
		for _, p := range n.link().take() {
			topic, _ := wire.ParseTopic(p.Topic)
			d, err := wire.Decode(topic, p.Payload)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range d.Records {
				errs = append(errs, r.Err != nil)
			}
		}
		expect(t, "errors", fmt.Sprint(errs), "[false true true false]")
	})
}

func TestBufferThatCannotBeRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		q.mu.Lock()
		q.fail = errors.New("input/output error")
		q.mu.Unlock()
		b.poll(3)
		after(3 * time.Second)
		q.mu.Lock()
		q.fail = nil
		q.mu.Unlock()
		after(2 * time.Second)
		expect(t, "sent when it can be read again", said(rows(t, n.link().take())), "live 1000/1 2 3")
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

// TestNothingLostWhateverTheLinkDoes: random cuts, stalls, restarts of the
// board, of the hub, payloads the hub loses; in the end everything is stored
// and every line of a record was the same.
func TestNothingLostWhateverTheLinkDoes(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 2))) })
		})
	}
}

func chaos(t *testing.T, r *rand.Rand) {
	n, q := &network{}, newQueue()
	q.before(t, 7, Label("0ld", oldCfg), 500)
	h := &hub{t: t, lines: map[[2]uint64]string{}, stored: map[[2]uint64]bool{}, name: "h/0"}
	zst := r.IntN(2) == 0
	b := start(t, n, q, func(c *Config) { c.Compress = zst })
	total, restarts := 0, 0
	for range 400 {
		b.poll(r.IntN(4))
		after(time.Duration(r.IntN(3000)) * time.Millisecond)
		if len(n.all()) == 0 {
			continue
		}
		l := n.link()
		switch r.IntN(30) {
		case 0:
			h.take(n, r, 0)
			l.cut()
		case 1:
			n.mu.Lock()
			n.silent = true
			n.mu.Unlock()
		case 2:
			h.restart(r)
		case 3:
			restarts++
			b.stop()
			total += b.n
			q.open(uint64(2000+restarts), Label(fmt.Sprint("b", restarts), cfg))
			b = start(t, n, q, func(c *Config) { c.Compress, c.Boot = zst, fmt.Sprint("b", restarts) })
		default:
			l.ack()
		}
		h.take(n, r, 0.05)
		if r.IntN(3) == 0 {
			h.commit(n.link(), q)
		}
	}
	total += b.n + 500
	for range 200 { // quiet: now everything must arrive
		n.link().ack()
		after(5 * time.Second)
		h.take(n, r, 0)
		h.commit(n.link(), q)
	}
	if q.left() != 0 || len(h.stored) != total {
		t.Errorf("%d of %d stored, %d not freed", len(h.stored), total, q.left())
	}
}

// hub stores what the links carried and commits it.
type hub struct {
	t      *testing.T
	name   string
	lines  map[[2]uint64]string
	stored map[[2]uint64]bool
	recent [][2]uint64
}

// take stores what came, but for a share that gets lost.
func (h *hub) take(n *network, r *rand.Rand, lose float64) {
	for _, l := range n.all() {
		for _, p := range l.take() {
			for _, row := range rows(h.t, []published{p}) {
				id := [2]uint64{row.epoch, row.seq}
				if old, ok := h.lines[id]; ok && old != row.line {
					h.t.Errorf("%v was %s\nand is %s", id, old, row.line)
				}
				h.lines[id] = row.line
			}
			if r.Float64() < lose {
				continue
			}
			for _, row := range rows(h.t, []published{p}) {
				h.recent = append(h.recent, [2]uint64{row.epoch, row.seq})
			}
		}
	}
}

// restart loses what was received and not stored.
func (h *hub) restart(r *rand.Rand) {
	h.recent, h.name = nil, fmt.Sprint("h/", r.Uint32())
}

func (h *hub) commit(l *link, q *memQueue) {
	for _, id := range h.recent {
		h.stored[id] = true
	}
	h.recent = nil
	epochs := map[uint64]wire.CommitEpoch{}
	for _, held := range q.Holds() {
		var e wire.CommitEpoch
		settled := func(seq uint64) bool { return seq < held.First || h.stored[[2]uint64{held.Epoch, seq}] }
		for settled(e.Upto + 1) {
			e.Upto++
		}
		for seq := e.Upto + 1; seq <= held.Last; seq++ {
			if !settled(seq) {
				continue
			}
			if k := len(e.Also); k > 0 && e.Also[k-1][1] == seq-1 {
				e.Also[k-1][1] = seq
			} else {
				e.Also = append(e.Also, [2]uint64{seq, seq})
			}
		}
		epochs[held.Epoch] = e
	}
	l.commit(h.name, epochs)
	synctest.Wait()
}
