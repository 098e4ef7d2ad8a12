package uplink

import (
	"testing"
	"time"

	"luquan/gateway/wire"
)

// serveHub is a hub that stores speed records a second, in the order they came, and says so
// twice a second; the broker acknowledges at once and keeps what the hub has
// yet to take. It returns how many it stored in the time and the most that
// waited for it after the first five seconds.
func serveHub(t *testing.T, n *network, speed int, d time.Duration) (stored, most int) {
	t.Helper()
	type id struct{ epoch, seq uint64 }
	var queue []id
	upto := map[uint64]wire.CommitEpoch{}
	for i := range int(d / (500 * time.Millisecond)) {
		after(500 * time.Millisecond)
		for _, r := range rows(t, n.link().take()) {
			queue = append(queue, id{r.epoch, r.seq})
		}
		if i >= 10 {
			most = max(most, len(queue))
		}
		done := min(len(queue), speed/2)
		for _, x := range queue[:done] {
			upto[x.epoch] = wire.CommitEpoch{Upto: x.seq}
		}
		queue, stored = queue[done:], stored+done
		n.link().commit("h/1", upto)
	}
	return stored, most
}

// TestBacklogKeepsToTheHub: a hub that stores 2,000 records a second behind a
// broker that takes everything. It never waits for the backlog, and live does
// not wait behind more than a second of it.
func TestBacklogKeepsToTheHub(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		q.before(t, 7, Label(boot, cfg), 100_000)
		start(t, n, q, nil)
		const speed, seconds = 2000, 30
		stored, most := serveHub(t, n, speed, seconds*time.Second)
		t.Logf("%d records stored in %d s, at most %d waited", stored, seconds, most)
		if stored < speed*seconds*9/10 {
			t.Errorf("%d records were stored; the hub waited for the board", stored)
		}
		if most > 2*speed {
			t.Errorf("%d records waited for a hub that stores %d a second", most, speed)
		}
	})
}

// TestHubFallsSilent: a hub that spoke and says nothing more gets what is late
// in steps, not all of it.
func TestHubFallsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		q.before(t, 7, Label(boot, cfg), 200_000)
		b := start(t, n, q, nil)
		serveHub(t, n, 10_000, 5*time.Second)
		after(20 * time.Second)
		n.link().take()
		before := b.up.Stats().Waiting
		after(20 * time.Second)
		sent := 0
		for _, p := range n.link().take() {
			sent += len(p.Payload)
		}
		if sent < 500<<10 || sent > 2<<20 {
			t.Errorf("%d bytes in 20 s to a silent hub, of %d records", sent, before)
		}
	})
}

// TestLiveIsGathered: forty records a second make ten payloads, and the first
// after a rest goes at once.
func TestLiveIsGathered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		b := start(t, n, q, nil)
		after(time.Second)
		n.link().take()
		b.poll(1)
		after(time.Millisecond)
		expect(t, "at once", said(rows(t, n.link().take())), "live 1000/1")
		after(time.Second)
		for range 40 {
			b.poll(1)
			after(25 * time.Millisecond)
		}
		after(time.Second)
		ps := n.link().take()
		if len(rows(t, ps)) != 40 || len(ps) < 8 || len(ps) > 11 {
			t.Errorf("%d records in %d payloads", len(rows(t, ps)), len(ps))
		}
	})
}

func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	p := linkPace(now)
	send := func(n int, took time.Duration) { // one round trip of a full window
		for p.room(now) {
			p.under += n
		}
		for p.under > 0 {
			p.done(n, p.took(took))
		}
	}
	was := p.window
	send(1000, 100*time.Millisecond)
	if p.window < 1.9*was {
		t.Errorf("window %v after %v: it does not double on an empty line", p.window, was)
	}
	for range 20 {
		send(1000, 100*time.Millisecond+p.target)
	}
	if held := p.window; held > 2.1*was {
		t.Errorf("window %v grows although what arrives has waited", held)
	}
	for range 20 {
		send(1000, 10*time.Second)
	}
	if p.window != p.least {
		t.Errorf("window %v on a line that became slow; want %v", p.window, p.least)
	}
	p.under = 1
	if now = now.Add(2 * time.Minute); p.room(now) {
		t.Error("the line's own time is learnt anew with something under way")
	}
	if p.under = 0; !p.room(now) || p.base != 0 {
		t.Error("the line's own time is never learnt anew")
	}
}
