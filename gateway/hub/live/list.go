package live

import (
	"strconv"
	"strings"
	"time"
)

// The functions below are called with f.mu held.

// remove forgets a point and remembers that it did.
func (f *Feed) remove(s *state) {
	delete(f.points, s.Name)
	if s.board != nil {
		delete(s.board.unconfirmed, s)
	}
	f.unlink(s)
	if dev := f.devices[s.Site+"/"+s.Device]; dev != nil {
		left := 0
		for g, list := range dev.groups {
			kept := list[:0]
			for _, o := range list {
				if o != s {
					kept = append(kept, o)
				}
			}
			dev.groups[g] = kept
			left += len(kept)
		}
		if left == 0 {
			delete(f.devices, s.Site+"/"+s.Device)
		}
	}
	f.version++
	f.removals = append(f.removals, removal{f.version, s.Name})
	if len(f.removals) > maxRemovals {
		f.horizon = f.removals[0].version
		f.removals = append(f.removals[:0], f.removals[1:]...)
	}
}

// changed gives s the next version and moves it to the front of the list.
func (f *Feed) changed(s *state) {
	f.version++
	s.Version = f.version
	if f.recent == s {
		return
	}
	f.unlink(s)
	s.older = f.recent
	if f.recent != nil {
		f.recent.newer = s
	}
	f.recent = s
	if f.oldest == nil {
		f.oldest = s
	}
}

func (f *Feed) unlink(s *state) {
	if s.newer != nil {
		s.newer.older = s.older
	} else if f.recent == s {
		f.recent = s.older
	}
	if s.older != nil {
		s.older.newer = s.newer
	} else if f.oldest == s {
		f.oldest = s.newer
	}
	s.newer, s.older = nil, nil
}

// tick says that version was reached at the time at.
type tick struct {
	at      time.Time
	version uint64
}

// maxTicks ticks, an eighth of Options.Patience apart, reach back further
// than that.
const maxTicks = 12

// announce wakes every waiting subscription.
func (f *Feed) announce() {
	now := time.Now()
	if n := len(f.ticks); n == 0 || now.Sub(f.ticks[n-1].at) >= f.opt.Patience/8 {
		if n == maxTicks {
			f.ticks = append(f.ticks[:0], f.ticks[1:]...)
		}
		f.ticks = append(f.ticks, tick{now, f.version})
	}
	close(f.wake)
	f.wake = make(chan struct{})
}

// cursor names a version of this feed; parse is its inverse.
func (f *Feed) cursor(version uint64) string {
	return f.instance + "-" + strconv.FormatUint(version, 10)
}

func (f *Feed) parse(cursor string) (uint64, bool) {
	id, v, ok := strings.Cut(cursor, "-")
	if !ok || id != f.instance {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 64)
	return n, err == nil && n <= f.version
}
