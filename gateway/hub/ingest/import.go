package ingest

import (
	"context"
	"fmt"
	"time"

	"luquan/gateway/wire"
)

// Imported says what became of an imported payload.
type Imported struct {
	Records     int `json:"records"`     // in the payload
	New         int `json:"new"`         // stored now
	Known       int `json:"known"`       // stored or in quarantine by others, before or meanwhile
	Quarantined int `json:"quarantined"` // to quarantine now
}

// Import stores a payload that no board sends: of a dead board's card. It
// returns when all of it is durable, in the store or in quarantine, and in the
// ledger. The sink does not see it, so it is history only and raises no alarm.
// What is settled already is left as it is: importing twice changes nothing.
// On error nothing is lost and the same payload may be imported again; an error
// with a method Refused says that it would be refused again.
func (c *Consumer) Import(ctx context.Context, topic string, payload []byte) (Imported, error) {
	t, err := wire.ParseTopic(topic)
	if err != nil {
		return Imported{}, refusedError{err}
	}
	if !c.owns(t.Site) {
		return Imported{}, refusedError{fmt.Errorf("site %q is none of this hub's; see sites in hub.yaml", t.Site)}
	}
	p, err := wire.Decode(t, payload)
	if err != nil {
		return Imported{}, refusedError{err}
	}
	now := time.Now()
	out := Imported{Records: len(p.Records)}
	board := &gateway{name: name{t.Site, t.Gateway}} // not one that is waited for, nor told what is committed
	var batch []item
	var others []wire.Record
	for _, r := range p.Records {
		if c.cfg.Ledger.Want(t.Site, t.Gateway, r, now) {
			batch = append(batch, item{gw: board, rec: r, received: now})
		} else {
			others = append(others, r)
		}
	}
	out.Known = len(others)
	if len(batch) == 0 {
		if err := c.outwait(ctx, t, others); err != nil {
			return Imported{}, err
		}
		return out, nil
	}
	w := c.work(batch)
	if err := c.settle(ctx, w); err != nil {
		for _, it := range batch {
			c.cfg.Ledger.Release(t.Site, t.Gateway, it.rec.Epoch, it.rec.Seq)
		}
		return Imported{}, fmt.Errorf("import: %w", err)
	}
	if err := c.outwait(ctx, t, others); err != nil {
		return Imported{}, err
	}
	out.Quarantined = len(w.inQuarant)
	out.New = len(batch) - out.Quarantined
	c.count(func(s *Stats) {
		s.Stored += uint64(out.New)
		s.Quarantined += uint64(out.Quarantined)
	})
	return out, nil
}

// importWait is how long an import waits for records that the board had sent itself.
const importWait = 10 * time.Second

// outwait waits until none of rs is on its way to the store: the card may be
// thrown away after an import, and what waits in memory is not safe.
func (c *Consumer) outwait(ctx context.Context, t wire.Topic, rs []wire.Record) error {
	for until := time.Now().Add(importWait); len(rs) > 0; {
		r := rs[0]
		switch {
		case c.cfg.Ledger.Settled(t.Site, t.Gateway, r.Epoch, r.Seq):
			rs = rs[1:]
		case time.Now().After(until):
			return fmt.Errorf("import: %d records that the board had sent are still on their way to the store", len(rs))
		case !sleep(ctx, 100*time.Millisecond):
			return fmt.Errorf("import: %w", ctx.Err())
		}
	}
	if err := c.cfg.Ledger.Sync(); err != nil { // settled is not yet in the book
		return fmt.Errorf("import: %w", err)
	}
	return nil
}

// refusedError is about the payload, not about the store.
type refusedError struct{ error }

func (e refusedError) Error() string { return "import: " + e.error.Error() }
func (e refusedError) Unwrap() error { return e.error }

// Refused tells that trying again is of no use.
func (refusedError) Refused() {}
