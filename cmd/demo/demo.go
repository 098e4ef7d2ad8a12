package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/edge"
	"luquan/gateway/hub"
	"luquan/internal/daemon"
	"luquan/internal/plant"
)

// drain bounds the end of each half, so that Ctrl-C is over within two seconds.
const drain = 400 * time.Millisecond

type demo struct {
	length  time.Duration
	listen  string
	dir     string
	seed    uint64
	verbose bool
	names   []string // --site
	day     bool
	speed   float64

	sites       []string      // folders of firmware-config/sites
	common      plant.Options // what all plants have: the device models, which the boards share
	out, errOut io.Writer
	log         *slog.Logger
	mu          sync.Mutex // guards out
}

func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, format+"\n", args...)
}

// run assembles plant, gateways and hub, and takes them apart in the order of
// the flow: first the gateways, whose last readings the hub still stores.
func (d *demo) run(ctx context.Context) error {
	d.log = slog.New(slog.NewTextHandler(d.errOut, &slog.HandlerOptions{Level: slog.LevelError}))
	if d.verbose {
		d.log = daemon.Logger(d.errOut)
	}
	if host, _, err := net.SplitHostPort(d.listen); err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("--listen %s is not an address on loopback, as 127.0.0.1:8080; the console has no log-in yet", d.listen)
	}
	if d.length < 0 {
		return fmt.Errorf("--for %v is not a length of time; write for example 40s", d.length)
	}
	if err := d.choose(); err != nil {
		return err
	}
	dir := d.dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "luquan-demo-"); err != nil {
			return fmt.Errorf("make a folder for the demo: %w", err)
		}
		defer os.RemoveAll(dir)
	}
	if d.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.length)
		defer cancel()
	}
	var err error
	if d.common.Library, err = edge.Profiles(); err != nil { // once for all: it is most of the start
		return err
	}
	plants, err := d.startPlants(ctx, dir)
	defer func() {
		for _, p := range plants {
			p.Close()
		}
	}()
	if err != nil {
		return err
	}
	pager, err := d.startPhone()
	if err != nil {
		return err
	}
	defer pager.Close()
	h, err := d.newHub(ctx, dir, pager.url, plants)
	if err != nil {
		return err
	}
	gateways, boards, err := d.newGateways(dir, h.BrokerAddr(), plants)
	if err != nil {
		hubOnly, cancel := context.WithCancel(ctx)
		cancel()
		return errors.Join(err, h.Run(hubOnly)) // gives back what the hub holds
	}
	d.tell(plants, boards)
	d.say("控制台 console: http://%s", h.ConsoleAddr())
	if err := d.schedule(ctx, plants); err != nil {
		return err
	}
	err = runAll(ctx, h, gateways)
	d.say("完 stopped")
	return err
}

func (d *demo) startPlants(ctx context.Context, dir string) (map[string]*plant.Plant, error) {
	plants := map[string]*plant.Plant{}
	for i, s := range d.sites {
		o := plant.Options{Seed: d.seed + uint64(i), Dir: filepath.Join(dir, "lines", s), Library: d.common.Library, Logger: d.log}
		if err := d.played(s, &o); err != nil {
			return plants, err
		}
		p, err := plant.Load(firmwareconfig.FS, path.Join("sites", s), o)
		if err == nil {
			plants[s] = p
			err = p.Start(ctx)
		}
		if err != nil {
			return plants, err
		}
	}
	return plants, nil
}

func (d *demo) newHub(ctx context.Context, dir, phone string, plants map[string]*plant.Plant) (*hub.Hub, error) {
	rules := filepath.Join(dir, "rules")
	if err := os.MkdirAll(rules, 0o750); err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(firmwareconfig.FS, "sites/hub.yaml")
	if err != nil {
		return nil, err
	}
	cfg, err := hub.Parse("sites/hub.yaml", data)
	if err != nil {
		return nil, err
	}
	cfg.MQTT.Listen, cfg.Console.Listen = "127.0.0.1:0", d.listen
	cfg.State.Dir, cfg.History.Dir = filepath.Join(dir, "hub"), filepath.Join(dir, "history")
	cfg.Rules, cfg.Page = []string{filepath.Join(rules, "*.yaml")}, filepath.Join(dir, "page.yaml")
	cfg.Overview = cards(cfg.Overview, plants)
	for _, s := range d.sites {
		data, err := fs.ReadFile(firmwareconfig.FS, path.Join("sites", s, "rules.yaml"))
		if err == nil {
			err = os.WriteFile(filepath.Join(rules, s+".yaml"), data, 0o640)
		}
		if err != nil {
			return nil, err
		}
	}
	pages := fmt.Sprintf("channels:\n  phone: {webhook: {url: %q}}\nrotas:\n  duty: {notify: [phone]}\n", phone)
	if err := os.WriteFile(cfg.Page, []byte(pages), 0o640); err != nil {
		return nil, err
	}
	return hub.New(ctx, cfg, hub.Options{Logger: d.log, Version: daemon.Version(), Drain: drain})
}

// newGateways reads every board's file of every site as it would stand on the
// board; only the addresses are those of this process.
func (d *demo) newGateways(dir, broker string, plants map[string]*plant.Plant) ([]*edge.Gateway, []edge.Config, error) {
	var gateways []*edge.Gateway
	var boards []edge.Config
	fail := func(err error) ([]*edge.Gateway, []edge.Config, error) {
		stopped, cancel := context.WithCancel(context.Background())
		cancel()
		for _, g := range gateways {
			err = errors.Join(err, g.Run(stopped)) // gives back what it holds
		}
		return nil, nil, err
	}
	for _, s := range d.sites {
		files, err := fs.Glob(firmwareconfig.FS, path.Join("sites", s, "gateway*.yaml"))
		if err != nil {
			return fail(err)
		}
		for _, f := range files {
			data, err := fs.ReadFile(firmwareconfig.FS, f)
			if err != nil {
				return fail(err)
			}
			cfg, err := edge.ParseWith(d.common.Library, f, data)
			if err != nil {
				return fail(err)
			}
			cfg.Uplink.Broker = "mqtt://" + broker
			cfg.Buffer.Dir = filepath.Join(dir, "buffer", cfg.Site, cfg.Gateway)
			for i := range cfg.Buses {
				b := &cfg.Buses[i]
				if b.TCP != nil {
					b.TCP.Address = plants[s].Addr(b.Name)
				}
				if b.RTU != nil {
					b.RTU.Port = plants[s].Port(b.Name)
				}
			}
			g, err := edge.New(cfg, edge.Options{Logger: d.log, Version: daemon.Version(), Drain: drain})
			if err != nil {
				return fail(err)
			}
			gateways, boards = append(gateways, g), append(boards, cfg)
		}
	}
	return gateways, boards, nil
}

func runAll(ctx context.Context, h *hub.Hub, gateways []*edge.Gateway) error {
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	hubDone := make(chan error, 1)
	go func() {
		hubDone <- h.Run(hubCtx)
		abort()
	}()
	var edges sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, g := range gateways {
		edges.Go(func() {
			if err := g.Run(ctx); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				abort()
			}
		})
	}
	edges.Wait()
	stopHub()
	return errors.Join(append(errs, <-hubDone)...)
}

// phone stands for the phone of whoever is on duty: a webhook that prints.
type phone struct {
	*http.Server
	url string
}

func (d *demo) startPhone() (*phone, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for pages: %w", err)
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m struct {
			Transition, Site, Device, Point, Unit, Priority string
			Value                                           json.RawMessage
			Message                                         struct{ Zh, En string }
		}
		if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d.say("通知 page (%s): %s %s / %s, %s/%s/%s = %s %s", m.Priority, words[m.Transition], m.Message.Zh, m.Message.En,
			m.Site, m.Device, m.Point, strings.Trim(string(m.Value), `"`), m.Unit)
	})}
	go srv.Serve(l) // ends with Close
	return &phone{srv, "http://" + l.Addr().String() + "/page"}, nil
}

var words = map[string]string{"raised": "报警 raised", "announced": "报警 raised", "cleared": "消除 cleared", "acknowledged": "确认 acknowledged"}
