package broker

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func TestCarriesAndRetains(t *testing.T) {
	b, err := Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	connect := func(id string) paho.Client {
		c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID(id))
		if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		t.Cleanup(func() { c.Disconnect(100) })
		return c
	}
	board := connect("board")
	if tok := board.Publish("luquan/v1/s/g/state", 1, true, "online"); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	got := make(chan string, 1)
	hub := connect("hub")
	if tok := hub.Subscribe("luquan/#", 1, func(_ paho.Client, m paho.Message) { got <- m.Topic() + " " + string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if m := <-got; m != "luquan/v1/s/g/state online" {
		t.Errorf("got %q", m)
	}
	if s := b.Stats(); s.Clients != 2 {
		t.Errorf("clients %d, want 2", s.Clients)
	}
}

func TestRefusesWithASentence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct{ addr, want string }{
		{l.Addr().String(), "is already taken by another program"},
		{"0.0.0.0:0", "is not on loopback"},
		{"192.0.2.1:1883", "is not on loopback"},
		{"1883", "is not host:port"},
	} {
		b, err := Start(tt.addr, nil)
		if err == nil {
			b.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.addr, err, tt.want)
		}
	}
}

// dial connects to b; opt may add to the options.
func dial(t *testing.T, b *Broker, id string, opt func(*paho.ClientOptions)) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID(id).SetAutoReconnect(false)
	if opt != nil {
		opt(o)
	}
	c := paho.NewClient(o)
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	return c
}

// TestRetainedWhileSubscribing is for the race detector: boards announce
// themselves while hubs subscribe. Afterwards every topic is retained once.
func TestRetainedWhileSubscribing(t *testing.T) {
	b, err := Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	const boards, each, topicsOf = 8, 40, 4
	var all sync.WaitGroup
	for i := range boards {
		c := dial(t, b, fmt.Sprint("board", i), nil)
		defer c.Disconnect(0)
		all.Go(func() {
			for k := range each {
				if tok := c.Publish(fmt.Sprintf("luquan/v1/s/g%d/meta/%d", i, k%topicsOf), 1, true, "x"); tok.Wait() && tok.Error() != nil {
					t.Error(tok.Error())
				}
			}
		})
		hub := dial(t, b, fmt.Sprint("hub", i), nil)
		defer hub.Disconnect(0)
		all.Go(func() {
			for range each {
				if tok := hub.Subscribe("luquan/v1/+/+/meta/+", 1, func(paho.Client, paho.Message) {}); tok.Wait() && tok.Error() != nil {
					t.Error(tok.Error())
				}
			}
		})
	}
	all.Wait()
	var mu sync.Mutex
	topics := map[string]int{}
	whole := make(chan struct{})
	late := dial(t, b, "late", nil)
	defer late.Disconnect(0)
	late.Subscribe("luquan/v1/+/+/meta/+", 1, func(_ paho.Client, m paho.Message) {
		mu.Lock()
		defer mu.Unlock()
		if !m.Retained() {
			t.Errorf("%s is not marked as retained", m.Topic())
		}
		if topics[m.Topic()]++; topics[m.Topic()] == 1 && len(topics) == boards*topicsOf {
			close(whole)
		}
	})
	select {
	case <-whole:
	case <-time.After(10 * time.Second):
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("%d of %d retained messages came", len(topics), boards*topicsOf)
	}
}

// TestRetainRules: a new message takes the place of the old one, an empty one
// clears it, a last will is retained, and who is there already gets a plain copy.
func TestRetainRules(t *testing.T) {
	b, err := Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	type message struct {
		topic, payload string
		retained       bool
	}
	watch := func(id string) (chan message, paho.Client) {
		got := make(chan message, 10)
		c := dial(t, b, id, nil)
		if tok := c.Subscribe("a/+", 1, func(_ paho.Client, m paho.Message) { got <- message{m.Topic(), string(m.Payload()), m.Retained()} }); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		return got, c
	}
	want := func(got chan message, m message) {
		t.Helper()
		select {
		case g := <-got:
			if g != m {
				t.Errorf("got %v, want %v", g, m)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%v did not come", m)
		}
	}
	first, c := watch("first")
	defer c.Disconnect(0)
	board := dial(t, b, "board", func(o *paho.ClientOptions) { o.SetWill("a/state", "offline", 1, true) })
	for _, p := range []string{"one", "two"} {
		if tok := board.Publish("a/x", 1, true, p); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		want(first, message{"a/x", p, false})
	}
	second, c := watch("second")
	defer c.Disconnect(0)
	want(second, message{"a/x", "two", true})
	if tok := board.Publish("a/x", 1, true, ""); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	want(first, message{"a/x", "", false})
	// The same name again takes the connection over: the first one's will is sent.
	defer dial(t, b, "board", nil).Disconnect(0)
	want(first, message{"a/state", "offline", false})
	third, c := watch("third")
	defer c.Disconnect(0)
	want(third, message{"a/state", "offline", true})
	if n := len(third); n != 0 {
		t.Errorf("%d more retained messages; a/x was cleared", n)
	}
}

// TestCarriesALargeMeta: a board of 10,000 labelled points describes itself in
// some MB, and could otherwise never stay connected.
func TestCarriesALargeMeta(t *testing.T) {
	b, err := Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID("board").SetAutoReconnect(false))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer c.Disconnect(100)
	tok := c.Publish("luquan/v1/s/g/meta/00000000", 1, true, make([]byte, 16<<20))
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil || !c.IsConnected() {
		t.Errorf("a document of 16 MiB: connected %v, error %v", c.IsConnected(), tok.Error())
	}
}
