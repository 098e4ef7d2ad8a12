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
	b := &book{q: l.db, hours: map[hourKey]*hour{}}
	for k, h := range l.hours {
		if k.key == e.key {
			b.hours[k] = h
		}
	}
	placed, err := b.placed(e.key)
	if err != nil {
		return err
	}
	e.unplaced = e.stored.Union(e.quarantined).Minus(placed)
	e.dirty = true
	return nil
}
