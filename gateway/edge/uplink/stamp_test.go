package uplink

import (
	"testing"
	"time"

	"luquan/gateway/wire"
)

// raw appends n records without a stamp.
func (b *board) raw(n int) {
	b.t.Helper()
	for range n {
		p, err := wire.WithStamp(stored(b.t, b.n), wire.Stamp{Time: 5, Clock: 3, Mono: time.Duration(b.n + 1), Raw: true})
		if err != nil {
			b.t.Fatal(err)
		}
		b.n++
		b.queue.append(p)
	}
}

// TestTellsTheLinkIsUpAndLost: a dial that fails and a clean stop are neither.
func TestTellsTheLinkIsUpAndLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, up, lost := &network{}, 0, 0
		b := start(t, n, newQueue(), func(c *Config) {
			c.Connected, c.Disconnected = func() { up++ }, func() { lost++ }
		})
		after(time.Second)
		n.link().cut()
		after(5 * time.Second)
		if up != 2 || lost != 1 {
			t.Errorf("told %d times that the link is up and %d times that it is lost, want 2 and 1", up, lost)
		}
		b.stop()
		if lost != 1 {
			t.Error("a clean stop counts as a lost link")
		}
	})
}

// TestWaitsForTheTime: what has no stamp waits, the live lane does not skip
// meanwhile, and goes on with the hub's first word.
func TestWaitsForTheTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, q := &network{}, newQueue()
		known, connected := false, 0
		var trips []time.Duration
		b := start(t, n, q, func(c *Config) {
			c.Connected = func() { connected++ }
			c.HubTime = func(_ time.Time, trip time.Duration) { known = true; trips = append(trips, trip) }
			c.Stamp = func(boot string, epoch, seq uint64, polled wire.Stamp) (wire.Stamp, bool) {
				return wire.Stamp{Time: 1763850000e9 + int64(polled.Mono), Clock: 2}, known
			}
		})
		after(time.Second)
		for range 20 {
			b.raw(1)
			after(time.Second)
		}
		b.poll(1) // with a stamp, but its turn comes later
		after(time.Second)
		expect(t, "before", said(rows(t, n.link().take())), "")
		if s := b.up.Stats(); s.Skips != 0 || connected != 1 {
			t.Errorf("%d skips, %d connections", s.Skips, connected)
		}
		doc, err := wire.HubTime{Hub: "h/1", Time: 12345}.Marshal()
		n.link().tell("luquan/v1/hub/h/time", doc, err)
		after(10 * time.Millisecond)
		got := rows(t, n.link().take())
		if len(got) != 21 || got[0].line != `pump,site=heating-east,gateway=boiler-house-1,device=pump flow=0.0,status=0i,group=0i,clock=2i,epoch=1000i,seq=1i 1763850000000000001` {
			t.Errorf("%d records, the first %s", len(got), got[0].line)
		}
		if len(trips) != 1 || trips[0] <= 0 {
			t.Errorf("round trips %v", trips)
		}
	})
}
