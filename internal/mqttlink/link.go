// Package mqttlink is one connection to an MQTT broker: the only importer of
// the MQTT client library, which it keeps on a short leash. A Link is made by
// Dial, lives until the connection is lost or closed, and is never repaired:
// the caller dials anew, with a fresh client, after its own back-off. So a
// token can neither succeed without the broker's acknowledgement nor hang
// after a loss, which with the library's own reconnecting it can do both
// (measured; see docs/dependencies.md).
//
// Protocol version is 3.1.1, always; keep-alive 30 s, a write that is stuck for
// 10 s counts as a lost connection.
package mqttlink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const (
	connectTimeout = 10 * time.Second
	writeTimeout   = 10 * time.Second
	pingTimeout    = 10 * time.Second
	// queueLen is how many publishes wait for the writer before Publish blocks.
	queueLen = 256
)

// Message is one MQTT message.
type Message struct {
	Topic    string
	QoS      byte
	Retained bool
	Payload  []byte
}

// Options says where and how to connect.
type Options struct {
	// Broker is the URL: mqtt, mqtts, ws or wss, host, and a port unless it is
	// 1883, 8883, 80, 443.
	Broker string
	// Setting is the name of the setting that Broker came from; error
	// sentences point at it. Default "the broker's address".
	Setting            string
	ClientID           string
	Username, Password string
	// TLS is used for mqtts and wss; nil means the system's roots.
	TLS          *tls.Config
	CleanSession bool
	Will         *Message // nil: none
	// KeepAlive is the interval of pings; default 30 s.
	KeepAlive time.Duration
	// Subscribe are the filters to subscribe to with QoS 1 before Dial returns.
	Subscribe []string
	// Handler gets the messages, one at a time and in their order, from before
	// Dial returns until the link is lost. Each is acknowledged when Handler
	// returns. It must not block: while it does, nothing else moves, pings
	// included. It owns the message. nil drops and acknowledges.
	Handler func(Message)
	// Logger tells of the connection's end; nil is silent.
	Logger *slog.Logger
}

// Link is one live connection. Its methods may be called from any goroutine.
type Link struct {
	client mqtt.Client
	broker string
	log    *slog.Logger
	queue  chan publish
	lost   chan struct{}
	sender chan struct{} // closed when send has returned
	// waiters are the goroutines that wait for one acknowledgement each, or
	// for the loss.
	waiters sync.WaitGroup

	mu  sync.Mutex // guards what follows
	err error      // why lost is closed
}

type publish struct {
	m Message
	t *Token
}

// ErrClosed is the error of a link that was closed by Close.
var ErrClosed = errors.New("mqtt: the link was closed")

// Dial connects and subscribes: when it returns without error the broker has
// accepted both. It gives up when ctx is done, or after 10 s without an answer.
// The error is a sentence for the technician, wrapping its cause.
func Dial(ctx context.Context, o Options) (*Link, error) {
	u, err := parseBroker(o.Broker)
	if err != nil {
		return nil, fmt.Errorf("mqtt: %w; check %s", err, o.setting())
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	l := &Link{broker: u.Host, log: o.Logger, queue: make(chan publish, queueLen), lost: make(chan struct{}), sender: make(chan struct{})}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	d := &dialer{ctx: ctx, tls: o.TLS}
	l.client = mqtt.NewClient(clientOptions(u, o, l, d))

	token := l.client.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		d.abort()
		if u.Scheme == "ws" || u.Scheme == "wss" {
			// The library's websocket dialer knows no context: it is left to
			// its own time-out.
			go func() { <-token.Done(); l.client.Disconnect(0) }()
			return nil, explain(u, o, context.Cause(ctx))
		}
		<-token.Done()
	}
	if err := token.Error(); err != nil {
		return nil, explain(u, o, d.cause(ctx, err))
	}
	go l.send()
	if err := l.subscribe(ctx, o.Subscribe); err != nil {
		l.finish(err)
		l.client.Disconnect(0)
		d.abort()
		<-l.sender
		return nil, fmt.Errorf("mqtt: %s: %w", u.Host, err)
	}
	return l, nil
}

func (o Options) setting() string {
	if o.Setting == "" {
		return "the broker's address"
	}
	return o.Setting
}

// CheckBroker reports why s cannot be a broker's URL, or nil.
func CheckBroker(s string) error {
	_, err := parseBroker(s)
	return err
}

func parseBroker(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("broker %q is no URL: %w", s, errors.Unwrap(err))
	}
	port, ok := map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}[u.Scheme]
	if !ok || u.Hostname() == "" {
		return nil, fmt.Errorf("broker %q must be like mqtts://host:8883 (mqtt, mqtts, ws or wss)", s)
	}
	if u.User != nil {
		return nil, fmt.Errorf("broker of %q: user and password do not belong in the URL", u.Host)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

func clientOptions(u *url.URL, o Options, l *Link, d *dialer) *mqtt.ClientOptions {
	c := mqtt.NewClientOptions()
	c.Servers = []*url.URL{u}
	c.SetProtocolVersion(4)
	c.SetClientID(o.ClientID).SetUsername(o.Username).SetPassword(o.Password)
	c.SetCleanSession(o.CleanSession)
	c.SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false)
	c.SetOrderMatters(true)
	c.SetConnectTimeout(connectTimeout).SetWriteTimeout(writeTimeout)
	c.SetKeepAlive(30 * time.Second).SetPingTimeout(pingTimeout)
	if o.KeepAlive > 0 {
		c.SetKeepAlive(o.KeepAlive)
		c.SetPingTimeout(min(pingTimeout, o.KeepAlive))
	}
	if o.Will != nil {
		c.SetBinaryWill(o.Will.Topic, o.Will.Payload, o.Will.QoS, o.Will.Retained)
	}
	c.SetTLSConfig(o.TLS)
	// Without a handler set before connecting, messages of a kept session
	// would never be acknowledged.
	c.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		if o.Handler != nil {
			o.Handler(Message{Topic: m.Topic(), QoS: m.Qos(), Retained: m.Retained(), Payload: m.Payload()})
		}
	})
	c.SetConnectionLostHandler(func(_ mqtt.Client, err error) {
		l.finish(fmt.Errorf("mqtt: connection to %s lost: %w", l.broker, err))
	})
	if u.Scheme == "mqtt" || u.Scheme == "mqtts" {
		c.SetCustomOpenConnectionFn(d.open)
	}
	return c
}

func (l *Link) subscribe(ctx context.Context, filters []string) error {
	if len(filters) == 0 {
		return nil
	}
	qos := make(map[string]byte, len(filters))
	for _, f := range filters {
		qos[f] = 1
	}
	token := l.client.SubscribeMultiple(qos, nil)
	select {
	case <-token.Done():
	case <-l.lost:
		return fmt.Errorf("subscribe: %w", l.Err())
	case <-ctx.Done():
		return fmt.Errorf("subscribe: no answer from the broker: %w", context.Cause(ctx))
	}
	for f, code := range token.(*mqtt.SubscribeToken).Result() {
		if code == 0x80 {
			return fmt.Errorf("subscribe to %q: the broker refused it; check the access rules of this client", f)
		}
	}
	if err := token.Error(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// Publish hands a message to the connection and returns at once, unless 256
// others wait to be written; then it waits for room or the loss. Messages are
// written in the order of the calls. payload must not be changed until the
// token is done.
func (l *Link) Publish(topic string, qos byte, retained bool, payload []byte) *Token {
	t := &Token{done: make(chan struct{})}
	select {
	case <-l.lost:
		t.complete(l.Err())
		return t
	default:
	}
	select {
	case l.queue <- publish{Message{topic, qos, retained, payload}, t}:
		// The writer may have gone between the check and the send: then
		// nobody takes it from the queue but this.
		select {
		case <-l.lost:
			l.drain()
		default:
		}
	case <-l.lost:
		t.complete(l.Err())
	}
	return t
}

// send is the writer: the library's Publish blocks while the peer does not
// read, which must not hold up the callers of ours.
func (l *Link) send() {
	defer close(l.sender)
	for {
		select {
		case <-l.lost: // first: nothing is begun on a lost link
			l.drain()
			return
		default:
		}
		select {
		case p := <-l.queue:
			l.hand(p)
		case <-l.lost:
			l.drain()
			return
		}
	}
}

// hand gives one message to the library and sees to it that its token ends.
func (l *Link) hand(p publish) {
	fate := make(chan mqtt.Token, 1)
	l.waiters.Go(func() {
		var done <-chan struct{}
		var token mqtt.Token
		for {
			select {
			case token = <-fate:
				done = token.Done()
			case <-done:
				err := token.Error()
				if err != nil {
					err = fmt.Errorf("mqtt: publish to %q: %w", p.m.Topic, err)
				}
				p.t.complete(err)
				return
			case <-l.lost:
				// What the broker acknowledged in the last moment counts as
				// not: it is sent again and costs a duplicate.
				p.t.complete(l.Err())
				return
			}
		}
	})
	fate <- l.client.Publish(p.m.Topic, p.m.QoS, p.m.Retained, p.m.Payload)
}

// drain fails what waits in the queue of a lost link.
func (l *Link) drain() {
	for {
		select {
		case p := <-l.queue:
			p.t.complete(l.Err())
		default:
			return
		}
	}
}

// finish closes lost, once, keeps the reason and fails what still waits.
func (l *Link) finish(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	close(l.lost)
	l.mu.Unlock()
	l.drain() // send may be held up in the library for 10 s
	if !errors.Is(err, ErrClosed) {
		l.log.Warn("mqtt connection ended", "broker", l.broker, "error", err)
	}
}

// Lost is closed when the connection is lost or closed.
func (l *Link) Lost() <-chan struct{} { return l.lost }

// Err is why Lost is closed, nil before.
func (l *Link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close ends the connection with a clean disconnect, so that the broker drops
// the will, and joins the link's goroutines. It does not wait for
// acknowledgements: drain first. Publishes that are not done by then fail with
// ErrClosed. A peer that does not read holds it up for at most 1 s, or until
// ctx is done. After a loss one goroutine may stay in the library's Publish,
// which looks up only every 10 s; Close does not wait for that one.
func (l *Link) Close(ctx context.Context) {
	quiesce := time.Second
	if d, ok := ctx.Deadline(); ok {
		quiesce = max(10*time.Millisecond, min(quiesce, time.Until(d)))
	}
	l.client.Disconnect(uint(quiesce.Milliseconds()))
	l.finish(ErrClosed)
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-l.sender:
	case <-t.C:
	case <-ctx.Done():
	}
	l.waiters.Wait()
}

// Token is the fate of one publish.
type Token struct {
	once sync.Once
	done chan struct{}
	err  error // written before done is closed
}

// Done is closed when the broker has acknowledged the message (QoS 0: when it
// is written) or will not, because the link is lost. It always comes.
func (t *Token) Done() <-chan struct{} { return t.done }

// Err is nil when the broker has acknowledged. It may be called after Done only.
func (t *Token) Err() error {
	<-t.done
	return t.err
}

func (t *Token) complete(err error) {
	t.once.Do(func() { t.err = err; close(t.done) })
}
