package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"luquan/gateway/hub/history"
	"luquan/gateway/hub/seqs"
	"luquan/gateway/telemetry"
)

// recordsKey names a row of the table records.
type recordsKey struct {
	site, gateway string
	hour          int64
	epoch         uint64
}

// record notes which record a row is, whatever it carries.
func (st *staged) record(r *telemetry.Record) {
	if r.Epoch == 0 || r.Seq == 0 || r.Seq > seqs.Max {
		return // not written by a board
	}
	hour, minute := seqs.Place(r.Time.UnixNano())
	k := recordsKey{r.Site, r.Gateway, hour, r.Epoch}
	h := st.records[k]
	if h == nil {
		h = &seqs.Hour{}
		st.records[k] = h
	}
	h.Minutes[minute].Add(r.Seq, r.Seq)
}

// commitRecords adds what is staged to the table records, in the transaction
// of the samples. wmu is held.
func (s *Store) commitRecords(ctx context.Context, tx *sql.Tx, st *staged) error {
	for k, h := range st.records {
		var data []byte
		err := tx.QueryRowContext(ctx, "SELECT data FROM records WHERE site=? AND gateway=? AND hour=? AND epoch=?",
			k.site, k.gateway, k.hour, int64(k.epoch)).Scan(&data)
		switch {
		case err == nil:
			if was, err := seqs.DecodeHour(data); err == nil {
				h.Merge(was)
			} else {
				s.damaged.Add(1)
				s.log.Error("list of records not readable, it begins anew", "site", k.site, "gateway", k.gateway, "hour", k.hour, "epoch", k.epoch)
			}
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO records (site, gateway, hour, epoch, data) VALUES (?,?,?,?,?)",
			k.site, k.gateway, k.hour, int64(k.epoch), h.Encode()); err != nil {
			return err
		}
	}
	return nil
}

// Count implements history.Store. Two rows of one record have one stamp, or
// are found in two minutes.
func (s *Store) Count(ctx context.Context, site, gateway string, from, to time.Time) ([]history.Records, error) {
	return countRows(ctx, s.rdb, site, gateway, from, to)
}

// Reader counts in the file of a directory without changing it, beside a hub
// that has it open or without one.
type Reader struct{ Dir string }

// Count is Store's.
func (r Reader) Count(ctx context.Context, site, gateway string, from, to time.Time) (_ []history.Records, err error) {
	path := filepath.Join(r.Dir, "history.db")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	q := url.Values{"_pragma": {"busy_timeout(10000)", "query_only(1)"}, "mode": {"ro"}}
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		q.Set("immutable", "1") // nobody has it open: no file need be made beside it
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return countRows(ctx, db, site, gateway, from, to)
}

func countRows(ctx context.Context, db *sql.DB, site, gateway string, from, to time.Time) ([]history.Records, error) {
	first, _ := seqs.Place(from.UnixNano())
	last, _ := seqs.Place(to.UnixNano() - 1)
	rows, err := db.QueryContext(ctx, "SELECT hour, epoch, data FROM records WHERE site=? AND gateway=? AND hour>=? AND hour<=?", site, gateway, first, last)
	if err != nil {
		return nil, fmt.Errorf("sqlite: count: %w", err)
	}
	defer rows.Close()
	var out []history.Records
	for rows.Next() {
		var r history.Records
		var epoch int64
		var data []byte
		if err := rows.Scan(&r.Hour, &epoch, &data); err != nil {
			return nil, fmt.Errorf("sqlite: count: %w", err)
		}
		r.Epoch = uint64(epoch)
		if r.Seqs, err = seqs.DecodeHour(data); err != nil {
			return nil, fmt.Errorf("sqlite: count: hour %d of epoch %d of %s/%s: %w", r.Hour, epoch, site, gateway, err)
		}
		for m := range r.Seqs.Minutes {
			if at := r.Hour*hourNs + int64(m)*int64(time.Minute); at < from.UnixNano() || at >= to.UnixNano() {
				r.Seqs.Minutes[m] = nil
			}
		}
		out = append(out, r)
	}
	return out, rows.Err()
}
