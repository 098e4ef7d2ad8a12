// Package influx keeps history in InfluxDB: 1.8 (bucket "db/rp", token
// "user:password"), 2.x and 3.
//
// Lines are written as they came from the board, in batches, through the
// official client's blocking API. The client's asynchronous API is not used:
// it takes a partial write for success and drops what it retried too long.
// What is stored is decided by the status code alone, and only 204 is stored:
// a captive portal's 200 is not.
//
// Queries are InfluxQL. All three versions speak it, 1.8 without
// flux-enabled, and it gives min, mean, max, last and count in one pass.
package influx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	influxdb2 "github.com/influxdata/influxdb-client-go/v2"
	"github.com/influxdata/influxdb-client-go/v2/api"
	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"

	"luquan/gateway/hub/history"
	"luquan/gateway/telemetry"
)

const (
	maxLines = 5000    // of one request
	maxBytes = 4 << 20 // of one request; 1.8 takes 25 MB, 2.x 50 MB
	// slowRetry is how long to wait after 401, 403 and 404: a person must act.
	slowRetry = 30 * time.Second
)

// Config says where to write.
type Config struct {
	URL    string // http://127.0.0.1:8086
	Org    string // "" on 1.8
	Bucket string // "db/rp" on 1.8
	Token  string // "user:password" on 1.8; "" for none
	// Gzip compresses what is written: for a database behind a WAN. On a LAN
	// it halves what one core can write.
	Gzip bool
	// Timeout of one request; 0 is 20 s.
	Timeout time.Duration
}

// Store is a history.Store in InfluxDB. Create it with Open.
type Store struct {
	cfg       Config
	transport *http.Transport
	client    influxdb2.Client
	write     api.WriteAPIBlocking

	mu      sync.Mutex
	classes map[field]telemetry.Class // known for ever once seen
}

type field struct{ kind, point string }

var _ history.Store = (*Store)(nil)

// Open checks the configuration and returns the store. It does not connect:
// a database that is down is a matter of Write.
func Open(cfg Config) (*Store, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("influx: url %q is not http://host:port", cfg.URL)
	}
	if cfg.Bucket == "" {
		return nil, errors.New("influx: bucket is missing")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
	}
	hc := &http.Client{
		Transport: only204{t},
		Timeout:   cfg.Timeout,
		// A redirected POST becomes a GET that any portal answers with 200.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	opts := influxdb2.DefaultOptions().SetHTTPClient(hc).SetUseGZip(cfg.Gzip).
		SetPrecision(time.Nanosecond).SetApplicationName("luquan")
	client := influxdb2.NewClientWithOptions(cfg.URL, cfg.Token, opts)
	return &Store{
		cfg:       cfg,
		transport: t,
		client:    client,
		write:     client.WriteAPIBlocking(cfg.Org, cfg.Bucket),
		classes:   map[field]telemetry.Class{},
	}, nil
}

// Close drops idle connections.
func (s *Store) Close() error {
	s.client.Close()
	s.transport.CloseIdleConnections()
	return nil
}

// only204 takes nothing but 204 for a successful write: everything else with a
// status of success comes from something between us and the database.
type only204 struct{ base http.RoundTripper }

func (t only204) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil || !strings.HasSuffix(req.URL.Path, "/write") {
		return resp, err
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 && resp.StatusCode != http.StatusNoContent {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("write answered with %s, not 204: something other than InfluxDB answers at %s", resp.Status, req.URL.Host)
	}
	return resp, nil
}

// Write implements history.Store.
func (s *Store) Write(ctx context.Context, rows []history.Row) error {
	var rejected []history.Rejected
	for first := 0; first < len(rows); {
		n, size := 0, 0
		for first+n < len(rows) && n < maxLines && (n == 0 || size+len(rows[first+n].Line) < maxBytes) {
			size += len(rows[first+n].Line) + 1
			n++
		}
		if err := s.writeSpan(ctx, rows, first, first+n, &rejected); err != nil {
			return err
		}
		first += n
	}
	if len(rejected) > 0 {
		return &history.RejectedError{Rows: rejected}
	}
	return nil
}

// writeSpan writes rows[from:to]. Lines the database refuses are looked for by
// halves, so that one bad line costs about 2 log2(n) requests and holds none
// of the others up; they are added to rejected.
func (s *Store) writeSpan(ctx context.Context, rows []history.Row, from, to int, rejected *[]history.Rejected) error {
	var body bytes.Buffer
	for i := from; i < to; i++ {
		line := bytes.TrimSpace(rows[i].Line)
		// The database would split such a line, skip it or take an empty
		// body for success: none of it is "stored".
		if len(line) == 0 || line[0] == '#' || bytes.IndexByte(line, '\n') >= 0 {
			if to-from == 1 {
				*rejected = append(*rejected, history.Rejected{Index: from, Reason: "not one line of line protocol"})
				return nil
			}
			return s.halve(ctx, rows, from, to, rejected)
		}
		body.Write(line)
		body.WriteByte('\n')
	}
	if body.Len() == 0 {
		return nil
	}
	err := s.write.WriteRecord(ctx, body.String())
	if err == nil {
		return nil
	}
	o := judge(err)
	switch {
	case o.err != nil:
		return o.err
	case to-from == 1:
		*rejected = append(*rejected, history.Rejected{Index: from, Reason: o.reason})
		return nil
	}
	return s.halve(ctx, rows, from, to, rejected)
}

func (s *Store) halve(ctx context.Context, rows []history.Row, from, to int, rejected *[]history.Rejected) error {
	mid := from + (to-from)/2
	if err := s.writeSpan(ctx, rows, from, mid, rejected); err != nil {
		return err
	}
	return s.writeSpan(ctx, rows, mid, to, rejected)
}

// outcome of a refused write: err to try the same again later, or the reason
// why some line of it, or its size, will never be taken.
type outcome struct {
	err    error
	reason string
}

func judge(err error) outcome {
	var he *influxhttp.Error
	if !errors.As(err, &he) {
		return outcome{err: fmt.Errorf("influx: write: %w", err)}
	}
	switch code := he.StatusCode; code {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		// InfluxDB answers in JSON. A proxy that finds fault with the request
		// does not, and its word condemns no line.
		if !strings.Contains(he.Header.Get("Content-Type"), "json") {
			return outcome{err: &RetryError{Status: code, Reason: "refused by something between the hub and InfluxDB: " + message(he)}}
		}
		return outcome{reason: message(he)}
	case http.StatusRequestEntityTooLarge:
		return outcome{reason: "line is larger than the database takes: " + message(he)}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return outcome{err: &RetryError{Status: code, Reason: message(he), After: slowRetry, Misconfigured: true}}
	case 0:
		return outcome{err: fmt.Errorf("influx: write: %w", err)}
	default:
		return outcome{err: &RetryError{Status: code, Reason: message(he), After: time.Duration(he.RetryAfter) * time.Second}}
	}
}

// message is what the server said; the client's own Error method hides it
// when the body is JSON with a key "err" or of 3 Core's form.
func message(he *influxhttp.Error) string {
	m := he.Message
	if m == "" {
		m = he.Header.Get("X-Influxdb-Error")
	}
	if m == "" && he.Err != nil {
		m = he.Err.Error()
	}
	if m == "" {
		m = http.StatusText(he.StatusCode)
	}
	m = strings.TrimSpace(m)
	if len(m) > 500 {
		m = strings.ToValidUTF8(m[:500], "") + "..."
	}
	return m
}

// RetryError is a refusal that is not the fault of any line.
type RetryError struct {
	Status int    // HTTP status
	Reason string // what the server said
	// After is how long to wait, 0 when the server did not say.
	After time.Duration
	// Misconfigured reports that a person must act: wrong token, no such
	// bucket or organisation.
	Misconfigured bool
}

// Error says what was answered and, where a person must act, what to do.
func (e *RetryError) Error() string {
	s := fmt.Sprintf("influx: answered %d: %s", e.Status, e.Reason)
	if e.Misconfigured {
		s += " (check token, org and bucket in hub.yaml)"
	}
	return s
}

// RetryAfter is how long to wait before writing again; 0 leaves it to the caller.
func (e *RetryError) RetryAfter() time.Duration { return e.After }
