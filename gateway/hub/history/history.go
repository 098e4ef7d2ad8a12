// Package history is the contract between the hub and what keeps readings for
// years: write rows so that they survive a power cut, read one point back in
// buckets. history/influx keeps them in InfluxDB, history/sqlite in a file of
// the hub's own; historytest is the suite that both pass.
package history

import (
	"context"
	"fmt"
	"strings"
	"time"

	"luquan/gateway/hub/seqs"
	"luquan/gateway/telemetry"
)

// Row is one line to keep and what it says.
type Row struct {
	// Line is the line as it came, without a newline. A store may keep it
	// until Write returns, not longer.
	Line []byte
	// Record is what Line says. Of lines that are not readings (gaps, ended
	// epochs) it has no Kind: a store of lines keeps them, a store of samples
	// counts them as kept, because the ledger holds what they say.
	Record telemetry.Record
}

// Store keeps readings. It may be used from several goroutines.
type Store interface {
	// Write keeps rows. It returns nil only when all of them are durable:
	// InfluxDB has answered 204, or the file was synced. A *RejectedError
	// names the rows that will never be taken; all others are durable. Any
	// other error means that some or all were not kept and the same rows are
	// to be written again, which changes nothing for those already kept. Such
	// an error may say how long to wait by a method RetryAfter() time.Duration.
	Write(ctx context.Context, rows []Row) error

	// Query reads one point back. Buckets without a sample and without a
	// quality that is not good are left out; the others are in order of time.
	// A point that was never written has none.
	Query(ctx context.Context, q Query) ([]Bucket, error)

	// Count returns which records of one board the store holds, by their
	// stamps from one whole minute, included, to another, excluded. It is what
	// the ledger is checked against.
	Count(ctx context.Context, site, gateway string, from, to time.Time) ([]Records, error)

	// Close ends what the store runs. What was durable stays so.
	Close() error
}

// MaxBuckets is the most buckets a Query may ask for.
const MaxBuckets = 10000

// Query asks for one point from From, included, to To, excluded, in equal buckets.
type Query struct {
	Point    string // full name: site/device/point
	Kind     string // kind of the device
	From, To time.Time
	Buckets  int // 1 to MaxBuckets
}

// Check says what is wrong with the query, or nil.
func (q Query) Check() error {
	site, device, point := q.Names()
	switch {
	case !telemetry.ValidName(site) || !telemetry.ValidName(device) || !telemetry.ValidPoint(point):
		return fmt.Errorf("history: point %q is not site/device/point", q.Point)
	case !telemetry.ValidKind(q.Kind):
		return fmt.Errorf("history: kind %q of point %s is not a kind", q.Kind, q.Point)
	case !q.From.Before(q.To):
		return fmt.Errorf("history: from %s is not before to %s", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	case q.Buckets < 1 || q.Buckets > MaxBuckets:
		return fmt.Errorf("history: %d buckets: ask for 1 to %d", q.Buckets, MaxBuckets)
	case q.From.UnixNano() < 0 || q.To.Year() > 2200:
		return fmt.Errorf("history: the span from %s to %s is not between 1970 and 2200", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	return nil
}

// Names splits the point's full name; a part is empty when it is missing.
func (q Query) Names() (site, device, point string) {
	site, rest, _ := strings.Cut(q.Point, "/")
	device, point, _ = strings.Cut(rest, "/")
	return site, device, point
}

// Width is the length of one bucket: the span divided by Buckets, rounded up
// to a nanosecond. Bucket i begins at From + i times Width.
func (q Query) Width() time.Duration {
	n := time.Duration(q.Buckets)
	return max((q.To.Sub(q.From)+n-1)/n, 1)
}

// Bucket sums up what was read in [Start, Start+Width).
type Bucket struct {
	Start time.Time
	// Min, Mean, Max and Last are of the samples that carry a number; 0 when
	// Count is 0 and for strings.
	Min, Mean, Max, Last float64
	// Text is the last value of a string point.
	Text string
	// Count is the number of samples that carry a value. Rows that only
	// confirm a value are not samples.
	Count int
	// Worst is the worst quality met, also of readings without a value.
	Worst telemetry.Quality
}

// Records is the records of one epoch of a board whose stamps lie in one hour.
// Again of a minute counts rows beyond the first of a record; a store that
// cannot hold such has none.
type Records struct {
	Epoch uint64
	Hour  int64 // since 1970
	Seqs  *seqs.Hour
}

// RejectedError names rows that a store will never take. All other rows of
// the same Write are durable.
type RejectedError struct {
	Rows []Rejected // at least one, by Index
}

// Rejected is one row that will never be taken, and why.
type Rejected struct {
	Index  int // in the rows given to Write
	Reason string
}

// Error tells how many rows were refused and why the first was.
func (e *RejectedError) Error() string {
	if len(e.Rows) == 1 {
		return "history: row rejected: " + e.Rows[0].Reason
	}
	return fmt.Sprintf("history: %d rows rejected, the first: %s", len(e.Rows), e.Rows[0].Reason)
}
