package bus

import (
	"context"
	"slices"
	"sync"
)

// gate lets transactions onto a bus in the order they come: one at a time, or
// as many as every one of those under way allows.
type gate struct {
	mu      sync.Mutex // guards everything below; never held while waiting
	inside  []int      // what each transaction under way allows, itself counted
	waiting []*waiter  // in the order they came
}

type waiter struct {
	most int
	let  chan struct{} // closed when it is let in
}

// enter waits for its turn, or for the context; it reports whether it is in.
func (g *gate) enter(ctx context.Context, most int) bool {
	g.mu.Lock()
	if len(g.waiting) == 0 && g.room(most) {
		g.inside = append(g.inside, most)
		g.mu.Unlock()
		return true
	}
	w := &waiter{most, make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	select {
	case <-w.let:
		return true
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, w); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	} else { // let in at the same moment
		g.out(most)
	}
	g.admit()
	return false
}

// leave ends what enter began; most is what enter was given.
func (g *gate) leave(most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.out(most)
	g.admit()
}

func (g *gate) out(most int) {
	i := slices.Index(g.inside, most)
	if i < 0 {
		panic("BUG: a transaction left the bus that was not on it")
	}
	g.inside = slices.Delete(g.inside, i, i+1)
}

// room reports whether one more that allows most may come in now.
func (g *gate) room(most int) bool {
	return len(g.inside) == 0 || len(g.inside) < min(most, slices.Min(g.inside))
}

// admit lets in whoever is next, as long as there is room.
func (g *gate) admit() {
	for len(g.waiting) > 0 && g.room(g.waiting[0].most) {
		w := g.waiting[0]
		g.waiting = slices.Delete(g.waiting, 0, 1)
		g.inside = append(g.inside, w.most)
		close(w.let)
	}
}
