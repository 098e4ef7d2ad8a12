// Package sqlite keeps history in one SQLite file of the hub's own, for hubs
// without InfluxDB.
//
// Samples are first kept in "hot" rows, one a write, and in memory; when an
// hour is over they are packed into one block a point and hour, a few hundred
// at a time, so that no hour begins with a burst of work. Write returns when
// the hot row is synced (synchronous=FULL): a power cut loses nothing that
// was reported durable. FORMAT.md describes the file.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"luquan/gateway/hub/history"
	"luquan/gateway/hub/seqs"
	"luquan/gateway/telemetry"
)

const (
	hourNs   = int64(time.Hour)
	hourBits = 24
	maxHour  = 1<<hourBits - 1
	// maxHot bounds the samples in memory: 24 bytes each, so 48 MB.
	maxHot = 2_000_000
)

// Config says where the file is and how long samples are kept.
type Config struct {
	Dir  string
	Keep time.Duration // 0: for ever
	Log  *slog.Logger  // nil: silent
}

// Store is a history.Store in a SQLite file. Create it with Open.
type Store struct {
	cfg  Config
	log  *slog.Logger
	wdb  *sql.DB // one connection
	rdb  *sql.DB
	stop context.CancelFunc
	done sync.WaitGroup

	damaged atomic.Int64 // blocks met that could not be read

	wmu   sync.Mutex // one writer at a time: Write, seal, prune
	prune pruneState // guarded by wmu
	// unsure reports, under wmu, that a commit failed: it may have reached
	// the disk all the same, with points that are not remembered.
	unsure bool

	mu      sync.RWMutex // guards what follows; taken after wmu
	points  map[pointKey]*point
	byID    map[int64]*point
	classes map[field]telemetry.Class
	hot     map[int64]*hour
	sealing *sealing // nil: none
	samples int      // in hot and sealing
}

// pointKey names a point: a device that comes back as another kind is another.
type pointKey struct{ kind, name string }

// field is what has one class for ever, as in InfluxDB.
type field struct{ kind, point string }

type point struct {
	pointKey
	id    int64
	class telemetry.Class // 0: never had a value
}

// hour is the hot samples of one hour.
type hour struct {
	n      int64             // hours since 1970
	series map[int64]*series // by point id
	rows   []int64           // ids of the hot rows they are in
	count  int
	// first and last are when it was first and last written to.
	first, last time.Time
}

var _ history.Store = (*Store)(nil)

const schema = `
CREATE TABLE IF NOT EXISTS points (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, class INTEGER NOT NULL, UNIQUE (kind, name));
CREATE TABLE IF NOT EXISTS hot (id INTEGER PRIMARY KEY, hour INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (key INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS records (site TEXT NOT NULL, gateway TEXT NOT NULL, hour INTEGER NOT NULL, epoch INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (site, gateway, hour, epoch)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_hour ON records (hour);
CREATE TABLE IF NOT EXISTS damaged (id INTEGER PRIMARY KEY, key INTEGER NOT NULL, data BLOB NOT NULL);
PRAGMA user_version = 1;
`

// Open opens or creates the file history.db in cfg.Dir and starts the sealing
// of past hours.
func Open(cfg Config) (*Store, error) {
	s, err := open(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Go(func() { s.maintainLoop(ctx) })
	return s, nil
}

// open is Open without the goroutine.
func open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg: cfg, log: cfg.Log.With("component", "history"), stop: func() {},
		points: map[pointKey]*point{}, byID: map[int64]*point{}, classes: map[field]telemetry.Class{}, hot: map[int64]*hour{},
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	path := filepath.Join(cfg.Dir, "history.db")
	var err error
	if s.wdb, err = openDB(path, "synchronous(FULL)"); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	s.wdb.SetMaxOpenConns(1)
	if s.rdb, err = openDB(path, "query_only(1)"); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: %w", err), s.wdb.Close())
	}
	s.rdb.SetMaxOpenConns(4)
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s: %w", path, err), s.Close())
	}
	return s, nil
}

func openDB(path, pragma string) (*sql.DB, error) {
	q := url.Values{"_pragma": {"journal_mode(WAL)", "busy_timeout(10000)", pragma}, "_txlock": {"immediate"}}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

// Close stops sealing and closes the file. What is hot stays in its rows.
func (s *Store) Close() error {
	s.stop()
	s.done.Wait()
	return errors.Join(s.rdb.Close(), s.wdb.Close())
}

// Damaged is the number of times a block or hot row could not be read.
func (s *Store) Damaged() int64 { return s.damaged.Load() }

func (s *Store) load() error {
	var v int
	if err := s.wdb.QueryRow("PRAGMA user_version").Scan(&v); err != nil {
		return err
	}
	if v > version {
		return fmt.Errorf("file is of version %d, this hub knows %d: use a newer hub", v, version)
	}
	if _, err := s.wdb.Exec(schema); err != nil {
		return err
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		return err
	}
	if err := s.loadPoints(); err != nil {
		return err
	}
	return s.loadHot()
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) loadPoints() error {
	rows, err := s.wdb.Query("SELECT id, kind, name, class FROM points")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		p := &point{}
		if err := rows.Scan(&p.id, &p.kind, &p.name, &p.class); err != nil {
			return err
		}
		s.remember(p)
	}
	return rows.Err()
}

// remember enters a point that is on disk. mu is held, or nobody else is there.
func (s *Store) remember(p *point) {
	s.points[p.pointKey], s.byID[p.id] = p, p
	if p.class != 0 {
		s.classes[field{p.kind, pointName(p.name)}] = p.class
	}
}

func pointName(full string) string { return full[strings.LastIndexByte(full, '/')+1:] }

// loadHot brings back what was not sealed when the hub stopped or fell.
func (s *Store) loadHot() error {
	rows, err := s.wdb.Query("SELECT id, data FROM hot ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	now := time.Now()
	for rows.Next() {
		var id int64
		var data sql.RawBytes
		if err := rows.Scan(&id, &data); err != nil {
			return err
		}
		xs, err := decodeHot(data)
		if err != nil {
			s.damaged.Add(1)
			s.log.Error("hot row not readable, it stays in the file", "row", id, "error", err)
			continue
		}
		s.heat(id, xs, now)
	}
	return rows.Err()
}

// heat takes the samples of one hot row, all of one hour, into memory. mu is
// held, or nobody else is there.
func (s *Store) heat(row int64, xs []hotSample, now time.Time) {
	if len(xs) == 0 {
		return
	}
	n := xs[0].ts / hourNs
	h := s.hot[n]
	if h == nil {
		h = &hour{n: n, series: map[int64]*series{}, first: now}
		s.hot[n] = h
	}
	h.last = now
	h.rows = append(h.rows, row)
	for _, x := range xs {
		sr := h.series[x.point]
		if sr == nil {
			sr = &series{}
			h.series[x.point] = sr
		}
		sr.add(x.ts, x.q, x.v)
	}
	h.count += len(xs)
	s.samples += len(xs)
}

// staged is what one Write is about to commit.
type staged struct {
	points  map[pointKey]*point // new ones, and known ones that get a class
	classes map[field]telemetry.Class
	nextID  int64
	hours   map[int64][]hotSample
	order   []int64
	records map[recordsKey]*seqs.Hour
}

// Write implements history.Store.
func (s *Store) Write(ctx context.Context, rows []history.Row) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.unsure {
		s.mu.Lock()
		err := s.loadPoints()
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("sqlite: write: %w", err)
		}
		s.unsure = false
	}
	now := time.Now()
	st := &staged{points: map[pointKey]*point{}, classes: map[field]telemetry.Class{}, hours: map[int64][]hotSample{}, records: map[recordsKey]*seqs.Hour{}}
	var rejected []history.Rejected
	s.mu.RLock()
	st.nextID = int64(len(s.byID)) + 1
	for i, r := range rows {
		if r.Record.Kind == "" {
			st.record(&r.Record)
			continue // the ledger holds what it says
		}
		if why := s.refuse(st, &r.Record, now); why != "" {
			rejected = append(rejected, history.Rejected{Index: i, Reason: why})
			continue
		}
		s.stage(st, &r.Record)
		st.record(&r.Record)
	}
	s.mu.RUnlock()
	if len(st.hours) > 0 || len(st.records) > 0 {
		ids, err := s.commit(ctx, st)
		if err != nil {
			s.unsure = true
			return fmt.Errorf("sqlite: write: %w", err)
		}
		s.mu.Lock()
		for _, p := range st.points {
			s.remember(p)
		}
		for i, h := range st.order {
			s.heat(ids[i], st.hours[h], now)
		}
		s.mu.Unlock()
	}
	if len(rejected) > 0 {
		return &history.RejectedError{Rows: rejected}
	}
	return nil
}

// refuse tells why a record will never be taken, "" when it will.
func (s *Store) refuse(st *staged, r *telemetry.Record, now time.Time) string {
	ts := r.Time.UnixNano()
	switch {
	case r.Time.Year() < 1970 || r.Time.Year() > 2200 || ts < 0:
		return fmt.Sprintf("time stamp %s is not between 1970 and 2200", r.Time.UTC().Format(time.RFC3339))
	case s.cfg.Keep > 0 && now.Sub(r.Time) > s.cfg.Keep:
		return fmt.Sprintf("time stamp %s is older than the %s that are kept", r.Time.UTC().Format(time.RFC3339), s.cfg.Keep)
	}
	for _, x := range r.Readings {
		if x.Value.IsZero() {
			continue
		}
		f := field{r.Kind, x.Point}
		have := s.classes[f]
		if have == 0 {
			have = st.classes[f]
		}
		if have != 0 && have != x.Value.Class() {
			return fmt.Sprintf("point %s of kind %s is kept as %s, this is a %s", x.Point, r.Kind, have, x.Value.Class())
		}
	}
	return ""
}

// stage adds the readings of a record that was not refused.
func (s *Store) stage(st *staged, r *telemetry.Record) {
	ts := r.Time.UnixNano()
	h := ts / hourNs
	for _, x := range r.Readings {
		if x.Value.IsZero() && x.Quality == telemetry.Good {
			continue
		}
		k := pointKey{r.Kind, telemetry.FullName(r.Site, r.Device, x.Point)}
		p := st.points[k]
		if p == nil {
			p = s.points[k]
		}
		if p == nil {
			p = &point{pointKey: k, id: st.nextID}
			st.nextID++
			st.points[k] = p
		}
		if c := x.Value.Class(); c != 0 && p.class == 0 {
			p = &point{pointKey: k, id: p.id, class: c} // not the shared one
			st.points[k] = p
			st.classes[field{r.Kind, x.Point}] = c
		}
		if _, ok := st.hours[h]; !ok {
			st.order = append(st.order, h)
		}
		st.hours[h] = append(st.hours[h], hotSample{p.id, ts, x.Quality, x.Value})
	}
}

// commit writes what is staged in one transaction and returns the hot rows' ids.
func (s *Store) commit(ctx context.Context, st *staged) ([]int64, error) {
	tx, err := s.wdb.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // does nothing after Commit
	for _, p := range st.points {
		if _, err := tx.ExecContext(ctx, "INSERT INTO points (id, kind, name, class) VALUES (?,?,?,?) ON CONFLICT (id) DO UPDATE SET class=excluded.class",
			p.id, p.kind, p.name, int(p.class)); err != nil {
			return nil, err
		}
	}
	ids := make([]int64, 0, len(st.order))
	for _, h := range st.order {
		res, err := tx.ExecContext(ctx, "INSERT INTO hot (hour, data) VALUES (?,?)", h, encodeHot(st.hours[h]))
		if err != nil {
			return nil, err
		}
		id, err := res.LastInsertId()
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if err := s.commitRecords(ctx, tx, st); err != nil {
		return nil, err
	}
	return ids, tx.Commit()
}
