// Package poll reads the devices of each bus at their periods: one loop a bus,
// the earliest deadline first.
//
// Each group of a device has a grid of due times, fixed by its period and a
// phase drawn from the device's name, so that devices of one period are spread
// over it and stay where they are across restarts; time spent polling never
// shifts the grid. A slot that cannot be kept, because the bus was busy, is
// skipped and counted, never queued: a reading that is two periods old when it
// is taken helps nobody and would only delay the next.
//
// A device that does not answer costs its time-out. After three polls in a row
// without any answer it is probed less often, its pause doubling to 30 s (or
// its period, if that is longer), so that it takes its own share of the line
// and not the others'. Only a probe yields a sample: a row says that the device
// was asked and what came of it, and a "no reply" for a slot in which nothing
// was sent would be made up. The hub learns of the silence from the first
// rows, and hears at least every 30 s that it lasts. The first answer brings
// the device back to its periods at once.
package poll

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"luquan/drivers"
	"luquan/gateway/telemetry"
)

const (
	patience = 3                // polls without an answer before backing off
	maxPause = 30 * time.Second // between probes of a dead device, unless its period is longer
	settle   = time.Second      // all groups are polled once within it after the start
)

// Sink takes what was polled. Sample is called from the loop of the bus and
// must not block.
type Sink interface {
	Sample(bus string, s telemetry.Sample)
}

// Stats counts what was done on one bus since the start.
type Stats struct {
	Bus     string
	Polls   uint64        // done, answered or not
	Failed  uint64        // of them without any answer
	Skipped uint64        // slots that could not be kept: the bus was busy
	Dead    int           // devices that are backed off now
	Busy    time.Duration // spent polling
}

// Poller polls the devices of its buses.
type Poller struct {
	buses []drivers.Bus
	sink  Sink
	log   *slog.Logger

	mu    sync.Mutex // guards stats
	stats []Stats
}

// New returns a poller; log may be nil.
func New(buses []drivers.Bus, sink Sink, log *slog.Logger) *Poller {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Poller{buses: buses, sink: sink, log: log.With("component", "poll"), stats: make([]Stats, len(buses))}
	for i, b := range buses {
		p.stats[i].Bus = b.Name()
	}
	return p
}

// Stats returns the counts of each bus, in the order of gateway.yaml.
func (p *Poller) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Stats(nil), p.stats...)
}

// Run polls until ctx is done and returns when every loop has ended.
func (p *Poller) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, len(p.buses))
	for i, b := range p.buses {
		wg.Go(func() {
			l := loop{p: p, bus: b, stats: &p.stats[i]}
			l.run(ctx)
		})
		for _, d := range b.Devices() {
			if w, ok := d.(drivers.Watcher); ok {
				wg.Go(func() {
					err := w.Watch(ctx, func(s telemetry.Sample) { p.sink.Sample(b.Name(), s) })
					if err != nil && ctx.Err() == nil {
						p.mu.Lock()
						errs[i] = errors.Join(errs[i], err)
						p.mu.Unlock()
					}
				})
			}
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// slot is one group of one device with its grid.
type slot struct {
	dev    *member
	group  int
	period time.Duration
	due    time.Time
}

// member is a device on the loop's bus.
type member struct {
	drivers.Device
	name   string
	silent int           // polls in a row without an answer
	pause  time.Duration // between probes while backed off; 0 otherwise
	until  time.Time     // no probe before
}

type loop struct {
	p     *Poller
	bus   drivers.Bus
	stats *Stats // guarded by p.mu
	slots []*slot
}

// phase spreads devices of one period over it, the same after every restart.
func phase(device string, group int, period time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(device))
	h.Write([]byte{byte(group)})
	return time.Duration(h.Sum64() % uint64(period))
}

func (l *loop) run(ctx context.Context) {
	now := time.Now()
	for _, d := range l.bus.Devices() {
		info := d.Info()
		m := &member{Device: d, name: info.Name}
		for _, g := range info.Groups {
			// The first poll comes soon, whatever the period; the grid begins behind it.
			ph := phase(info.Name, g.Index, g.Every)
			l.slots = append(l.slots, &slot{dev: m, group: g.Index, period: g.Every, due: now.Add(ph % settle)})
		}
	}
	if len(l.slots) == 0 {
		return
	}
	anchor := now
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s := l.next()
		if wait := time.Until(l.at(s)); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
		if ctx.Err() != nil {
			return
		}
		l.poll(ctx, s)
		l.advance(s, anchor)
	}
}

// at is when the slot may be polled: its due time, or later while its device
// is backed off.
func (l *loop) at(s *slot) time.Time {
	if s.dev.pause > 0 && s.dev.until.After(s.due) {
		return s.dev.until
	}
	return s.due
}

// next is the slot with the earliest deadline among those that may be polled
// now; when there is none, the one that may be polled first.
func (l *loop) next() *slot {
	now := time.Now()
	var ready, soon *slot
	for _, s := range l.slots {
		at := l.at(s)
		if !at.After(now) && (ready == nil || at.Add(s.period).Before(l.at(ready).Add(ready.period))) {
			ready = s
		}
		if soon == nil || at.Before(l.at(soon)) {
			soon = s
		}
	}
	if ready != nil {
		return ready
	}
	return soon
}

func (l *loop) poll(ctx context.Context, s *slot) {
	began := time.Now()
	sample, ok := s.dev.Poll(ctx, s.group)
	if !ok {
		return // cancelled: nothing is known
	}
	l.p.sink.Sample(l.bus.Name(), sample)
	answered := sample.Status != telemetry.NoReply && sample.Status != telemetry.NotConnected
	l.p.mu.Lock()
	l.stats.Polls++
	l.stats.Busy += time.Since(began)
	if !answered {
		l.stats.Failed++
	}
	l.p.mu.Unlock()
	l.judge(s, answered, sample.Status)
}

// judge notes whether the device lives and how long it is left alone.
func (l *loop) judge(s *slot, answered bool, status telemetry.Quality) {
	m := s.dev
	if answered {
		if m.pause > 0 {
			l.count(func(st *Stats) { st.Dead-- })
			l.p.log.Info("device is asked at its periods again", "bus", l.bus.Name(), "device", m.name)
			now := time.Now()
			for _, other := range l.slots { // its other groups are read at once, and missed nothing
				if other.dev == m && other != s && other.due.Before(now) {
					other.due = now
				}
			}
			s.due = now
		}
		m.silent, m.pause = 0, 0
		return
	}
	if m.silent++; m.silent < patience {
		return
	}
	if m.pause == 0 {
		l.count(func(st *Stats) { st.Dead++ })
		l.p.log.Warn("device does not answer; it is asked less often", "bus", l.bus.Name(), "device", m.name, "status", status.String())
		m.pause = s.period
	} else {
		m.pause *= 2
	}
	m.pause = max(min(m.pause, maxPause), s.period)
	m.until = time.Now().Add(m.pause)
}

func (l *loop) count(f func(*Stats)) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	f(l.stats)
}

// advance moves the slot to the next place of its grid that is not past.
func (l *loop) advance(s *slot, anchor time.Time) {
	now := time.Now()
	grid := anchor.Add(phase(s.dev.name, s.group, s.period))
	n := now.Sub(grid)/s.period + 1
	if now.Before(grid) {
		n = 0
	}
	due := grid.Add(n * s.period)
	// Slots between the one just kept and the next one were missed, unless the
	// device was left alone on purpose.
	if missed := due.Sub(s.due)/s.period - 1; missed > 0 && s.dev.pause == 0 {
		l.count(func(st *Stats) { st.Skipped += uint64(missed) })
	}
	s.due = due
}
