// Package ingest takes what the boards publish. A payload is decoded and each
// new record handed at once to the sink (live values, alarms); only then it
// queues for the store. A slow or dead store therefore delays `committed`, by
// which boards free their flash, and nothing else.
//
// Nothing is lost by a full queue: the record is released in the ledger, the
// board still holds it and sends it again. Nothing comes twice: a record that
// was seen is not shown again, one that is stored is not written again, and a
// write that was cut is repeated with the same lines, which stores ignore.
// A line that cannot be read, or that the store will never take, goes to the
// quarantine with its reason and holds nothing else up.
package ingest

import (
	"context"
	"log/slog"
	"time"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// Sink sees what comes before it is stored. Its methods are called from
// Handle, in the order of arrival, and must not block.
type Sink interface {
	// Observe gets every record that never came before: readings, gaps and
	// ended epochs, live and backfill alike.
	Observe(r wire.Record, h wire.Header, received time.Time)
	// State gets what a gateway says of itself; stale goodbyes are left out.
	State(site, gateway string, st wire.State, received time.Time)
	// Meta gets the description of the gateway's current configuration, once
	// it is known which one that is, and again when it changes.
	Meta(m wire.Meta)
}

// Row is a line to store and what it says; Record.Kind is "" for lines that
// are no readings. It has the fields of history.Row.
type Row struct {
	Line   []byte
	Record telemetry.Record
}

// Store keeps rows for good.
type Store interface {
	// Write returns nil only when all rows are durable but those in rejected,
	// which the store will never take: their index, and the reason. On error
	// the same rows are written again; an error with a method RetryAfter()
	// time.Duration says how long to wait.
	Write(ctx context.Context, rows []Row) (rejected map[int]string, err error)
}

// Ledger is the book of what came and what is stored; see package ledger.
type Ledger interface {
	Receive(site, gateway string, r wire.Record, received time.Time) (fresh, wanted bool)
	Want(site, gateway string, r wire.Record, now time.Time) (wanted bool)
	Settled(site, gateway string, epoch, seq uint64) bool
	Release(site, gateway string, epoch, seq uint64)
	Settle(site, gateway string, r wire.Record, quarantined bool)
	State(site, gateway string, st wire.State, received time.Time)
	Sync() error
	Committed(site, gateway string, now time.Time) (wire.Committed, bool)
}

// Publisher publishes a retained message at QoS 1 and waits for the broker.
type Publisher interface {
	Publish(ctx context.Context, topic string, payload []byte) error
}

// Config is what a Consumer is made of. All but the limits must be set.
type Config struct {
	Hub        string   // the hub's name, as it stands before the slash in committed
	Sites      []string // globs of the sites this hub owns; empty: all
	Sink       Sink
	Store      Store
	Ledger     Ledger
	Publisher  Publisher
	Quarantine *Quarantine
	Log        *slog.Logger // nil: silent

	QueueBytes int64         // memory of the queue to the store; 0: 64 MiB. One gateway may take half
	BatchLines int           // of one write; 0: 1000
	BatchWait  time.Duration // a line waits so long for others; 0: 200 ms
	CommitGap  time.Duration // least time between two committed of a gateway; 0: 500 ms
	Drain      time.Duration // how long Run goes on writing after its context is done; 0: 1 s
}

// Stats are counters since start, but for those of the queue and the store.
type Stats struct {
	Payloads    uint64 // decoded
	BadPayloads uint64 // not decodable as a whole; nothing of them is kept
	Records     uint64 // in decoded payloads
	BadLines    uint64 // records whose line breaks the contract
	Duplicates  uint64 // records that had come before
	Dropped     uint64 // not queued because the queue was full; the board sends them again
	Stored      uint64 // durable in the store
	Quarantined uint64 // durable in quarantine
	StoreErrors uint64 // failed attempts to store, quarantine or book a batch
	Commits     uint64 // committed published
	CommitFails uint64 // and not published
	NotOurs     uint64 // messages of sites this hub does not own
	BadTopics   uint64 // messages on no topic of the contract, and documents that cannot be read
	OldGoodbyes uint64 // offline states of a session that was not the last

	QueueLines int
	QueueBytes int64
	// OldestWaiting is when the oldest record that is not durable was
	// received; zero when none waits.
	OldestWaiting time.Time
	// FailingSince is when storing began to fail; zero while it works. Why
	// tells the last error.
	FailingSince time.Time
	Why          string
}

// GatewayStatus is what is known of one gateway.
type GatewayStatus struct {
	Site, Gateway string
	State         wire.State // zero before the first one came
	StateAt       time.Time  // when State came
	PayloadAt     time.Time  // when the last payload came that could be read
	RefusedAt     time.Time  // when the last one came that could not
	Refused       string     // why not
	// Header is that of the last payload on the live lane.
	Header wire.Header
	// Queued is the memory of its records that wait for the store.
	Queued int64
	// OtherHub names another hub that commits for the site; this one has stopped.
	OtherHub string
}
