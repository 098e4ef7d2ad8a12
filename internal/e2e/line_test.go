package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/edge"
	"luquan/gateway/hub"
	"luquan/internal/plant"
)

// line is a site's plant, its gateways and a hub, assembled as the commands
// assemble them.
type line struct {
	t     *testing.T
	plant *plant.Plant
	hub   *hub.Hub
	api   string // http://host:port/api/v1
	pages *webhookServer
	log   *slog.Logger
	dir   string
	cfgs  []edge.Config

	gateways *running
	hubRun   *running
}

// running is something whose Run was called.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func run(f func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel, make(chan error, 1)}
	go func() { r.done <- f(ctx) }()
	return r
}

// stop ends it cleanly and returns what Run returned.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if r == nil {
		return
	}
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("it did not end cleanly: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it did not end within 20 s")
	}
}

// lineOptions are what differs from test to test.
type lineOptions struct {
	broker string  // host:port; "" embeds one
	influx *influx // nil: the embedded history
	serial bool    // every device's serial register is polled as the point poll_serial
}

func startLine(t *testing.T, site string, o lineOptions) *line {
	t.Helper()
	l := &line{t: t, dir: t.TempDir(), log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	var err error
	l.plant, err = plant.Load(firmwareconfig.FS, path.Join("sites", site), plant.Options{Seed: 7, Dir: filepath.Join(l.dir, "lines")})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.plant.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.plant.Close)
	l.pages = startWebhook(t)
	l.startHub(site, o)
	broker := o.broker
	if broker == "" {
		broker = l.hub.BrokerAddr()
	}
	files, err := fs.Glob(firmwareconfig.FS, path.Join("sites", site, "gateway*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("site %s has no gateways: %v", site, err)
	}
	for _, f := range files {
		l.cfgs = append(l.cfgs, l.gatewayConfig(f, broker, o))
	}
	l.startGateways()
	t.Cleanup(func() {
		l.gateways.stop(t)
		l.hubRun.stop(t)
	})
	return l
}

// testWriter shows the log of a failed test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	defer func() { _ = recover() }() // a line after the test's end
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func (l *line) startHub(site string, o lineOptions) {
	t := l.t
	t.Helper()
	rules, err := fs.ReadFile(firmwareconfig.FS, path.Join("sites", site, "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		p := filepath.Join(l.dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("rules.yaml", string(rules))
	write("page.yaml", fmt.Sprintf("channels:\n  hook: {webhook: {url: %q}}\nrotas:\n  duty: {notify: [hook]}\n", l.pages.URL))
	text := "name: e2e\nrules: [rules.yaml]\npage: page.yaml\nconsole: {listen: \"127.0.0.1:0\"}\nstate: {dir: hub}\n"
	if o.broker != "" {
		text += fmt.Sprintf("mqtt: {broker: \"mqtt://%s\"}\n", o.broker)
	} else {
		text += "mqtt: {listen: \"127.0.0.1:0\"}\n"
	}
	if o.influx != nil {
		write("influx.token", o.influx.token+"\n")
		text += fmt.Sprintf("influx: {url: %q, bucket: %q, token_file: influx.token}\n", o.influx.url, o.influx.bucket)
	}
	cfg, err := hub.Load(write("hub.yaml", text))
	if err != nil {
		t.Fatal(err)
	}
	if l.hub, err = hub.New(t.Context(), cfg, hub.Options{Logger: l.log, Version: "e2e"}); err != nil {
		t.Fatal(err)
	}
	l.api = "http://" + l.hub.ConsoleAddr() + "/api/v1"
	l.hubRun = run(l.hub.Run)
}

// gatewayConfig is a board's file with the addresses of this test and, where
// asked, the serial register of every device as one more point.
func (l *line) gatewayConfig(file, broker string, o lineOptions) edge.Config {
	t := l.t
	t.Helper()
	data, err := fs.ReadFile(firmwareconfig.FS, file)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for _, b := range doc["buses"].([]any) {
		bus := b.(map[string]any)
		name := bus["name"].(string)
		if tcp, ok := bus["tcp"].(map[string]any); ok {
			tcp["address"] = l.plant.Addr(name)
		}
		if rtu, ok := bus["rtu"].(map[string]any); ok {
			rtu["port"] = l.plant.Port(name)
		}
		if o.serial {
			for _, d := range bus["devices"].([]any) {
				addSerial(d.(map[string]any))
			}
		}
	}
	doc["uplink"].(map[string]any)["broker"] = "mqtt://" + broker
	if data, err = yaml.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	cfg, err := edge.Parse(file, data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	cfg.Buffer.Dir = filepath.Join(l.dir, "buffer", cfg.Gateway)
	return cfg
}

// addSerial polls the device's register 65000, which counts its own complete
// reads, with every poll of the device's own period.
func addSerial(d map[string]any) {
	ref, ok := d["profile"].(map[string]any)
	if !ok {
		ref = map[string]any{"base": d["profile"]}
	}
	d["profile"] = ref
	points, _ := ref["points"].([]any)
	ref["points"] = append(points, map[string]any{
		"name": "poll_serial", "label": map[string]any{"en": "Reads so far", "zh": "读取次数"},
		"table": "holding", "address": 65000, "type": "u32", "every": d["every"],
	})
	if chosen, ok := d["points"].([]any); ok {
		d["points"] = append(chosen, "poll_serial")
	}
}

func (l *line) startGateways() {
	l.t.Helper()
	var gateways []*edge.Gateway
	for _, cfg := range l.cfgs {
		g, err := edge.New(cfg, edge.Options{Logger: l.log, Version: "e2e"})
		if err != nil {
			l.t.Fatal(err)
		}
		gateways = append(gateways, g)
	}
	l.gateways = run(func(ctx context.Context) error {
		errs := make([]error, len(gateways))
		var wg sync.WaitGroup
		for i, g := range gateways {
			wg.Go(func() { errs[i] = g.Run(ctx) })
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

// get reads a JSON document of the hub's API.
func (l *line) get(path string, v any) {
	l.t.Helper()
	if err := getJSON(l.api+path, v); err != nil {
		l.t.Fatal(err)
	}
}

func getJSON(url string, v any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return json.Unmarshal(body, v)
}

// apiPoint is the part of a point in the API that tests look at.
type apiPoint struct {
	Name, Site, Device, Point, Quality, Unit string
	Value                                    any
	Time                                     time.Time
}

// webhookServer keeps the pages that came.
type webhookServer struct {
	*httptest.Server
	mu    sync.Mutex
	pages []hookPage
}

type hookPage struct {
	ID, Transition, Rule, Site, Device, Point string
	Message                                   struct{ Zh, En string }
}

func startWebhook(t *testing.T) *webhookServer {
	w := &webhookServer{}
	w.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var p hookPage
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Errorf("a page that is no JSON: %v", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pages = append(w.pages, p)
	}))
	t.Cleanup(w.Close)
	return w
}

// count returns how many pages tell of this transition of the rule.
func (w *webhookServer) count(rule, transition string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, p := range w.pages {
		if p.Rule == rule && p.Transition == transition {
			n++
		}
	}
	return n
}
