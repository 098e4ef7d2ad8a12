package console

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/health"
	"luquan/gateway/hub/history"
	"luquan/gateway/hub/ledger"
	"luquan/gateway/hub/live"
	"luquan/gateway/telemetry"
)

// Alarms is the list of alarms. It must be safe for concurrent use.
type Alarms interface {
	// Alarms returns all that stand or wait to be acknowledged, suppressed
	// ones among them. The caller may not change it.
	Alarms() []alarm.Alarm
	// Version is a number that changes whenever the list does.
	Version() uint64
	// Ack acknowledges one for who. It returns alarm.ErrUnknown or
	// alarm.ErrSuppressed, perhaps wrapped, where that is the reason.
	Ack(ctx context.Context, id, who string) error
}

// History reads stored values back.
type History interface {
	Query(ctx context.Context, q history.Query) ([]history.Bucket, error)
}

// Options are what the console shows and how. Feed is required. What is nil
// is answered with status 501 and a sentence.
type Options struct {
	Feed    *live.Feed
	Sites   []Site // labels and key values; sites that only the feed knows are listed too
	Alarms  Alarms
	History History
	// Limits tells the limits that rules set for a point.
	Limits func(point string) []Limit
	// Gateways lists the boards; Ledger, Journal and Health tell what their
	// names say. They must be safe for concurrent use.
	Gateways func() []Gateway
	Ledger   func(ctx context.Context, q LedgerQuery) ([]ledger.Row, error)
	// Import stores a payload of a dead board's card, named by the topic it
	// would have come on. An error with a method Refused is the client's fault.
	Import func(ctx context.Context, topic string, payload []byte) (any, error)
	// Quarantine are the lines that no store takes.
	Quarantine Quarantine
	Journal    func(ctx context.Context, q JournalQuery) ([]JournalEntry, error)
	Health     func() []Component
	// Chain tells which link of the chain is broken, and since when.
	Chain func() *health.Report
	// Ready says why the hub cannot do its work yet; nil means it can.
	Ready func() error
	// Metrics writes the hub's metrics in the Prometheus text format; the
	// console adds its own.
	Metrics func(w io.Writer)
	// Assets are the front end's files; nil means webui.FS. In a test it may
	// be another.
	Assets fs.FS
	// Logger may be nil.
	Logger *slog.Logger
	// Heartbeat of the event stream; 0 means 15 s.
	Heartbeat time.Duration
	// WriteLimit is how long one write to a stream may take before the
	// reader is cut; 0 means 20 s.
	WriteLimit time.Duration
	// MaxStreams bounds open event streams; 0 means 500.
	MaxStreams int
}

// Site names a plant for people.
type Site struct {
	Name  string
	Label telemetry.Label
	// Key are the points for the overview, device/point, at most eight shown.
	// Without any the front end chooses by the kinds of the devices.
	Key []string
}

// Limit is where a rule raises an alarm.
type Limit struct {
	Kind     string  `json:"kind"` // high_high, high, low, low_low
	Value    float64 `json:"value"`
	Priority string  `json:"priority"`
}

// Gateway is a board as the hub knows it.
type Gateway struct {
	Name    string    `json:"name"` // site/gateway
	Site    string    `json:"site"`
	Gateway string    `json:"gateway"`
	Online  bool      `json:"online"`
	Since   time.Time `json:"since,omitzero"`    // of the present state
	Last    time.Time `json:"received,omitzero"` // when its last payload came
	Version string    `json:"version,omitempty"` // of its program
	Boot    string    `json:"boot,omitempty"`
	Config  string    `json:"cfg,omitempty"`
	Epoch   uint64    `json:"epoch,omitempty"`
	Devices int       `json:"devices"`
	Held    uint64    `json:"held"` // records it holds that the hub has not committed, as far as the hub knows
	// Late is how much older than the receipt the last live record was.
	Late time.Duration `json:"-"`
}

// LedgerQuery asks for what boards sent; see ledger.Query. With Verify it is
// compared with the history.
type LedgerQuery struct {
	Site, Gateway              string
	From, To                   time.Time // both zero: the whole book
	ByGateway, ByEpoch, ByHour bool
	Verify                     bool
}

// JournalQuery asks for what happened in a span, at most Limit entries, the
// latest first.
type JournalQuery struct {
	From, To time.Time
	Limit    int
}

// JournalEntry is one thing that happened.
type JournalEntry struct {
	Time    time.Time       `json:"time"`            // when it truly happened
	At      time.Time       `json:"at,omitzero"`     // when the hub learned of it
	Kind    string          `json:"kind"`            // raised, cleared, acknowledged, paged, ...
	Alarm   *alarm.Alarm    `json:"alarm,omitempty"` // as it stood then; nil of a page, which names it alone
	AlarmID string          `json:"alarm_id,omitempty"`
	By      string          `json:"by,omitempty"` // who
	Detail  telemetry.Label `json:"detail,omitzero"`
}
