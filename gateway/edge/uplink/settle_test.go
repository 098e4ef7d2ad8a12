package uplink

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/wire"
)

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

// TestHubComesLater: the board was at the broker before the hub, so what it
// published came to nobody. The hub's first word, which has nothing of this
// epoch, has it sent again at once; the next word does not.
func TestHubComesLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		q.before(t, 900, Label("0ld", oldCfg), 3)
		b := start(t, n, q, nil)
		after(time.Second)
		b.poll(4)
		after(5 * time.Second)
		l := n.link()
		l.take()
		b.refreshed()
		l.commit("h/1", map[uint64]wire.CommitEpoch{900: {Upto: 2}, 1000: {}})
		after(time.Second)
		expect(t, "sent again", said(rows(t, l.take())), "backfill 900/3, backfill 1000/1 2 3 4")
		expect(t, "refreshed", b.refreshed(), "")
		l.commit("h/1", map[uint64]wire.CommitEpoch{900: {Upto: 2}, 1000: {}})
		after(time.Second)
		expect(t, "told twice", said(rows(t, l.take())), "")
	})
}
