package e2e

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/edge/uplink"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
	"luquan/internal/mqttlink"
)

var backlogSeconds = flag.Int("backlog.seconds", 3600, "how many seconds of 10,000 points the backlog of BenchmarkBacklog holds")

// BenchmarkBacklog is a board that comes back after an hour: its buffer on disk
// holds an hour of 10,000 points a second (144,000 records of 250 floats of
// three decimals) while it goes on polling as many. The other end is a process
// of its own, which notes when each record came. Live records are those read
// while the backlog drains.
//
//	go test -run xxx -bench Backlog -benchtime 1x -count 3 -timeout 1h ./internal/e2e
//
// embedded and mosquitto name the broker, with a subscriber that decodes and
// commits what came; hubd is the whole hub with its own broker and history. The
// others go to embedded over a line of 100 ms round trip: without a bound on
// its rate, and of 10 and 2 Mbit/s.
func BenchmarkBacklog(b *testing.B) {
	hour := *backlogSeconds
	for _, c := range []struct {
		name      string
		seconds   int
		roundTrip time.Duration
		rate      float64 // bytes a second
	}{
		{"embedded", hour, 0, 0},
		{"mosquitto", hour, 0, 0},
		{"hubd", hour, 0, 0},
		{"100ms", hour, 100 * time.Millisecond, 0},
		{"100ms-10Mbit", hour / 2, 100 * time.Millisecond, 10e6 / 8},
		{"100ms-2Mbit", hour / 12, 100 * time.Millisecond, 2e6 / 8},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				drain(b, c.name, c.seconds, c.roundTrip, c.rate)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func drain(b *testing.B, other string, seconds int, roundTrip time.Duration, rate float64) {
	dir := b.TempDir()
	load := newLoad(40, 250, 5)
	epoch := fillBuffer(b, dir, load, seconds)
	o := order{Commit: 500 * time.Millisecond, Epoch: epoch, Total: uint64(seconds * 40)}
	switch other {
	case "mosquitto":
		o.Broker, _ = startMosquitto(b)
	case "hubd":
		o.Broker, o.Commit = startHub(b), 0
	}
	addr, stop := startListener(b, o)
	if roundTrip > 0 {
		line := newWAN(b, addr, roundTrip, rate)
		addr = line.addr()
		before := time.Now()
		defer func() {
			sent := float64(line.up.bytes.Load())
			b.ReportMetric(sent/time.Since(before).Seconds()/1e3, "kB/s-of-line")
			if rate > 0 {
				b.ReportMetric(100*sent/time.Since(before).Seconds()/rate, "%-of-line")
			}
		}()
	}
	board := startBoard(b, dir, addr, load, nil)
	began := time.Now()
	b.StartTimer()
	board.poll(25*time.Millisecond, func() bool { return board.up.Stats().Waiting > 0 || time.Since(began) < time.Second })
	sent := time.Since(began)
	board.poll(25*time.Millisecond, func() bool { return board.holds(epoch) })
	freed := time.Since(began)
	b.StopTimer()
	board.stop()
	saw := stop()
	if saw.Backlog != o.Total || saw.BadLines != 0 {
		b.Fatalf("%d of %d records of the backlog came, %d bad lines", saw.Backlog, o.Total, saw.BadLines)
	}
	arrived := saw.Last.Sub(began)
	b.Logf("%s: all sent after %v, arrived %v, freed %v; %d live records: p50 %v, p99 %v, max %v; %d came twice, skips %d",
		other, sent.Round(time.Millisecond), arrived.Round(time.Millisecond), freed.Round(time.Millisecond),
		saw.Live, saw.P50, saw.P99, saw.Max, saw.Twice, board.up.Stats().Skips)
	b.ReportMetric(float64(seconds)/arrived.Seconds(), "x-real-time")
	b.ReportMetric(float64(seconds)/freed.Seconds(), "x-freed")
	b.ReportMetric(saw.P99.Seconds()*1e3, "ms-live-p99")
	b.ReportMetric(saw.Max.Seconds()*1e3, "ms-live-max")
}

// load makes the records of a plant: every device is read in turn and each of
// its points changes each time, by steps and in thousandths, from a seed.
type load struct {
	devices, points int
	rand            *rand.Rand
	value           []int // thousandths
	names           []string
	next            int
}

func newLoad(devices, points int, seed uint64) *load {
	l := &load{devices: devices, points: points, rand: rand.New(rand.NewPCG(seed, 1))}
	for range devices * points {
		l.value = append(l.value, l.rand.IntN(100_000))
	}
	for p := range points {
		l.names = append(l.names, fmt.Sprintf("p_%d", p))
	}
	return l
}

// sample is the next poll.
func (l *load) sample(at time.Time) telemetry.Sample {
	d := l.next % l.devices
	l.next++
	s := telemetry.Sample{Device: fmt.Sprintf("unit-%d", d+1), Kind: "meter", Time: at}
	for p, name := range l.names {
		v := &l.value[d*l.points+p]
		*v = (*v + 100_001 - 200 + l.rand.IntN(401)) % 100_001
		s.Readings = append(s.Readings, telemetry.Reading{Point: name, Value: telemetry.FloatValue(float64(*v) / 1000)})
	}
	return s
}

func (l *load) stored(at time.Time) []byte {
	b, err := wire.Store(l.sample(at), "bench", "board", telemetry.ClockTrusted, time.Hour)
	if err != nil {
		panic(err)
	}
	return b
}

// meta describes the load.
func (l *load) meta(t testing.TB, every time.Duration, linger time.Duration) (doc []byte, cfg string) {
	t.Helper()
	m := wire.Meta{Site: "bench", Gateway: "board", Linger: linger}
	for d := range l.devices {
		info := telemetry.DeviceInfo{Name: fmt.Sprintf("unit-%d", d+1), Kind: "meter"}
		g := telemetry.Group{Every: every}
		for _, name := range l.names {
			g.Points = append(g.Points, telemetry.Point{Name: name, Class: telemetry.Float, Unit: "W"})
		}
		info.Groups = []telemetry.Group{g}
		m.Devices = append(m.Devices, info)
	}
	doc, cfg, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return doc, cfg
}

// fillBuffer leaves a buffer of so many seconds, read in the past, and returns its epoch.
func fillBuffer(b *testing.B, dir string, l *load, seconds int) uint64 {
	b.Helper()
	_, cfg := l.meta(b, time.Second, 0)
	q := openBuffer(b, dir, uplink.Label("0ld", cfg))
	at := time.Now().Add(-time.Duration(seconds) * time.Second)
	for i := range seconds * l.devices {
		if _, err := q.Append(buffer.Reading, l.stored(at.Add(time.Duration(i)*time.Second/time.Duration(l.devices)))); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 0 {
			if err := q.Commit(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	epoch := q.Epoch()
	if err := q.Close(); err != nil {
		b.Fatal(err)
	}
	return epoch
}

func openBuffer(t testing.TB, dir, label string) *buffer.Queue {
	t.Helper()
	q, err := buffer.Open(buffer.Options{Dir: dir, Max: 2 << 30, CommitEvery: 5 * time.Second, Label: label,
		EncodeGap: func(l buffer.Lost) []byte { t.Errorf("lost: %+v", l); return nil }, EncodeEnd: func(buffer.EpochEnd) []byte { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// benchBoard is buffer, uplink and link as gatewayd puts them together.
type benchBoard struct {
	t      testing.TB
	load   *load
	queue  *buffer.Queue
	up     *uplink.Uplink
	cancel context.CancelFunc
	done   chan error
}

func startBoard(t testing.TB, dir, broker string, l *load, change func(*uplink.Config)) *benchBoard {
	t.Helper()
	c := uplink.Config{Site: "bench", Gateway: "board", Boot: "6b1e7c4e-4b6c-4f0e-9a60-0d6a1f6b7c11", Version: "bench", Compress: true,
		Backoff: func(int) time.Duration { return time.Second }}
	c.Dial = boardDial("mqtt://"+broker, nil)
	if change != nil {
		change(&c)
	}
	doc, cfg := l.meta(t, time.Second, c.Linger)
	c.Cfg, c.Meta = cfg, map[string][]byte{cfg: doc}
	b := &benchBoard{t: t, load: l, queue: openBuffer(t, dir, uplink.Label(c.Boot, cfg)), done: make(chan error, 1)}
	var err error
	if b.up, err = uplink.New(boardQueue{b.queue}, c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() { b.done <- b.up.Run(ctx) }()
	return b
}

// poll appends a record every so often while cond holds.
func (b *benchBoard) poll(every time.Duration, cond func() bool) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for cond() {
		<-tick.C
		if _, err := b.queue.Append(buffer.Reading, b.load.stored(time.Now())); err != nil {
			b.t.Fatal(err)
		}
	}
}

// holds reports whether records of an epoch are held.
func (b *benchBoard) holds(epoch uint64) bool {
	for _, h := range b.queue.Holds() {
		if h.Epoch == epoch {
			return true
		}
	}
	return false
}

func (b *benchBoard) stop() {
	b.t.Helper()
	b.cancel()
	if err := <-b.done; err != nil {
		b.t.Error(err)
	}
	if err := b.queue.Close(); err != nil {
		b.t.Error(err)
	}
}

func boardDial(url string, config *tls.Config) uplink.Dial {
	return func(ctx context.Context, will uplink.Message, subscribe []string, handler func(uplink.Message)) (uplink.Link, error) {
		w := mqttlink.Message(will)
		l, err := mqttlink.Dial(ctx, mqttlink.Options{Broker: url, TLS: config, ClientID: "luquan-bench-board", CleanSession: true, Will: &w,
			Subscribe: subscribe, Handler: func(m mqttlink.Message) { handler(uplink.Message(m)) }})
		if err != nil {
			return nil, err
		}
		return boardLink{l}, nil
	}
}

type boardLink struct{ *mqttlink.Link }

// Publish is uplink.Link's.
func (l boardLink) Publish(topic string, qos byte, retained bool, payload []byte) uplink.Token {
	return l.Link.Publish(topic, qos, retained, payload)
}

type boardQueue struct{ *buffer.Queue }

// Holds is uplink.Queue's.
func (q boardQueue) Holds() (out []uplink.Held) {
	for _, h := range q.Queue.Holds() {
		out = append(out, uplink.Held(h))
	}
	return out
}

// Read is uplink.Queue's.
func (q boardQueue) Read(epoch, from uint64, maxEntries, maxBytes int) (out []uplink.Entry, err error) {
	entries, err := q.Queue.Read(epoch, from, maxEntries, maxBytes)
	for _, e := range entries {
		out = append(out, uplink.Entry{Epoch: e.Epoch, Seq: e.Seq, Payload: e.Payload})
	}
	return out, err
}

// startHub starts hubd with its own broker and history and returns the broker's address.
func startHub(t testing.TB) (broker string) {
	t.Helper()
	dir := t.TempDir()
	exe := filepath.Join(dir, "hubd")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", exe, "luquan/cmd/hubd").CombinedOutput(); err != nil {
		t.Fatalf("build hubd: %v\n%s", err, out)
	}
	broker = freeAddr(t)
	file := filepath.Join(dir, "hub.yaml")
	text := fmt.Sprintf("name: bench\nmqtt: {broker: embedded, listen: %q}\nconsole: {listen: %q}\nstate: {dir: state}\n", broker, freeAddr(t))
	if err := os.WriteFile(file, []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newServer(t, exe, "run", "--config", file)
	waitTCP(t, broker)
	return broker
}
