package hub

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"luquan/gateway/hub/broker"
)

// TestLinkRenames: what boards published while the hub was away has come to
// nobody; by the hub's new identity they know that they must send it again.
func TestLinkRenames(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	open := func(addr string) *broker.Broker {
		t.Helper()
		b, err := broker.Start(addr, log)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	shut := func(b *broker.Broker) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	b := open("127.0.0.1:0")
	addr := b.Addr()
	names := make(chan string, 16)
	l := newLink("mqtt://"+addr, "h", "h/boot", func(string, []byte, time.Time) {}, func(id string) { names <- id }, log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	defer func() { cancel(); <-done }()
	connected := func(want bool) {
		t.Helper()
		for limit := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // between looks at a real connection
			if up, _, _ := l.State(); up == want {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("connected is still %v", !want)
			}
		}
	}
	connected(true)
	if got := l.identity(); got != "h/boot" || len(names) != 0 {
		t.Fatalf("identity %q, %d renames at the first connection", got, len(names))
	}
	for n := 1; n <= 2; n++ {
		shut(b)
		connected(false)
		b = open(addr)
		connected(true)
		want := fmt.Sprintf("h/boot.%d", n)
		last := ""
		for len(names) > 0 {
			last = <-names
		}
		if got := l.identity(); got != want || last != want {
			t.Errorf("identity %q, told %q; want %q", got, last, want)
		}
	}
	cancel()
	shut(b)
}
