// Package uplink carries the board's records to the hub: new ones first, on
// the live lane, then what is older, on the backfill lane, at a bounded rate
// that yields to live. It frees a record in the board's queue when the hub
// says stored, and sends again what was published and never became so.
// docs/contract.md, section MQTT, is the law.
//
// One connection is one session: made by the injected Dial, with a random
// name that stands in the announced state, in the will and in every payload,
// and given up as a whole when anything goes wrong on it. What counts between
// sessions is in the queue alone.
package uplink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"luquan/gateway/wire"
)

// Entry is one record of the queue; Payload is what wire.Store returned.
type Entry struct {
	Epoch, Seq uint64
	Payload    []byte
}

// Held is an epoch of which the queue still holds records.
type Held struct {
	Epoch, First, Last uint64 // First is Last+1 when it holds none
	Label              string // as Label wrote it at that opening
	Current            bool
}

// Queue is what the uplink needs of the board's buffer. It is called from one
// goroutine.
type Queue interface {
	// Holds lists the held epochs, oldest first, the current one last and always.
	Holds() []Held
	// Read returns records of an epoch in order from a seq on, at least one if
	// there is any; what is freed or lost is passed over.
	Read(epoch, from uint64, maxEntries, maxBytes int) ([]Entry, error)
	// Free says that the records to upto and those of the ranges also are
	// settled.
	Free(epoch, upto uint64, also [][2]uint64) error
	// Notify receives after an append.
	Notify() <-chan struct{}
}

// Message is an MQTT message.
type Message struct {
	Topic    string
	QoS      byte
	Retained bool
	Payload  []byte
}

// Token is the fate of one publish: Done is closed when the broker has
// acknowledged it, or when the link is lost and Err says so.
type Token interface {
	Done() <-chan struct{}
	Err() error
}

// Link is a live connection. Publish must not block for long and keeps the
// order of the calls. Close disconnects cleanly, so that the will is dropped.
type Link interface {
	Publish(topic string, qos byte, retained bool, payload []byte) Token
	Lost() <-chan struct{}
	Err() error
	Close(ctx context.Context)
}

// Dial makes a connection with a clean session that is subscribed when it
// returns. handler gets the messages in their order and does not block.
type Dial func(ctx context.Context, will Message, subscribe []string, handler func(Message)) (Link, error)

// Commit says who decides that a record is settled.
type Commit string

// The values of uplink.commit in gateway.yaml.
const (
	CommitHub    Commit = "hub"    // the hub's word on the topic committed
	CommitBroker Commit = "broker" // the broker's PUBACK
	CommitNone   Commit = "none"   // nobody: freed Keep after the PUBACK
)

// Config is what an Uplink works with. Site, Gateway, Boot, Cfg, Dial and
// Backoff are required.
type Config struct {
	Site, Gateway string
	Boot          string // id of this boot
	Cfg           string // cfg of the current configuration
	Version       string // of the program, told in state
	// Meta has the JSON of every cfg that is kept on flash, Cfg included.
	Meta map[string][]byte
	// MetaSettled is called when no held record has that cfg any more and the
	// broker has dropped its document: the file on flash may go. May be nil.
	MetaSettled func(cfg string)

	Commit   Commit // default CommitHub
	Compress bool   // zstd; with CommitBroker always plain
	Linger   time.Duration
	Keep     time.Duration // CommitNone: how long after the PUBACK; default 24 h

	Dial Dial
	// Backoff is how long to wait before dialling again after so many
	// failures in a row.
	Backoff func(failures int) time.Duration
	// Now is the clock of the stamps; nil is time.Now.
	Now func() time.Time
	// Stamp gives a record that was stored without one its stamp, the same
	// each time. It returns when that is on flash; not ok: the time is not
	// known yet, the record waits. nil: there are no such records.
	Stamp func(boot string, epoch, seq uint64, polled wire.Stamp) (s wire.Stamp, ok bool)
	// Connected is called when the link is up. May be nil; must not block.
	Connected func()
	// Disconnected is called when the link is lost, not at a clean stop. May be
	// nil; must not block.
	Disconnected func()
	// HubTime gets the hub's clock as it arrives, with the shortest round trip
	// to the broker seen on this link, 0 before the first; nil: not wanted. It
	// must not block.
	HubTime func(hub time.Time, trip time.Duration)
	// Refresh is called when every group must carry all its fields in its next
	// record: after a connect, a live skip, a change of the hub. It must not
	// block. May be nil.
	Refresh func(reason string)

	Lanes  Lanes
	Logger *slog.Logger // nil: silent
}

// Lanes tunes the two lanes. The zero value of each field is its default.
type Lanes struct {
	Window  int           // publishes without PUBACK at a time; 64
	Pack    int           // bytes a payload is filled to, before compression; 64 KiB
	Rate    int           // bytes a second of the backfill lane at most, compressed; 2 MiB
	MaxLag  time.Duration // live moves to the tail when it lags so far; 5 s
	Resend  time.Duration // committed passed over for so long; 60 s
	MaxWait time.Duration // longest wait to repeat while committed stands still; 15 min
	Drain   time.Duration // longest wait at a clean stop; 1.5 s
}

// Stats is what the uplink does at the moment, for people and metrics.
type Stats struct {
	Connected bool
	Session   string
	Since     time.Time // of this connection, or of its loss
	Hub       string    // name/boot id of the hub that commits; "" before its first word
	LastError string    // why the last connection ended or was not made
	Committed time.Time // when committed last freed something
	Inflight  int       // publishes without PUBACK
	Waiting   uint64    // records of the backlog that are not yet published
	Unsettled uint64    // records published and not committed
	Published uint64    // records, resent ones included, since the start
	Resent    uint64    // records published again by the resend rules, not counting those of a new connection
	Skips     uint64    // times live moved to the tail
}

// Uplink is the board's end of the link. Make it with New.
type Uplink struct {
	cfg   Config
	queue Queue
	log   *slog.Logger

	// Only Run's goroutine touches these; they outlive a session.
	hub     string        // last heard
	step    int           // of the stamps' clock
	offset  time.Duration // of the stamps' clock from started plus the monotonic time since
	started time.Time
	kept    []sent // CommitNone: acknowledged, waiting for their age
	told    map[string]time.Time

	mu    sync.Mutex // guards stats
	stats Stats
}

// Label is what to open the queue with, so that its epochs tell their boot and
// cfg when they are published by a later run.
func Label(boot, cfg string) string { return "boot=" + boot + " cfg=" + cfg }

// Boot returns the boot that a label names.
func Boot(label string) string {
	boot, _ := parseLabel(label)
	return boot
}

// parseLabel is the inverse of Label. A label that is none gives placeholders,
// so that even then the records go up.
func parseLabel(s string) (boot, cfg string) {
	boot, cfg = "unknown", "00000000"
	for _, w := range strings.Fields(s) {
		if v, ok := strings.CutPrefix(w, "boot="); ok {
			boot = v
		}
		if v, ok := strings.CutPrefix(w, "cfg="); ok {
			cfg = v
		}
	}
	return boot, cfg
}

// New returns an Uplink over the queue. It does nothing before Run.
func New(queue Queue, cfg Config) (*Uplink, error) {
	switch cfg.Commit {
	case "":
		cfg.Commit = CommitHub
	case CommitHub, CommitNone:
	case CommitBroker:
		cfg.Compress = false
	default:
		return nil, fmt.Errorf("uplink: commit %q is not hub, broker or none", cfg.Commit)
	}
	if cfg.Dial == nil || cfg.Backoff == nil {
		return nil, fmt.Errorf("uplink: Dial and Backoff are required")
	}
	if _, ok := cfg.Meta[cfg.Cfg]; !ok {
		return nil, fmt.Errorf("uplink: there is no meta document of the current cfg %q", cfg.Cfg)
	}
	if _, err := wire.ParseTopic((wire.Topic{Site: cfg.Site, Gateway: cfg.Gateway, What: wire.MetaDoc, Arg: cfg.Cfg}).String()); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	if _, err := (wire.State{Session: "0", Boot: cfg.Boot, Epoch: 1, Cfg: cfg.Cfg}).Marshal(); err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	cfg.Meta = maps.Clone(cfg.Meta)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Connected == nil {
		cfg.Connected = func() {}
	}
	if cfg.Disconnected == nil {
		cfg.Disconnected = func() {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &cfg.Lanes
	for _, d := range []struct {
		v   *int
		def int
	}{{&l.Window, 64}, {&l.Pack, 64 << 10}, {&l.Rate, 2 << 20}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&l.MaxLag, 5 * time.Second}, {&l.Resend, time.Minute}, {&l.MaxWait, 15 * time.Minute}, {&l.Drain, 1500 * time.Millisecond},
		{&cfg.Keep, 24 * time.Hour}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	l.Pack = min(l.Pack, wire.MaxPayload/2)
	u := &Uplink{cfg: cfg, queue: queue, log: cfg.Logger, told: map[string]time.Time{}}
	u.started = time.Now()
	u.offset = cfg.Now().Round(0).Sub(u.started.Round(0))
	u.stats.Since = u.started
	return u, nil
}

// Run keeps the link until ctx is done: then it drains what is under way, for
// Lanes.Drain at most, announces offline, disconnects and returns nil. A lost
// or refused connection is logged and made again after Backoff; there is no
// other error.
func (u *Uplink) Run(ctx context.Context) error {
	failures := 0
	var wait time.Duration // the last pause
	for ctx.Err() == nil {
		began := time.Now()
		err := u.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > max(held, 2*wait) {
			failures = 0 // a connection that held was no failure
		}
		failures++
		wait = u.cfg.Backoff(failures)
		u.log.Warn("uplink is down", "error", err, "retry_in", wait.Round(time.Millisecond))
		u.note(func(s *Stats) {
			if s.Connected || s.LastError == "" {
				s.Since = time.Now()
			}
			s.Connected, s.LastError, s.Inflight = false, err.Error(), 0
		})
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	u.note(func(s *Stats) { s.Connected, s.Inflight = false, 0 })
	return nil
}

// Stats returns what the uplink does at the moment. It may be called from any
// goroutine.
func (u *Uplink) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stats
}

func (u *Uplink) note(f func(*Stats)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.stats)
}

// warn logs at most once a minute per message.
func (u *Uplink) warn(msg string, args ...any) {
	if now := time.Now(); now.Sub(u.told[msg]) > time.Minute || u.told[msg].IsZero() {
		u.told[msg] = now
		u.log.Warn(msg, args...)
	}
}

func (u *Uplink) refresh(reason string) {
	if u.cfg.Refresh != nil {
		u.cfg.Refresh(reason)
	}
}

// now reads the clock of the stamps and counts its steps: it stepped when it
// moved over 1 s against the monotonic clock.
func (u *Uplink) now() (sent int64, step int) {
	mono, wall := time.Since(u.started), u.cfg.Now()
	// Round(0) drops the monotonic readings, or Sub would compare only them.
	offset := wall.Round(0).Sub(u.started.Round(0).Add(mono))
	if d := offset - u.offset; d > time.Second || d < -time.Second {
		u.step++
		u.offset = offset
	}
	return wall.UnixNano(), u.step
}

func (u *Uplink) topic(w wire.What) string {
	return wire.Topic{Site: u.cfg.Site, Gateway: u.cfg.Gateway, What: w}.String()
}

func (u *Uplink) metaTopic(cfg string) string {
	return wire.Topic{Site: u.cfg.Site, Gateway: u.cfg.Gateway, What: wire.MetaDoc, Arg: cfg}.String()
}

func newSession() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
