package live

import (
	"crypto/rand"
	"encoding/hex"
	"sort"
	"sync"
	"time"

	"luquan/gateway/telemetry"
)

// Options tunes a Feed. The zero value is ready for use.
type Options struct {
	// MaxPoints bounds memory (about 600 bytes a point); 0 means 100,000.
	// Points beyond it are not shown and counted in Stats.Refused.
	MaxPoints int
	// Interval is the shortest time between two deltas of a subscription; 0
	// means 250 ms.
	Interval time.Duration
	// Patience is how long a subscription may leave changes unread before
	// Next answers ErrSlow; 0 means 30 s.
	Patience time.Duration
}

// Stats counts what the feed did since it was made.
type Stats struct {
	Points  int    // points known
	Applied uint64 // records taken
	Late    uint64 // records in which nothing was news
	Refused uint64 // points not shown: MaxPoints was reached
	Foreign uint64 // readings not shown: their gateway does not announce them, or Refused
	Readers int    // open subscriptions
	Slow    uint64 // subscriptions told to go
}

// Feed is the latest value of every point. All methods are safe for
// concurrent use; none of them blocks on a reader.
type Feed struct {
	opt      Options
	instance string // tells cursors of this feed from another's

	mu       sync.Mutex
	points   map[string]*state // by full name
	devices  map[string]*deviceState
	boards   map[boardKey]*boardState
	recent   *state // most recently changed; a list linked by older/newer
	oldest   *state
	version  uint64
	removals []removal // ascending by version
	horizon  uint64    // removals at or before it are forgotten
	ticks    []tick    // ascending; when which version was reached, coarsely
	wake     chan struct{}
	stats    Stats
}

type boardKey struct{ site, gateway string }

type boardState struct {
	described   bool
	seen        []*seen             // by epoch, the latest used first
	unconfirmed map[*state]struct{} // points waiting for missing rows
}

// deviceState lists the points of each group, announced or seen.
type deviceState struct {
	groups map[int][]*state
}

type removal struct {
	version uint64
	name    string
}

// maxRemovals bounds what is remembered of removed points; a subscription
// that is further behind starts over with a whole snapshot.
const maxRemovals = 4096

// New returns an empty feed.
func New(opt Options) *Feed {
	if opt.MaxPoints == 0 {
		opt.MaxPoints = 100_000
	}
	if opt.Interval == 0 {
		opt.Interval = 250 * time.Millisecond
	}
	if opt.Patience == 0 {
		opt.Patience = 30 * time.Second
	}
	var id [4]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails
	return &Feed{
		opt:      opt,
		instance: hex.EncodeToString(id[:]),
		points:   map[string]*state{},
		devices:  map[string]*deviceState{},
		boards:   map[boardKey]*boardState{},
		wake:     make(chan struct{}),
	}
}

// Describe takes a gateway's announcement of its current configuration. It is
// complete: points that this gateway read before and no longer announces are
// removed. A device that another gateway announced moves to this one and
// keeps its values. The feed keeps devices' points and labels; the caller
// must not change them afterwards.
func (f *Feed) Describe(site, gateway string, devices []telemetry.DeviceInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	board := f.board(boardKey{site, gateway})
	board.described = true
	keep := map[*state]bool{}
	for i := range devices {
		d := &devices[i]
		key := site + "/" + d.Name
		dev := f.devices[key]
		if dev == nil {
			dev = &deviceState{}
			f.devices[key] = dev
		}
		dev.groups = map[int][]*state{}
		order := 0
		for _, g := range d.Groups {
			for _, p := range g.Points {
				order++
				name := telemetry.FullName(site, d.Name, p.Name)
				s := f.points[name]
				if s == nil {
					if s = f.add(name); s == nil {
						continue
					}
				}
				s.Info = &Info{
					Name: name, Site: site, Device: d.Name, Point: p.Name, Kind: d.Kind, Bus: d.Bus,
					Profile: d.Profile, Group: g.Index, Order: order - 1, Period: g.Every, DeviceLabel: d.Label, Label: p.Label,
					Class: p.Class, Unit: p.Unit, Min: p.Min, Max: p.Max, Enum: p.Enum, Bits: p.Bits,
					Counter: p.Counter, Tags: d.Tags,
				}
				s.owner = gateway
				if s.Gateway == "" {
					s.Gateway = gateway
				}
				keep[s] = true
				dev.groups[g.Index] = append(dev.groups[g.Index], s)
				f.changed(s)
				s.Described = s.Version
			}
		}
	}
	for _, s := range f.points {
		if s.Site == site && s.owner == gateway && !keep[s] {
			f.remove(s)
		}
	}
	f.announce()
}

// Apply takes one record, received by the hub at received. Records may come
// in any order: what a later record of the point has said stands.
func (f *Feed) Apply(r telemetry.Record, received time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Applied++
	key := boardKey{r.Site, r.Gateway}
	board := f.board(key)
	newest := board.hold(r.Epoch, r.Seq)

	group := f.group(key, board, &r)
	now := mark{time: r.Time, received: received, clock: r.Clock, epoch: r.Epoch, seq: r.Seq}
	news, hint, known := false, 0, 0
	for _, s := range group {
		var reading *telemetry.Reading
		if reading, hint = find(r.Readings, s.Point, hint); reading != nil {
			known++
		}
		if f.applyPoint(board, s, &r, reading, now) {
			news = true
		}
	}
	f.stats.Foreign += uint64(max(0, len(r.Readings)-known))
	if !newest && f.settle(board) {
		news = true
	}
	if !news {
		f.stats.Late++
		return
	}
	f.announce()
}

// Hold tells the feed that the hub holds a record that has no points: a gap,
// an epoch's end, an event. Without it the hole would leave points
// unconfirmed.
func (f *Feed) Hold(site, gateway string, epoch, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	board := f.board(boardKey{site, gateway})
	if !board.hold(epoch, seq) && f.settle(board) {
		f.announce()
	}
}

// Get returns the entry of the full name.
func (f *Feed) Get(name string) (Entry, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.points[name]
	if s == nil {
		return Entry{}, false
	}
	return s.Entry, true
}

// Snapshot returns the entries whose full name matches glob, by name, and the
// feed's version at that moment.
func (f *Feed) Snapshot(glob string) ([]Entry, uint64) {
	f.mu.Lock()
	out := make([]Entry, 0, len(f.points))
	for name, s := range f.points {
		if telemetry.Match(glob, name) {
			out = append(out, s.Entry)
		}
	}
	version := f.version
	f.mu.Unlock()
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, version
}

// Stats returns the counters.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.stats
	st.Points = len(f.points)
	return st
}

// The functions below are called with f.mu held.

func (f *Feed) board(key boardKey) *boardState {
	b := f.boards[key]
	if b == nil {
		b = &boardState{unconfirmed: map[*state]struct{}{}}
		f.boards[key] = b
	}
	return b
}

// maxEpochs is how many epochs of a board are remembered: the present one and
// those whose backlog may still arrive between its rows.
const maxEpochs = 4

// hold marks a sequence number and reports whether it is the newest of its epoch.
func (b *boardState) hold(epoch, seq uint64) (newest bool) {
	return b.epoch(epoch).add(seq)
}

func (b *boardState) epoch(epoch uint64) *seen {
	for i, s := range b.seen {
		if s.epoch == epoch {
			copy(b.seen[1:i+1], b.seen[:i])
			b.seen[0] = s
			return s
		}
	}
	if len(b.seen) == maxEpochs {
		b.seen = b.seen[:maxEpochs-1]
	}
	s := &seen{epoch: epoch}
	b.seen = append([]*seen{s}, b.seen...)
	return s
}

func (f *Feed) add(name string) *state {
	if len(f.points) >= f.opt.MaxPoints {
		f.stats.Refused++
		return nil
	}
	s := &state{}
	f.points[name] = s
	return s
}

// group returns the points the record's group has, announced or, for a board
// that has announced nothing yet, as the record itself shows them.
func (f *Feed) group(key boardKey, board *boardState, r *telemetry.Record) []*state {
	dkey := r.Site + "/" + r.Device
	dev := f.devices[dkey]
	if board.described {
		if dev == nil {
			return nil
		}
		return dev.groups[r.Group]
	}
	if dev == nil {
		dev = &deviceState{groups: map[int][]*state{}}
		f.devices[dkey] = dev
	}
	for i := range r.Readings {
		rd := &r.Readings[i]
		name := telemetry.FullName(r.Site, r.Device, rd.Point)
		if f.points[name] != nil {
			continue
		}
		s := f.add(name)
		if s == nil {
			continue
		}
		s.Info = &Info{
			Name: name, Site: r.Site, Device: r.Device, Point: rd.Point, Kind: r.Kind, Group: r.Group,
			Class: rd.Value.Class(), Tags: r.Tags,
		}
		s.owner, s.Gateway = key.gateway, key.gateway
		dev.groups[r.Group] = append(dev.groups[r.Group], s)
		f.changed(s)
		s.Described = s.Version
	}
	return dev.groups[r.Group]
}
