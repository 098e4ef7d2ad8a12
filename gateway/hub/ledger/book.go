package ledger

import (
	"database/sql"
	"errors"
	"fmt"

	"luquan/gateway/hub/seqs"
)

// querier is a database, or a transaction that sees it as it was at one moment.
type querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

// book is what is known of one board at one moment: nobody changes it, so an
// account is made from it while records go on coming.
type book struct {
	q      querier
	tx     *sql.Tx
	epochs map[uint64]*epoch
	hours  map[hourKey]*hour // of the time index, those in memory
	window map[hourKey]*seqs.Hour
}

// take takes the book of a board, with the window of an account. Close it.
func (l *Ledger) take(g Gateway, a *account) (_ *book, err error) {
	b := &book{epochs: map[uint64]*epoch{}, hours: map[hourKey]*hour{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	ids, err := l.snapshot(g, b)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if b.epochs[id] != nil {
			continue
		}
		k := key{g, id}
		e, err := loadRow(b.q, k)
		switch {
		case errors.Is(err, seqs.ErrDamaged):
			e = &epoch{} // nothing is claimed of it
		case err != nil:
			return nil, err
		}
		e.key = k
		b.epochs[id] = e
	}
	if !a.whole {
		err = b.read(g, a)
	}
	return b, err
}

// snapshot copies what is in memory, begins a transaction that sees the disk as
// it is at the same moment, and lists the epochs on disk.
func (l *Ledger) snapshot(g Gateway, b *book) (ids []uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.tx, err = l.rdb.Begin(); err != nil {
		return nil, err
	}
	b.q = b.tx
	rows, err := b.tx.Query("SELECT epoch FROM epochs WHERE site=? AND gateway=?", g.Site, g.Gateway)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, uint64(id))
	}
	for k, e := range l.epochs {
		if k.Gateway != g {
			continue
		}
		if !e.loaded {
			return nil, fmt.Errorf("epoch %d is not readable now", k.epoch)
		}
		c := *e
		for _, s := range []*seqs.Set{&c.stored, &c.quarantined, &c.lost, &c.unplaced, &c.queued} {
			*s = s.Clone()
		}
		c.received = nil
		c.gaps = e.gaps[:len(e.gaps):len(e.gaps)] // only ever appended to
		b.epochs[k.epoch] = &c
	}
	for k, h := range l.hours {
		if k.Gateway == g {
			c := &hour{merged: h.merged}
			c.Merge(&h.Hour)
			b.hours[k] = c
		}
	}
	return ids, rows.Err()
}

func (b *book) close() error {
	if b.tx == nil {
		return nil
	}
	return b.tx.Rollback()
}

// read reads the hours of the account's window.
func (b *book) read(g Gateway, a *account) error {
	from, _ := seqs.Place(a.from)
	to, _ := seqs.Place(a.to - 1)
	rows, err := b.q.Query("SELECT hour, epoch, data FROM hours WHERE site=? AND gateway=? AND hour>=? AND hour<=?", g.Site, g.Gateway, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	b.window = map[hourKey]*seqs.Hour{}
	damaged := map[uint64]bool{}
	for rows.Next() {
		k := hourKey{key: key{Gateway: g}}
		var data []byte
		if err := rows.Scan(&k.hour, &k.epoch, &data); err != nil {
			return err
		}
		if h := b.hours[k]; h != nil && h.merged {
			continue // memory knows all of it
		}
		h, err := seqs.DecodeHour(data)
		if err != nil {
			damaged[k.epoch] = true
			continue
		}
		b.window[k] = h
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for k, h := range b.hours {
		if k.hour < from || k.hour > to {
			continue
		}
		if b.window[k] == nil {
			b.window[k] = &seqs.Hour{}
		}
		b.window[k].Merge(&h.Hour)
	}
	for id := range damaged {
		e := b.epochs[id]
		if e == nil {
			continue
		}
		placed, err := b.placed(e.key)
		if err != nil {
			return err
		}
		e.unplaced = e.stored.Union(e.quarantined).Minus(placed)
	}
	return nil
}

// placed is every seq of an epoch that stands in an hour; rows that are damaged
// hold none.
func (b *book) placed(k key) (all seqs.Set, err error) {
	rows, err := b.q.Query("SELECT data FROM hours WHERE site=? AND gateway=? AND epoch=?", k.Site, k.Gateway.Gateway, int64(k.epoch))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, err
		}
		if h, err := seqs.DecodeHour(data); err == nil {
			all = all.Union(h.All())
		}
	}
	for hk, h := range b.hours {
		if hk.key == k {
			all = all.Union(h.All())
		}
	}
	return all, rows.Err()
}

// readHour reads an hour of the index; one that is not there, or damaged, is empty.
func (b *book) readHour(k hourKey) (*seqs.Hour, error) {
	out := &seqs.Hour{}
	if h := b.hours[k]; h != nil {
		out.Merge(&h.Hour)
		if h.merged {
			return out, nil
		}
	}
	var data []byte
	err := b.q.QueryRow("SELECT data FROM hours WHERE site=? AND gateway=? AND hour=? AND epoch=?",
		k.Site, k.Gateway.Gateway, k.hour, int64(k.epoch)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if h, err := seqs.DecodeHour(data); err == nil {
		out.Merge(h)
	}
	return out, nil
}

// span is where the seqs of one hour of an epoch lie.
type span struct {
	hour        int64
	first, last uint64
}

// spans lists the hours of an epoch.
func (b *book) spans(k key) ([]span, error) {
	rows, err := b.q.Query("SELECT hour, first, last FROM hours WHERE site=? AND gateway=? AND epoch=?", k.Site, k.Gateway.Gateway, int64(k.epoch))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []span
	for rows.Next() {
		var s span
		if err := rows.Scan(&s.hour, &s.first, &s.last); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	for hk, h := range b.hours {
		if first, last := h.Span(); hk.key == k && first > 0 {
			out = append(out, span{hk.hour, first, last})
		}
	}
	return out, rows.Err()
}
