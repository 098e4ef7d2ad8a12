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
		after(gather) // the first may have gone alone, the second then waits for company
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
		q.before(t, 7, Label(boot, cfg), 200_000)
		n.delay = func(int) time.Time { return time.Now().Add(100 * time.Millisecond) }
		b := start(t, n, q, func(c *Config) { c.Lanes.Rate, c.Commit = 8<<20, CommitNone })
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
		start(t, n, q, func(c *Config) { c.Lanes.Rate, c.Commit = 100_000, CommitNone })
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
		b.poll(1600) // over 64 KiB: what is full does not wait
		after(time.Second)
		ps := n.link().take()
		if len(ps) < 2 || len(rows(t, ps)) < 800 {
			t.Errorf("%d payloads, %d records", len(ps), len(rows(t, ps)))
		}
		for _, p := range ps {
			if len(p.Payload) > 64<<10+300 {
				t.Errorf("a payload of %d bytes", len(p.Payload))
			}
		}
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
