package uplink

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"luquan/gateway/hub/broker"
	"luquan/gateway/wire"
	"luquan/internal/mqttlink"
)

// realLink adapts the product's link.
type realLink struct{ *mqttlink.Link }

func (l realLink) Publish(topic string, qos byte, retained bool, payload []byte) Token {
	return l.Link.Publish(topic, qos, retained, payload)
}

// cutter is a TCP proxy whose connections can be cut.
type cutter struct {
	ln    net.Listener
	to    string
	mu    sync.Mutex
	conns map[net.Conn]bool
	cuts  int
	join  sync.WaitGroup
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{ln: ln, to: to, conns: map[net.Conn]bool{}}
	c.join.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			c.join.Go(func() { c.forward(in) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); c.cut(); c.join.Wait() })
	return c
}

func (c *cutter) forward(in net.Conn) {
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		_ = in.Close()
		return
	}
	c.mu.Lock()
	c.conns[in], c.conns[out] = true, true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(in, out)
	_ = in.Close()
	<-done
	c.mu.Lock()
	delete(c.conns, in)
	delete(c.conns, out)
	c.mu.Unlock()
}

// cut ends every connection in the middle of whatever it carries.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.conns) > 0 {
		c.cuts++
	}
	for x := range c.conns {
		if tcp, ok := x.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = x.Close()
	}
}

// TestRealBrokerWithCuts: the product's link over a real broker, 20,000
// records, and a TCP connection that is reset every few hundredths of a
// second. Every record is committed, and every line was always the same.
func TestRealBrokerWithCuts(t *testing.T) {
	srv, err := broker.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Error(err)
		}
	})

	q := newQueue()
	q.before(t, 7, Label("0ld", oldCfg), 5000)
	received := make(chan mqttlink.Message, 4096)
	hubLink, err := mqttlink.Dial(t.Context(), mqttlink.Options{Broker: "mqtt://" + srv.Addr(), ClientID: "hub", CleanSession: true,
		Subscribe: []string{"luquan/v1/+/+/live", "luquan/v1/+/+/backfill", "luquan/v1/+/+/live.zst", "luquan/v1/+/+/backfill.zst", "luquan/v1/+/+/state"},
		Handler:   func(m mqttlink.Message) { received <- m }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		hubLink.Close(ctx)
	})

	proxy := newCutter(t, srv.Addr())
	start := func(id int) *board {
		return start(t, &network{}, q, func(c *Config) {
			c.Compress = true
			c.Boot = fmt.Sprint("boot", id)
			c.Backoff = func(int) time.Duration { return 5 * time.Millisecond }
			c.Lanes.Resend, c.Lanes.Pack = 2*time.Second, 4<<10
			c.Dial = func(ctx context.Context, will Message, subscribe []string, handler func(Message)) (Link, error) {
				w := mqttlink.Message(will)
				l, err := mqttlink.Dial(ctx, mqttlink.Options{Broker: "mqtt://" + proxy.ln.Addr().String(), ClientID: "board", CleanSession: true,
					Will: &w, Subscribe: subscribe, Handler: func(m mqttlink.Message) { handler(Message(m)) }})
				if err != nil {
					return nil, err
				}
				return realLink{l}, nil
			}
		})
	}
	b := start(0)

	const total = 20000
	lines := map[[2]uint64]string{}
	stored := map[uint64]map[uint64]bool{7: {}, 1000: {}}
	commit := func() {
		c := wire.Committed{Hub: "h/1", Time: time.Now().UnixNano(), Epochs: map[uint64]wire.CommitEpoch{}}
		for e, seqs := range stored {
			var upto uint64
			for seqs[upto+1] {
				upto++
			}
			c.Epochs[e] = wire.CommitEpoch{Upto: upto}
		}
		doc, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		hubLink.Publish(base+"committed", 1, true, doc)
	}
	r := rand.New(rand.NewPCG(1, 1))
	polls := time.NewTicker(5 * time.Millisecond)
	defer polls.Stop()
	commits := time.NewTicker(50 * time.Millisecond)
	defer commits.Stop()
	nextCut := time.After(20 * time.Millisecond)
	deadline := time.After(90 * time.Second)
	records, polled, lastState := 0, 5000, false
	for {
		select {
		case <-polls.C:
			for n := 0; n < 40 && polled < total; n++ {
				b.poll(1)
				polled++
			}
			if polled == total && q.left() == 0 && len(lines) == total {
				goto done
			}
		case m := <-received:
			topic, err := wire.ParseTopic(m.Topic)
			if err != nil {
				t.Fatal(err)
			}
			if topic.What == wire.StateDoc {
				st, err := wire.ParseState(m.Payload)
				lastState = err == nil && st.Online
				continue
			}
			p, err := wire.Decode(topic, m.Payload)
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range p.Records {
				if rec.Err != nil {
					t.Fatal(rec.Err)
				}
				id := [2]uint64{rec.Epoch, rec.Seq}
				if old, ok := lines[id]; ok && old != string(rec.Line) {
					t.Fatalf("%v was %s\nand is %s", id, old, rec.Line)
				}
				lines[id] = string(rec.Line)
				stored[rec.Epoch][rec.Seq] = true
				records++
			}
		case <-commits.C:
			commit()
		case <-nextCut:
			if polled < total {
				proxy.cut()
				nextCut = time.After(time.Duration(5+r.IntN(60)) * time.Millisecond)
			}
		case <-deadline:
			t.Fatalf("after 90 s %d of %d records arrived, %d are not freed", len(lines), total, q.left())
		}
	}
done:
	proxy.mu.Lock()
	cuts := proxy.cuts
	proxy.mu.Unlock()
	t.Logf("%d cuts, %d records arrived %d times", cuts, total, records)
	if cuts < 10 {
		t.Errorf("only %d cuts had a connection to cut", cuts)
	}
	if !lastState {
		t.Error("the last state says offline")
	}
	b.stop()
	for lastState { // the clean goodbye
		select {
		case m := <-received:
			if st, err := wire.ParseState(m.Payload); err == nil {
				lastState = st.Online
			}
		case <-time.After(10 * time.Second):
			t.Fatal("offline did not come")
		}
	}
}
