package webhook

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/alarm"
	"luquan/gateway/page"
	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func message() page.Message {
	limit := 60.0
	return page.Message{
		ID: "supply-temp-low|east/hx-1/supply_temp|17", Transition: alarm.Raised, Rule: "supply-temp-low", Type: alarm.Low,
		Site: "east", Device: "hx-1", Point: "supply_temp", Value: json.RawMessage("55.5"), Quality: "good", Unit: "degC",
		Limit: &limit, Prio: alarm.HighPrio, Message: telemetry.Label{Zh: "供水温度低", En: "supply temperature low"},
		Start: time.Unix(17, 0).UTC(), At: time.Unix(137, 0).UTC(), Link: "http://hub/alarms",
	}
}

func TestNotify(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hook.key"), []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got page.Message
	var header http.Header
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/hook" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if err := json.Unmarshal(body, &got); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer srv.Close()
	w, err := New("control-room", dir, Config{URL: srv.URL + "/hook", SecretFile: "hook.key", Headers: map[string]string{"Authorization": "Bearer x"}})
	if err != nil {
		t.Fatal(err)
	}
	w.signNow = func() time.Time { return time.Unix(1000, 0) }
	m := message()
	if retry, err := w.Notify(context.Background(), m); err != nil || retry {
		t.Fatalf("retry %v, %v", retry, err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got  %+v\nwant %+v", got, m)
	}
	if !strings.Contains(string(body), `"message":{"en":"supply temperature low","zh":"供水温度低"}`) {
		t.Errorf("body %s", body)
	}
	want := map[string]string{
		"Authorization":    "Bearer x",
		"Idempotency-Key":  "supply-temp-low|east/hx-1/supply_temp|17|raised",
		"Luquan-Signature": sign([]byte("geheim"), time.Unix(1000, 0), body),
		"Content-Type":     "application/json; charset=utf-8",
	}
	for k, v := range want {
		if header.Get(k) != v {
			t.Errorf("%s: got %q, want %q", k, header.Get(k), v)
		}
	}
}

// The MAC is that of `printf '1000.{}' | openssl dgst -sha256 -hmac geheim`.
func TestSign(t *testing.T) {
	const want = "t=1000,v1=202e53d687002d8deb0f9fa8564ad5daf13843ba457f20dbb003b8d69516a3b8"
	if got := sign([]byte("geheim"), time.Unix(1000, 0), []byte("{}")); got != want {
		t.Errorf("got %s", got)
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		code  int
		body  string
		retry bool
		want  string
	}{
		{200, "", false, ""},
		{204, "", false, ""},
		{302, "", false, "a redirect; write the final address as url"},
		{400, "no such\n\tkey\x00", false, "answered 400 Bad Request: no such key"},
		{401, "", false, "answered 401 Unauthorized"},
		{404, strings.Repeat("x", 1000), false, strings.Repeat("x", 200) + "..."},
		{408, "", true, "answered 408"},
		{425, "", true, "answered 425"},
		{429, "slow", true, "answered 429 Too Many Requests: slow"},
		{500, "", true, "answered 500"},
		{503, "", true, "answered 503"},
	} {
		hits := 0
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hits++
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tt.code)
			if tt.code != 204 {
				io.WriteString(w, tt.body)
			}
		}))
		w, err := New("x", "", Config{URL: srv.URL + "/?key=secret"})
		if err != nil {
			t.Fatal(err)
		}
		retry, err := w.Notify(context.Background(), message())
		srv.Close()
		if retry != tt.retry || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d: retry %v, %v; want %v, %q", tt.code, retry, err, tt.retry, tt.want)
		}
		if hits != 1 {
			t.Errorf("%d: %d requests", tt.code, hits)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the key of the URL is in the error: %v", err)
		}
	}
}

func TestUnreachableAndSlow(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	w, err := New("x", "", Config{URL: srv.URL + "/?key=secret", Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	retry, err := w.Notify(context.Background(), message())
	if !retry || err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("slow: %v, %v", retry, err)
	}
	close(release)
	srv.Close()
	retry, err = w.Notify(context.Background(), message())
	if !retry || err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("gone: %v, %v", retry, err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{}, "webhook has no url"},
		{Config{URL: "ftp://x/"}, "no http or https address"},
		{Config{URL: "http://"}, "no http or https address"},
		{Config{URL: "http://x", Secret: "a", SecretFile: "b"}, "keep one"},
		{Config{URL: "http://x", SecretFile: "/nonexistent"}, "secret_file: open /nonexistent"},
		{Config{URL: "http://x", Timeout: time.Hour}, "timeout 1h0m0s is not within"},
		{Config{URL: "http://x", Headers: map[string]string{"a b": "c"}}, `header "a b"`},
		{Config{URL: "http://x", Headers: map[string]string{"X-A": "c\nX-B: d"}}, `header "X-A"`},
		{Config{URL: "http://x", Headers: map[string]string{"idempotency-key": "c"}}, `header "idempotency-key"`},
	} {
		if _, err := New("x", "", tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %s", tt.c, err, tt.want)
		}
	}
}
