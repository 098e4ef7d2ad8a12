package buffer

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestConcurrent appends, commits, reads the tail and the backlog and frees at
// once, with small segments, so that files are used again and again. Each
// reader sees every number once, in order, unless a gap record names it.
func TestConcurrent(t *testing.T) {
	o := small(newMemFS())
	o.CommitEvery = time.Millisecond
	o.Max = 4 << 20
	q := open(t, o)
	e := q.Epoch()
	const n = 20000
	var wg sync.WaitGroup
	wg.Go(func() {
		for range n {
			q.mu.Lock() // so that the payload can name the number
			s := q.append(Reading, payload(e, q.cur.ep.last+1, 60))
			q.mu.Unlock()
			if s%500 == 0 {
				_ = q.Stats()
				_ = q.Holds()
				if err := q.Commit(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Go(func() { // the live lane: frees what it has read
		next := uint64(1)
		for next <= n {
			es, err := q.Read(e, next, 100, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if len(es) == 0 {
				<-q.Notify()
				continue
			}
			for _, r := range es {
				if r.Seq != next || r.Kind == Reading && string(r.Payload) != string(payload(e, r.Seq, 60)) {
					t.Errorf("read %d, want %d: %q", r.Seq, next, r.Payload)
					return
				}
				next++
			}
			if err := q.Free(e, next-1, nil); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() { // another that reads behind it and finds some freed
		for next := uint64(1); next <= n; {
			es, err := q.Read(e, next, 7, 0)
			if err != nil {
				t.Error(err)
				return
			}
			for _, r := range es {
				if r.Seq < next {
					t.Errorf("read %d after %d", r.Seq, next-1)
					return
				}
				next = r.Seq + 1
			}
			if h := q.Holds(); len(es) == 0 && h[len(h)-1].Last >= n {
				return
			}
		}
	})
	wg.Wait()
	if s := q.Stats(); s.Lost > 0 || s.Entries > 0 || s.Damaged > 0 {
		t.Errorf("stats: %+v", s)
	}
}
