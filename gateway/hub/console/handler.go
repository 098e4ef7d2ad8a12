package console

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"luquan/gateway/webui"
)

// operator is who acts until users are known (gateway/hub/access).
const operator = "operator"

type server struct {
	opt     Options
	log     *slog.Logger
	metrics *metrics.Set
	// instance tells this run's tags from those of a run before.
	instance string
	streams  chan struct{} // one token for each open stream
	cut      *metrics.Counter
	written  *metrics.Counter
	refused  *metrics.Counter
	failed   *metrics.Counter
}

// Handler returns the console's handler. It runs nothing of its own: streams
// end with their requests, so the server's BaseContext should end when the
// hub stops. It panics when Options.Feed is nil or the assets are not whole.
func Handler(opt Options) http.Handler {
	if opt.Feed == nil {
		panic("BUG: console: Options.Feed is nil")
	}
	if opt.Heartbeat == 0 {
		opt.Heartbeat = 15 * time.Second
	}
	if opt.WriteLimit == 0 {
		opt.WriteLimit = 20 * time.Second
	}
	if opt.MaxStreams == 0 {
		opt.MaxStreams = 500
	}
	if opt.Assets == nil {
		opt.Assets = webui.FS
	}
	log := opt.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &server{
		opt: opt, log: log.With("component", "console"),
		metrics:  metrics.NewSet(),
		instance: rand.Text()[:8],
		streams:  make(chan struct{}, opt.MaxStreams),
	}
	s.cut = s.metrics.NewCounter("luquan_console_streams_cut_total")
	s.written = s.metrics.NewCounter("luquan_console_stream_events_total")
	s.refused = s.metrics.NewCounter("luquan_console_requests_refused_total")
	s.failed = s.metrics.NewCounter("luquan_console_requests_failed_total")
	s.metrics.NewGauge("luquan_console_streams", func() float64 { return float64(len(s.streams)) })

	mux := http.NewServeMux()
	get := func(path string, h func(http.ResponseWriter, *http.Request) error) {
		mux.Handle("GET "+path, s.api(h))
		mux.Handle(path, s.api(methodNotAllowed("GET")))
	}
	get("/api/v1/sites", s.sites)
	get("/api/v1/gateways", s.gateways)
	get("/api/v1/points", s.points)
	get("/api/v1/live", s.live)
	get("/api/v1/history", s.history)
	get("/api/v1/alarms", s.alarms)
	get("/api/v1/journal", s.journal)
	get("/api/v1/ledger", s.ledger)
	get("/api/v1/health", s.health)
	get("/api/v1/quarantine", s.quarantine)
	get("/healthz", s.healthz)
	get("/readyz", s.readyz)
	get("/metrics", s.writeMetrics)
	post := func(path string, h func(http.ResponseWriter, *http.Request) error) {
		mux.Handle("POST "+path, s.api(h))
		mux.Handle(path, s.api(methodNotAllowed("POST")))
	}
	post("/api/v1/alarms/{id}/ack", s.ack)
	post("/api/v1/import", s.importPayload)
	post("/api/v1/quarantine/retry", s.retryQuarantine)
	post("/api/v1/quarantine/drop", s.dropQuarantine)
	mux.Handle("/api/", s.api(func(_ http.ResponseWriter, r *http.Request) error {
		return refuse(http.StatusNotFound, "there is no "+r.URL.Path, "docs/contract.md lists what there is")
	}))
	s.pages(mux)

	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(s.api(func(http.ResponseWriter, *http.Request) error {
		return refuse(http.StatusForbidden, "the request comes from another site",
			"act from the console's own address, or from a program that is not a browser")
	}))
	return secure(cross.Handler(mux))
}

// policy forbids everything that is not ours: no inline script or style, no
// other origin, no frame around us.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// refusal is an error that the client can mend.
type refusal struct {
	status     int
	text, hint string
	allow      string
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, text, hint string) error {
	return &refusal{status: status, text: text, hint: hint}
}

func methodNotAllowed(allow string) func(http.ResponseWriter, *http.Request) error {
	return func(_ http.ResponseWriter, r *http.Request) error {
		return &refusal{status: http.StatusMethodNotAllowed, text: r.Method + " is not possible here", hint: "use " + allow, allow: allow}
	}
}

// absent is the answer where the hub was assembled without a part.
func absent(what string) error {
	return refuse(http.StatusNotImplemented, "this hub keeps no "+what, "look at its configuration")
}

// api turns errors into {"error", "hint"}. What the client cannot mend is
// logged here, and nowhere else.
func (s *server) api(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		var no *refusal
		if !errors.As(err, &no) {
			if r.Context().Err() != nil {
				return // the client is gone; nobody is there to be told
			}
			s.failed.Inc()
			s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			no = &refusal{status: http.StatusInternalServerError, text: err.Error(), hint: "look into the hub's log and /api/v1/health"}
		} else {
			s.refused.Inc()
		}
		if no.allow != "" {
			w.Header().Set("Allow", no.allow)
		}
		writeJSON(w, no.status, struct {
			Error string `json:"error"`
			Hint  string `json:"hint"`
		}{no.text, no.hint})
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client is gone, or our own types: both leave nothing to do
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, "ok\n")
	return err
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) error {
	if s.opt.Ready != nil {
		if err := s.opt.Ready(); err != nil {
			return refuse(http.StatusServiceUnavailable, "not ready: "+err.Error(), "it tries again by itself; see /api/v1/health")
		}
	}
	return s.healthz(w, r)
}

func (s *server) writeMetrics(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	s.metrics.WritePrometheus(w)
	if s.opt.Metrics != nil {
		s.opt.Metrics(w)
	}
	return nil
}
