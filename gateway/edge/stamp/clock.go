package stamp

import (
	"log/slog"
	"time"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// Clock is what the board can ask for the time. Its methods are called from
// several goroutines and do not block.
type Clock interface {
	// Now is the system's wall clock. It may be wrong and may be stepped.
	Now() time.Time
	// SinceBoot is the time since the kernel started, suspension included:
	// CLOCK_BOOTTIME. It never steps.
	SinceBoot() time.Duration
	// BootID names this boot: other than any before, the same until the next.
	BootID() string
	// Synchronised reports whether the kernel says that NTP or PTP keeps its clock.
	Synchronised() bool
	// RTC reads the battery clock, in whole seconds; false: there is none.
	RTC() (time.Time, bool)
}

// What the system's clock rested on at a poll: the clock code of a record that
// is not yet stamped. docs/time.md.
const (
	synchronised telemetry.Clock = 0
	battery      telemetry.Clock = 1
	nothing      telemetry.Clock = 3
)

const (
	near       = time.Hour             // synchronised so far from the poll beats the other sources
	far        = 24 * time.Hour        // and so far beats nothing at all
	tolerance  = 10 * time.Millisecond // offsets that are one
	hubSpread  = 500 * time.Millisecond
	grid       = int64(time.Microsecond)
	rtcSlack   = 2 * time.Second // it counts whole seconds
	contradict = time.Minute     // the hub against the battery clock
)

// anchor is an offset that a source vouched for, and when in this boot.
type anchor struct {
	Off  int64 `json:"off"`  // real time less mono, ns
	From int64 `json:"from"` // mono, ns
	To   int64 `json:"to"`
}

// dist is how far m is from the time the source was there.
func (a *anchor) dist(m int64) time.Duration {
	switch {
	case m < a.From:
		return time.Duration(a.From - m)
	case m > a.To:
		return time.Duration(m - a.To)
	}
	return 0
}

// boot is what is known of the time of one boot.
type boot struct {
	ID    string  `json:"id"`
	Start int64   `json:"start"` // offset of the count that needs no source
	First int64   `json:"first"` // mono, of the first run
	Last  int64   `json:"last"`  // mono, of the last write
	NTP   *anchor `json:"ntp,omitempty"`
	RTC   *anchor `json:"rtc,omitempty"`
	Hub   *anchor `json:"hub,omitempty"`
	Place *int64  `json:"place,omitempty"` // offset between its neighbours
}

// known returns the best offset a source vouched for.
func (b *boot) known() (off int64, ok bool) {
	switch {
	case b.NTP != nil:
		return b.NTP.Off, true
	case b.rtcBelieved() && b.RTC != nil:
		return b.RTC.Off, true
	case b.Hub != nil:
		return b.Hub.Off, true
	}
	return 0, false
}

// rtcBelieved reports whether the hub does not contradict the battery clock.
func (b *boot) rtcBelieved() bool { return b.RTC == nil || !b.contradicted(b.RTC.Off) }

func (b *boot) contradicted(off int64) bool {
	return b.Hub != nil && apart(off, b.Hub.Off) > contradict
}

func apart(a, b int64) time.Duration { return time.Duration(a - b).Abs() }

// note puts what a source said at m into its anchor and reports whether that is news.
func note(a **anchor, off, m int64, tol time.Duration) bool {
	if *a == nil || apart((*a).Off, off) > tol {
		*a = &anchor{off, m, m}
		return true
	}
	(*a).To = max((*a).To, m)
	return false
}

// read returns mono and the system's clock of one instant, as nearly as can be.
func (k *Keeper) read() (m int64, wall int64) {
	best := time.Duration(1<<63 - 1)
	for range 3 {
		before := k.cfg.Clock.SinceBoot()
		w := k.cfg.Clock.Now()
		after := k.cfg.Clock.SinceBoot()
		if d := after - before; d < best {
			best, m, wall = d, int64(before+d/2), w.UnixNano()
		}
		if best < 20*time.Microsecond {
			break
		}
	}
	return m, wall
}

// judge says what the system's clock rests on now, and learns from it.
func (k *Keeper) judge(m, wall int64) telemetry.Clock {
	off := wall - m
	switch {
	case wall <= k.cfg.Build.UnixNano():
		// Earlier than the build is nobody's time, whoever vouches for it.
	case k.trust("adjtimex") && k.cfg.Clock.Synchronised():
		if note(&k.now.NTP, off, m, tolerance) {
			k.learned("the kernel's clock is synchronised", off, m)
		}
		return synchronised
	case k.trust("rtc") && k.rtcAgrees(m, wall):
		if note(&k.now.RTC, off, m, tolerance) {
			k.learned("the battery clock agrees", off, m)
		}
		return battery
	}
	return nothing
}

// learned notes that a source said something new at m: on flash with the next
// write, together with the end of what rested on less.
func (k *Keeper) learned(how string, off, m int64) {
	k.release()
	k.change()
	k.log.Info("the time is known: "+how, "now", time.Unix(0, off+m).UTC(), "since_boot", time.Duration(m).Round(time.Millisecond))
}

// rtcAgrees reports whether the battery clock is later than the build and the
// last stamp on flash, within two seconds of the system's clock and not
// contradicted by the hub. It counts whole seconds, so it is read once in each.
func (k *Keeper) rtcAgrees(m, wall int64) bool {
	if k.rtcAt == 0 || time.Duration(m-k.rtcAt) >= time.Second {
		k.rtcAt = m
		rtc, ok := k.cfg.Clock.RTC()
		k.rtcLess = 0
		k.rtcGood = ok && rtc.After(k.cfg.Build) && rtc.UnixNano() > k.floor-int64(rtcSlack)
		if k.rtcGood {
			k.rtcLess = rtc.UnixNano() - m
		}
	}
	return k.rtcGood && apart(wall-m, k.rtcLess) < rtcSlack && !k.now.contradicted(wall-m)
}

// Poll says what the clocks showed ago, when a record of series was true: to be
// stored with it. Inside a boot the monotonic time of a series always rises.
func (k *Keeper) Poll(series string, ago time.Duration) wire.Stamp {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, wall := k.read()
	src := k.judge(m, wall)
	at := max(m-int64(ago), k.began, 1) // nothing was polled before this run; 0 would mean: not known
	if last, ok := k.lastMono[series]; ok {
		at = max(at, last+grid)
	}
	k.lastMono[series] = at
	return wire.Stamp{Time: wall - m + at, Clock: src, Mono: time.Duration(at), Raw: true}
}

// Now is the current time by the clock of the stamps, and the code that a
// record polled now would carry if nothing more is learnt.
func (k *Keeper) Now() (time.Time, telemetry.Clock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, wall := k.read()
	s := wire.Stamp{Time: wall, Clock: k.judge(m, wall), Mono: time.Duration(m), Raw: true}
	c, ok := k.choose(k.now, s)
	if !ok {
		c = k.unsure(k.now)
	}
	return time.Unix(0, m+c.off), c.code
}

// Connected tells that the link to the broker is up: hold counts from here.
func (k *Keeper) Connected() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.linked, k.linkedAt = true, int64(k.cfg.Clock.SinceBoot())
}

// over reports whether hold has run out. It stays so.
func (k *Keeper) over() bool {
	if !k.expired && k.linked && int64(k.cfg.Clock.SinceBoot())-k.linkedAt >= int64(k.cfg.Hold) {
		k.expired = true
		if _, ok := k.now.known(); !ok {
			k.log.Warn("no trusted time came within clock.hold; records go out with clock=3", "hold", k.cfg.Hold)
		}
	}
	return k.expired
}

// choice is an offset for a record.
type choice struct {
	off  int64
	code telemetry.Clock
	tol  time.Duration // an offset in use that differs by less is as good

	forced bool // off is not what the clocks say: they were set back too often
}

// choose is the table "Which offset" of docs/time.md. Without ok the record waits.
func (k *Keeper) choose(b *boot, s wire.Stamp) (c choice, ok bool) {
	m, polled := int64(s.Mono), s.Time-int64(s.Mono)
	switch {
	case s.Clock == synchronised:
		return choice{polled, telemetry.ClockTrusted, tolerance, false}, true
	case b.NTP != nil && b.NTP.dist(m) <= near:
		return choice{b.NTP.Off, telemetry.ClockMonotonic, tolerance, false}, true
	case s.Clock == battery && !b.contradicted(polled):
		return choice{polled, telemetry.ClockTrusted, tolerance, false}, true
	case b.RTC != nil && b.rtcBelieved():
		return choice{b.RTC.Off, telemetry.ClockMonotonic, tolerance, false}, true
	case b.Hub != nil:
		return choice{b.Hub.Off, telemetry.ClockHub, hubSpread, false}, true
	case b.NTP != nil && b.NTP.dist(m) <= far:
		return choice{b.NTP.Off, telemetry.ClockMonotonic, tolerance, false}, true
	}
	if b != k.now {
		if off, ok := k.place(b); ok {
			return choice{off, telemetry.ClockUnsure, tolerance, false}, true
		}
	}
	if k.over() {
		return k.unsure(b), true
	}
	return choice{}, false
}

// unsure counts on from the last that was known, or from the start.
func (k *Keeper) unsure(b *boot) choice {
	if b.NTP != nil {
		return choice{b.NTP.Off, telemetry.ClockUnsure, tolerance, false}
	}
	return choice{b.Start, telemetry.ClockUnsure, tolerance, false}
}

// place returns the offset of a boot that never learned the time, between its
// neighbours; not ok while no later boot knows its own.
func (k *Keeper) place(b *boot) (off int64, ok bool) {
	if b.Place != nil {
		return *b.Place, true
	}
	i, next := -1, -1
	var limit int64
	for j, x := range k.boots {
		if x == b {
			i = j
		} else if off, ok := x.known(); ok && i >= 0 {
			limit, next = off, j
			break
		}
	}
	if next < 0 {
		return 0, false
	}
	// Backwards: none ends after the next begins. From the first of the run on,
	// so that all of it is laid out alike.
	first := i
	for first > 0 && k.boots[first-1].Place == nil {
		if _, ok := k.boots[first-1].known(); ok {
			break
		}
		first--
	}
	lay := make([]int64, next-first)
	for j := next - 1; j >= first; j-- {
		x := k.boots[j]
		lay[j-first] = min(x.Start, limit-x.Last-grid)
		limit = lay[j-first] + x.First
	}
	// Forwards: none begins before the one before it ended.
	for j := first; j < next; j++ {
		x := k.boots[j]
		if j > 0 {
			lay[j-first] = max(lay[j-first], k.end(k.boots[j-1])+grid-x.First)
		}
		x.Place = &lay[j-first]
	}
	k.change()
	return *b.Place, true
}

// end is the stamp of the last record of a boot.
func (k *Keeper) end(b *boot) int64 {
	off := b.Start
	if o, ok := b.known(); ok {
		off = o
	} else if b.Place != nil {
		off = *b.Place
	}
	return off + b.Last
}

// logger returns l, or a silent one.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.With("component", "stamp")
}
