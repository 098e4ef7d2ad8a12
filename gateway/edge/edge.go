package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"luquan/drivers"
	"luquan/drivers/modbus"
	"luquan/gateway/edge/buffer"
	"luquan/gateway/edge/poll"
	"luquan/gateway/edge/stamp"
	"luquan/gateway/edge/uplink"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
	"luquan/internal/mqttlink"
)

// Options are what the process, not gateway.yaml, decides.
type Options struct {
	Logger  *slog.Logger // nil: silent
	Version string       // told to the hub
	// Drain bounds how long Run waits at its end for what is under way; 0
	// means 1.5 s.
	Drain time.Duration
	// Clock is where the time comes from; nil: this machine's kernel.
	Clock Clock
}

// Gateway is the assembled board: New acquires everything, Run works until its
// context ends and gives everything back.
type Gateway struct {
	cfg   Config
	log   *slog.Logger
	buses []drivers.Bus
	queue *buffer.Queue
	metas metaStore
	// keepMeta puts this configuration's description on flash; nil when it is there.
	keepMeta func() error
	poller   *poll.Poller
	uplink   *uplink.Uplink
	clock    Clock
	stamps   *stamp.Keeper
	tags     map[string][]telemetry.Tag // by device

	unkept  atomic.Uint64 // readings that the queue or the wire format refused
	closers []func() error
}

// New opens the buses and the queue; on an error it has given everything back.
// Neither a bus that does not answer nor a broker that cannot be reached is an
// error: the gateway keeps trying both.
func New(cfg Config, opt Options) (_ *Gateway, err error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Clock == nil {
		opt.Clock = newSystemClock()
	}
	g := &Gateway{cfg: cfg, clock: opt.Clock, tags: map[string][]telemetry.Tag{},
		log: opt.Logger.With("site", cfg.Site, "gateway", cfg.Gateway)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	tlsConfig, err := cfg.Uplink.clientTLS()
	if err != nil {
		return nil, err
	}
	if err := g.openBuses(); err != nil {
		return nil, err
	}
	doc, cfgHash, err := g.describe()
	if err != nil {
		return nil, err
	}
	if err := g.openQueue(doc, cfgHash); err != nil {
		return nil, err
	}
	g.poller = poll.New(g.buses, sampleSink{g}, g.log)
	return g, g.openUplink(opt, tlsConfig, doc, cfgHash)
}

// openBuses is the list of drivers: a bus of each kind is opened by its own.
func (g *Gateway) openBuses() error {
	lib := g.cfg.lib
	if lib == nil {
		var err error
		if lib, err = Profiles(); err != nil {
			return err
		}
	}
	for i := range g.cfg.Buses {
		b, err := modbus.Open(g.cfg.Buses[i], lib, g.log)
		if err != nil {
			return err
		}
		g.buses = append(g.buses, b)
		g.onClose(b.Close)
	}
	g.cfg.Buses = nil // as written; the buses hold what is left to know of it
	g.cfg.lib = nil   // some megabytes of models, most of them of other boards' devices
	return nil
}

// describe builds the meta document of the current configuration.
func (g *Gateway) describe() (doc []byte, cfg string, err error) {
	m := wire.Meta{Site: g.cfg.Site, Gateway: g.cfg.Gateway, Linger: g.cfg.Uplink.Linger}
	for _, b := range g.buses {
		for _, d := range b.Devices() {
			info := d.Info()
			m.Devices = append(m.Devices, info)
			g.tags[info.Name] = info.Tags
		}
	}
	return m.Marshal()
}

func (g *Gateway) openQueue(doc []byte, cfg string) (err error) {
	// A card that is full or read-only must not keep the plant from being read: only what is surely a mistake is refused.
	g.metas = metaStore{filepath.Join(g.cfg.Buffer.Dir, "meta")}
	for _, dir := range []string{g.cfg.Buffer.Dir, g.metas.dir} {
		if err := os.MkdirAll(dir, 0o750); err != nil && (dir == g.cfg.Buffer.Dir || errors.Is(err, fs.ErrPermission)) {
			return fmt.Errorf("buffer.dir: %w; name a folder that this user may write to", err)
		}
	}
	g.keepMeta = func() error { return g.metas.Put(cfg, doc) }
	if err := g.keepMeta(); err != nil {
		g.log.Error("this configuration's description is not on flash; tried again every minute", "cfg", cfg, "error", err)
	} else {
		g.keepMeta = nil
	}
	if err := g.openStamps(); err != nil {
		return err
	}
	g.queue, err = buffer.Open(buffer.Options{
		Dir: g.cfg.Buffer.Dir, Max: int64(g.cfg.Buffer.Max), CommitEvery: g.cfg.Buffer.CommitEvery,
		Label:     uplink.Label(g.clock.BootID(), cfg),
		EncodeGap: g.encodeGap, EncodeEnd: g.encodeEnd, Logger: g.log, Now: g.clock.Now,
	})
	if err != nil {
		return fmt.Errorf("buffer.dir: %w", err)
	}
	g.onClose(g.queue.Close)
	g.stamps.Start(g.past())
	return nil
}

// openStamps opens what decides the records' stamps.
func (g *Gateway) openStamps() error {
	file := stamp.OpenFile(filepath.Join(g.cfg.Buffer.Dir, "time"))
	var err error
	g.stamps, err = stamp.New(stamp.Config{
		Clock: g.clock, File: file, Trust: g.cfg.Clock.Trust, Hold: g.cfg.Clock.Hold, Build: buildTime(), Logger: g.log,
	})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	g.onClose(g.stamps.Close)
	return nil
}

// past is the last record of the newest earlier boots in the queue, oldest first.
func (g *Gateway) past() (past []stamp.Past) {
	const most = 8 // to read one is to read a segment of a megabyte; what the keeper knows of older ones will do
	seen := ""
	for _, h := range slices.Backward(g.queue.Holds()) {
		boot := uplink.Boot(h.Label)
		if h.Current || boot == seen || len(past) == most {
			continue
		}
		entries, err := g.queue.Read(h.Epoch, h.Last, 1, 0)
		if err != nil || len(entries) == 0 {
			continue // what cannot be read cannot be published either
		}
		if _, s, err := wire.StampOf(entries[0].Payload); err == nil {
			seen = boot
			past = append(past, stamp.Past{Boot: boot, Epoch: h.Epoch, Seq: entries[0].Seq, Stamp: s})
		}
	}
	slices.Reverse(past)
	return past
}

// held is what the keeper of the stamps may not forget.
func (g *Gateway) held() (first map[uint64]uint64, boots []string) {
	first = map[uint64]uint64{}
	for _, h := range g.queue.Holds() {
		first[h.Epoch], boots = h.First, append(boots, uplink.Boot(h.Label))
	}
	return first, boots
}

func (g *Gateway) openUplink(opt Options, tlsConfig *tls.Config, doc []byte, cfg string) (err error) {
	metas, err := g.metas.All()
	if err != nil {
		g.log.Error("descriptions of earlier configurations are not readable; their records are sent without", "error", err)
	}
	metas[cfg] = doc // whether flash took it or not
	g.uplink, err = uplink.New(queueAdapter{g.queue}, uplink.Config{
		Site: g.cfg.Site, Gateway: g.cfg.Gateway, Boot: g.clock.BootID(), Cfg: cfg, Version: opt.Version,
		Meta: metas,
		MetaSettled: func(c string) {
			if err := g.metas.Remove(c); err != nil {
				g.log.Warn("an old meta document stays on flash", "cfg", c, "error", err)
			}
		},
		Commit: uplink.Commit(g.cfg.Uplink.Commit), Compress: g.cfg.Uplink.Compression == "zstd", Linger: g.cfg.Uplink.Linger,
		Dial:         g.dialer(tlsConfig),
		Backoff:      func(failures int) time.Duration { return mqttlink.Backoff(failures, mrand.Float64()) },
		Now:          func() time.Time { t, _ := g.stamps.Now(); return t },
		Stamp:        g.stamps.Stamp,
		Connected:    g.stamps.Connected,
		Disconnected: g.queue.Hurry,
		HubTime:      g.stamps.HubTime,
		Refresh:      g.refresh,
		Lanes:        uplink.Lanes{Drain: opt.Drain},
		Logger:       g.log,
	})
	return err
}

func (g *Gateway) dialer(tlsConfig *tls.Config) uplink.Dial {
	return func(ctx context.Context, will uplink.Message, subscribe []string, handler func(uplink.Message)) (uplink.Link, error) {
		w := mqttlink.Message(will)
		l, err := mqttlink.Dial(ctx, mqttlink.Options{
			Broker: g.cfg.Uplink.Broker, Setting: "uplink.broker", TLS: tlsConfig,
			ClientID: "luquan-" + g.cfg.Site + "-" + g.cfg.Gateway, CleanSession: true, Will: &w,
			Subscribe: subscribe, Handler: func(m mqttlink.Message) { handler(uplink.Message(m)) }, Logger: g.log,
		})
		if err != nil {
			return nil, err
		}
		return linkAdapter{l}, nil
	}
}

// refresh makes every device tell all its points again.
func (g *Gateway) refresh(reason string) {
	g.log.Debug("all points are told again", "reason", reason)
	for _, b := range g.buses {
		for _, d := range b.Devices() {
			if r, ok := d.(drivers.Refresher); ok {
				r.Refresh()
			}
		}
	}
}

func (g *Gateway) onClose(f func() error) { g.closers = append(g.closers, f) }

func (g *Gateway) close() error {
	var errs []error
	for _, f := range slices.Backward(g.closers) {
		errs = append(errs, f())
	}
	g.closers = nil
	return errors.Join(errs...)
}

// Run polls, buffers and publishes until ctx is done. Then it stops in the
// order of the flow: no more polls, what is under way is published and
// committed for at most Options.Drain, the queue goes to flash.
func (g *Gateway) Run(ctx context.Context) error {
	g.log.Info("gateway runs", "buses", len(g.buses), "broker", g.cfg.Uplink.Broker)
	debug.FreeOSMemory() // reading the configuration takes many times what is kept of it, and a board has little
	after, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	linked := make(chan error, 1)
	go func() { linked <- g.uplink.Run(after) }()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.stamps.Run(after, g.held)
	}()
	described := make(chan struct{})
	go func() {
		defer close(described)
		g.describeLater(after)
	}()
	err := g.poller.Run(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	stop()
	lost := <-linked
	<-watched
	<-described
	return errors.Join(err, lost, g.close())
}

// describeLater puts on flash what a full or failing card refused at the start.
func (g *Gateway) describeLater(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for g.keepMeta != nil {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if g.keepMeta() == nil {
			g.log.Info("this configuration's description is on flash")
			g.keepMeta = nil
		}
	}
}

// sampleSink puts what was polled into the queue.
type sampleSink struct{ g *Gateway }

// Sample is poll's Sink.
func (s sampleSink) Sample(_ string, sample telemetry.Sample) {
	g := s.g
	at := g.stamps.Poll(sample.Device, time.Since(sample.Time))
	sample.Tags = g.tags[sample.Device]
	payload, err := wire.Store(sample, g.cfg.Site, g.cfg.Gateway, 0, 0)
	if err == nil {
		err = wire.PutStamp(payload, at)
	}
	if err == nil {
		_, err = g.queue.Append(buffer.Reading, payload)
	}
	if err != nil && !errors.Is(err, buffer.ErrClosed) {
		// One that fails fails at every poll: told at the first, the second, the fourth, ...
		if n := g.unkept.Add(1); n&(n-1) == 0 {
			g.log.Error("a reading could not be kept", "device", sample.Device, "error", err, "not_kept", n)
		}
	}
}

// encodeGap and encodeEnd are called by the queue while it holds its lock.
func (g *Gateway) encodeGap(l buffer.Lost) []byte {
	b, err := wire.StoreGap(telemetry.Gap{LostEpoch: l.Epoch, First: l.First, Last: l.Last, From: l.From, To: l.To, Reason: l.Reason},
		g.cfg.Site, g.cfg.Gateway, 0, 0)
	if err == nil {
		err = wire.PutStamp(b, g.stamps.Poll(gapSeries, 0))
	}
	if err != nil {
		panic("BUG: a gap cannot be told: " + err.Error())
	}
	return b
}

func (g *Gateway) encodeEnd(e buffer.EpochEnd) []byte {
	b, err := wire.StoreEpochEnd(telemetry.EpochEnd{Ended: e.Epoch, Last: e.Last, Reason: e.Reason},
		g.cfg.Site, g.cfg.Gateway, time.Unix(0, 0), 0, 0)
	if err == nil {
		err = wire.PutStamp(b, g.stamps.Poll(endSeries, 0))
	}
	if err != nil {
		panic("BUG: an epoch's end cannot be told: " + err.Error())
	}
	return b
}

// The series of what the board says itself; no device can be named so.
const (
	gapSeries = "(gap)"
	endSeries = "(end)"
)

// queueAdapter lets the uplink read the queue.
type queueAdapter struct{ *buffer.Queue }

// Holds is uplink.Queue's.
func (q queueAdapter) Holds() []uplink.Held {
	held := q.Queue.Holds()
	out := make([]uplink.Held, len(held))
	for i, h := range held {
		out[i] = uplink.Held(h)
	}
	return out
}

// Read is uplink.Queue's.
func (q queueAdapter) Read(epoch, from uint64, maxEntries, maxBytes int) ([]uplink.Entry, error) {
	entries, err := q.Queue.Read(epoch, from, maxEntries, maxBytes)
	out := make([]uplink.Entry, len(entries))
	for i, e := range entries {
		out[i] = uplink.Entry{Epoch: e.Epoch, Seq: e.Seq, Payload: e.Payload}
	}
	return out, err
}

// linkAdapter lets the uplink publish.
type linkAdapter struct{ *mqttlink.Link }

// Publish is uplink.Link's.
func (l linkAdapter) Publish(topic string, qos byte, retained bool, payload []byte) uplink.Token {
	return l.Link.Publish(topic, qos, retained, payload)
}
