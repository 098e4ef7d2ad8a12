package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"luquan/gateway/hub/broker"
	"luquan/gateway/wire"
	"luquan/internal/mqttlink"
)

// listenerEnv, when set, makes TestListenerProcess the other end of a benchmark.
const listenerEnv = "LUQUAN_BENCH_LISTENER"

// order is what a listener is to do.
type order struct {
	Broker string        // host:port; "": one of its own
	Commit time.Duration // publish committed so often; 0: somebody else does
	Epoch  uint64        // of the backlog
	Total  uint64        // its records
}

// arrivals is what a listener saw.
type arrivals struct {
	Backlog   uint64    // records of the backlog, each counted once
	Points    uint64    // fields in them
	Twice     uint64    // records that came again
	First     time.Time // of the backlog
	Last      time.Time
	Live      int           // live records while the backlog came
	P50, P99  time.Duration // their arrival less their stamp
	Max       time.Duration
	BadLines  int
	Committed int // documents published
}

// TestListenerProcess is no test: a benchmark starts it as a process of its own.
// It subscribes as a hub does, decodes everything, notes when it came, and says
// what is stored.
func TestListenerProcess(t *testing.T) {
	text := os.Getenv(listenerEnv)
	if text == "" {
		t.Skip("started by the benchmarks of the uplink only")
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if o.Broker == "" {
		b, err := broker.Start("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close(t.Context())
		o.Broker = b.Addr()
	}
	l := &listener{order: o, stored: map[uint64]map[uint64]bool{}, who: map[uint64]string{}}
	what := []wire.What{wire.Live, wire.Backfill}
	var subscribe []string
	for _, w := range what {
		subscribe = append(subscribe, wire.Topic{Site: "+", Gateway: "+", What: w}.String(), wire.Topic{Site: "+", Gateway: "+", What: w, Zstd: true}.String())
	}
	link, err := mqttlink.Dial(t.Context(), mqttlink.Options{Broker: "mqtt://" + o.Broker, ClientID: fmt.Sprint("listener-", os.Getpid()),
		CleanSession: true, Subscribe: subscribe, Handler: func(m mqttlink.Message) { l.take(m, time.Now()) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { l.commit(ctx, link) })
	fmt.Fprintf(os.Stdout, "listening %s\n", o.Broker)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark has enough
	cancel()
	wg.Wait()
	link.Close(context.WithoutCancel(ctx))
	out, err := json.Marshal(l.report())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "arrived %s\n", out)
}

type listener struct {
	order order

	mu     sync.Mutex
	saw    arrivals
	lags   []time.Duration
	stored map[uint64]map[uint64]bool // by epoch, above upto
	upto   map[uint64]uint64
	who    map[uint64]string // epoch -> topic of committed
	news   bool
}

func (l *listener) take(m mqttlink.Message, now time.Time) {
	t, err := wire.ParseTopic(m.Topic)
	if err != nil {
		panic(err)
	}
	p, err := wire.Decode(t, m.Payload)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.saw.BadLines++
		return
	}
	if l.upto == nil {
		l.upto = map[uint64]uint64{}
	}
	e := p.Header.Epoch
	if l.stored[e] == nil {
		l.stored[e] = map[uint64]bool{}
		l.who[e] = wire.Topic{Site: t.Site, Gateway: t.Gateway, What: wire.CommitDoc}.String()
	}
	for _, r := range p.Records {
		if r.Err != nil {
			l.saw.BadLines++
			continue
		}
		if r.Seq <= l.upto[e] || l.stored[e][r.Seq] {
			l.saw.Twice++
			continue
		}
		l.stored[e][r.Seq] = true
		switch {
		case e == l.order.Epoch:
			if l.saw.First.IsZero() {
				l.saw.First = now
			}
			l.saw.Last = now
			l.saw.Backlog++
			l.saw.Points += uint64(len(r.Sample.Readings))
		case t.What == wire.Live && !l.saw.First.IsZero() && l.saw.Backlog < l.order.Total && r.Kind == wire.Reading:
			l.lags = append(l.lags, now.Sub(r.Sample.Time))
		}
	}
	for l.stored[e][l.upto[e]+1] {
		l.upto[e]++
		delete(l.stored[e], l.upto[e])
	}
	l.news = true
}

// commit says what came as a hub says what is stored.
func (l *listener) commit(ctx context.Context, link *mqttlink.Link) {
	if l.order.Commit == 0 {
		return
	}
	tick := time.NewTicker(l.order.Commit)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		doc := wire.Committed{Hub: "bench/1", Time: time.Now().UnixNano(), Epochs: map[uint64]wire.CommitEpoch{}}
		topic := ""
		for e, u := range l.upto {
			doc.Epochs[e], topic = wire.CommitEpoch{Upto: u, Also: ranges(l.stored[e])}, l.who[e]
		}
		news := l.news
		l.news = false
		if news {
			l.saw.Committed++
		}
		l.mu.Unlock()
		if !news {
			continue
		}
		b, err := doc.Marshal()
		if err != nil {
			panic(err)
		}
		link.Publish(topic, 1, true, b)
	}
}

func ranges(set map[uint64]bool) (out [][2]uint64) {
	var all []uint64
	for s := range set {
		all = append(all, s)
	}
	slices.Sort(all)
	for _, s := range all {
		if n := len(out); n > 0 && out[n-1][1]+1 == s {
			out[n-1][1] = s
		} else {
			out = append(out, [2]uint64{s, s})
		}
	}
	return out
}

func (l *listener) report() arrivals {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.lags)
	if n := len(l.lags); n > 0 {
		l.saw.Live, l.saw.P50, l.saw.P99, l.saw.Max = n, l.lags[n/2], l.lags[n*99/100], l.lags[n-1]
	}
	return l.saw
}

// startListener starts the other process. The broker's address is where boards
// connect; stop ends it and returns what it saw.
func startListener(t testing.TB, o order) (addr string, stop func() arrivals) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestListenerProcess$", "-test.timeout", "2h")
	cmd.Env = append(os.Environ(), listenerEnv+"="+string(text))
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the listener says nothing")
	}
	if _, err := fmt.Sscanf(lines.Text(), "listening %s", &addr); err != nil {
		t.Fatalf("the listener says %q", lines.Text())
	}
	return addr, func() (a arrivals) {
		t.Helper()
		in.Close()
		for lines.Scan() {
			var doc string
			if _, err := fmt.Sscanf(lines.Text(), "arrived %s", &doc); err == nil {
				if err := json.Unmarshal([]byte(doc), &a); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return a
	}
}
