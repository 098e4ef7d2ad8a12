package ingest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"luquan/gateway/wire"
)

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
	maxWait    = 5 * time.Minute // of what a store may ask for
	maxBatch   = 4 << 20         // bytes of one batch

	publishTimeout = 5 * time.Second
)

// writeLoop writes batches until ctx is done. What could not be written by
// then goes back to the queue's head.
func (c *Consumer) writeLoop(ctx context.Context) {
	for {
		batch := c.take(ctx)
		if batch == nil {
			return
		}
		w := c.work(batch)
		for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
			err := c.advance(ctx, w)
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				c.failed(err)
			}
			if !sleep(ctx, pause(err, wait)) {
				c.putBack(batch)
				return
			}
		}
	}
}

// drain writes what waits, without a second try, for at most Config.Drain.
// What it leaves the boards send again.
func (c *Consumer) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Drain)
	defer cancel()
	for ctx.Err() == nil {
		c.mu.Lock()
		batch := c.pop()
		c.mu.Unlock()
		if batch == nil {
			break
		}
		if err := c.advance(ctx, c.work(batch)); err != nil {
			c.failed(err)
			c.putBack(batch)
			break
		}
	}
	c.publishDue(ctx, time.Time{})
}

// take waits for a full batch, or for the first line to have waited BatchWait.
// It returns nil when ctx is done.
func (c *Consumer) take(ctx context.Context) []item {
	for {
		c.mu.Lock()
		wait := time.Duration(-1)
		if len(c.queue) > 0 {
			wait = c.cfg.BatchWait - time.Since(c.queue[0].received)
			if len(c.queue) >= c.cfg.BatchLines || wait <= 0 || wait > c.cfg.BatchWait {
				batch := c.pop()
				c.mu.Unlock()
				return batch
			}
		}
		c.mu.Unlock()
		if wait < 0 {
			select {
			case <-c.arrived:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.arrived:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// pop takes the next batch off the queue, nil when it is empty. The mutex is
// held. Its bytes stay counted until it is settled.
func (c *Consumer) pop() []item {
	n, size := 0, int64(0)
	for n < len(c.queue) && n < c.cfg.BatchLines && (n == 0 || size+c.queue[n].size <= maxBatch) {
		size += c.queue[n].size
		n++
	}
	if n == 0 {
		return nil
	}
	batch := append([]item(nil), c.queue[:n]...)
	clear(c.queue[:n])
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	c.writing = batch[0].received
	return batch
}

func (c *Consumer) putBack(batch []item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(append([]item(nil), batch...), c.queue...)
	c.writing = time.Time{}
}

// work is a batch on its way: what is done is not done again.
type work struct {
	items       []item
	rows        []Row
	index       []int // of rows in items
	stored      bool
	quarantine  []Entry
	inQuarant   map[int]bool // items
	quarantined bool
	settled     bool
}

func (c *Consumer) work(batch []item) *work {
	w := &work{items: batch, inQuarant: map[int]bool{}}
	for i, it := range batch {
		if it.rec.Err != nil {
			w.reject(i, it.rec.Err.Error())
			continue
		}
		w.rows = append(w.rows, rowOf(it.rec))
		w.index = append(w.index, i)
	}
	return w
}

// rowOf is the row of a record that could be read.
func rowOf(r wire.Record) Row {
	row := Row{Line: r.Line, Record: r.Sample}
	if r.Kind != wire.Reading {
		row.Record.Kind = ""
	}
	return row
}

func (w *work) reject(i int, reason string) {
	it := w.items[i]
	w.inQuarant[i] = true
	w.quarantine = append(w.quarantine, NewEntry(time.Now(), it.gw.site, it.gw.gateway, it.rec.Epoch, it.rec.Seq, reason, it.rec.Line))
}

// advance does what is left of w. Only when all of it is durable may the boards
// hear of it.
func (c *Consumer) advance(ctx context.Context, w *work) error {
	if err := c.settle(ctx, w); err != nil {
		return err
	}
	c.done(w)
	return nil
}

// settle makes what is left of w durable: store, quarantine, ledger.
func (c *Consumer) settle(ctx context.Context, w *work) error {
	if !w.stored && len(w.rows) > 0 {
		rejected, err := c.cfg.Store.Write(ctx, w.rows)
		if err != nil {
			return err
		}
		for k, i := range w.index {
			if reason, ok := rejected[k]; ok {
				w.reject(i, reason)
			}
		}
	}
	w.stored = true
	if !w.quarantined && len(w.quarantine) > 0 {
		if err := c.cfg.Quarantine.Add(w.quarantine); err != nil {
			return err
		}
	}
	w.quarantined = true
	if !w.settled {
		for i, it := range w.items {
			c.cfg.Ledger.Settle(it.gw.site, it.gw.gateway, it.rec, w.inQuarant[i])
		}
		w.settled = true
	}
	return c.cfg.Ledger.Sync()
}

func (c *Consumer) done(w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range w.items {
		it.gw.status.Queued -= it.size
		c.stats.QueueBytes -= it.size
		c.markCommit(it.gw)
	}
	c.stats.Stored += uint64(len(w.items) - len(w.inQuarant))
	c.stats.Quarantined += uint64(len(w.inQuarant))
	c.writing = time.Time{}
	if len(w.inQuarant) > 0 {
		c.log.Warn("lines went to quarantine", "lines", len(w.inQuarant), "reason", w.quarantine[0].Reason,
			"site", w.quarantine[0].Site, "gateway", w.quarantine[0].Gateway)
	}
	if !c.stats.FailingSince.IsZero() {
		c.log.Info("store works again", "failed_for", time.Since(c.stats.FailingSince).Round(time.Millisecond))
		c.stats.FailingSince, c.stats.Why = time.Time{}, ""
	}
}

func (c *Consumer) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.StoreErrors++
	if c.stats.FailingSince.IsZero() {
		c.stats.FailingSince = time.Now()
	}
	if err.Error() != c.stats.Why { // once, not at every attempt
		c.log.Error("store does not take what came; boards keep it and it is tried again", "error", err, "waiting", len(c.queue))
	}
	c.stats.Why = err.Error()
}

// pause is how long to wait after err: what the store asks for, or wait, each
// with a quarter of jitter so that hubs do not come back in step.
func pause(err error, wait time.Duration) time.Duration {
	var asks interface{ RetryAfter() time.Duration }
	if errors.As(err, &asks) {
		wait = min(max(wait, asks.RetryAfter()), maxWait)
	}
	return wait + rand.N(wait/4)
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// commitLoop publishes committed documents: the latest of a gateway, at most
// one in CommitGap.
func (c *Consumer) commitLoop(ctx context.Context) {
	for {
		next := c.publishDue(ctx, time.Now())
		if next < 0 {
			select {
			case <-c.commits:
			case <-ctx.Done():
				return
			}
			continue
		}
		t := time.NewTimer(next)
		select {
		case <-t.C:
		case <-c.commits:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// publishDue publishes what is due at now, all of it when now is zero, and
// returns after how long the next is, negative when none waits.
func (c *Consumer) publishDue(ctx context.Context, now time.Time) time.Duration {
	c.mu.Lock()
	resync := c.resync
	c.resync = false
	next := time.Duration(-1)
	var due []*gateway
	for g := range c.dirty {
		if c.otherHub[g.site] != "" {
			delete(c.dirty, g)
			continue
		}
		wait := c.cfg.CommitGap - now.Sub(g.committed)
		if !now.IsZero() && wait > 0 && !g.committed.IsZero() {
			if next < 0 || wait < next {
				next = wait
			}
			continue
		}
		due = append(due, g)
		delete(c.dirty, g)
		g.committed = time.Now()
	}
	c.mu.Unlock()
	if resync {
		if err := c.cfg.Ledger.Sync(); err != nil {
			c.failed(err)
			c.mu.Lock()
			c.resync = true
			c.mu.Unlock()
			return c.again(due)
		}
	}
	for i, g := range due {
		if err := c.publish(ctx, g); err != nil {
			// Most likely the broker is gone, for the others as well.
			c.log.Debug("committed not published", "site", g.site, "gateway", g.gateway, "error", err)
			c.count(func(s *Stats) { s.CommitFails++ })
			return c.again(due[i:])
		}
	}
	return next
}

// again makes committed of gs due once more, and returns when to look.
func (c *Consumer) again(gs []*gateway) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range gs {
		c.dirty[g] = true
	}
	return max(c.cfg.CommitGap, 500*time.Millisecond)
}

func (c *Consumer) publish(ctx context.Context, g *gateway) error {
	doc, ok := c.cfg.Ledger.Committed(g.site, g.gateway, time.Now())
	if !ok {
		return nil
	}
	b, err := doc.Marshal()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := c.cfg.Publisher.Publish(ctx, wire.Topic{Site: g.site, Gateway: g.gateway, What: wire.CommitDoc}.String(), b); err != nil {
		return err
	}
	c.count(func(s *Stats) { s.Commits++ })
	return nil
}
