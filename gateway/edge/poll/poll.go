// Package poll reads the devices of each bus at their periods: one loop a bus,
// the earliest deadline first.
//
// Each group of a device has a grid of due times, fixed by its period and an
// offset; the groups of one period are spread evenly over it, on a network in
// four bursts or more (drivers.Gatherer). Time spent polling never shifts the
// grid. A slot that cannot be kept, because the bus was busy, is skipped and
// counted, never queued: a reading that is two periods old when it is taken
// helps nobody and would only delay the next. That periods cannot be kept is
// told in the log, once for as long as it lasts.
//
// When the devices of a bus want more than all of its time, those that want
// most are held to what is left when the others have theirs: a device that
// answers at the last moment, or all of whose answers are half missing, costs
// itself its period and no other.
//
// A device that does not answer costs its time-out. All devices that fail
// share half of the time that the others leave, whoever they are and however
// they fail, so the others keep their periods. Within that share a device is
// asked at its own slots at first; after three polls in a row without any
// answer it is probed less often, its pause doubling to 30 s (5 s while its
// port or peer is away; or its period, if that is longer). Only a probe yields
// a sample: a row says that the device was asked and what came of it, and a
// "no reply" for a slot in which nothing was sent would be made up. The hub
// learns of the silence from the first rows, and hears every 30 s that it
// lasts, or as often as the share allows.
// The first answer brings the device back to its periods at once.
//
// A transaction under way cannot be broken off: whatever is due while a
// time-out runs comes later by as much. Predict and its siblings say by how
// much, and which periods can be kept at all.
package poll

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"luquan/drivers"
	"luquan/gateway/telemetry"
)

const (
	patience = 3                // polls without an answer before backing off
	maxPause = 30 * time.Second // between probes of a dead device, unless its period is longer
	// While a port or a peer is away a probe costs the line nothing, and the
	// devices behind it are to be read soon after it is back.
	maxAway = 5 * time.Second
)

// Sink takes what was polled. Sample is called from the loop of the bus and
// must not block.
type Sink interface {
	Sample(bus string, s telemetry.Sample)
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
		for _, d := range b.Devices() {
			p.stats[i].Devices = append(p.stats[i].Devices, DeviceStats{Device: d.Info().Name})
		}
	}
	return p
}

// Stats returns the counts of each bus, in the order of gateway.yaml.
func (p *Poller) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Clone(p.stats)
	for i := range out {
		out[i].Devices = slices.Clone(out[i].Devices)
	}
	return out
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
	grid   time.Time     // a place of the grid
	due    time.Time     // the place to be kept next
	cost   time.Duration // of a poll that is answered, smoothed; 0: not known
}

// member is a device on the loop's bus.
type member struct {
	drivers.Device
	name  string
	index int // among the bus's devices
	slots []*slot

	failed int               // polls in a row without a sound answer
	status telemetry.Quality // of the last poll
	took   time.Duration     // the last poll
	charge time.Duration     // for how long that is paid, if it failed
	pause  time.Duration     // between probes while backed off; 0 otherwise
	until  time.Time         // no poll before: backed off, or held to its share
}

// demand is the part of the line's time that the device wants.
func (m *member) demand() float64 {
	sum := 0.0
	for _, s := range m.slots {
		sum += float64(s.cost) / float64(s.period)
	}
	return sum
}

type loop struct {
	p       *Poller
	bus     drivers.Bus
	stats   *Stats // guarded by p.mu
	members []*member
	slots   []*slot
	// paid is when the share of those that fail will have made up for what
	// they have taken of the line; drained is when the others will have caught
	// up with the last time-out.
	paid, drained time.Time

	episode episode
}

// On a bus that gathers, polls begin together at this part of their period,
// and at least so often.
const (
	gatherShare = 4
	gatherMost  = 250 * time.Millisecond
)

// settle is the time over which the first polls are spread, whatever the periods.
const settle = time.Second

// spread gives every slot its first due time and its grid. The slots of one
// period are spread evenly over it; each period begins elsewhere, by the
// golden ratio, so that those of several do not fall together. On a bus that
// gathers, those that are near fall together.
func (l *loop) spread(now time.Time) {
	g, ok := l.bus.(drivers.Gatherer)
	gathers := ok && g.Gathers()
	sharing, seen, order := map[time.Duration]int{}, map[time.Duration]int{}, map[time.Duration]int{}
	for _, s := range l.slots {
		if sharing[s.period]++; sharing[s.period] == 1 {
			order[s.period] = len(order)
		}
	}
	for i, s := range l.slots {
		_, begin := math.Modf(float64(order[s.period]) * math.Phi)
		n := float64(sharing[s.period])
		offset := (float64(seen[s.period]) + begin) / n
		seen[s.period]++
		at := time.Duration(offset * float64(s.period))
		if gathers {
			at = at.Truncate(min(s.period/gatherShare, gatherMost))
		}
		s.grid = now.Add(at)
		s.due = now.Add(settle * time.Duration(i) / time.Duration(len(l.slots)))
	}
}

func (l *loop) run(ctx context.Context) {
	for i, d := range l.bus.Devices() {
		info := d.Info()
		m := &member{Device: d, name: info.Name, index: i}
		l.members = append(l.members, m)
		for _, g := range info.Groups {
			s := &slot{dev: m, group: g.Index, period: g.Every}
			m.slots, l.slots = append(m.slots, s), append(l.slots, s)
		}
	}
	if len(l.slots) == 0 {
		return
	}
	l.spread(time.Now())
	begun := map[*slot]bool{}
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
		began := time.Now()
		l.poll(ctx, s)
		l.advance(s, began, !begun[s])
		begun[s] = true
		l.calmed(time.Now())
	}
}

// wants is when the slot is to be polled: at its due time, or later while its
// device is backed off.
func (s *slot) wants() time.Time {
	if s.dev.until.After(s.due) {
		return s.dev.until
	}
	return s.due
}

// at is when the slot may be polled: when it wants, or later while those that
// fail have had their share of the line.
func (l *loop) at(s *slot) time.Time {
	m, at := s.dev, s.wants()
	if m.failed == 0 {
		return at
	}
	paid := l.paid
	if m.failed < patience { // a few answers may be lost without ado
		paid = paid.Add(-(patience - 1) * m.charge)
		if l.drained.After(paid) {
			paid = l.drained
		}
	}
	if paid.After(at) {
		at = paid
	}
	return at
}

// deadline is when the slot should have been polled at the latest.
func (l *loop) deadline(s *slot) time.Time { return l.at(s).Add(max(s.period, s.dev.pause)) }

// next is the slot with the earliest deadline among those that may be polled
// now, of those that fail only the one that has waited longest; when there is
// none, the one that may be polled first.
func (l *loop) next() *slot {
	now := time.Now()
	var ready, failing, soon *slot
	for _, s := range l.slots {
		at := l.at(s)
		switch {
		case at.After(now):
		case s.dev.failed > 0:
			if failing == nil || s.wants().Before(failing.wants()) {
				failing = s
			}
		case ready == nil || l.deadline(s).Before(l.deadline(ready)):
			ready = s
		}
		if soon == nil || at.Before(l.at(soon)) {
			soon = s
		}
	}
	switch {
	case ready == nil && failing == nil:
		return soon
	case ready == nil || failing != nil && l.deadline(failing).Before(l.deadline(ready)):
		return failing
	}
	return ready
}

func (l *loop) poll(ctx context.Context, s *slot) {
	began := time.Now()
	sample, ok := s.dev.Poll(ctx, s.group)
	if !ok {
		return // cancelled: nothing is known
	}
	l.p.sink.Sample(l.bus.Name(), sample)
	m := s.dev
	m.took, m.status = time.Since(began), sample.Status
	sound := sample.Status < telemetry.Garbled
	if sound {
		l.answered(s, began)
	} else {
		l.fail(s, began)
	}
	load := l.load()
	l.count(func(st *Stats) {
		st.Polls++
		st.Busy += m.took
		st.Load = load
		d := &st.Devices[m.index]
		d.Polls++
		d.Silent = m.pause > 0
		if !sound {
			st.Failed++
			d.Failed++
		}
	})
}

// demands are what the devices that answer want of the line.
func (l *loop) demands() []float64 {
	out := make([]float64, 0, len(l.members))
	for _, m := range l.members {
		if m.failed == 0 {
			out = append(out, m.demand())
		}
	}
	return out
}

// load is what they want together.
func (l *loop) load() float64 {
	sum := 0.0
	for _, d := range l.demands() {
		sum += d
	}
	return sum
}

// answered notes that the device lives, and how much of the line it takes.
func (l *loop) answered(s *slot, began time.Time) {
	m, now := s.dev, time.Now()
	if s.cost == 0 {
		s.cost = m.took
	}
	s.cost += (m.took - s.cost) / 2
	if m.pause > 0 {
		l.count(func(st *Stats) { st.Dead-- })
		l.p.log.Info("device is asked at its periods again", "bus", l.bus.Name(), "device", m.name)
	}
	if m.failed > 0 { // its other groups are read at once, and missed nothing
		for _, other := range m.slots {
			if other != s && other.due.Before(now) {
				other.due = now
			}
		}
		s.due = now
	}
	for _, other := range l.members { // the line is there: so may they be
		if other.status == telemetry.NotConnected {
			other.until = now
		}
	}
	m.failed, m.pause, m.until = 0, 0, time.Time{}
	if most := level(l.demands()); m.demand() > most {
		m.until = began.Add(time.Duration(float64(m.took) / most))
	}
}

// fail notes that the device gave no sound answer, what that cost the line,
// and how long it is left alone.
func (l *loop) fail(s *slot, began time.Time) {
	m := s.dev
	m.failed++
	if l.paid.Before(began) {
		l.paid = began
	}
	m.charge = time.Duration(float64(m.took) / failingShare(used(l.demands())))
	l.paid = l.paid.Add(m.charge)
	l.drained = began.Add(m.charge / 2) // the share is half of what is left
	// Asked sooner, in another of its groups, it would hold the line until its
	// late answer cannot come any more.
	m.until = time.Now().Add(m.took)
	if m.status == telemetry.Garbled || m.failed < patience { // what is garbled is alive: its share is enough
		return
	}
	if m.pause == 0 {
		l.count(func(st *Stats) { st.Dead++ })
		l.p.log.Warn("device does not answer; it is asked less often", "bus", l.bus.Name(), "device", m.name, "status", m.status.String())
		m.pause = s.period
	} else {
		m.pause *= 2
	}
	most := maxPause
	if m.status == telemetry.NotConnected {
		most = maxAway
	}
	m.pause = max(min(m.pause, most), s.period)
	m.until = time.Now().Add(m.pause)
}

func (l *loop) count(f func(*Stats)) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	f(l.stats)
}

// advance moves the slot to the next place of its grid that is not past. After
// the first poll, which is off the grid, it is one at least half a period away.
func (l *loop) advance(s *slot, began time.Time, first bool) {
	from := time.Now()
	if first {
		from = from.Add(s.period / 2)
	}
	places := max(0, from.Sub(s.grid)/s.period+1)
	if from.Before(s.grid) {
		places = 0
	}
	due := s.grid.Add(places * s.period)
	// Slots between the one just kept and the next one were missed.
	if missed := due.Sub(s.due)/s.period - 1; missed > 0 && !first {
		if s.dev.failed > 0 {
			l.count(func(st *Stats) {
				st.Rested += uint64(missed)
				st.Devices[s.dev.index].Rested += uint64(missed)
			})
		} else {
			l.skip(s, uint64(missed), began.Sub(s.due))
		}
	}
	s.due = due
}
