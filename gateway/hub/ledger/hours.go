package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"luquan/gateway/hub/seqs"
)

// maxHours bounds the hours in memory that need not be there: 4 KB each.
const maxHours = 512

type hourKey struct {
	key
	hour int64 // since 1970, of the records' stamps
}

// hour is a row of the time index.
type hour struct {
	seqs.Hour
	merged bool // false: only what has come is here, the row is to be added
	dirty  bool
}

// hour returns the hour of the index that a stamp lies in, to be changed, and
// the minute of it. It does not read the disk: what is there is merged when
// the hour is written. The mutex is held.
func (l *Ledger) hour(k key, stamp int64) (*hour, int) {
	n, minute := seqs.Place(stamp)
	hk := hourKey{k, n}
	h := l.hours[hk]
	if h == nil {
		h = &hour{}
		l.hours[hk] = h
	}
	h.dirty = true
	return h, minute
}

// merge adds the row on disk to an hour in memory. A row that is damaged is set
// aside, and told by the result: some of the epoch's seqs have lost their place
// then. The mutex is held.
func (l *Ledger) merge(k hourKey, h *hour) (damaged bool, err error) {
	if h.merged {
		return false, nil
	}
	var data []byte
	err = l.db.QueryRow("SELECT data FROM hours WHERE site=? AND gateway=? AND hour=? AND epoch=?",
		k.Site, k.Gateway.Gateway, k.hour, int64(k.epoch)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		h.merged = true
		return false, nil
	}
	if err != nil {
		return false, err
	}
	was, err := seqs.DecodeHour(data)
	if err != nil {
		if err := l.setAside(fmt.Sprintf("hour %d of epoch %d of %s/%s", k.hour, k.epoch, k.Site, k.Gateway.Gateway), data); err != nil {
			return false, err
		}
		h.merged = true
		return true, nil
	}
	h.Merge(was)
	h.merged = true
	return false, nil
}

// setAside keeps what could not be read for people to look at.
func (l *Ledger) setAside(what string, data []byte) error {
	if l.readOnly {
		return nil
	}
	l.log.Error("a row of the ledger is damaged; it is set aside and not counted", "what", what)
	_, err := l.db.Exec("INSERT INTO damaged SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM damaged WHERE what=?2)", time.Now().UnixNano(), what, append([]byte{}, data...))
	return err
}

// replace finds the seqs of an epoch that stand in no hour any more. The mutex
// is held.
func (l *Ledger) replace(e *epoch) error {
	placed, err := l.placed(e.key)
	if err != nil {
		return err
	}
	e.unplaced = e.stored.Union(e.quarantined).Minus(placed)
	e.dirty = true
	return nil
}

// placed is every seq of an epoch that stands in an hour, on disk or in memory;
// rows that are damaged hold none. The mutex is held.
func (l *Ledger) placed(k key) (all seqs.Set, err error) {
	rows, err := l.db.Query("SELECT data FROM hours WHERE site=? AND gateway=? AND epoch=?", k.Site, k.Gateway.Gateway, int64(k.epoch))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, err
		}
		h, err := seqs.DecodeHour(data)
		if err != nil {
			continue
		}
		all = all.Union(h.All())
	}
	for hk, h := range l.hours {
		if hk.key == k {
			all = all.Union(h.All())
		}
	}
	return all, rows.Err()
}

// window returns the hours of a board from one, included, to another, excluded,
// as they stand on disk and in memory together; damaged lists the epochs of rows
// that could not be read. The mutex is held.
func (l *Ledger) window(gw Gateway, from, to int64) (out map[hourKey]*seqs.Hour, damaged map[uint64]bool, err error) {
	rows, err := l.db.Query("SELECT hour, epoch, data FROM hours WHERE site=? AND gateway=? AND hour>=? AND hour<?", gw.Site, gw.Gateway, from, to)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	out, damaged = map[hourKey]*seqs.Hour{}, map[uint64]bool{}
	for rows.Next() {
		k := hourKey{key: key{Gateway: gw}}
		var data []byte
		if err := rows.Scan(&k.hour, &k.epoch, &data); err != nil {
			return nil, nil, err
		}
		if h := l.hours[k]; h != nil && h.merged {
			continue // memory knows all of it
		}
		h, err := seqs.DecodeHour(data)
		if err != nil {
			damaged[k.epoch] = true
			continue
		}
		out[k] = h
	}
	for k, h := range l.hours {
		if k.Gateway != gw || k.hour < from || k.hour >= to {
			continue
		}
		if out[k] == nil {
			out[k] = &seqs.Hour{}
		}
		out[k].Merge(&h.Hour)
	}
	return out, damaged, rows.Err()
}

// readHour reads a row of the index; one that is not there, or damaged, is empty.
func (l *Ledger) readHour(k hourKey) (*seqs.Hour, error) {
	var data []byte
	err := l.db.QueryRow("SELECT data FROM hours WHERE site=? AND gateway=? AND hour=? AND epoch=?",
		k.Site, k.Gateway.Gateway, k.hour, int64(k.epoch)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return &seqs.Hour{}, nil
	}
	if err != nil {
		return nil, err
	}
	h, err := seqs.DecodeHour(data)
	if err != nil {
		return &seqs.Hour{}, nil
	}
	return h, nil
}

// span is where the seqs of one hour of an epoch lie.
type span struct {
	hour        int64
	first, last uint64
}

// spans lists the hours of an epoch. The mutex is held.
func (l *Ledger) spans(k key) ([]span, error) {
	rows, err := l.db.Query("SELECT hour, first, last FROM hours WHERE site=? AND gateway=? AND epoch=?", k.Site, k.Gateway.Gateway, int64(k.epoch))
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
	for hk, h := range l.hours {
		if first, last := h.Span(); hk.key == k && first > 0 {
			out = append(out, span{hk.hour, first, last})
		}
	}
	return out, rows.Err()
}
