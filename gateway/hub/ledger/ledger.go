// Package ledger is the hub's book of what each board sent: which sequence
// numbers have come, which are stored, in quarantine, declared lost by the
// board, and which are missing.
//
// From it come two things. `committed` tells a board what it may free: that is
// the promise "nothing lost", so the ledger never says more than is on its own
// disk (Sync), and after a restart never less than it said before. And the
// report shows anyone the proof: expected, stored, lost and why, missing, twice.
//
// The identity of a record is (site, gateway, epoch, seq), see "Identity" in
// docs/contract.md.
package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"luquan/gateway/hub/seqs"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

const (
	// maxAlso bounds the ranges above upto that one epoch's committed names;
	// the lowest are named, the board sends the others again.
	maxAlso = 64
)

// Ledger is the book. It may be used from several goroutines.
type Ledger struct {
	log      *slog.Logger
	db       *sql.DB
	rdb      *sql.DB // for accounts
	readOnly bool

	syncing sync.Mutex // one Sync at a time

	mu     sync.Mutex // guards what follows
	hub    string     // name/boot id in committed
	epochs map[key]*epoch
	gates  map[Gateway]*gate
	hours  map[hourKey]*hour // the time index, as far as it is in memory
}

// Gateway names one board.
type Gateway struct {
	Site    string `json:"site"`
	Gateway string `json:"gateway"`
}

type key struct {
	Gateway
	epoch uint64
}

// gate is what is known of a board apart from its epochs.
type gate struct {
	current uint64 // epoch of the last State, 0 before
	epochs  map[uint64]*epoch
}

// epoch is one epoch of one board.
type epoch struct {
	key
	loaded bool // false: the row on disk could not be read and must not be overwritten
	dirty  bool

	base        uint64 // all to base is settled by the board's own word (holds)
	stored      seqs.Set
	quarantined seqs.Set
	lost        seqs.Set
	gaps        []gap
	ended       bool
	last        uint64 // of an ended epoch
	reason      string
	held        bool   // the board still holds it: it stands in committed
	top         uint64 // largest seq known to be drawn
	dups        uint64
	from, to    int64 // stamps of stored readings, ns; 0 when there are none
	// unplaced are those of stored and quarantined that stand in no hour,
	// because their stamp is not known or not believed.
	unplaced seqs.Set
	// seen is when it was first heard of, told when top last rose, by the
	// hub's clock (an end record tells the board's); ns, 0: never.
	seen, told int64

	// received and queued live in memory only: what was received and not
	// stored comes again.
	received seqs.Set
	queued   seqs.Set

	synced struct { // what is on disk, and may be told
		known bool
		held  bool
		upto  uint64
		also  seqs.Set
	}
}

type gap struct {
	first, last uint64
	from, to    int64
	reason      string
}

// settled is everything that will not come again.
func (e *epoch) settled() seqs.Set {
	s := e.stored.Union(e.quarantined).Union(e.lost)
	s.Add(1, e.base)
	if e.ended {
		// Past the end nothing was kept by the board; it will send nothing.
		s.Add(e.last+1, max(s.Top(), e.received.Top()))
	}
	return s
}

// uptoAlso splits a settled set into what the contract calls upto and also.
func uptoAlso(s seqs.Set) (uint64, seqs.Set) {
	upto := uint64(0)
	if len(s) > 0 && s[0][0] == 1 {
		upto, s = s[0][1], s[1:]
	}
	return upto, s[:min(len(s), maxAlso)].Clone()
}

// Open opens or creates the book at path. hub is the name and boot id that
// committed documents bear, "name/boot"; log may be nil.
func Open(path, hub string, log *slog.Logger) (*Ledger, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{hub: hub, log: log.With("component", "ledger"), epochs: map[key]*epoch{}, gates: map[Gateway]*gate{}, hours: map[hourKey]*hour{}}
	if err := l.openDB(path); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return l, nil
}

// Close closes the file. What was not synced will come again.
func (l *Ledger) Close() error { return errors.Join(l.rdb.Close(), l.db.Close()) }

// Receive notes that a record has come at received. fresh reports that it
// never came before, so that it is to be shown and judged; wanted that it is to
// be written to the store: it is neither settled nor waiting already. A wanted
// record counts as waiting until Settle or Release.
func (l *Ledger) Receive(site, gateway string, r wire.Record, received time.Time) (fresh, wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.epoch(key{Gateway{site, gateway}, r.Epoch})
	e.rise(r.Seq, received)
	if !e.held { // who sends it holds it
		e.held, e.dirty = true, true
	}
	settled := e.stored.Has(r.Seq) || e.quarantined.Has(r.Seq)
	fresh = !settled && !e.received.Has(r.Seq)
	if !fresh {
		e.dups++
		e.dirty = true
		if r.Err == nil {
			h, m := l.hour(e.key, r.Sample.Time.UnixNano())
			h.Again[m]++
		}
	}
	e.received.Add(r.Seq, r.Seq)
	wanted = !settled && !e.queued.Has(r.Seq)
	if wanted {
		e.queued.Add(r.Seq, r.Seq)
	}
	return fresh, wanted
}

// Want is Receive for records that no board sends, such as those of a dead
// board's card: nothing counts as come twice, and the epoch is not taken for
// one that a board holds.
func (l *Ledger) Want(site, gateway string, r wire.Record, now time.Time) (wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := key{Gateway{site, gateway}, r.Epoch}
	_, known := l.epochs[k]
	e := l.epoch(k)
	if !known && !e.synced.known {
		e.held = false
	}
	e.rise(r.Seq, now)
	if e.stored.Has(r.Seq) || e.quarantined.Has(r.Seq) || e.queued.Has(r.Seq) {
		return false
	}
	e.received.Add(r.Seq, r.Seq)
	e.queued.Add(r.Seq, r.Seq)
	return true
}

// rise notes that the board had drawn seq by the time at.
func (e *epoch) rise(seq uint64, at time.Time) {
	if e.seen == 0 {
		e.seen, e.dirty = at.UnixNano(), true
	}
	if seq <= e.top {
		return
	}
	e.top = seq
	if !e.ended {
		e.told = at.UnixNano()
	}
}

// Settled reports whether a record is in the store or in quarantine.
func (l *Ledger) Settled(site, gateway string, epochID, seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.epoch(key{Gateway{site, gateway}, epochID})
	return e.stored.Has(seq) || e.quarantined.Has(seq)
}

// Release says that a wanted record could not wait after all (the queue is
// full): when it comes again it is wanted again.
func (l *Ledger) Release(site, gateway string, epochID, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch(key{Gateway{site, gateway}, epochID}).queued.Remove(seq, seq)
}

// Settle notes that the store, or the quarantine, has made a record durable.
// What a gap or the end of an epoch says counts from here. Nothing of it is
// told to a board before Sync. A record in quarantine that the store has taken
// at a later try is settled again, as stored.
func (l *Ledger) Settle(site, gateway string, r wire.Record, quarantined bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gw := Gateway{site, gateway}
	e := l.epoch(key{gw, r.Epoch})
	e.dirty = true
	e.top = max(e.top, r.Seq)
	e.queued.Remove(r.Seq, r.Seq)
	e.received.Add(r.Seq, r.Seq)
	known := e.stored.Has(r.Seq) || e.quarantined.Has(r.Seq)
	if quarantined {
		e.quarantined.Add(r.Seq, r.Seq)
	} else {
		e.quarantined.Remove(r.Seq, r.Seq) // the store has taken it after all
		e.stored.Add(r.Seq, r.Seq)
	}
	if r.Err == nil && e.unplaced.Has(r.Seq) { // it can be read now
		e.unplaced.Remove(r.Seq, r.Seq)
		known = false
	}
	if r.Err != nil { // its content is not believed
		if !known {
			e.unplaced.Add(r.Seq, r.Seq)
		}
		return
	}
	ns := r.Sample.Time.UnixNano()
	if !known {
		h, m := l.hour(e.key, ns)
		h.Minutes[m].Add(r.Seq, r.Seq)
	}
	switch r.Kind {
	case wire.Reading:
		if quarantined {
			break
		}
		if e.from == 0 || ns < e.from {
			e.from = ns
		}
		e.to = max(e.to, ns)
	case wire.Gap:
		l.lose(gw, r.Gap)
	case wire.EpochEnd:
		x := l.epoch(key{gw, r.End.Ended})
		x.dirty, x.ended, x.last, x.reason = true, true, r.End.Last, r.End.Reason
		x.top = max(x.top, x.last)
		if ns > x.to && (x.told == 0 || ns < x.told) {
			x.told = ns // it was over when the next one began
		}
	}
}

func (l *Ledger) lose(gw Gateway, g telemetry.Gap) {
	if g.First == 0 || g.Last < g.First || g.Last > seqs.Max {
		return
	}
	e := l.epoch(key{gw, g.LostEpoch})
	e.dirty = true
	e.top = max(e.top, g.Last)
	e.lost.Add(g.First, g.Last)
	n := gap{g.First, g.Last, g.From.UnixNano(), g.To.UnixNano(), g.Reason}
	for _, have := range e.gaps {
		if have == n {
			return
		}
	}
	e.gaps = append(e.gaps, n)
}

// State takes what a board that is online says it holds. Below the first of an
// epoch all is settled; epochs it no longer holds leave committed.
func (l *Ledger) State(site, gateway string, st wire.State, received time.Time) {
	if !st.Online {
		return // a will tells what was held when its connection began
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	gw := Gateway{site, gateway}
	for id, h := range st.Holds {
		e := l.epoch(key{gw, id})
		if h[0]-1 > e.base {
			e.base, e.dirty = h[0]-1, true
		}
		e.rise(h[1], received)
		e.dirty = e.dirty || !e.synced.known
	}
	cur := l.epoch(key{gw, st.Epoch}) // stands in committed from the start
	cur.dirty = cur.dirty || !cur.synced.known
	g := l.gate(gw)
	g.current = st.Epoch
	for id, e := range g.epochs {
		_, held := st.Holds[id]
		held = held || id == st.Epoch
		if held != e.held {
			e.held, e.dirty = held, true
		}
	}
}

// Rename changes the name and boot id that committed tells. Boards take another
// one as the word to send again what is not committed.
func (l *Ledger) Rename(hub string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hub = hub
}

// Committed returns what may be told to a board: what was on disk at the last
// Sync. ok is false when the board is not known.
func (l *Ledger) Committed(site, gateway string, now time.Time) (c wire.Committed, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gates[Gateway{site, gateway}]
	if g == nil {
		return wire.Committed{}, false
	}
	c = wire.Committed{V: 1, Hub: l.hub, Time: now.UnixNano(), Epochs: map[uint64]wire.CommitEpoch{}}
	for id, e := range g.epochs {
		if e.synced.known && e.synced.held {
			c.Epochs[id] = wire.CommitEpoch{Upto: e.synced.upto, Also: e.synced.also.Clone()}
		}
	}
	return c, true
}

func (l *Ledger) gate(gw Gateway) *gate {
	g := l.gates[gw]
	if g == nil {
		g = &gate{epochs: map[uint64]*epoch{}}
		l.gates[gw] = g
	}
	return g
}

// epoch returns the entry of k, from memory, from disk, or a new one.
func (l *Ledger) epoch(k key) *epoch {
	e := l.epochs[k]
	if e == nil {
		e = &epoch{key: k, held: true}
		l.epochs[k] = e
		l.gate(k.Gateway).epochs[k.epoch] = e
	}
	if !e.loaded {
		if err := l.load(e); err != nil {
			l.log.Error("epoch not readable, it is not committed until it is", "site", k.Site, "gateway", k.Gateway.Gateway, "epoch", k.epoch, "error", err)
		}
	}
	return e
}
