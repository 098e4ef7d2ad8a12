package mqttlink

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"go.uber.org/goleak"
)

// The library's Publish outlives a lost connection by up to 10 s.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/eclipse/paho%2emqtt%2egolang.(*client).Publish"))
}

// broker starts a real broker with the hook on a free port and returns its address.
func broker(t *testing.T, hook mochi.Hook, config any) string {
	t.Helper()
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := s.AddHook(hook, config); err != nil {
		t.Fatal(err)
	}
	tcp := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	if err := s.AddListener(tcp); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return tcp.Address()
}

func openBroker(t *testing.T) string { return broker(t, new(auth.AllowHook), nil) }

func dial(t *testing.T, o Options) *Link {
	t.Helper()
	l, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		l.Close(ctx)
	})
	return l
}

func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func TestPublishReachesSubscriberInOrder(t *testing.T) {
	address := openBroker(t)
	got := make(chan Message, 500)
	dial(t, Options{Broker: "mqtt://" + address, ClientID: "in", CleanSession: true, Subscribe: []string{"a/+", "b"},
		Handler: func(m Message) { got <- m }})
	out := dial(t, Options{Broker: "mqtt://" + address, ClientID: "out", CleanSession: true})
	var tokens []*Token
	for i := range 400 {
		tokens = append(tokens, out.Publish("a/x", 1, false, fmt.Append(nil, i)))
	}
	for i, tok := range tokens {
		within(t, "acknowledgement", tok.Done())
		if tok.Err() != nil {
			t.Fatalf("publish %d: %v", i, tok.Err())
		}
	}
	for i := range 400 {
		if m := within(t, "message", got); m.Topic != "a/x" || string(m.Payload) != fmt.Sprint(i) || m.QoS != 1 {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
}

// TestWill: a lost connection makes the broker publish the will, a closed one
// does not; a kept session gets what came while it was away.
func TestWillAndKeptSession(t *testing.T) {
	address := openBroker(t)
	got := make(chan Message, 10)
	watch := Options{Broker: "mqtt://" + address, ClientID: "watch", Subscribe: []string{"will/#"}, Handler: func(m Message) { got <- m }}
	w, err := Dial(t.Context(), watch)
	if err != nil {
		t.Fatal(err)
	}
	w.Close(t.Context())
	if !errors.Is(w.Err(), ErrClosed) {
		t.Errorf("error of a closed link is %v", w.Err())
	}

	clean := dial(t, Options{Broker: "mqtt://" + address, ClientID: "clean", CleanSession: true, Will: &Message{Topic: "will/clean", QoS: 1}})
	clean.Close(t.Context())
	proxy := newProxy(t, address)
	cut := dial(t, Options{Broker: "mqtt://" + proxy.address(), ClientID: "cut", CleanSession: true,
		Will: &Message{Topic: "will/cut", QoS: 1, Payload: []byte("gone")}})
	proxy.cut()
	within(t, "loss", cut.Lost())
	if cut.Err() == nil || !strings.Contains(cut.Err().Error(), "lost") {
		t.Errorf("error of a lost link is %v", cut.Err())
	}

	dial(t, watch) // the kept session has the one will
	if m := within(t, "will", got); m.Topic != "will/cut" || string(m.Payload) != "gone" {
		t.Errorf("got %+v", m)
	}
	if len(got) != 0 {
		t.Errorf("and %+v", <-got)
	}
}

// TestTokensOfALostLinkFail: a broker that never acknowledges and goes away.
func TestTokensOfALostLinkFail(t *testing.T) {
	for _, clean := range []bool{true, false} {
		l, server := dialSilent(t, clean)
		var tokens []*Token
		for range 300 {
			tokens = append(tokens, l.Publish("a", 1, false, []byte("x")))
		}
		select {
		case <-tokens[0].Done():
			t.Fatalf("done without an acknowledgement: %v", tokens[0].Err())
		default:
		}
		_ = server.Close()
		within(t, "loss", l.Lost())
		start := time.Now()
		defer func() {
			l.Close(t.Context())
			if d := time.Since(start); d > time.Second {
				t.Errorf("closing a lost link took %v", d)
			}
		}()
		for _, tok := range append(tokens, l.Publish("a", 1, false, nil)) {
			within(t, "token", tok.Done())
			if tok.Err() == nil {
				t.Fatal("a publish nobody acknowledged succeeded")
			}
		}
	}
}

// TestPublishDoesNotBlock although the peer stopped reading.
func TestPublishDoesNotBlock(t *testing.T) {
	l, _ := dialSilent(t, true)
	big := make([]byte, 1<<20) // far over what the sockets hold
	start := time.Now()
	for range 64 {
		l.Publish("a", 1, false, big)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("64 publishes took %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	l.Close(ctx)
	if d := time.Since(start); d > 6*time.Second {
		t.Errorf("closing took until %v", d)
	}
}

func TestSentences(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	rude := serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	web := serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 512))
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	tlsOnly := serveTLS(t)
	locked := broker(t, new(auth.Hook), &auth.Options{Ledger: &auth.Ledger{Auth: auth.AuthRules{{Username: "u", Password: "p", Allow: true}}}})
	acl := broker(t, &aclHook{}, nil)
	for what, c := range map[string]struct {
		o    Options
		want []string
	}{
		"refused":     {Options{Broker: "mqtt://" + closed.Addr().String(), Setting: "uplink.broker"}, []string{"mqtt: cannot reach " + closed.Addr().String() + ": connection refused; check uplink.broker"}},
		"no scheme":   {Options{Broker: "127.0.0.1:1883"}, []string{"check the broker's address"}},
		"http":        {Options{Broker: "http://127.0.0.1"}, []string{"mqtt, mqtts, ws or wss"}},
		"password":    {Options{Broker: "mqtt://u:secret@127.0.0.1:1"}, []string{"do not belong in the URL"}},
		"closes":      {Options{Broker: "mqtt://" + rude, Setting: "mqtt.broker"}, []string{"mqtt.broker"}},
		"not MQTT":    {Options{Broker: "mqtt://" + web, Setting: "mqtt.broker"}, []string{"cannot connect", "mqtt.broker"}},
		"no TLS":      {Options{Broker: "mqtts://" + web}, []string{"does not speak TLS"}},
		"unknown CA":  {Options{Broker: "mqtts://" + tlsOnly}, []string{"is not trusted", "tls.ca"}},
		"wrong user":  {Options{Broker: "mqtt://" + locked, ClientID: "c", Username: "x", Password: "y"}, []string{"does not let client \"c\" (user \"x\") in"}},
		"access rule": {Options{Broker: "mqtt://" + acl, ClientID: "c", Subscribe: []string{"ok", "secret"}}, []string{"refused it; check the access rules"}},
	} {
		l, err := Dial(t.Context(), c.o)
		if err == nil {
			l.Close(t.Context())
			t.Errorf("%s: connected", what)
			continue
		}
		for _, w := range append(c.want, "mqtt: ") {
			if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "secret@") {
				t.Errorf("%s: %q does not say %q", what, err, w)
			}
		}
	}
}

// TestDialEndsWithItsContext while the peer says nothing, over each transport.
func TestDialEndsWithItsContext(t *testing.T) {
	for _, scheme := range []string{"mqtt", "mqtts", "ws"} {
		accepted := make(chan struct{}, 4)
		address := serve(t, func(c net.Conn) { accepted <- struct{}{}; _, _ = io.Copy(io.Discard, c) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := Dial(ctx, Options{Broker: scheme + "://" + address})
			done <- err
		}()
		within(t, "connection", accepted)
		cancel()
		if err := within(t, "end of Dial", done); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n := range 100 {
		for _, r := range []float64{0, 0.5, 0.999999} {
			d := Backoff(n, r)
			if d < time.Second || d > time.Minute {
				t.Errorf("after %d failures: %v", n, d)
			}
		}
	}
	if a, b := Backoff(1, 0), Backoff(4, 0); a != time.Second || b != 8*time.Second {
		t.Errorf("first %v, fourth %v", a, b)
	}
	if a, b := Backoff(9, 0), Backoff(9, 0.999999); a != 30*time.Second || b < 59*time.Second {
		t.Errorf("at the end %v to %v", a, b)
	}
}

// aclHook lets everybody in and nobody subscribe to secret.
type aclHook struct{ auth.AllowHook }

func (*aclHook) OnACLCheck(_ *mochi.Client, topic string, _ bool) bool { return topic != "secret" }

// serve accepts connections and hands each to f; it closes what f leaves.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accept(t, ln, f)
	return ln.Addr().String()
}

func accept(t *testing.T, ln net.Listener, f func(net.Conn)) {
	done := make(chan struct{})
	conns := make(chan net.Conn, 64)
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- c
			go func() { f(c); _ = c.Close() }()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
		for len(conns) > 0 {
			_ = (<-conns).Close()
		}
	})
}

func serveTLS(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	accept(t, ln, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	return ln.Addr().String()
}

// dialSilent connects to a peer that accepts the connection and then neither
// reads nor answers.
func dialSilent(t *testing.T, clean bool) (*Link, net.Conn) {
	t.Helper()
	conns := make(chan net.Conn, 1)
	hold := make(chan struct{})
	address := serve(t, func(c net.Conn) {
		if _, err := packets.ReadPacket(c); err != nil {
			return
		}
		_, _ = c.Write([]byte{0x20, 2, 0, 0})
		conns <- c
		<-hold
	})
	t.Cleanup(func() { close(hold) })
	l := dial(t, Options{Broker: "mqtt://" + address, ClientID: "c", CleanSession: clean})
	return l, <-conns
}

// proxy forwards connections until they are cut.
type proxy struct {
	t     *testing.T
	ln    string
	conns chan net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	p := &proxy{t: t, conns: make(chan net.Conn, 64)}
	p.ln = serve(t, func(c net.Conn) {
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		p.conns <- c
		p.conns <- up
		go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
		_, _ = io.Copy(c, up)
	})
	return p
}

func (p *proxy) address() string { return p.ln }

func (p *proxy) cut() {
	for len(p.conns) > 0 {
		_ = (<-p.conns).Close()
	}
}
