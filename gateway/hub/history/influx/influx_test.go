package influx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/hub/history"
	"luquan/gateway/hub/history/historytest"
	"luquan/gateway/hub/history/influx"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// influxd starts a real InfluxDB 1.8 and returns its URL.
func influxd(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("influxd")
	if err != nil {
		home, _ := os.UserHomeDir()
		bin = filepath.Join(home, "go", "bin", "influxd")
		if _, err := os.Stat(bin); err != nil {
			if os.Getenv("LUQUAN_REAL") == "1" {
				t.Fatal("influxd is not installed: go install github.com/influxdata/influxdb/cmd/influxd@v1.8.10")
			}
			t.Skip("influxd is not installed")
		}
	}
	dir := t.TempDir()
	addr, rpc := freePort(t), freePort(t)
	conf := filepath.Join(dir, "influxd.conf")
	text := fmt.Sprintf(`reporting-disabled = true
bind-address = %q
[meta]
dir = %q
[data]
dir = %q
wal-dir = %q
[http]
bind-address = %q
flux-enabled = true
log-enabled = false
max-body-size = 200000
[logging]
level = "error"
[monitor]
store-enabled = false
`, rpc, dir+"/meta", dir+"/data", dir+"/wal", addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-config", conf)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	base := "http://" + addr
	deadline := time.Now().Add(60 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		resp, err := http.Get(base + "/ping")
		if err == nil {
			resp.Body.Close()
			return base
		}
		if time.Now().After(deadline) {
			t.Fatalf("influxd does not answer: %v", err)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func influxQL(t *testing.T, base, q string) string {
	t.Helper()
	resp, err := http.PostForm(base+"/query", url.Values{"q": {q}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || strings.Contains(string(b), `"error"`) {
		t.Fatalf("%s: %s %s", q, resp.Status, b)
	}
	return string(b)
}

func open(t *testing.T, base, db string) *influx.Store {
	t.Helper()
	s, err := influx.Open(influx.Config{URL: base, Bucket: db + "/autogen", Token: "u:p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func closeIdle(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
}

func TestRealConformance(t *testing.T) {
	closeIdle(t)
	base := influxd(t)
	dbs := map[string]string{}
	historytest.Test(t, func(t *testing.T) history.Store {
		db := dbs[t.Name()]
		if db == "" {
			db = fmt.Sprintf("db%d", len(dbs))
			dbs[t.Name()] = db
			influxQL(t, base, "CREATE DATABASE "+db)
		}
		return open(t, base, db)
	})
}

func row(i int) history.Row {
	return historytest.Row("plant", "m", "meter", uint64(i+1), historytest.Base().Add(time.Duration(i)*time.Second), historytest.F("x", float64(i)+0.5))
}

func count(t *testing.T, s history.Store) int {
	t.Helper()
	b, err := s.Query(context.Background(), history.Query{Point: "plant/m/x", Kind: "meter",
		From: historytest.Base().Add(-time.Hour), To: historytest.Base().Add(24 * time.Hour), Buckets: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(b) == 0 {
		return 0
	}
	return b[0].Count
}

// TestRealRefusals puts every kind of line a real database refuses among good
// ones: the good ones are stored, the bad ones named.
func TestRealRefusals(t *testing.T) {
	closeIdle(t)
	base := influxd(t)
	influxQL(t, base, "CREATE DATABASE d WITH DURATION 30d")
	s := open(t, base, "d")
	ctx := context.Background()
	if err := s.Write(ctx, []history.Row{row(0)}); err != nil {
		t.Fatal(err)
	}
	var rows []history.Row
	for i := range 100 {
		rows = append(rows, row(i))
	}
	old := historytest.Row("plant", "m", "meter", 1, time.Now().Add(-90*24*time.Hour), historytest.F("x", 1))
	bad := map[int]string{3: `meter,site=plant,device=m x="text" 1763850000000000000`, 40: `meter,site= =`, 41: `meter x=NaN 1`,
		60: "", 61: "# luquan", 70: string(old.Line), 99: "meter x=1\nmeter x=2",
		80: `big,site=plant y="` + strings.Repeat("z", 300_000) + `" 1`}
	for i, l := range bad {
		rows[i].Line = []byte(l)
	}
	err := s.Write(ctx, rows)
	var re *history.RejectedError
	if !errors.As(err, &re) {
		t.Fatalf("got %v", err)
	}
	if len(re.Rows) != len(bad) {
		t.Errorf("%d rows rejected, want %d", len(re.Rows), len(bad))
	}
	for _, r := range re.Rows {
		if _, ok := bad[r.Index]; !ok || r.Reason == "" {
			t.Errorf("row %d rejected: %q", r.Index, r.Reason)
		}
	}
	if n := count(t, s); n != 100-len(bad) {
		t.Errorf("%d good rows stored, want %d", n, 100-len(bad))
	}
}

// TestRealBehindProxy lets a proxy answer in the database's place, then go
// away: the same rows are then stored.
func TestRealBehindProxy(t *testing.T) {
	closeIdle(t)
	base := influxd(t)
	influxQL(t, base, "CREATE DATABASE d")
	u, _ := url.Parse(base)
	rp := httputil.NewSingleHostReverseProxy(u)
	tr := &http.Transport{}
	rp.Transport = tr
	var answer atomic.Pointer[http.HandlerFunc]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := answer.Load(); h != nil {
			(*h)(w, r)
			return
		}
		rp.ServeHTTP(w, r)
	}))
	defer tr.CloseIdleConnections()
	defer srv.Close()
	s := open(t, srv.URL, "d")
	fixed := func(code int, ctype, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ctype)
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	const js = "application/json"
	for name, c := range map[string]struct {
		h             http.HandlerFunc
		wait          time.Duration
		misconfigured bool
	}{
		"portal 200":             {h: fixed(200, "text/html", "<html>log in</html>")},
		"portal redirect":        {h: fixed(302, "text/html", "", "Location", "/login")},
		"500":                    {h: fixed(500, js, `{"error":"engine"}`)},
		"503":                    {h: fixed(503, "text/plain", "starting")},
		"429":                    {h: fixed(429, js, `{"code":"too many requests","message":"slow down"}`, "Retry-After", "7"), wait: 7 * time.Second},
		"401 of 1.8":             {h: fixed(401, js, `{"error":"authorization failed"}`), wait: 30 * time.Second, misconfigured: true},
		"404":                    {h: fixed(404, js, `{"code":"not found","message":"bucket not found"}`), wait: 30 * time.Second, misconfigured: true},
		"400 of a proxy":         {h: fixed(400, "text/html", "<h1>plain HTTP sent to HTTPS port</h1>")},
		"500 with err":           {h: fixed(500, js, `{"err":"x"}`)},
		"408":                    {h: fixed(408, "text/plain", "")},
		"connection torn apart ": {h: func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(name, func(t *testing.T) {
			answer.Store(&c.h)
			err := s.Write(context.Background(), []history.Row{row(1), row(2)})
			answer.Store(nil)
			var re *history.RejectedError
			if err == nil || errors.As(err, &re) {
				t.Fatalf("got %v, want an error that says: again", err)
			}
			var retry *influx.RetryError
			if errors.As(err, &retry); retry != nil && (retry.RetryAfter() != c.wait || retry.Misconfigured != c.misconfigured) {
				t.Errorf("%v: retry after %v, misconfigured %v", err, retry.RetryAfter(), retry.Misconfigured)
			} else if retry == nil && (c.wait != 0 || c.misconfigured) {
				t.Errorf("%v is no RetryError", err)
			}
		})
	}
	if n := count(t, s); n != 0 {
		t.Fatalf("%d rows stored while nothing was accepted", n)
	}
	if err := s.Write(context.Background(), []history.Row{row(1), row(2)}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s); n != 2 {
		t.Fatalf("%d rows stored, want 2", n)
	}
}

// TestLargerVersions answers as 2.x and 3 are documented to: 422 and 400 for
// a partial write, 413 for a body too large. No real server is asked here.
func TestLargerVersions(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  int
		reply string
	}{
		{"2.x", 422, `{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict"}`},
		{"3", 400, `{"error":"partial write of line protocol occurred","data":[{"original_line":"x","line_number":1,"error_message":"bad"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			stored := map[string]bool{}
			requests := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				b, _ := io.ReadAll(r.Body)
				if len(b) == 0 {
					t.Error("an empty body was posted")
				}
				if len(b) > 20_000 {
					w.WriteHeader(413)
					return
				}
				bad := false
				for l := range strings.Lines(string(b)) {
					if strings.Contains(l, "poison") {
						bad = true
						continue
					}
					stored[l] = true
				}
				if bad {
					w.Header().Set("Content-Type", "application/json; charset=utf-8")
					w.WriteHeader(c.code)
					io.WriteString(w, c.reply)
					return
				}
				w.WriteHeader(204)
			}))
			defer srv.Close()
			s, err := influx.Open(influx.Config{URL: srv.URL, Org: "o", Bucket: "b", Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var rows []history.Row
			for i := range 1000 {
				rows = append(rows, row(i))
			}
			rows[511].Line = []byte("poison x=1 1")
			err = s.Write(context.Background(), rows)
			var re *history.RejectedError
			if !errors.As(err, &re) || len(re.Rows) != 1 || re.Rows[0].Index != 511 {
				t.Fatalf("got %v", err)
			}
			if len(stored) != 999 || requests > 50 {
				t.Fatalf("%d lines stored in %d requests", len(stored), requests)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []influx.Config{{}, {URL: "127.0.0.1:8086", Bucket: "b"}, {URL: "http://h:1"}, {URL: "ftp://h", Bucket: "b"}} {
		if _, err := influx.Open(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestRealTrendIsQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 100,000 rows")
	}
	closeIdle(t)
	base := influxd(t)
	influxQL(t, base, "CREATE DATABASE d")
	s := open(t, base, "d")
	start := historytest.Base().Add(-20 * 24 * time.Hour)
	var rows []history.Row
	for i := range 100_000 {
		rows = append(rows, historytest.Row("plant", "m", "meter", uint64(i+1), start.Add(time.Duration(i)*15*time.Second), telemetry.Reading{Point: "x", Value: telemetry.FloatValue(float64(i % 977))}))
		if len(rows) == 5000 {
			if err := s.Write(context.Background(), rows); err != nil {
				t.Fatal(err)
			}
			rows = rows[:0]
		}
	}
	t0 := time.Now()
	b, err := s.Query(context.Background(), history.Query{Point: "plant/m/x", Kind: "meter", From: start, To: start.Add(100_000 * 15 * time.Second), Buckets: 1000})
	if err != nil || len(b) != 1000 {
		t.Fatalf("%d buckets, %v", len(b), err)
	}
	t.Logf("100,000 samples to 1,000 buckets in %v", time.Since(t0))
}
