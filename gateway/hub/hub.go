package hub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/broker"
	"luquan/gateway/hub/console"
	"luquan/gateway/hub/health"
	"luquan/gateway/hub/history"
	"luquan/gateway/hub/history/influx"
	"luquan/gateway/hub/history/sqlite"
	"luquan/gateway/hub/ingest"
	"luquan/gateway/hub/journal"
	"luquan/gateway/hub/ledger"
	"luquan/gateway/hub/live"
	"luquan/gateway/page"
	"luquan/gateway/page/webhook"
	"luquan/internal/conffile"
)

// Options are what the process, not hub.yaml, decides.
type Options struct {
	Logger  *slog.Logger // nil: silent
	Version string
	// Drain bounds how long Run goes on storing what has come after its
	// context is done; 0 means 1 s.
	Drain time.Duration
}

// Hub is the assembled centre: New acquires everything, Run works until its
// context ends and gives everything back.
type Hub struct {
	cfg   Config
	opt   Options
	log   *slog.Logger
	start time.Time

	broker     *broker.Broker // nil: an outside one
	store      history.Store
	ledger     *ledger.Ledger
	journal    *journal.Journal
	quarantine *ingest.Quarantine
	feed       *live.Feed
	rules      *alarm.RuleSet
	judge      *judge
	consumer   *ingest.Consumer
	link       *link
	pager      *page.Pager
	chain      *chain
	listener   net.Listener
	server     *http.Server

	closers []closer
}

type closer struct {
	what  string
	close func() error
}

// channels is what page.yaml may say of a channel: a key for each kind.
type channels struct {
	Webhook *webhook.Config
}

// Open makes the channel.
func (c channels) Open(name, dir string) (page.Channel, error) {
	if c.Webhook == nil {
		return nil, errors.New("the channel says no kind; write for example webhook: {url: ...}")
	}
	return webhook.New(name, dir, *c.Webhook)
}

// New opens everything the hub works with and listens; on an error it has
// given everything back.
func New(ctx context.Context, cfg Config, opt Options) (_ *Hub, err error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Drain == 0 {
		opt.Drain = time.Second
	}
	h := &Hub{cfg: cfg, opt: opt, log: opt.Logger, start: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	rules, plan, err := readRules(cfg)
	if err != nil {
		return nil, err
	}
	h.rules = rules
	lock, err := lockState(cfg.State.Dir)
	if err != nil {
		return nil, err
	}
	h.onClose("lock of state.dir", lock.Close)
	id := cfg.Name + "/" + bootID()
	if err := h.openBooks(id); err != nil {
		return nil, err
	}
	if err := h.openStore(); err != nil {
		return nil, err
	}
	if err := h.openJudge(ctx, plan); err != nil {
		return nil, err
	}
	brokerURL := cfg.MQTT.Broker
	if brokerURL == "embedded" {
		h.broker, err = broker.Start(cfg.MQTT.Listen, h.log)
		if err != nil {
			return nil, err
		}
		h.onClose("broker", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			return h.broker.Close(ctx)
		})
		brokerURL = "mqtt://" + h.broker.Addr()
	}
	h.link = newLink(brokerURL, cfg.Name, id, func(topic string, payload []byte, received time.Time) {
		h.consumer.Handle(topic, payload, received)
	}, h.ledger.Rename, h.log)
	h.consumer = ingest.New(ingest.Config{
		Hub: cfg.Name, Sites: cfg.Sites, Sink: fanout{h.judge, h.link}, Store: storeAdapter{h.store},
		Ledger: h.ledger, Publisher: h.link, Quarantine: h.quarantine, Log: h.log, Drain: opt.Drain,
	})
	h.chain = &chain{h: h, watch: &health.Watch{}}
	return h, h.listen()
}

// ledgerFile is the ledger's name in state.dir.
const ledgerFile = "ledger.sqlite"

func bootID() string {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		panic("BUG: crypto/rand failed: " + err.Error())
	}
	return hex.EncodeToString(b)
}

// readRules reads every rule file and page.yaml before it answers, so that one
// start tells every mistake.
func readRules(cfg Config) (*alarm.RuleSet, *page.Plan, error) {
	var errs []error
	var sets []*alarm.RuleSet
	for _, glob := range cfg.Rules {
		files, err := filepath.Glob(glob)
		switch {
		case err != nil:
			errs = append(errs, &conffile.Error{File: glob, Msg: "this is no pattern of files, and hub.yaml gives it under rules; write for example rules/*.yaml"})
		case len(files) == 0:
			errs = append(errs, &conffile.Error{File: glob, Msg: "no file fits this pattern, which hub.yaml gives under rules; name the rule files, or take the line away"})
		}
		slices.Sort(files)
		for _, f := range files {
			data, err := conffile.Read(f)
			if err == nil {
				var set *alarm.RuleSet
				if set, err = alarm.ParseFile(f, data); err == nil {
					sets = append(sets, set)
				}
			}
			errs = append(errs, err)
		}
	}
	var plan *page.Plan
	if cfg.Page != "" {
		data, err := conffile.Read(cfg.Page)
		if err == nil {
			plan, err = page.ParseFile[channels](cfg.Page, data)
		}
		errs = append(errs, err)
	}
	if err := conffile.Join(errs...); err != nil {
		return nil, nil, err
	}
	set, err := alarm.Merge(sets...)
	if err != nil {
		return nil, nil, err
	}
	var rotas []string
	if plan != nil {
		rotas = plan.Rotas()
	}
	return set, plan, set.CheckRotas(cfg.Page, rotas)
}

func (h *Hub) openBooks(id string) (err error) {
	if h.ledger, err = ledger.Open(filepath.Join(h.cfg.State.Dir, ledgerFile), id, h.log); err != nil {
		return err
	}
	h.onClose("ledger", h.ledger.Close)
	if h.journal, err = journal.Open(h.cfg.State.Dir); err != nil {
		return err
	}
	h.onClose("journal", h.journal.Close)
	if h.quarantine, err = ingest.OpenQuarantine(filepath.Join(h.cfg.State.Dir, "quarantine")); err != nil {
		return err
	}
	h.onClose("quarantine", h.quarantine.Close)
	return nil
}

func (h *Hub) openStore() error {
	if c := h.cfg.Influx; c != nil {
		token, err := c.token()
		if err != nil {
			return err
		}
		s, err := influx.Open(influx.Config{URL: c.URL, Org: c.Org, Bucket: c.Bucket, Token: token})
		if err != nil {
			return err
		}
		h.store = s
	} else {
		s, err := sqlite.Open(sqlite.Config{Dir: h.cfg.History.Dir, Keep: h.cfg.History.Keep.Duration(), Log: h.log})
		if err != nil {
			return err
		}
		h.store = s
	}
	h.onClose("history", h.store.Close)
	return nil
}

// openJudge brings the alarm engine to where it stood when the hub was stopped.
func (h *Hub) openJudge(ctx context.Context, plan *page.Plan) error {
	kept, err := openMetas(filepath.Join(h.cfg.State.Dir, "gateways"))
	if err != nil {
		return err
	}
	now := time.Now()
	engine := alarm.New(h.rules)
	memory, err := h.journal.Load(ctx)
	if err != nil {
		return err
	}
	removed := engine.Restore(now, memory)
	h.feed = live.New(live.Options{})
	h.judge = newJudge(engine, h.feed, h.journal, h.log)
	h.judge.keep, h.judge.link, h.judge.plan = kept.Keep, h.alarmLink, plan
	h.judge.add(removed, nil)
	known, err := kept.Load()
	if err != nil {
		h.log.Warn("some gateways are unknown until they come back", "error", err)
	}
	for _, m := range known {
		h.judge.restore(m)
	}
	if plan != nil {
		h.pager = page.NewPager(plan.Channels(), h.journal, h.log)
		h.judge.wake = h.pager.Wake
	}
	return nil
}

func (h *Hub) listen() error {
	l, err := net.Listen("tcp", h.cfg.Console.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("console.listen: %s is already taken by another program; stop it or choose another port", h.cfg.Console.Listen)
	}
	if err != nil {
		return fmt.Errorf("console.listen: cannot listen on %s: %w", h.cfg.Console.Listen, err)
	}
	h.listener = l
	h.onClose("console", func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	h.server = &http.Server{
		Handler:           loopbackOnly(console.Handler(h.consoleOptions())),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	return nil
}

// loopbackOnly refuses requests that name another host. Until the console knows
// users it listens on loopback only, and a foreign web page must not reach it
// through a name of its own that it lets resolve to 127.0.0.1 (DNS rebinding).
// A reverse proxy on this machine names us as it reaches us.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(http.StatusMisdirectedRequest)
			fmt.Fprintln(w, `{"error":"the console answers on this machine only","hint":"open it as http://127.0.0.1:PORT, or let the reverse proxy pass its own Host"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ConsoleAddr is where the console listens, host:port.
func (h *Hub) ConsoleAddr() string { return h.listener.Addr().String() }

// BrokerAddr is where the embedded broker listens; "" with an outside one.
func (h *Hub) BrokerAddr() string {
	if h.broker == nil {
		return ""
	}
	return h.broker.Addr()
}

func (h *Hub) onClose(what string, f func() error) { h.closers = append(h.closers, closer{what, f}) }

// close gives back what was acquired, the last first.
func (h *Hub) close() error {
	var errs []error
	for _, c := range slices.Backward(h.closers) {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close the %s: %w", c.what, err))
		}
	}
	h.closers = nil
	return errors.Join(errs...)
}

// Run works until ctx is done, then stops in the order of the flow: what has
// come is stored and committed before the broker's link goes.
func (h *Hub) Run(ctx context.Context) error {
	var errs []error
	var mu sync.Mutex
	part := func(what string, run func(context.Context) error, stop context.Context, abort context.CancelFunc, wg *sync.WaitGroup) {
		wg.Go(func() {
			if err := run(stop); err != nil && !errors.Is(err, context.Canceled) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
				mu.Unlock()
				abort() // a hub without one of its parts must not look alive
			}
		})
	}
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	after, stopAfter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAfter()

	var first, second sync.WaitGroup // second ends when first has
	part("ingest", h.consumer.Run, ctx, abort, &first)
	h.server.BaseContext = func(net.Listener) context.Context { return ctx } // ends the event streams
	part("console", h.serve, ctx, abort, &first)
	part("broker link", h.link.Run, after, abort, &second)
	part("alarms", h.judge.Run, after, abort, &second)
	if h.pager != nil {
		part("pager", h.pager.Run, after, abort, &second)
	}
	first.Wait()
	stopAfter()
	second.Wait()
	return errors.Join(append(errs, h.close())...)
}

func (h *Hub) serve(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.opt.Drain)
		defer cancel()
		if h.server.Shutdown(last) != nil {
			h.server.Close()
		}
	})
	err := h.server.Serve(h.listener)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	stop()
	return err
}

// alarmLink is the alarm's address in the console.
func (h *Hub) alarmLink(a alarm.Alarm) string {
	return "http://" + h.listener.Addr().String() + "/alarms"
}

// storeAdapter lets ingest write to the history.
type storeAdapter struct{ store history.Store }

// Write is ingest.Store's.
func (s storeAdapter) Write(ctx context.Context, rows []ingest.Row) (map[int]string, error) {
	out := make([]history.Row, len(rows))
	for i, r := range rows {
		out[i] = history.Row(r)
	}
	err := s.store.Write(ctx, out)
	var rejected *history.RejectedError
	if errors.As(err, &rejected) {
		reasons := make(map[int]string, len(rejected.Rows))
		for _, r := range rejected.Rows {
			reasons[r.Index] = r.Reason
		}
		return reasons, nil
	}
	return nil, err
}
