package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// The MQTT library's Publish outlives a lost connection by up to 10 s.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/eclipse/paho%2emqtt%2egolang.(*client).Publish"))
}

const (
	site    = "heating-east"
	gateway = "boiler-house-1"
	boot    = "6b1e"
	cfg     = "9f86d081"
	oldCfg  = "aaaa0000"
	base    = "luquan/v1/" + site + "/" + gateway + "/"
)

// memQueue is a queue in memory.
type memQueue struct {
	mu     sync.Mutex
	epochs []*memEpoch
	notify chan struct{}
	fail   error // of Read
}

type memEpoch struct {
	id, last uint64
	gone     uint64 // no record up to here is left
	label    string
	rows     map[uint64][]byte
}

func newQueue() *memQueue {
	q := &memQueue{notify: make(chan struct{}, 1)}
	q.open(1000, Label(boot, cfg))
	return q
}

func (q *memQueue) open(id uint64, label string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.epochs = append(q.epochs, &memEpoch{id: id, label: label, rows: map[uint64][]byte{}})
}

// before adds an ended epoch with n records in front of the others.
func (q *memQueue) before(t *testing.T, id uint64, label string, n int) {
	e := &memEpoch{id: id, label: label, rows: map[uint64][]byte{}, last: uint64(n)}
	for i := range n {
		e.rows[uint64(i+1)] = stored(t, i)
	}
	q.epochs = append([]*memEpoch{e}, q.epochs...)
}

func (q *memQueue) append(payload []byte) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.epochs[len(q.epochs)-1]
	e.last++
	e.rows[e.last] = payload
	select {
	case q.notify <- struct{}{}:
	default:
	}
	return e.last
}

func (q *memQueue) Holds() (out []Held) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, e := range q.epochs {
		for e.gone < e.last && e.rows[e.gone+1] == nil {
			e.gone++
		}
		h := Held{Epoch: e.id, First: e.gone + 1, Last: e.last, Label: e.label, Current: i == len(q.epochs)-1}
		if len(e.rows) > 0 || h.Current {
			out = append(out, h)
		}
	}
	return out
}

func (q *memQueue) Read(epoch, from uint64, maxEntries, maxBytes int) (out []Entry, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail != nil {
		return nil, q.fail
	}
	for _, e := range q.epochs {
		if e.id != epoch {
			continue
		}
		for seq, n := from, 0; seq <= e.last; seq++ {
			if p, ok := e.rows[seq]; ok {
				if n += len(p); n > maxBytes && len(out) > 0 {
					break
				}
				out = append(out, Entry{epoch, seq, p})
			}
		}
	}
	return out, nil
}

func (q *memQueue) Free(epoch, upto uint64, also [][2]uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.epochs {
		for seq := range e.rows {
			free := seq <= upto
			for _, r := range also {
				free = free || r[0] <= seq && seq <= r[1]
			}
			if free && e.id == epoch {
				delete(e.rows, seq)
			}
		}
	}
	return nil
}

func (q *memQueue) Notify() <-chan struct{} { return q.notify }

// left counts the records that are not freed.
func (q *memQueue) left() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.epochs {
		n += len(e.rows)
	}
	return n
}

func stored(t *testing.T, i int) []byte {
	t.Helper()
	b, err := wire.Store(telemetry.Sample{Device: "pump", Kind: "pump", Time: time.Unix(1763850000, int64(i)),
		Readings: []telemetry.Reading{{Point: "flow", Value: telemetry.FloatValue(float64(i) / 8)}}}, site, gateway, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// network is the network and the broker: it makes links and keeps what was
// published on them.
type network struct {
	mu     sync.Mutex
	links  []*link
	refuse error
	silent bool                // no PUBACKs, until ack is called
	delay  func(int) time.Time // when a publish of so many bytes is acknowledged; nil: at once
}

type published struct {
	Message
	at time.Time
}

type link struct {
	net       *network
	will      Message
	subscribe []string
	handler   func(Message)
	lost      chan struct{}

	mu     sync.Mutex
	err    error
	got    []published
	open   []*token
	closed bool // by the board
}

type token struct {
	once sync.Once
	done chan struct{}
	err  error
}

func (t *token) Done() <-chan struct{} { return t.done }
func (t *token) Err() error            { <-t.done; return t.err }
func (t *token) complete(err error)    { t.once.Do(func() { t.err = err; close(t.done) }) }

func (n *network) dial(ctx context.Context, will Message, subscribe []string, handler func(Message)) (Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return nil, n.refuse
	}
	l := &link{net: n, will: will, subscribe: subscribe, handler: handler, lost: make(chan struct{})}
	n.links = append(n.links, l)
	return l, nil
}

// link returns the newest connection.
func (n *network) link() *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[len(n.links)-1]
}

// all returns every connection there was.
func (n *network) all() []*link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.links)
}

func (l *link) Publish(topic string, qos byte, retained bool, payload []byte) Token {
	t := &token{done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		t.complete(l.err)
		return t
	}
	l.got = append(l.got, published{Message{topic, qos, retained, payload}, time.Now()})
	l.net.mu.Lock()
	silent, delay := l.net.silent, l.net.delay
	l.net.mu.Unlock()
	switch {
	case silent:
		l.open = append(l.open, t)
	case delay != nil:
		l.open = append(l.open, t)
		time.AfterFunc(time.Until(delay(len(payload))), func() { t.complete(nil) })
	default:
		t.complete(nil)
	}
	return t
}

func (l *link) Lost() <-chan struct{} { return l.lost }

func (l *link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) Close(context.Context) {
	l.mu.Lock()
	l.closed = l.err == nil
	l.mu.Unlock()
	l.cut()
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = errors.New("cut")
	close(l.lost)
	for _, t := range l.open {
		t.complete(l.err)
	}
}

// ack acknowledges everything that waits and, from now on, at once.
func (l *link) ack() {
	l.net.mu.Lock()
	l.net.silent, l.net.delay = false, nil
	l.net.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.open {
		t.complete(nil)
	}
	l.open = nil
}

// tell delivers a message to the board.
func (l *link) tell(topic string, doc []byte, err error) {
	if err != nil {
		panic(err)
	}
	l.handler(Message{Topic: topic, Payload: doc})
}

func (l *link) commit(hub string, epochs map[uint64]wire.CommitEpoch) {
	doc, err := wire.Committed{Hub: hub, Time: 1, Epochs: epochs}.Marshal()
	l.tell(base+"committed", doc, err)
}

// take returns what was published since the last take.
func (l *link) take() []published {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

// row is one published record.
type row struct {
	lane       wire.What
	epoch, seq uint64
	line       string
	boot, cfg  string
	at         time.Time
}

func (r row) String() string { return fmt.Sprintf("%s %d/%d", r.lane, r.epoch, r.seq) }

// rows decodes the payloads among ps.
func rows(t *testing.T, ps []published) (out []row) {
	t.Helper()
	for _, p := range ps {
		topic, err := wire.ParseTopic(p.Topic)
		if err != nil {
			t.Fatal(err)
		}
		if topic.What != wire.Live && topic.What != wire.Backfill {
			continue
		}
		if p.QoS != 1 || p.Retained {
			t.Errorf("payload with QoS %d, retained %v", p.QoS, p.Retained)
		}
		d, err := wire.Decode(topic, p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range d.Records {
			out = append(out, row{topic.What, r.Epoch, r.Seq, string(r.Line), d.Header.Boot, d.Header.Cfg, p.at})
		}
	}
	return out
}

// said lists rows as "live 1000/1 2 3, backfill 7/1".
func said(rs []row) string {
	var b strings.Builder
	for i, r := range rs {
		switch {
		case i > 0 && rs[i-1].lane == r.lane && rs[i-1].epoch == r.epoch:
			fmt.Fprintf(&b, " %d", r.seq)
		case i > 0:
			fmt.Fprintf(&b, ", %s", r)
		default:
			b.WriteString(r.String())
		}
	}
	return b.String()
}

// board is an uplink that runs.
type board struct {
	t       *testing.T
	net     *network
	queue   *memQueue
	up      *Uplink
	cancel  context.CancelFunc
	done    chan struct{}
	mu      sync.Mutex
	refresh []string
	n       int
}

// start runs an uplink until the test ends.
func start(t *testing.T, n *network, q *memQueue, change func(*Config)) *board {
	t.Helper()
	b := &board{t: t, net: n, queue: q, done: make(chan struct{})}
	c := Config{Site: site, Gateway: gateway, Boot: boot, Cfg: cfg, Meta: map[string][]byte{cfg: []byte("{}")},
		Dial: n.dial, Backoff: func(int) time.Duration { return time.Second },
		Refresh: func(why string) { b.mu.Lock(); b.refresh = append(b.refresh, why); b.mu.Unlock() }}
	if change != nil {
		change(&c)
	}
	var err error
	if b.up, err = New(q, c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() {
		defer close(b.done)
		if err := b.up.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(b.stop)
	return b
}

func (b *board) stop() {
	b.cancel()
	<-b.done
}

// poll appends n records.
func (b *board) poll(n int) {
	for range n {
		b.n++
		b.queue.append(stored(b.t, b.n))
	}
}

func (b *board) refreshed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := strings.Join(b.refresh, ", ")
	b.refresh = nil
	return s
}
