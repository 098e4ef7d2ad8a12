package broker

import (
	"net"
	"strings"
	"testing"

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
