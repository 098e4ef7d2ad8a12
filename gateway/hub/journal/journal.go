// Package journal keeps what must survive anything on the hub: the state of
// every alarm, the journal of what happened at its true time, and the outbox
// of pages. They are one SQLite file, and what one turn of the engine brought
// forth is one transaction, on disk before Apply returns: after a kill -9 or a
// power cut there is no alarm without its page, no page without its alarm.
//
// Everything has a key (alarm id and transition; for a page the channel too),
// and what is there already is not written a second time. So a restart that
// judges resent records again pages nobody twice.
package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"

	"luquan/gateway/alarm"
	"luquan/gateway/page"
)

// File is the journal's name in the hub's state folder.
const File = "journal.sqlite"

// schemaVersion is PRAGMA user_version of a file this program can use.
const schemaVersion = 1

const schema = `
CREATE TABLE memory (
	rule TEXT NOT NULL, point TEXT NOT NULL,
	body TEXT NOT NULL,                      -- alarm.Memory as JSON
	PRIMARY KEY (rule, point)
) WITHOUT ROWID;
CREATE TABLE journal (
	seq INTEGER PRIMARY KEY,
	key TEXT UNIQUE,                         -- alarm id|transition; NULL for attempts to page
	time INTEGER NOT NULL,                   -- when it truly happened, ns UTC
	body TEXT NOT NULL                       -- Entry as JSON
);
CREATE INDEX journal_time ON journal (time);
CREATE TABLE outbox (
	seq INTEGER PRIMARY KEY,
	key TEXT NOT NULL UNIQUE,                -- alarm id|transition|channel
	channel TEXT NOT NULL,
	rota TEXT NOT NULL,
	message TEXT NOT NULL,                   -- page.Message as JSON
	created INTEGER NOT NULL,                -- ns UTC
	outcome TEXT NOT NULL,                   -- '' (none yet), sending, failed, delivered, refused
	attempts INTEGER NOT NULL,
	unsure INTEGER NOT NULL,                 -- 1: an attempt was begun and its answer never written down
	next INTEGER NOT NULL                    -- ns UTC, 0 at once
);
CREATE INDEX outbox_open ON outbox (channel, seq) WHERE outcome NOT IN ('delivered', 'refused');
`

// Journal is an open journal. It is safe for concurrent use; it implements
// page.Outbox.
type Journal struct {
	write *sql.DB // one connection: transactions follow one another
	read  *sql.DB // for people who look things up; never waits for a write
}

var _ page.Outbox = (*Journal)(nil)

// Open opens the journal in dir, creating both. It refuses a file that a later
// version wrote. Only one process may have it open.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path, err := filepath.Abs(filepath.Join(dir, File))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{}
	if j.write, err = connect(path, "immediate", 1, "busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"); err != nil {
		return nil, err
	}
	if err := j.prepare(path); err != nil {
		j.write.Close()
		return nil, err
	}
	if j.read, err = connect(path, "deferred", 2, "busy_timeout(5000)", "query_only(1)"); err != nil {
		j.write.Close()
		return nil, err
	}
	return j, nil
}

func connect(path, lock string, conns int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {lock}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	return db, nil
}

func (j *Journal) prepare(path string) error {
	var version int
	if err := j.write.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("open journal %s: %w; if the file is damaged, move it away and restore a backup", path, err)
	}
	switch {
	case version == schemaVersion:
		return nil
	case version != 0:
		return fmt.Errorf("open journal %s: written by a later version (schema %d, this one knows %d); use that version", path, version, schemaVersion)
	}
	return tx(context.Background(), j.write, func(t *sql.Tx) error {
		_, err := t.Exec(schema + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
		if err != nil {
			return fmt.Errorf("create journal %s: %w", path, err)
		}
		return nil
	})
}

// Close closes the file. What was applied is on disk already.
func (j *Journal) Close() error {
	return errors.Join(j.read.Close(), j.write.Close())
}

func tx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(t); err != nil {
		return errors.Join(err, t.Rollback())
	}
	return t.Commit()
}

// Apply stores in one transaction what a turn of the engine brought forth: the
// events, what their instances must remember, and the pages they lead to. What
// has been stored before is left as it is. After an error nothing of it is
// stored, and applying it again is right.
func (j *Journal) Apply(ctx context.Context, events []alarm.Event, pages []page.Page) error {
	if len(events) == 0 && len(pages) == 0 {
		return nil
	}
	err := tx(ctx, j.write, func(t *sql.Tx) error {
		for i := range events {
			ev := &events[i]
			entry := Entry{Time: ev.Time, At: ev.At, Kind: KindAlarm, Transition: ev.Transition, Alarm: &ev.Alarm, By: ev.By}
			if err := entry.insert(t, sql.NullString{String: ev.Key(), Valid: true}); err != nil {
				return err
			}
			if err := remember(t, &ev.Memory); err != nil {
				return err
			}
		}
		for i := range pages {
			p := &pages[i]
			body, err := json.Marshal(&p.Message)
			if err != nil {
				return err
			}
			_, err = t.Exec(`INSERT INTO outbox (key, channel, rota, message, created, outcome, attempts, unsure, next)
				VALUES (?, ?, ?, ?, ?, '', 0, 0, 0) ON CONFLICT (key) DO NOTHING`,
				p.Key(), p.Channel, p.Rota, string(body), p.Message.At.UnixNano())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("journal: store %d events and %d pages: %w", len(events), len(pages), err)
	}
	return nil
}

// Checkpoint stores what the engine remembers beside the events: runs that
// have begun and watermarks. Without it a restart begins those runs anew. Call
// it at a clean stop and now and then.
func (j *Journal) Checkpoint(ctx context.Context, mem []alarm.Memory) error {
	err := tx(ctx, j.write, func(t *sql.Tx) error {
		for i := range mem {
			if err := remember(t, &mem[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("journal: checkpoint: %w", err)
	}
	return nil
}

func remember(t *sql.Tx, m *alarm.Memory) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = t.Exec(`INSERT INTO memory (rule, point, body) VALUES (?, ?, ?)
		ON CONFLICT (rule, point) DO UPDATE SET body = excluded.body`, m.Rule, m.Point, string(body))
	return err
}

// Load returns what Engine.Restore needs, as it was last stored.
func (j *Journal) Load(ctx context.Context) ([]alarm.Memory, error) {
	rows, err := j.read.QueryContext(ctx, "SELECT body FROM memory ORDER BY point, rule")
	if err != nil {
		return nil, fmt.Errorf("journal: load alarms: %w", err)
	}
	defer rows.Close()
	var out []alarm.Memory
	for rows.Next() {
		var body string
		var m alarm.Memory
		if err := rows.Scan(&body); err != nil {
			return nil, fmt.Errorf("journal: load alarms: %w", err)
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			return nil, fmt.Errorf("journal: load alarms: %q: %w", body, err)
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

func ns(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func at(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
