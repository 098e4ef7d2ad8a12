package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"luquan/gateway/wire"
	"luquan/internal/mqttlink"
)

// maxPause is the longest pause between attempts to connect: the hub stands
// beside its broker, and while it is away no alarm can rise.
const maxPause = 5 * time.Second

// timeBeat is how often the hub tells its clock, docs/contract.md "MQTT".
const timeBeat = 30 * time.Second

var errNotConnected = errors.New("the hub is not connected to its broker")

// link keeps the hub connected to the broker: one fresh connection after
// another, with a pause that grows while they fail.
type link struct {
	opt    mqttlink.Options
	handle func(topic string, payload []byte, received time.Time)
	name   string // the hub's
	boot   string // name/boot of this process
	renew  func(id string)
	log    *slog.Logger
	beat   chan struct{} // capacity 1: tell the time now

	mu    sync.Mutex
	id    string         // boot, and which connection of it
	up    *mqttlink.Link // nil while not connected
	since time.Time      // of the present state
	why   error          // of being down
}

// newLink makes a link that is not up. renew, which may be nil, is given the
// hub's identity before each connection but the first: what boards published
// between two connections has come to nobody, and by another identity they
// know to send again at once what is not committed.
func newLink(broker, name, id string, handle func(string, []byte, time.Time), renew func(string), log *slog.Logger) *link {
	l := &link{handle: handle, name: name, boot: id, id: id, renew: renew, log: log.With("component", "link"), beat: make(chan struct{}, 1),
		since: time.Now(), why: errors.New("not connected yet")}
	l.opt = mqttlink.Options{
		Broker: broker, Setting: "mqtt.broker", ClientID: "luquan-hub-" + name, CleanSession: true,
		Subscribe: []string{
			wire.Topic{Site: "+", Gateway: "+", What: wire.Live}.String(),
			wire.Topic{Site: "+", Gateway: "+", What: wire.Live, Zstd: true}.String(),
			wire.Topic{Site: "+", Gateway: "+", What: wire.Backfill}.String(),
			wire.Topic{Site: "+", Gateway: "+", What: wire.Backfill, Zstd: true}.String(),
			wire.Topic{Site: "+", Gateway: "+", What: wire.StateDoc}.String(),
			wire.Topic{Site: "+", Gateway: "+", What: wire.MetaDoc, Arg: "+"}.String(),
			wire.Topic{Site: "+", Gateway: "+", What: wire.CommitDoc}.String(), // another hub's would be a conflict
		},
		Handler: func(m mqttlink.Message) { l.handle(m.Topic, m.Payload, time.Now()) },
		Logger:  l.log,
	}
	return l
}

// Run keeps connecting until ctx is done.
func (l *link) Run(ctx context.Context) error {
	connections := 0
	for failures := 0; ; {
		if connections > 0 { // the last one was lost
			l.rename(connections)
		}
		up, err := mqttlink.Dial(ctx, l.opt)
		if err == nil {
			failures = 0
			connections++
			l.set(up, nil)
			l.log.Info("connected", "broker", l.opt.Broker)
			l.serve(ctx, up)
			err = up.Err()
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			up.Close(closing)
			cancel()
		}
		if ctx.Err() != nil {
			l.set(nil, ctx.Err())
			return nil
		}
		failures++
		wait := min(mqttlink.Backoff(failures, rand.Float64()), maxPause)
		l.set(nil, err)
		l.log.Warn("no connection to the broker", "error", err, "next_try", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// rename takes the identity of the connection after so many.
func (l *link) rename(connections int) {
	id := fmt.Sprintf("%s.%d", l.boot, connections)
	l.mu.Lock()
	l.id = id
	l.mu.Unlock()
	if l.renew != nil {
		l.renew(id)
	}
}

func (l *link) identity() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// serve tells the time until the connection is lost.
func (l *link) serve(ctx context.Context, up *mqttlink.Link) {
	tick := time.NewTicker(timeBeat)
	defer tick.Stop()
	for {
		doc, err := wire.HubTime{V: 1, Hub: l.identity(), Time: time.Now().UnixNano()}.Marshal()
		if err != nil {
			panic("BUG: the hub's time cannot be told: " + err.Error())
		}
		up.Publish(wire.Topic{What: wire.TimeBeat, Arg: l.name}.String(), 0, false, doc)
		select {
		case <-ctx.Done():
			return
		case <-up.Lost():
			return
		case <-tick.C:
		case <-l.beat:
		}
	}
}

// TellTime tells the hub's clock at once, for a board that has just come online.
func (l *link) TellTime() {
	select {
	case l.beat <- struct{}{}:
	default:
	}
}

func (l *link) set(up *mqttlink.Link, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.up == nil) != (up == nil) {
		l.since = time.Now()
	}
	l.up, l.why = up, why
}

// State tells whether the link is up, since when, and why not.
func (l *link) State() (up bool, since time.Time, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up != nil, l.since, l.why
}

// Publish publishes a retained document at QoS 1 and waits for the broker. It
// is ingest's Publisher.
func (l *link) Publish(ctx context.Context, topic string, payload []byte) error {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	if up == nil {
		return errNotConnected
	}
	token := up.Publish(topic, 1, true, payload)
	select {
	case <-token.Done():
		return token.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fanout is ingest's Sink: live values first, then the alarms; both are quick.
type fanout struct {
	judge *judge
	link  *link
}

func (f fanout) Observe(r wire.Record, h wire.Header, received time.Time) {
	f.judge.observe(r, h, received)
}
func (f fanout) Meta(m wire.Meta) { f.judge.meta(m) }
func (f fanout) State(_, _ string, st wire.State, _ time.Time) {
	if st.Online {
		f.link.TellTime()
	}
}
