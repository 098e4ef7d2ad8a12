package ingest

import (
	"context"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// Consumer takes messages from boards. Create it with New.
type Consumer struct {
	cfg   Config
	log   *slog.Logger
	start time.Time

	arrived chan struct{} // something was queued; capacity 1
	commits chan struct{} // some gateway became dirty; capacity 1

	mu       sync.Mutex // guards what follows
	gateways map[name]*gateway
	dirty    map[*gateway]bool // a committed is due
	resync   bool              // the ledger has news that no batch brought
	queue    []item
	otherHub map[string]string // site -> the other hub
	stats    Stats
	writing  time.Time // receipt of the first record of the batch being written
}

type name struct{ site, gateway string }

// gateway is the state of one board; guarded by Consumer.mu.
type gateway struct {
	name
	status    GatewayStatus
	metas     map[string]wire.Meta // by cfg
	described string               // cfg the sink was given
	committed time.Time            // last attempt to publish committed
}

// item is a record that waits for the store.
type item struct {
	gw       *gateway
	rec      wire.Record
	received time.Time
	size     int64
}

// maxMetas bounds the configurations remembered of one gateway.
const maxMetas = 64

// New returns a Consumer; Run makes it write.
func New(cfg Config) *Consumer {
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 64 << 20
	}
	if cfg.BatchLines == 0 {
		cfg.BatchLines = 1000
	}
	if cfg.BatchWait == 0 {
		cfg.BatchWait = 200 * time.Millisecond
	}
	if cfg.CommitGap == 0 {
		cfg.CommitGap = 500 * time.Millisecond
	}
	if cfg.Drain == 0 {
		cfg.Drain = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Consumer{
		cfg: cfg, log: cfg.Log.With("component", "ingest"), start: time.Now(),
		arrived: make(chan struct{}, 1), commits: make(chan struct{}, 1),
		gateways: map[name]*gateway{}, dirty: map[*gateway]bool{}, otherHub: map[string]string{},
	}
}

// Run writes what Handle queued until ctx is done, then what still waits for
// at most Config.Drain, and joins its goroutines.
func (c *Consumer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	commitCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { c.commitLoop(commitCtx) })
	c.writeLoop(ctx)
	c.drain(context.WithoutCancel(ctx))
	stop()
	wg.Wait()
	return ctx.Err()
}

// Handle takes one message. It never blocks. Messages of one gateway must be
// given in the order in which they came; payload must not be changed after.
func (c *Consumer) Handle(topic string, payload []byte, received time.Time) {
	t, err := wire.ParseTopic(topic)
	if err != nil {
		c.count(func(s *Stats) { s.BadTopics++ })
		c.log.Debug("message ignored", "topic", topic, "error", err)
		return
	}
	if t.What == wire.TimeBeat {
		return
	}
	if !c.owns(t.Site) {
		c.count(func(s *Stats) { s.NotOurs++ })
		return
	}
	switch t.What {
	case wire.Live, wire.Backfill:
		c.payload(t, payload, received)
	case wire.StateDoc:
		c.state(t, payload, received)
	case wire.MetaDoc:
		c.meta(t, payload)
	case wire.CommitDoc:
		c.otherCommit(t, payload)
	}
}

func (c *Consumer) owns(site string) bool {
	if len(c.cfg.Sites) == 0 {
		return true
	}
	for _, g := range c.cfg.Sites {
		if telemetry.Match(g, site) {
			return true
		}
	}
	return false
}

func (c *Consumer) count(f func(*Stats)) {
	c.mu.Lock()
	f(&c.stats)
	c.mu.Unlock()
}

// gateway returns the entry of a board. The mutex is held.
func (c *Consumer) gateway(site, gw string) *gateway {
	n := name{site, gw}
	g := c.gateways[n]
	if g == nil {
		g = &gateway{name: n, metas: map[string]wire.Meta{}, status: GatewayStatus{Site: site, Gateway: gw}}
		c.gateways[n] = g
	}
	return g
}

func (c *Consumer) payload(t wire.Topic, payload []byte, received time.Time) {
	p, err := wire.Decode(t, payload)
	if err != nil {
		c.mu.Lock()
		c.stats.BadPayloads++
		g := c.gateway(t.Site, t.Gateway)
		g.status.RefusedAt, g.status.Refused = received, err.Error()
		c.mu.Unlock()
		c.log.Warn("payload refused", "site", t.Site, "gateway", t.Gateway, "bytes", len(payload), "error", err)
		return
	}
	var bad, dups uint64
	wanted := make([]wire.Record, 0, len(p.Records))
	for _, r := range p.Records {
		fresh, want := c.cfg.Ledger.Receive(t.Site, t.Gateway, r, received)
		if r.Err != nil {
			bad++
		} else if fresh {
			c.cfg.Sink.Observe(r, p.Header, received)
		}
		if !fresh {
			dups++
		}
		if want {
			wanted = append(wanted, r)
		}
	}
	if dropped := c.enqueue(t, p.Header, wanted, received, uint64(len(p.Records)), bad, dups); len(dropped) > 0 {
		for _, r := range dropped {
			c.cfg.Ledger.Release(t.Site, t.Gateway, r.Epoch, r.Seq)
		}
		c.log.Debug("queue to the store is full, the board will send again", "site", t.Site, "gateway", t.Gateway, "records", len(dropped))
	}
}

// enqueue queues records and returns those for which there was no room.
func (c *Consumer) enqueue(t wire.Topic, h wire.Header, rs []wire.Record, received time.Time, records, bad, dups uint64) []wire.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.gateway(t.Site, t.Gateway)
	g.status.PayloadAt = received
	if h.Lane == wire.Live {
		g.status.Header = h
	}
	c.stats.Payloads++
	c.stats.Records += records
	c.stats.BadLines += bad
	c.stats.Duplicates += dups
	if dups > 0 {
		c.resync = true // that they came again goes into the book, though no batch may follow
		c.markCommit(g) // the board has not heard what is settled
	}
	for i, r := range rs {
		size := int64(len(r.Line) + 400 + 64*len(r.Sample.Readings))
		if c.stats.QueueBytes+size > c.cfg.QueueBytes || g.status.Queued+size > c.cfg.QueueBytes/2 {
			c.stats.Dropped += uint64(len(rs) - i)
			rs = rs[i:]
			c.signalQueue()
			return rs
		}
		g.status.Queued += size
		c.stats.QueueBytes += size
		c.queue = append(c.queue, item{g, r, received, size})
	}
	c.signalQueue()
	return nil
}

func (c *Consumer) signalQueue() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// markCommit makes a committed of g due. The mutex is held.
func (c *Consumer) markCommit(g *gateway) {
	c.dirty[g] = true
	select {
	case c.commits <- struct{}{}:
	default:
	}
}

func (c *Consumer) state(t wire.Topic, doc []byte, received time.Time) {
	if len(doc) == 0 {
		return // cleared by an administrator
	}
	st, err := wire.ParseState(doc)
	if err != nil {
		c.count(func(s *Stats) { s.BadTopics++ })
		c.log.Warn("state refused", "site", t.Site, "gateway", t.Gateway, "error", err)
		return
	}
	c.mu.Lock()
	g := c.gateway(t.Site, t.Gateway)
	last := g.status.State.Session
	if !st.Online && last != "" && st.Session != last {
		// The will of an older connection, told after the new one began.
		c.stats.OldGoodbyes++
		c.mu.Unlock()
		return
	}
	g.status.State, g.status.StateAt = st, received
	meta, known := g.describe()
	c.mu.Unlock()

	c.cfg.Ledger.State(t.Site, t.Gateway, st, received)
	c.cfg.Sink.State(t.Site, t.Gateway, st, received)
	if known {
		c.cfg.Sink.Meta(meta)
	}
	if st.Online {
		c.mu.Lock()
		c.resync = true
		c.markCommit(g)
		c.mu.Unlock()
	}
}

func (c *Consumer) meta(t wire.Topic, doc []byte) {
	if len(doc) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		// The current one may be cleared only by mistake; it stays known.
		if g := c.gateway(t.Site, t.Gateway); g.described != t.Arg {
			delete(g.metas, t.Arg)
		}
		return
	}
	m, cfg, err := wire.ParseMeta(doc)
	if err != nil || cfg != t.Arg || m.Site != t.Site || m.Gateway != t.Gateway {
		c.count(func(s *Stats) { s.BadTopics++ })
		c.log.Warn("meta refused", "site", t.Site, "gateway", t.Gateway, "cfg", t.Arg, "says_cfg", cfg, "says_site", m.Site, "says_gateway", m.Gateway, "error", err)
		return
	}
	c.mu.Lock()
	g := c.gateway(t.Site, t.Gateway)
	if len(g.metas) >= maxMetas && g.status.State.Cfg != cfg {
		c.mu.Unlock()
		c.log.Warn("meta ignored: too many configurations", "site", t.Site, "gateway", t.Gateway, "cfg", cfg)
		return
	}
	g.metas[cfg] = m
	current, known := g.describe()
	c.mu.Unlock()
	if known {
		c.cfg.Sink.Meta(current)
	}
}

// describe returns the meta to hand to the sink, if it was not handed yet. The
// retained metas of a board come in any order, old ones among them: only its
// state tells which is current. Before a state came, any is better than none.
func (g *gateway) describe() (wire.Meta, bool) {
	want := g.status.State.Cfg
	if want == "" {
		if g.described != "" {
			return wire.Meta{}, false
		}
		for cfg := range g.metas {
			want = cfg
		}
	}
	m, ok := g.metas[want]
	if !ok || want == g.described {
		return wire.Meta{}, false
	}
	g.described = want
	return m, true
}

// otherCommit looks at what is committed to a site of ours: when another hub
// does it too, two hubs would free what only one of them has stored.
func (c *Consumer) otherCommit(t wire.Topic, doc []byte) {
	if len(doc) == 0 {
		return
	}
	other, err := wire.ParseCommitted(doc)
	if err != nil {
		c.count(func(s *Stats) { s.BadTopics++ })
		return
	}
	hub, _, _ := strings.Cut(other.Hub, "/")
	// A retained message from before our start tells of a hub that was renamed.
	if hub == c.cfg.Hub || other.Time < c.start.UnixNano() {
		return
	}
	c.mu.Lock()
	known := c.otherHub[t.Site] != ""
	c.otherHub[t.Site] = hub
	c.mu.Unlock()
	if !known {
		c.log.Error("another hub commits for a site of ours: this one has stopped; give the site to one hub, then restart it", "site", t.Site, "other_hub", hub)
	}
}

// Stats returns the counters.
func (c *Consumer) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.QueueLines = len(c.queue)
	s.OldestWaiting = c.writing
	if s.OldestWaiting.IsZero() && len(c.queue) > 0 {
		s.OldestWaiting = c.queue[0].received
	}
	return s
}

// Gateways returns what is known of every gateway, sorted by site and name.
func (c *Consumer) Gateways() []GatewayStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]GatewayStatus, 0, len(c.gateways))
	for _, g := range c.gateways {
		s := g.status
		s.OtherHub = c.otherHub[g.site]
		out = append(out, s)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Site != out[j].Site {
			return out[i].Site < out[j].Site
		}
		return out[i].Gateway < out[j].Gateway
	})
	return out
}
