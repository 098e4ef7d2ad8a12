package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/page"
)

// The kinds of entries.
const (
	KindAlarm = "alarm" // a transition of an alarm
	KindPage  = "page"  // an attempt to page somebody
)

// Entry is one line of the journal, with the JSON of the API.
type Entry struct {
	Seq  int64     `json:"seq"`  // in the order of writing
	Time time.Time `json:"time"` // when it truly happened
	At   time.Time `json:"at"`   // when the hub found out
	Kind string    `json:"kind"`
	// Of alarms:
	Transition alarm.Transition `json:"transition,omitempty"`
	Alarm      *alarm.Alarm     `json:"alarm,omitempty"` // as it stood after the transition
	By         string           `json:"by,omitempty"`
	// Of pages:
	Page *PageAttempt `json:"page,omitempty"`
}

// PageAttempt is an attempt to deliver a page.
type PageAttempt struct {
	AlarmID    string           `json:"alarm_id"`
	Transition alarm.Transition `json:"transition"` // told of
	Rota       string           `json:"rota"`
	Channel    string           `json:"channel"`
	Attempt    int              `json:"attempt"` // from 1
	Outcome    page.Outcome     `json:"outcome"`
	Answer     string           `json:"answer,omitempty"`
	Next       time.Time        `json:"next,omitzero"`
}

func (e *Entry) insert(t *sql.Tx, key sql.NullString) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = t.Exec("INSERT INTO journal (key, time, body) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
		key, e.Time.UnixNano(), string(body))
	return err
}

// Journal returns the entries whose true time is in [from, to), the newest
// first, at most limit of them. A zero from or to is no bound.
func (j *Journal) Journal(ctx context.Context, from, to time.Time, limit int) ([]Entry, error) {
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	if !from.IsZero() {
		lo = from.UnixNano()
	}
	if !to.IsZero() {
		hi = to.UnixNano()
	}
	rows, err := j.read.QueryContext(ctx,
		"SELECT seq, body FROM journal WHERE time >= ? AND time < ? ORDER BY time DESC, seq DESC LIMIT ?", lo, hi, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("journal: look up: %w", err)
	}
	defer rows.Close()
	out := []Entry{}
	for rows.Next() {
		var seq int64
		var body string
		var e Entry
		if err := rows.Scan(&seq, &body); err != nil {
			return nil, fmt.Errorf("journal: look up: %w", err)
		}
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			return nil, fmt.Errorf("journal: entry %d: %w", seq, err)
		}
		e.Seq = seq
		out = append(out, e)
	}
	return out, rows.Err()
}

// Pending returns the pages that are neither delivered nor refused, the oldest
// first: those of one channel, or of all when channel is "".
func (j *Journal) Pending(ctx context.Context, channel string) ([]page.Entry, error) {
	rows, err := j.read.QueryContext(ctx, `SELECT channel, rota, message, created, outcome = 'sending' OR unsure, attempts, next FROM outbox
		WHERE outcome NOT IN ('delivered', 'refused') AND (channel = ? OR ? = '') ORDER BY seq`, channel, channel)
	if err != nil {
		return nil, fmt.Errorf("journal: outbox: %w", err)
	}
	defer rows.Close()
	var out []page.Entry
	for rows.Next() {
		var e page.Entry
		var message string
		var created, next int64
		if err := rows.Scan(&e.Channel, &e.Rota, &message, &created, &e.Begun, &e.Attempts, &next); err != nil {
			return nil, fmt.Errorf("journal: outbox: %w", err)
		}
		if err := json.Unmarshal([]byte(message), &e.Message); err != nil {
			return nil, fmt.Errorf("journal: outbox: %q: %w", message, err)
		}
		e.Created, e.Next = at(created), at(next)
		out = append(out, e)
	}
	return out, rows.Err()
}

// Mark writes an attempt to page down, in the outbox and in the journal.
func (j *Journal) Mark(ctx context.Context, a page.Attempt) error {
	err := tx(ctx, j.write, func(t *sql.Tx) error {
		begun := 0
		if a.Outcome == page.Sending {
			begun = 1
		}
		var p PageAttempt
		var message string
		err := t.QueryRow(`UPDATE outbox
			SET unsure = unsure OR (outcome = 'sending' AND ?), outcome = ?, attempts = attempts + ?, next = ?
			WHERE key = ? AND outcome NOT IN ('delivered', 'refused') RETURNING rota, channel, attempts, message`,
			begun, string(a.Outcome), begun, ns(a.Next), a.Key).Scan(&p.Rota, &p.Channel, &p.Attempt, &message)
		if err == sql.ErrNoRows {
			return fmt.Errorf("no such page to deliver")
		}
		if err != nil {
			return err
		}
		var m page.Message
		if err := json.Unmarshal([]byte(message), &m); err != nil {
			return err
		}
		p.AlarmID, p.Transition, p.Outcome, p.Answer, p.Next = m.ID, m.Transition, a.Outcome, a.Answer, a.Next
		entry := Entry{Time: a.At, At: a.At, Kind: KindPage, Page: &p}
		return entry.insert(t, sql.NullString{})
	})
	if err != nil {
		return fmt.Errorf("journal: page %q %s: %w", a.Key, a.Outcome, err)
	}
	return nil
}
