// Package broker is the MQTT broker inside hubd, for a centre that has no
// broker of its own. It carries messages and knows nothing of their content.
//
// It speaks MQTT 3.1.1 and 5 without TLS and therefore listens on loopback
// only; boards reach it from elsewhere through an outside broker. It keeps
// retained messages and sessions in memory: a hub that restarts gets `state`
// and `meta` again from the boards, which publish them at each connection, and
// what was on its way is sent again until it is committed.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"syscall"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// Broker is a running broker. Its methods are safe for concurrent use.
type Broker struct {
	server *mqtt.Server
	addr   string
}

// Start listens on addr (host:port, port 0 for any free one) and serves at
// once. The address must be on loopback.
func Start(addr string, log *slog.Logger) (*Broker, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("mqtt.listen: %q is not host:port: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("mqtt.listen: %s is not on loopback, and the embedded broker has no TLS yet; listen on 127.0.0.1 or name an outside broker in mqtt.broker", addr)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	caps := mqtt.NewDefaultServerCapabilities()
	// A board that comes back may send its whole window at once, and a
	// hundred boards come back together.
	caps.MaximumClientWritesPending = 1 << 14
	caps.MaximumInflight = math.MaxUint16
	caps.MaximumPacketSize = 17 << 20 // a payload is at most 1 MiB, a meta document 16
	server := mqtt.New(&mqtt.Options{Capabilities: caps, Logger: quiet(log)})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return nil, fmt.Errorf("mqtt: set up access rules: %w", err)
	}
	if err := server.AddHook(&retain{server: server}, nil); err != nil {
		return nil, fmt.Errorf("mqtt: set up retained messages: %w", err)
	}
	l := listeners.NewTCP(listeners.Config{ID: "mqtt", Address: addr})
	if err := server.AddListener(l); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("mqtt.listen: %s is already taken by another program; stop it or choose another port", addr)
		}
		return nil, fmt.Errorf("mqtt.listen: cannot listen on %s: %w", addr, err)
	}
	if err := server.Serve(); err != nil {
		return nil, errors.Join(fmt.Errorf("mqtt: start broker: %w", err), server.Close())
	}
	return &Broker{server: server, addr: l.Address()}, nil
}

// Addr returns the address it listens on, with the port that was chosen.
func (b *Broker) Addr() string { return b.addr }

// Stats are counts since the start.
type Stats struct {
	Clients  int64 // connected now
	Received int64 // publishes received
	Dropped  int64 // publishes dropped because a subscriber was too slow
}

// Stats returns the counts.
func (b *Broker) Stats() Stats {
	i := b.server.Info.Clone()
	return Stats{Clients: i.ClientsConnected, Received: i.MessagesReceived, Dropped: i.MessagesDropped}
}

// Close disconnects every client and stops, at the latest when ctx ends.
func (b *Broker) Close(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- b.server.Close() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stop the broker: %w", ctx.Err())
	case <-time.After(5 * time.Second):
		return errors.New("stop the broker: clients did not leave within 5 s")
	}
}

// quiet passes only what an operator should act on: the library logs each
// connection and each lost client at higher levels than they deserve.
func quiet(log *slog.Logger) *slog.Logger {
	return slog.New(levelHandler{log.Handler()})
}

type levelHandler struct{ slog.Handler }

// Enabled reports whether a message of the level is passed on.
func (h levelHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && h.Handler.Enabled(ctx, l)
}

// WithAttrs keeps the bound on a logger made from this one.
func (h levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the bound on a logger made from this one.
func (h levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{h.Handler.WithGroup(name)}
}
