package ledger

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"luquan/gateway/hub/seqs"
)

// MaxRows bounds the rows of one Account.
const MaxRows = 100_000

// ErrTooLong is the answer to a Query with more rows than MaxRows.
var ErrTooLong = fmt.Errorf("the account has over %d rows; ask for a shorter time or fewer boards", MaxRows)

// Query asks for an account. Names that are "" mean all. From, included, and
// To, excluded, are widened to whole minutes; both zero ask for the whole book,
// which is exact and quick.
type Query struct {
	Site, Gateway string
	From, To      time.Time
	// A row is of one site; with these also of one board, of one epoch of one
	// board, of one hour.
	ByGateway, ByEpoch, ByHour bool
	// Verify compares with what a Counter finds; From and To must be set.
	Verify Counter
}

// Counter counts in the history, which keeps epoch and seq beside each record.
type Counter interface {
	// Count returns the records of a board by their stamps from one whole
	// minute, included, to another, excluded.
	Count(ctx context.Context, site, gateway string, from, to time.Time) ([]Counted, error)
}

// Counted is the records of one epoch in one hour as the history has them.
// Again counts rows beyond the first of one record.
type Counted struct {
	Epoch uint64
	Hour  int64 // since 1970
	Seqs  *seqs.Hour
}

// Row accounts for the records of a site (board, epoch, hour). Expected is the
// sum of Stored, Quarantined, Cleared, Lost, Waiting and Missing.
// docs/ledger.md says what each word means.
type Row struct {
	Site    string `json:"site"`
	Gateway string `json:"gateway,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	// From and To are the span the row is of: what was asked, cut by hours if
	// that was asked too; of the whole book the stamps of the first and last
	// stored reading.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`

	Expected    uint64 `json:"expected"`
	Stored      uint64 `json:"stored"`
	Quarantined uint64 `json:"quarantined"`
	Cleared     uint64 `json:"cleared"` // settled by the board's word alone
	Lost        uint64 `json:"lost"`    // declared lost, and not stored
	Waiting     uint64 `json:"waiting"` // came, not yet durable
	Missing     uint64 `json:"missing"`
	Duplicates  uint64 `json:"duplicates"` // came again; no part of Expected
	// Approximate of Expected may belong to a neighbouring span: their stamps
	// are not known.
	Approximate uint64 `json:"approximate"`
	// Reasons says why how many were declared lost.
	Reasons []Reason `json:"reasons"`
	// KnownTo is set where the account is not complete yet: up to then the
	// board has told what it has drawn.
	KnownTo time.Time `json:"known_to,omitzero"`

	// These are of rows of one epoch; least and largest seq, 0 elsewhere and where there is none.
	First         uint64      `json:"first"`
	Last          uint64      `json:"last"`
	Held          bool        `json:"held,omitempty"` // the board held it when it last connected
	Ended         string      `json:"ended,omitempty"`
	MissingRanges [][2]uint64 `json:"missing_ranges,omitempty"` // the first 100

	Verified *Verified `json:"verified,omitempty"`
}

// Reason is why records were declared lost.
type Reason struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Verified compares a row with the history, by distinct (epoch, seq).
type Verified struct {
	Ledger     uint64 `json:"ledger"` // stored by the ledger, with a known stamp
	Store      uint64 `json:"store"`  // found in the history
	OnlyLedger uint64 `json:"only_ledger"`
	OnlyStore  uint64 `json:"only_store"`
	Twice      uint64 `json:"twice"` // rows in the history beyond the first of one record
	// Differences names the first 100.
	Differences []Difference `json:"differences"`
}

// Difference is a range of records that only one of the two has.
type Difference struct {
	In      string `json:"in"` // ledger or store: the one that has it
	Gateway string `json:"gateway"`
	Epoch   uint64 `json:"epoch"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
}

const (
	minuteNs = int64(time.Minute)
	hourNs   = int64(time.Hour)
	maxList  = 100
)

// Account answers a Query, in the order of site, hour, board and epoch.
func (l *Ledger) Account(ctx context.Context, q Query) ([]Row, error) {
	a := &account{q: q, rows: map[rowKey]*Row{}, known: map[Gateway]int64{}, now: time.Now().UnixNano()}
	if err := a.span(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	gates, err := l.gatesOf(q)
	l.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("ledger: account: %w", err)
	}
	for _, g := range gates {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		before, err := l.accountFor(g, a)
		if err != nil {
			return nil, fmt.Errorf("ledger: account of %s/%s: %w", g.Site, g.Gateway, err)
		}
		if len(a.rows) > MaxRows {
			return nil, ErrTooLong
		}
		if q.Verify == nil {
			continue
		}
		counted, err := q.Verify.Count(ctx, g.Site, g.Gateway, unix(a.from), unix(a.to))
		if err != nil {
			return nil, fmt.Errorf("ledger: count in the history: %w", err)
		}
		after, err := l.snapshotOf(g, a) // what came meanwhile is no difference
		if err != nil {
			return nil, fmt.Errorf("ledger: account of %s/%s: %w", g.Site, g.Gateway, err)
		}
		a.verify(g, before, counted, after)
	}
	return a.list(), nil
}

// keys lists the epochs in memory and on disk; names that are "" mean all. The
// mutex is held.
func (l *Ledger) keys(site, gateway string) ([]key, error) {
	seen := map[key]bool{}
	for k := range l.epochs {
		if (site == "" || k.Site == site) && (gateway == "" || k.Gateway.Gateway == gateway) {
			seen[k] = true
		}
	}
	rows, err := l.db.Query("SELECT site, gateway, epoch FROM epochs WHERE (?1='' OR site=?1) AND (?2='' OR gateway=?2)", site, gateway)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k key
		if err := rows.Scan(&k.Site, &k.Gateway.Gateway, &k.epoch); err != nil {
			return nil, err
		}
		seen[k] = true
	}
	keys := make([]key, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

func (l *Ledger) gatesOf(q Query) ([]Gateway, error) {
	keys, err := l.keys(q.Site, q.Gateway)
	if err != nil {
		return nil, err
	}
	var out []Gateway
	for _, k := range keys {
		if !slices.Contains(out, k.Gateway) {
			out = append(out, k.Gateway)
		}
	}
	return out, nil
}

// account is an answer that is being made.
type account struct {
	q        Query
	now      int64
	whole    bool  // the whole book, without times
	from, to int64 // whole minutes
	rows     map[rowKey]*Row
	known    map[Gateway]int64
}

type rowKey struct {
	Gateway
	epoch uint64
	hour  int64
}

func (a *account) span() error {
	q := a.q
	if q.From.IsZero() && q.To.IsZero() {
		if q.ByHour || q.Verify != nil {
			return fmt.Errorf("ledger: an account by the hour or compared with the history needs from and to")
		}
		a.whole = true
		return nil
	}
	if !q.From.Before(q.To) || q.From.Year() < 1970 || q.To.Year() > 2200 {
		return fmt.Errorf("ledger: from %s to %s is no span between 1970 and 2200", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	a.from = q.From.UnixNano() / minuteNs * minuteNs
	a.to = (q.To.UnixNano() + minuteNs - 1) / minuteNs * minuteNs
	return nil
}

// bucket is the hour a stamp belongs to; the same for all without ByHour.
func (a *account) bucket(ns int64) int64 {
	if !a.q.ByHour {
		return 0
	}
	h, _ := seqs.Place(ns)
	return h
}

// row returns the row of a board's epoch at a bucket.
func (a *account) row(k key, bucket int64) *Row {
	rk := rowKey{Gateway: Gateway{Site: k.Site}, hour: bucket}
	if a.q.ByGateway || a.q.ByEpoch {
		rk.Gateway = k.Gateway
	}
	if a.q.ByEpoch {
		rk.epoch = k.epoch
	}
	r := a.rows[rk]
	if r == nil {
		r = &Row{Site: rk.Site, Gateway: rk.Gateway.Gateway, Epoch: rk.epoch, Reasons: []Reason{}}
		if !a.whole {
			from, to := a.from, a.to
			if a.q.ByHour {
				from, to = max(from, bucket*hourNs), min(to, (bucket+1)*hourNs)
			}
			r.From, r.To = unix(from), unix(to)
		}
		a.rows[rk] = r
	}
	return r
}

// class is what became of a record.
type class int

const (
	stored class = iota
	quarantined
	cleared
	lost
	waiting
	missing
)

func (r *Row) count(c class, reason string, n uint64) {
	r.Expected += n
	switch c {
	case stored:
		r.Stored += n
	case quarantined:
		r.Quarantined += n
	case cleared:
		r.Cleared += n
	case waiting:
		r.Waiting += n
	case missing:
		r.Missing += n
	case lost:
		r.Lost += n
		i := slices.IndexFunc(r.Reasons, func(x Reason) bool { return x.Reason == reason })
		if i < 0 {
			i = len(r.Reasons)
			r.Reasons = append(r.Reasons, Reason{Reason: reason})
		}
		r.Reasons[i].Count += n
	}
}

func (r *Row) seen(first, last uint64) {
	if r.First == 0 || first < r.First {
		r.First = first
	}
	r.Last = max(r.Last, last)
}

// list finishes the rows and sorts them.
func (a *account) list() []Row {
	for g, known := range a.known {
		if a.whole || known >= min(a.to, a.now) {
			continue
		}
		for rk, r := range a.rows {
			if rk.Site != g.Site || rk.Gateway.Gateway != "" && rk.Gateway != g || known >= min(r.To.UnixNano(), a.now) {
				continue
			}
			if at := unix(known); r.KnownTo.IsZero() || at.Before(r.KnownTo) {
				r.KnownTo = at
			}
		}
	}
	out := make([]Row, 0, len(a.rows))
	for _, r := range a.rows {
		if !a.q.ByEpoch {
			r.First, r.Last = 0, 0
		}
		sort.Slice(r.Reasons, func(i, j int) bool { return r.Reasons[i].Reason < r.Reasons[j].Reason })
		out = append(out, *r)
	}
	sort.Slice(out, func(i, j int) bool {
		x, y := &out[i], &out[j]
		switch {
		case x.Site != y.Site:
			return x.Site < y.Site
		case a.q.ByHour && !x.From.Equal(y.From):
			return x.From.Before(y.From)
		case x.Gateway != y.Gateway:
			return x.Gateway < y.Gateway
		case !x.From.Equal(y.From):
			return x.From.Before(y.From)
		}
		return x.Epoch < y.Epoch
	})
	return out
}

// verify compares the ledger with what was counted in the history.
func (a *account) verify(g Gateway, before map[hourKey]*seqs.Hour, counted []Counted, after *gateSnapshot) {
	store := map[hourKey]*seqs.Hour{}
	for _, c := range counted {
		k := hourKey{key{g, c.Epoch}, c.Hour}
		if store[k] == nil {
			store[k] = &seqs.Hour{}
		}
		store[k].Merge(c.Seqs)
	}
	keys := map[hourKey]bool{}
	for k := range before {
		keys[k] = true
	}
	for k := range store {
		keys[k] = true
	}
	sorted := make([]hourKey, 0, len(keys))
	for k := range keys {
		sorted = append(sorted, k)
	}
	sort.Slice(sorted, func(i, j int) bool {
		if sorted[i].hour != sorted[j].hour {
			return sorted[i].hour < sorted[j].hour
		}
		return sorted[i].epoch < sorted[j].epoch
	})
	met := map[key]*seqs.Set{} // a record in two minutes has two rows
	empty := &seqs.Hour{}
	or := func(h *seqs.Hour) *seqs.Hour {
		if h == nil {
			return empty
		}
		return h
	}
	for _, k := range sorted {
		v := a.verified(k)
		l, s, now := or(before[k]), or(store[k]), or(after.stored[k])
		for m := range l.Minutes {
			if at := k.hour*hourNs + int64(m)*minuteNs; at < a.from || at >= a.to {
				continue
			}
			v.Ledger += l.Minutes[m].Count()
			v.Store += s.Minutes[m].Count()
			v.Twice += s.Again[m] + again(met, k.key, s.Minutes[m])
			v.differ("ledger", k.key, l.Minutes[m].Minus(s.Minutes[m]), &v.OnlyLedger)
			v.differ("store", k.key, s.Minutes[m].Minus(now.Minutes[m]).Minus(after.unplaced[k.key]), &v.OnlyStore)
		}
	}
	for _, r := range a.rows { // a row with nothing in either was compared too
		if r.Site == g.Site && r.Verified == nil {
			r.Verified = &Verified{Differences: []Difference{}}
		}
	}
}

// again counts those of set that were met before.
func again(met map[key]*seqs.Set, k key, set seqs.Set) (n uint64) {
	if met[k] == nil {
		met[k] = &seqs.Set{}
	}
	for _, x := range set {
		n += met[k].Within(x[0], x[1]).Count()
		met[k].Add(x[0], x[1])
	}
	return n
}

func (a *account) verified(k hourKey) *Verified {
	r := a.row(k.key, a.bucket(k.hour*hourNs))
	if r.Verified == nil {
		r.Verified = &Verified{Differences: []Difference{}}
	}
	return r.Verified
}

func (v *Verified) differ(in string, k key, d seqs.Set, sum *uint64) {
	*sum += d.Count()
	for _, x := range d {
		if n := len(v.Differences); n > 0 {
			if p := &v.Differences[n-1]; p.In == in && p.Epoch == k.epoch && p.Gateway == k.Gateway.Gateway && p.Last+1 == x[0] {
				p.Last = x[1]
				continue
			}
		}
		if len(v.Differences) < maxList {
			v.Differences = append(v.Differences, Difference{in, k.Gateway.Gateway, k.epoch, x[0], x[1]})
		}
	}
}
