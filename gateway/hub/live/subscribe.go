package live

import (
	"context"
	"errors"
	"time"

	"luquan/gateway/telemetry"
)

// ErrSlow tells a reader that it left changes unread for longer than
// Options.Patience and must subscribe again.
var ErrSlow = errors.New("live: reader too slow: changes were left unread for too long; subscribe again")

// Delta is what changed since the last one: the latest state of each point
// that changed, however often it did.
type Delta struct {
	// Cursor continues from here in a later Resume.
	Cursor string
	// Whole reports that Entries is everything: what is not in it is gone.
	Whole bool
	// Since is the version before the delta: an Entry with Described > Since
	// has a new Info.
	Since   uint64
	Entries []Entry  // the latest change first; by no order when Whole
	Removed []string // full names
}

// Subscription is one reader's place in the order of changes. It holds no
// changes itself. It is for one goroutine at a time; Close it when done.
type Subscription struct {
	feed   *Feed
	glob   string
	since  uint64
	whole  bool
	last   time.Time // when Next last returned
	closed bool
}

// Subscribe starts with a whole snapshot of the points whose full name
// matches glob.
func (f *Feed) Subscribe(glob string) *Subscription { return f.Resume(glob, "") }

// Resume continues after the delta whose Cursor is given. When the feed no
// longer knows what happened since, or the cursor is another feed's, it
// starts with a whole snapshot.
func (f *Feed) Resume(glob, cursor string) *Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Readers++
	s := &Subscription{feed: f, glob: glob, whole: true}
	if v, ok := f.parse(cursor); ok && v >= f.horizon {
		s.since, s.whole = v, false
	}
	return s
}

// Next waits until something changed and at least Options.Interval passed
// since the last delta, and returns everything that changed. It returns
// ErrSlow when the reader was away for too long, or ctx's error.
func (s *Subscription) Next(ctx context.Context) (Delta, error) {
	if s.closed {
		return Delta{}, errors.New("live: subscription is closed")
	}
	f := s.feed
	if !s.last.IsZero() {
		if time.Since(s.last) > f.opt.Patience && s.behind() {
			f.mu.Lock()
			f.stats.Slow++
			f.mu.Unlock()
			s.Close()
			return Delta{}, ErrSlow
		}
		if wait := f.opt.Interval - time.Since(s.last); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return Delta{}, ctx.Err()
			}
		}
	}
	for {
		f.mu.Lock()
		d, ok := s.collect()
		wake := f.wake
		f.mu.Unlock()
		if ok {
			s.last = time.Now()
			return d, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			// The reader is here, only nothing changed: it is not slow.
			s.last = time.Now()
			return Delta{}, ctx.Err()
		}
	}
}

// behind reports whether a change was left unread for longer than Patience.
func (s *Subscription) behind() bool {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := time.Now().Add(-f.opt.Patience)
	for _, t := range f.ticks {
		if t.version > s.since && t.at.Before(limit) {
			return true
		}
	}
	return false
}

// Close ends the subscription. It may be called twice.
func (s *Subscription) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.feed.mu.Lock()
	s.feed.stats.Readers--
	s.feed.mu.Unlock()
}

// collect gathers what changed since s.since; ok is false when nothing that
// matches did. Called with feed.mu held.
func (s *Subscription) collect() (d Delta, ok bool) {
	f := s.feed
	if s.since < f.horizon {
		s.whole = true
	}
	if !s.whole && f.version == s.since {
		return Delta{}, false
	}
	d = Delta{Cursor: f.cursor(f.version), Whole: s.whole, Since: s.since}
	if s.whole {
		d.Since = 0
	}
	for st := f.recent; st != nil && (s.whole || st.Version > s.since); st = st.older {
		if telemetry.Match(s.glob, st.Name) {
			d.Entries = append(d.Entries, st.Entry)
		}
	}
	if !s.whole {
		for i := len(f.removals) - 1; i >= 0 && f.removals[i].version > s.since; i-- {
			name := f.removals[i].name
			if _, back := f.points[name]; !back && telemetry.Match(s.glob, name) {
				d.Removed = append(d.Removed, name)
			}
		}
	}
	s.since = f.version
	ok = s.whole || len(d.Entries) > 0 || len(d.Removed) > 0
	s.whole = false
	return d, ok
}
