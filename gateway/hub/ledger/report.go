package ledger

import (
	"fmt"
	"sort"
	"time"

	"luquan/gateway/hub/seqs"
)

// Filter chooses what a Report tells; zero values choose everything.
type Filter struct {
	Site, Gateway string
	// From and To choose the epochs that have a stored record in the span.
	From, To time.Time
}

// EpochReport is the account of one epoch of one board: every seq that was
// drawn is stored, quarantined, cleared, lost, waiting or missing.
type EpochReport struct {
	Gateway
	Epoch uint64 `json:"epoch"`
	// Held reports that the board still held it when it last connected.
	Held bool `json:"held"`
	// Expected is the number of seqs known to be drawn: to the largest that
	// came, that the board said it holds, or the last of an ended epoch.
	Expected    uint64 `json:"expected"`
	Stored      uint64 `json:"stored"`
	Quarantined uint64 `json:"quarantined"`
	// Cleared are settled by the board's word only: it freed them before this
	// ledger began.
	Cleared    uint64      `json:"cleared"`
	Lost       uint64      `json:"lost"`    // declared lost and not stored
	Waiting    uint64      `json:"waiting"` // came, not yet durable
	MissingSum uint64      `json:"missing_count"`
	Missing    [][2]uint64 `json:"missing"` // the first 100 ranges
	Duplicates uint64      `json:"duplicates"`
	Gaps       []GapReport `json:"gaps"`
	// Ended tells how the epoch ended, "" while it runs.
	Ended string `json:"ended,omitempty"`
	// From and To are the stamps of the first and last stored reading; zero
	// when there is none.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
}

// GapReport is a loss a board declared.
type GapReport struct {
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
}

// Report tells the account of every epoch the filter chooses, by site,
// gateway and time.
func (l *Ledger) Report(f Filter) ([]EpochReport, error) {
	keys, err := l.keys(f)
	if err != nil {
		return nil, fmt.Errorf("ledger: report: %w", err)
	}
	out := []EpochReport{}
	for _, k := range keys {
		r, ok, err := l.report(k, f)
		if err != nil {
			return nil, fmt.Errorf("ledger: report: epoch %d of %s/%s: %w", k.epoch, k.Site, k.Gateway.Gateway, err)
		}
		if ok {
			out = append(out, r)
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i], out[j]
		switch {
		case a.Site != b.Site:
			return a.Site < b.Site
		case a.Gateway != b.Gateway:
			return a.Gateway.Gateway < b.Gateway.Gateway
		case !a.From.Equal(b.From):
			return a.From.Before(b.From)
		}
		return a.Epoch < b.Epoch
	})
	return out, nil
}

// keys lists the epochs of f in memory and on disk.
func (l *Ledger) keys(f Filter) ([]key, error) {
	l.mu.Lock()
	seen := map[key]bool{}
	for k := range l.epochs {
		if (f.Site == "" || k.Site == f.Site) && (f.Gateway == "" || k.Gateway.Gateway == f.Gateway) {
			seen[k] = true
		}
	}
	l.mu.Unlock()
	rows, err := l.db.Query("SELECT site, gateway, epoch FROM epochs WHERE (?1='' OR site=?1) AND (?2='' OR gateway=?2)", f.Site, f.Gateway)
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

func (l *Ledger) report(k key, f Filter) (EpochReport, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.epochs[k]
	if e == nil { // not kept in memory for a report's sake
		e = &epoch{key: k}
		if err := l.load(e); err != nil {
			return EpochReport{}, false, err
		}
	}
	if (!f.From.IsZero() && (e.to == 0 || e.to < f.From.UnixNano())) || (!f.To.IsZero() && (e.from == 0 || e.from >= f.To.UnixNano())) {
		return EpochReport{}, false, nil
	}
	good := e.stored.Union(e.quarantined)
	lost := e.lost.Union(nil)
	for _, x := range good {
		lost.Remove(x[0], x[1])
	}
	known := good.Union(lost)
	waiting := e.received.Clone()
	for _, x := range known {
		waiting.Remove(x[0], x[1])
	}
	waiting.Remove(1, e.base)
	missing := seqs.Set(e.missing())
	r := EpochReport{
		Gateway: k.Gateway, Epoch: k.epoch, Held: e.held,
		Expected: e.top, Stored: e.stored.Count(), Quarantined: e.quarantined.Count(),
		Cleared: known.Holes(1, e.base).Count(), Lost: lost.Count(), Waiting: waiting.Count(),
		MissingSum: missing.Count(), Missing: missing[:min(len(missing), 100)], Duplicates: e.dups, Gaps: []GapReport{},
	}
	if r.Missing == nil {
		r.Missing = [][2]uint64{}
	}
	if e.ended {
		r.Ended = e.reason
		// Records that came and that the board no longer knew after a power
		// cut are beyond its last; seqs between them were never kept.
		r.Expected = known.Union(waiting).Within(e.last+1, seqs.Max).Count() + e.last
	}
	if e.from != 0 {
		r.From, r.To = time.Unix(0, e.from).UTC(), time.Unix(0, e.to).UTC()
	}
	for _, g := range e.gaps {
		r.Gaps = append(r.Gaps, GapReport{g.first, g.last, time.Unix(0, g.from).UTC(), time.Unix(0, g.to).UTC(), g.reason})
	}
	return r, true, nil
}
