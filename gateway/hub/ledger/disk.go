package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"luquan/gateway/hub/seqs"
)

// schema of the file. Sets are seqs.Set.Encode, an hour's data seqs.Hour.Encode
// with its least and largest seq beside it; times are nanoseconds, hours count
// since 1970. damaged keeps what could not be read, for people to look at.
const schema = `
CREATE TABLE IF NOT EXISTS epochs (
  site TEXT NOT NULL, gateway TEXT NOT NULL, epoch INTEGER NOT NULL,
  base INTEGER NOT NULL, top INTEGER NOT NULL, held INTEGER NOT NULL,
  ended INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
  dups INTEGER NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL,
  stored BLOB NOT NULL, quarantined BLOB NOT NULL, lost BLOB NOT NULL,
  unplaced BLOB NOT NULL DEFAULT x'', seen INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (site, gateway, epoch)
);
CREATE INDEX IF NOT EXISTS held ON epochs (held) WHERE held = 1;
CREATE TABLE IF NOT EXISTS gaps (
  site TEXT NOT NULL, gateway TEXT NOT NULL, epoch INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL,
  from_time INTEGER NOT NULL, to_time INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (site, gateway, epoch, first, last, reason)
);
CREATE TABLE IF NOT EXISTS hours (
  site TEXT NOT NULL, gateway TEXT NOT NULL, hour INTEGER NOT NULL, epoch INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (site, gateway, hour, epoch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged (at INTEGER NOT NULL, what TEXT NOT NULL, data BLOB NOT NULL);
PRAGMA user_version = 2;
`

const columns = "base, top, held, ended, last, reason, dups, first_time, last_time, stored, quarantined, lost, unplaced, seen, told"

// openDB opens the file with synchronous=FULL: a commit that returned is on
// the disk, so that what a board was told survives a power cut of the hub.
func (l *Ledger) openDB(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: escape(path), RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(2)
	l.db = db
	q = url.Values{"_pragma": {"query_only(1)", "busy_timeout(5000)"}} // deferred: a reader waits for nobody
	if l.rdb, err = sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: escape(path), RawQuery: q.Encode()}).String()); err != nil {
		return errors.Join(err, db.Close())
	}
	l.rdb.SetMaxOpenConns(4)
	if err := l.start(); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", path, err), l.Close())
	}
	return syncDir(filepath.Dir(path))
}

// OpenReadOnly opens the book at path for Account only, beside a hub that has
// it open or without one, and changes nothing in it. What a running hub has
// not yet synced is not in the answers.
func OpenReadOnly(path string) (*Ledger, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("ledger: %w; there is none before hubd has run", err)
	}
	q := url.Values{"_pragma": {"busy_timeout(5000)", "query_only(1)"}, "mode": {"ro"}}
	if _, err := os.Stat(path + "-wal"); errors.Is(err, os.ErrNotExist) {
		q.Set("immutable", "1") // nobody has it open: no file need be made beside it
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: escape(path), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var version int
	err = db.QueryRow("PRAGMA user_version").Scan(&version)
	if err == nil && version != 2 {
		err = fmt.Errorf("file is of version %d, this program reads 2; hubd run brings older ones up to date", version)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: open %s: %w", path, err), db.Close())
	}
	return &Ledger{log: slog.New(slog.DiscardHandler), db: db, rdb: db, readOnly: true,
		epochs: map[key]*epoch{}, gates: map[Gateway]*gate{}, hours: map[hourKey]*hour{}}, nil
}

func escape(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *Ledger) start() error {
	var version int
	if err := l.db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version > 2:
		return fmt.Errorf("file is of version %d, this hub knows 2: use a newer hub", version)
	case version == 1:
		if err := l.upgrade(); err != nil {
			return fmt.Errorf("bring the file from version 1 to 2: %w", err)
		}
	}
	if _, err := l.db.Exec(schema); err != nil {
		return err
	}
	rows, err := l.db.Query("SELECT DISTINCT site, gateway, CASE WHEN held = 1 THEN epoch ELSE 0 END FROM epochs")
	if err != nil {
		return err
	}
	var held []key
	for rows.Next() {
		var k key
		if err := rows.Scan(&k.Site, &k.Gateway.Gateway, &k.epoch); err != nil {
			return errors.Join(err, rows.Close())
		}
		l.gate(k.Gateway)
		if k.epoch != 0 {
			held = append(held, k)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, k := range held {
		if e := l.epoch(k); !e.loaded {
			return fmt.Errorf("epoch %d of %s/%s is not readable", k.epoch, k.Site, k.Gateway.Gateway)
		}
	}
	return nil
}

// upgrade gives a file of version 1 what version 2 knows: the hours of the
// records it has are not known.
func (l *Ledger) upgrade() error {
	tx, err := l.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	for _, c := range []string{"unplaced BLOB NOT NULL DEFAULT x''", "seen INTEGER NOT NULL DEFAULT 0", "told INTEGER NOT NULL DEFAULT 0"} {
		if _, err := tx.Exec("ALTER TABLE epochs ADD COLUMN " + c); err != nil {
			return err
		}
	}
	rows, err := tx.Query("SELECT rowid, stored, quarantined FROM epochs")
	if err != nil {
		return err
	}
	unplaced := map[int64][]byte{}
	for rows.Next() {
		var id int64
		var stored, quarantined []byte
		if err := rows.Scan(&id, &stored, &quarantined); err != nil {
			return errors.Join(err, rows.Close())
		}
		a, errA := seqs.Decode(stored)
		b, errB := seqs.Decode(quarantined)
		if errA == nil && errB == nil { // one that is damaged is set aside when it is loaded
			unplaced[id] = a.Union(b).Encode()
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for id, set := range unplaced {
		if _, err := tx.Exec("UPDATE epochs SET unplaced=? WHERE rowid=?", set, id); err != nil {
			return err
		}
	}
	if _, err := tx.Exec("PRAGMA user_version = 2"); err != nil {
		return err
	}
	return tx.Commit()
}

// loadRow reads an epoch with its gaps; one that is not on disk is empty. The
// error is seqs.ErrDamaged when its row makes no sense.
func loadRow(q querier, k key) (*epoch, error) {
	row := q.QueryRow("SELECT "+columns+" FROM epochs WHERE site=? AND gateway=? AND epoch=?", k.Site, k.Gateway.Gateway, int64(k.epoch))
	d, err := scan(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return &epoch{}, nil
	}
	if err != nil {
		return nil, err
	}
	d.loaded = true
	d.gaps, err = loadGaps(q, k)
	return d, err
}

// load fills e from its row, if there is one. What e already holds stays.
func (l *Ledger) load(e *epoch) error {
	d, err := loadRow(l.db, e.key)
	if errors.Is(err, seqs.ErrDamaged) {
		// What it said is not known any more. So nothing is claimed: the board
		// sends again what it holds, and its word settles what it has freed.
		if err := l.setAside(fmt.Sprintf("epoch %d of %s/%s", e.epoch, e.Site, e.Gateway.Gateway), nil); err != nil {
			return err
		}
		e.loaded, e.dirty = true, true
		return nil
	}
	if err != nil {
		return err
	}
	if !d.loaded { // not on disk
		e.loaded = true
		return nil
	}
	e.stored, e.quarantined, e.lost = d.stored.Union(e.stored), d.quarantined.Union(e.quarantined), d.lost.Union(e.lost)
	e.unplaced = d.unplaced.Union(e.unplaced)
	e.base, e.top, e.dups = max(e.base, d.base), max(e.top, d.top), e.dups+d.dups
	if d.seen != 0 {
		e.seen = d.seen
	}
	if d.ended || d.top >= e.top || e.told == 0 {
		e.told = d.told
	}
	if !e.ended {
		e.ended, e.last, e.reason = d.ended, d.last, d.reason
	}
	if d.from != 0 && (e.from == 0 || d.from < e.from) {
		e.from = d.from
	}
	e.to = max(e.to, d.to)
	e.gaps = append(d.gaps, e.gaps...)
	e.loaded = true
	e.held = d.held
	e.synced.known, e.synced.held = true, d.held
	e.synced.upto, e.synced.also = uptoAlso(d.settled())
	return nil
}

func scan(f func(...any) error) (*epoch, error) {
	var (
		e                     epoch
		base, top, last, dups int64
		sets                  [4][]byte
	)
	if err := f(&base, &top, &e.held, &e.ended, &last, &e.reason, &dups, &e.from, &e.to, &sets[0], &sets[1], &sets[2], &sets[3], &e.seen, &e.told); err != nil {
		return nil, err
	}
	e.base, e.top, e.last, e.dups = uint64(base), uint64(top), uint64(last), uint64(dups)
	for i, s := range []*seqs.Set{&e.stored, &e.quarantined, &e.lost, &e.unplaced} {
		var err error
		if *s, err = seqs.Decode(sets[i]); err != nil {
			return nil, err
		}
	}
	return &e, nil
}

func loadGaps(q querier, k key) ([]gap, error) {
	rows, err := q.Query("SELECT first, last, from_time, to_time, reason FROM gaps WHERE site=? AND gateway=? AND epoch=? ORDER BY first",
		k.Site, k.Gateway.Gateway, int64(k.epoch))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []gap
	for rows.Next() {
		var g gap
		if err := rows.Scan(&g.first, &g.last, &g.from, &g.to, &g.reason); err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, rows.Err()
}

// snapshot is what one Sync writes of one epoch.
type snapshot struct {
	e     *epoch
	copy  epoch
	upto  uint64
	also  seqs.Set
	blobs [4][]byte
}

// hourRow is what one Sync writes of one hour.
type hourRow struct {
	hourKey
	h           *hour
	first, last uint64
	data        []byte
}

// Sync makes what was settled durable and lets Committed tell it. On error
// nothing of it is told; the next Sync tries again.
func (l *Ledger) Sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	batch, hours, err := l.collect()
	if err != nil || len(batch) == 0 {
		return err
	}
	if err := l.writeBatch(batch, hours); err != nil {
		l.mu.Lock()
		for _, s := range batch {
			s.e.dirty = true
		}
		for _, h := range hours {
			h.h.dirty = true
		}
		l.mu.Unlock()
		return fmt.Errorf("ledger: sync: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range batch {
		s.e.synced.known, s.e.synced.held = true, s.copy.held
		s.e.synced.upto, s.e.synced.also = s.upto, s.also
		if e := s.e; !e.held && !e.dirty && len(e.queued) == 0 {
			// Settled for good: it is read from disk when asked for.
			delete(l.epochs, e.key)
			delete(l.gates[e.Gateway].epochs, e.key.epoch)
		}
	}
	if len(l.hours) > maxHours {
		written := map[hourKey]bool{}
		for _, h := range hours {
			written[h.hourKey] = true
		}
		for k, h := range l.hours {
			if !h.dirty && !written[k] {
				delete(l.hours, k)
			}
		}
	}
	return nil
}

// collect takes what is to be written, in a form that nobody changes.
func (l *Ledger) collect() ([]snapshot, []hourRow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var hours []hourRow
	for k, h := range l.hours {
		if !h.dirty {
			continue
		}
		damaged, err := l.merge(k, h)
		if err == nil && damaged {
			err = l.replace(l.epoch(k.key))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("ledger: read hour %d of %s/%s: %w", k.hour, k.Site, k.Gateway.Gateway, err)
		}
		r := hourRow{hourKey: k, h: h, data: h.Encode()}
		r.first, r.last = h.Span()
		hours = append(hours, r)
	}
	var batch []snapshot
	for _, e := range l.epochs {
		if !e.dirty {
			continue
		}
		if !e.loaded {
			if err := l.load(e); err != nil {
				return nil, nil, fmt.Errorf("ledger: read epoch %d of %s/%s: %w", e.epoch, e.Site, e.Gateway.Gateway, err)
			}
		}
		s := snapshot{e: e, copy: *e, blobs: [4][]byte{e.stored.Encode(), e.quarantined.Encode(), e.lost.Encode(), e.unplaced.Encode()}}
		s.copy.gaps = append([]gap(nil), e.gaps...)
		s.upto, s.also = uptoAlso(e.settled())
		batch = append(batch, s)
	}
	for _, s := range batch {
		s.e.dirty = false
	}
	for _, h := range hours {
		h.h.dirty = false
	}
	return batch, hours, nil
}

// writeBatch writes all of it or nothing: what is stored, and when it was, what
// a gap says and that the gap's own record is stored.
func (l *Ledger) writeBatch(batch []snapshot, hours []hourRow) error {
	tx, err := l.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	for _, s := range batch {
		e := s.copy
		if _, err := tx.Exec("INSERT OR REPLACE INTO epochs (site, gateway, epoch, "+columns+") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
			e.Site, e.Gateway.Gateway, int64(e.epoch), int64(e.base), int64(e.top), e.held, e.ended, int64(e.last), e.reason,
			int64(e.dups), e.from, e.to, s.blobs[0], s.blobs[1], s.blobs[2], s.blobs[3], e.seen, e.told); err != nil {
			return err
		}
		for _, g := range e.gaps {
			if _, err := tx.Exec("INSERT OR IGNORE INTO gaps VALUES (?,?,?,?,?,?,?,?)",
				e.Site, e.Gateway.Gateway, int64(e.epoch), int64(g.first), int64(g.last), g.from, g.to, g.reason); err != nil {
				return err
			}
		}
	}
	for _, h := range hours {
		if _, err := tx.Exec("INSERT OR REPLACE INTO hours (site, gateway, hour, epoch, first, last, data) VALUES (?,?,?,?,?,?,?)",
			h.Site, h.Gateway.Gateway, h.hour, int64(h.epoch), int64(h.first), int64(h.last), h.data); err != nil {
			return err
		}
	}
	return tx.Commit()
}
