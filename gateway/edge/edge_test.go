package edge

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const good = `site: heating-east
gateway: boiler-house-1
uplink: {broker: "mqtt://127.0.0.1"}
buffer: {dir: buf, max: 16MiB}
buses:
  - name: lan
    tcp: {address: "127.0.0.1:1502"}
    devices:
      - {name: meter-1, profile: schneider-iem3000-pm5xxx, unit: 1, every: 1s}
`

func TestParseDefaults(t *testing.T) {
	c, err := Parse("/etc/luquan/gateway.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.Uplink.Broker != "mqtt://127.0.0.1:1883" || c.Uplink.Commit != "hub" || c.Uplink.Compression != "zstd" {
		t.Errorf("uplink %+v", c.Uplink)
	}
	if c.Clock.Hold != 30*time.Second || len(c.Clock.Trust) != 3 {
		t.Errorf("clock %+v", c.Clock)
	}
	if c.Buffer.Dir != "/etc/luquan/buf" || c.Buffer.CommitEvery != 5*time.Second {
		t.Errorf("buffer %+v", c.Buffer)
	}
}

func TestParseMistakes(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"wrong key", "every: 1s", "evry: 1s", `g.yaml:9:69: unknown key "evry"; did you mean "every"?`},
		{"no site", "site: heating-east\n", "", "site is missing"},
		{"site hub", "heating-east", "hub", "g.yaml:1:7: no site may be named hub"},
		{"bad broker", "mqtt://127.0.0.1", "127.0.0.1", `"127.0.0.1" is not a broker's address`},
		{"bad profile", "schneider-iem3000-pm5xxx", "schneider-iem3000", `g.yaml:9:34: profile "schneider-iem3000" is not known`},
		{"device named as the gateway", "meter-1", "boiler-house-1", "has the gateway's own name"},
		{"tiny buffer", "16MiB", "1MiB", "g.yaml:4:25: buffer.max is 1MiB"},
		{"key of a later stage", "gateway: b", "board: raspberry-pi-4\ngateway: b", `g.yaml:2:1: unknown key "board"`},
		{"commit", `{broker: "mqtt://127.0.0.1"}`, `{broker: "mqtt://h", commit: hubb}`, `uplink.commit is "hubb"; it is one of hub, broker, none`},
		{"one port, two buses", "buses:\n", "buses:\n  - {name: a, rtu: {port: /dev/ttyS0}, devices: [{name: x, profile: xy-md02, unit: 1}]}\n" +
			"  - {name: b, rtu: {port: /dev/ttyS0}, devices: [{name: y, profile: xy-md02, unit: 2}]}\n", "g.yaml:7:27: port /dev/ttyS0 belongs to bus \"a\" already"},
		{"one endpoint and unit, two buses", "buses:\n", "buses:\n  - {name: a, tcp: {address: \"127.0.0.1:1502\"}, devices: [{name: x, profile: xy-md02, unit: 1}]}\n",
			"127.0.0.1:1502 unit 1 is read on bus \"a\" already; read it once"},
		{"hold", "buffer:", "clock: {hold: 2h}\nbuffer:", "g.yaml:4:15: clock.hold is 2h0m0s; choose between 0s and 1h"},
		{"half a certificate", `{broker: "mqtt://127.0.0.1"}`, `{broker: "mqtts://h", tls: {cert: a.pem}}`, "a client certificate needs both"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(good, tt.old, tt.new, 1)
			if text == good {
				t.Fatal("the test changes nothing")
			}
			_, err := Parse("g.yaml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s in it", err, tt.want)
			}
		})
	}
}

// TestKeepsWithoutBroker runs a board whose device and broker are both away:
// every poll is a record that says so, and none is lost over a restart.
func TestKeepsWithoutBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	text := strings.NewReplacer("127.0.0.1:1502", nobody, "mqtt://127.0.0.1", "mqtt://"+nobody, "every: 1s", "every: 100ms").Replace(good)
	cfg, err := Parse(filepath.Join(t.TempDir(), "g.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	held := func(for_ time.Duration) (records uint64) {
		g, err := New(cfg, Options{Drain: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), for_)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		return g.queue.Stats().Entries
	}
	first := held(400 * time.Millisecond)
	if first == 0 {
		t.Fatal("nothing was kept")
	}
	if second := held(400 * time.Millisecond); second <= first {
		t.Errorf("%d records after a restart, %d before", second, first)
	}
	entries, err := os.ReadDir(filepath.Join(cfg.Buffer.Dir, "meta"))
	if err != nil || len(entries) != 1 {
		t.Errorf("meta documents: %v, %v; want the one of this configuration", entries, err)
	}
}

// TestStartsOnCardThatRefuses: descriptions and stamps that cannot be written
// do not keep a board from reading the plant.
func TestStartsOnCardThatRefuses(t *testing.T) {
	cfg, err := Parse(filepath.Join(t.TempDir(), "g.yaml"), []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.Buffer.Dir, 0o750); err != nil {
		t.Fatal(err)
	}
	meta := filepath.Join(cfg.Buffer.Dir, "meta")
	for _, inTheWay := range []string{meta, filepath.Join(cfg.Buffer.Dir, "time")} {
		if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		g, err := New(cfg, Options{Drain: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer g.close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); g.describeLater(ctx) }()
		time.Sleep(3 * time.Minute)
		select {
		case <-done:
			t.Error("a description that could not be kept counts as kept")
		default:
		}
		if err := os.Remove(meta); err != nil {
			t.Error(err)
		}
		<-done // at the next try
		if docs, err := g.metas.All(); len(docs) != 1 || err != nil {
			t.Errorf("%d descriptions on flash, %v; want the one of this configuration", len(docs), err)
		}
	})
}
