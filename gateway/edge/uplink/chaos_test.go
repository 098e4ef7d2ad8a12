package uplink

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/wire"
)

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
