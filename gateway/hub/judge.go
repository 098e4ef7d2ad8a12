package hub

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/live"
	"luquan/gateway/page"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// The judge's own times.
const (
	tickEvery       = time.Second
	checkpointEvery = time.Minute
	journalRetry    = 2 * time.Second
)

// alarmBook is the little of the journal that the judge needs.
type alarmBook interface {
	Apply(ctx context.Context, events []alarm.Event, pages []page.Page) error
	Checkpoint(ctx context.Context, mem []alarm.Memory) error
}

// judge shows and judges each record as it comes. The engine is pure and
// quick, so a record is judged where it arrives; what it brings forth is
// written to the journal by Run, in order, and paged from there: a page that
// was sent is always in the journal, and a slow disk delays no judgement.
type judge struct {
	feed  *live.Feed
	book  alarmBook
	plan  *page.Plan // nil: nobody is paged
	wake  func()     // tells the pager that there are new pages
	keep  func(wire.Meta) error
	link  func(alarm.Alarm) string
	log   *slog.Logger
	ready chan struct{} // capacity 1: turns or metas wait

	mu      sync.Mutex
	engine  *alarm.Engine
	version uint64 // of the list of alarms
	turns   []turn // not yet in the journal
	metas   []wire.Meta
	groups  map[groupKey]group
	points  map[siteGateway][]string // announced
	delays  map[siteGateway]*delay
	failing error // of the journal; nil while it works
}

// turn is what one step of the engine brought forth.
type turn struct {
	events []alarm.Event
	done   chan error // of an acknowledgement: answered when it is on disk; else nil
}

type siteGateway struct{ site, gateway string }

type groupKey struct {
	site, device string
	group        int
}

type group struct {
	points []string // names within the device
	every  time.Duration
}

// delay is the smallest time a payload of this session and step took: what the
// two clocks differ by. What exceeds it is queueing (docs/contract.md, "Late").
type delay struct {
	session  string
	step     int
	smallest time.Duration
}

func (d *delay) queueing(h wire.Header, received time.Time) time.Duration {
	took := received.Sub(time.Unix(0, h.Sent))
	if d.session != h.Session || d.step != h.Step {
		*d = delay{h.Session, h.Step, took}
	}
	d.smallest = min(d.smallest, took)
	return took - d.smallest
}

func newJudge(engine *alarm.Engine, feed *live.Feed, book alarmBook, log *slog.Logger) *judge {
	return &judge{
		feed: feed, book: book, engine: engine, log: log.With("component", "alarms"),
		wake: func() {}, ready: make(chan struct{}, 1),
		groups: map[groupKey]group{}, points: map[siteGateway][]string{}, delays: map[siteGateway]*delay{},
	}
}

// restore takes what a gateway announced before this hub was started, so that
// its silence is noticed although it has not come back.
func (j *judge) restore(m wire.Meta) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.describe(m, time.Now())
}

// meta takes a gateway's announcement of its configuration.
func (j *judge) meta(m wire.Meta) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.describe(m, time.Now())
	j.metas = append(j.metas, m)
	j.signal()
}

// describe tells feed and engine the gateway's points. The mutex is held.
func (j *judge) describe(m wire.Meta, now time.Time) {
	j.feed.Describe(m.Site, m.Gateway, m.Devices)
	var infos []alarm.PointInfo
	var names []string
	announced := map[string]bool{}
	for _, d := range m.Devices {
		for _, g := range d.Groups {
			gr := group{every: g.Every}
			for _, p := range g.Points {
				full := telemetry.FullName(m.Site, d.Name, p.Name)
				infos = append(infos, alarm.PointInfo{Name: full, Period: g.Every, Unit: p.Unit})
				names = append(names, full)
				announced[full] = true
				gr.points = append(gr.points, p.Name)
			}
			j.groups[groupKey{m.Site, d.Name, g.Index}] = gr
		}
	}
	j.engine.Points(now, infos)
	who := siteGateway{m.Site, m.Gateway}
	var gone []string
	for _, old := range j.points[who] {
		if !announced[old] && !j.announcedElsewhere(who, old) {
			gone = append(gone, old)
		}
	}
	j.points[who] = names
	if len(gone) > 0 {
		j.add(j.engine.Withdraw(now, gone), nil)
	}
}

func (j *judge) announcedElsewhere(not siteGateway, point string) bool {
	for who, names := range j.points {
		if who == not || who.site != not.site {
			continue
		}
		for _, n := range names {
			if n == point {
				return true
			}
		}
	}
	return false
}

// observe shows and judges one record.
func (j *judge) observe(r wire.Record, h wire.Header, received time.Time) {
	if r.Kind != wire.Reading {
		j.feed.Hold(r.Sample.Site, r.Sample.Gateway, r.Epoch, r.Seq)
		return
	}
	j.feed.Apply(r.Sample, received)
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &r.Sample
	who := siteGateway{s.Site, s.Gateway}
	d := j.delays[who]
	if d == nil {
		d = &delay{session: h.Session, step: h.Step, smallest: received.Sub(time.Unix(0, h.Sent))}
		j.delays[who] = d
	}
	lateness := time.Unix(0, h.Sent).Sub(s.Time) + d.queueing(h, received)
	gr := j.groups[groupKey{s.Site, s.Device, s.Group}]
	reading := alarm.Reading{Time: s.Time, Received: received, Lateness: lateness, Period: gr.every}
	told := make(map[string]bool, len(s.Readings))
	for _, rd := range s.Readings {
		told[rd.Point] = true
		reading.Point = telemetry.FullName(s.Site, s.Device, rd.Point)
		reading.Value, reading.Quality = rd.Value, rd.Quality.Worst(s.Status)
		j.add(j.engine.Observe(received, reading), nil)
	}
	for _, p := range gr.points {
		if told[p] {
			continue
		}
		reading.Point = telemetry.FullName(s.Site, s.Device, p)
		reading.Value, reading.Quality, reading.Confirmed = telemetry.Value{}, s.Status, false
		if !s.Status.Bad() {
			// Unchanged within its deadband. The feed knows whether every row
			// since the value is here; without them nothing is sure, and the
			// next full row will say.
			e, ok := j.feed.Get(reading.Point)
			if !ok || e.Unconfirmed || e.Epoch != r.Epoch || e.Seq != r.Seq {
				continue
			}
			reading.Confirmed, reading.Value, reading.Quality = true, e.Value, e.Quality
		}
		j.add(j.engine.Observe(received, reading), nil)
	}
}

// add queues events for the journal. The mutex is held.
func (j *judge) add(events []alarm.Event, done chan error) {
	if len(events) == 0 && done == nil {
		return
	}
	if len(events) > 0 {
		j.version++
	}
	j.turns = append(j.turns, turn{events, done})
	j.signal()
}

func (j *judge) signal() {
	select {
	case j.ready <- struct{}{}:
	default:
	}
}

// Alarms returns what stands, waits to be acknowledged or is suppressed.
func (j *judge) Alarms() []alarm.Alarm {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.engine.Alarms()
}

// Version changes with every transition of an alarm.
func (j *judge) Version() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.version
}

// Ack acknowledges an alarm and returns when that is on disk.
func (j *judge) Ack(ctx context.Context, id, who string) error {
	done := make(chan error, 1)
	j.mu.Lock()
	events, err := j.engine.Ack(time.Now(), id, who)
	if err == nil {
		j.add(events, done)
	}
	j.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run lets time pass for the engine and writes what it brought forth, until
// ctx is done; then it writes what is left.
func (j *judge) Run(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	checkpoint := time.NewTicker(checkpointEvery)
	defer checkpoint.Stop()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			j.write(last)
			j.checkpoint(last)
			return nil
		case <-tick.C:
			j.mu.Lock()
			j.add(j.engine.Tick(time.Now()), nil)
			j.mu.Unlock()
			continue
		case <-checkpoint.C:
			j.checkpoint(ctx)
			continue
		case <-j.ready:
		case <-retry:
		}
		retry = nil
		if !j.write(ctx) {
			retry = time.After(journalRetry)
		}
	}
}

// write brings what waits to the journal; false when some of it could not be
// written and is to be tried again.
func (j *judge) write(ctx context.Context) bool {
	for {
		j.mu.Lock()
		turns, metas := j.turns, j.metas
		j.turns, j.metas = nil, nil
		j.mu.Unlock()
		for _, m := range metas {
			if err := j.keep(m); err != nil {
				j.log.Error("a gateway's description could not be kept; after a restart its silence would be noticed only when it has come back",
					"site", m.Site, "gateway", m.Gateway, "error", err)
			}
		}
		for i, t := range turns {
			if err := j.apply(ctx, t); err != nil {
				j.fail(err, turns[i:])
				return false
			}
		}
		if len(turns) == 0 {
			return true
		}
		j.fail(nil, nil)
		j.wake()
	}
}

func (j *judge) apply(ctx context.Context, t turn) error {
	var pages []page.Page
	if j.plan != nil {
		var err error
		if pages, err = j.plan.Pages(t.events, j.link); err != nil {
			j.log.Error("an alarm has no rota to page", "error", err)
		}
	}
	if len(t.events) > 0 {
		if err := j.book.Apply(ctx, t.events, pages); err != nil {
			return err
		}
	}
	for _, e := range t.events {
		j.log.Info("alarm", "transition", e.Transition, "id", e.Alarm.ID, "priority", e.Alarm.Priority, "value", e.Alarm.Value.String())
	}
	if t.done != nil {
		t.done <- nil
	}
	return nil
}

// fail notes that the journal does not take turns (nil: that it does again)
// and puts the turns back before those that have come since.
func (j *judge) fail(err error, back []turn) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil && j.failing == nil {
		j.log.Error("the journal cannot be written; alarms stand on the screen, and are paged when it can", "error", err)
	}
	j.failing = err
	j.turns = append(back, j.turns...)
}

// Failing tells why the journal cannot be written; nil while it can.
func (j *judge) Failing() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failing
}

// checkpoint keeps what the engine remembers. It waits for a moment when the
// journal has every event: a memory that is ahead of the journal would, after
// a kill, restore an alarm that was never journalled or paged.
func (j *judge) checkpoint(ctx context.Context) {
	j.mu.Lock()
	ahead := len(j.turns) > 0
	var mem []alarm.Memory
	if !ahead {
		mem = j.engine.Snapshot()
	}
	j.mu.Unlock()
	if ahead {
		return
	}
	if err := j.book.Checkpoint(ctx, mem); err != nil {
		j.log.Warn("what the alarm engine remembers could not be kept; a restart now would begin running delays anew", "error", err)
	}
}

// devices counts the devices that each gateway has announced.
func (j *judge) devices() map[siteGateway]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := map[siteGateway]int{}
	for who, names := range j.points {
		seen := map[string]bool{}
		for _, n := range names {
			_, rest, _ := strings.Cut(n, "/")
			device, _, _ := strings.Cut(rest, "/")
			seen[device] = true
		}
		out[who] = len(seen)
	}
	return out
}
