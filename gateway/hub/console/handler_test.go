package console

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/ledger"
	"luquan/gateway/hub/live"
	"luquan/gateway/telemetry"
)

func decode[T any](t *testing.T, resp *http.Response) T {
	t.Helper()
	var v T
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %v in %s", resp.Request.URL, err, body)
	}
	return v
}

// TestRefusals sends what is wrong and wants the status and a sentence.
func TestRefusals(t *testing.T) {
	b := newBench(t, nil)
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"POST", "/api/v1/points", 405, "POST is not possible here"},
		{"DELETE", "/api/v1/alarms", 405, "DELETE"},
		{"GET", "/api/v1/alarms/x/ack", 405, "GET is not possible here"},
		{"POST", "/api/v1/live", 405, "POST"},
		{"PUT", "/healthz", 405, "PUT"},
		{"GET", "/api/v1/nonsense", 404, "there is no /api/v1/nonsense"},
		{"GET", "/api/v2/points", 404, "there is no"},
		{"GET", "/api/v1/points?mach=x", 400, `no parameter "mach"`},
		{"GET", "/api/v1/points?match=heating-east", 400, "three levels"},
		{"GET", "/api/v1/points?match=a/b/c/d", 400, "three levels"},
		{"GET", "/api/v1/points?match=a/b/c&match=d/e/f", 400, "given twice"},
		{"GET", "/api/v1/points?match=a/b/" + long, 400, "characters long"},
		{"GET", "/api/v1/points?match=%zz", 400, "not well formed"},
		{"GET", "/api/v1/live?match=x", 400, "three levels"},
		{"GET", "/api/v1/history", 400, "point is missing"},
		{"GET", "/api/v1/history?point=a/*/c", 400, "one full name"},
		{"GET", "/api/v1/history?point=a/b/c", 404, "no point is named"},
		{"GET", "/api/v1/history?point=a/b/c&buckets=0", 400, "whole number from 1 to 2000"},
		{"GET", "/api/v1/history?point=a/b/c&buckets=2001", 400, "whole number from 1 to 2000"},
		{"GET", "/api/v1/history?point=a/b/c&buckets=1e3", 400, "whole number"},
		{"GET", "/api/v1/history?point=a/b/c&from=yesterday", 400, "is not a time"},
		{"GET", "/api/v1/history?point=a/b/c&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "from is not before to"},
		{"GET", "/api/v1/history?point=a/b/c&from=2000-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "longer than five years"},
		{"GET", "/api/v1/history?point=a/b/c&from=0001-01-01T00:00:00Z&to=0001-01-02T00:00:00Z", 400, "between 1970 and 2200"},
		{"GET", "/api/v1/alarms?state=loud", 400, `state="loud" is not known`},
		{"POST", "/api/v1/alarms/none/ack", 404, "no such alarm"},
		{"POST", "/api/v1/alarms/" + strings.Repeat("x", 401) + "/ack", 400, "too long"},
		{"GET", "/api/v1/journal?limit=0", 400, "whole number"},
		{"GET", "/api/v1/ledger?site=Heating", 400, "is not a name"},
		{"GET", "/api/v1/ledger?by=week", 400, "not made of site, gateway, epoch, hour"},
		{"GET", "/api/v1/ledger?verify=yes", 400, "neither 0 nor 1"},
		{"GET", "/api/v1/ledger?verify=1&from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z", 400, "too long to be compared"},
		{"GET", "/nonsense", 404, "there is no /nonsense"},
		{"POST", "/alarms", 405, "POST is not possible here"},
		{"GET", "/api/v1/sites?x=1", 400, `has no parameter "x"`},
	} {
		resp := b.do(t, tt.method, tt.path)
		body := decode[map[string]string](t, resp)
		if resp.StatusCode != tt.status || !strings.Contains(body["error"], tt.says) || body["hint"] == "" || len(body) != 2 {
			t.Errorf("%s %s: %d %v, want %d saying %q, with a hint", tt.method, tt.path, resp.StatusCode, body, tt.status, tt.says)
		}
		if resp.StatusCode == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tt.method, tt.path)
		}
	}
}

func TestPoints(t *testing.T) {
	b := newBench(t, nil)
	all := decode[[]map[string]any](t, b.get(t, "/api/v1/points"))
	if len(all) < 30 {
		t.Fatalf("%d points", len(all))
	}
	got := decode[[]map[string]any](t, b.get(t, "/api/v1/points?match="+url.QueryEscape("heating-east/*/t1_*")))
	if len(got) != 1 {
		t.Fatalf("%d points match, want 1: %v", len(got), got)
	}
	p := got[0]
	for key, want := range map[string]any{
		"name": "heating-east/heat-meter-1/t1_flow", "site": "heating-east", "device": "heat-meter-1", "point": "t1_flow",
		"gateway": "boiler-house-1", "kind": "heat_meter", "unit": "degC", "class": "float", "quality": "good", "code": 0.0,
		"period": 10.0, "stale": false, "label": map[string]any{"zh": "供水温度", "en": "Flow temperature"},
		"range":  map[string]any{"min": 0.0, "max": 150.0},
		"limits": []any{map[string]any{"kind": "low", "value": 60.0, "priority": "high"}, map[string]any{"kind": "high", "value": 110.0, "priority": "high"}},
	} {
		if !reflect.DeepEqual(p[key], want) {
			t.Errorf("%s is %v, want %v", key, p[key], want)
		}
	}
	if v, ok := p["value"].(float64); !ok || v < 80 || v > 90 {
		t.Errorf("value %v", p["value"])
	}
	if a, ok := p["age"].(float64); !ok || a < 0 || a > 5 {
		t.Errorf("age %v", p["age"])
	}
	if at, err := time.Parse(time.RFC3339Nano, p["time"].(string)); err != nil || at.Location() != time.UTC {
		t.Errorf("time %v: %v", p["time"], err)
	}

	// A device that does not answer: no value, the reason, and what was known apart.
	b.poll(b.find("heat-meter-1"), time.Now(), telemetry.NoReply)
	p = decode[[]map[string]any](t, b.get(t, "/api/v1/points?match=heating-east/*/t1_flow"))[0]
	if v, there := p["value"]; v != nil || !there {
		t.Errorf("value %v, want null: an old value must not stand as a new one", v)
	}
	if p["quality"] != "no reply" || p["code"] != 52.0 || p["last"] == nil {
		t.Errorf("quality %v, code %v, last %v", p["quality"], p["code"], p["last"])
	}
}

// A point that was announced and not yet read is not good.
func TestPointNeverRead(t *testing.T) {
	p := pointState(&live.Entry{Info: &live.Info{}})
	if p.Value != nil || p.Quality != "never read" || p.Last != nil {
		t.Errorf("value %v, quality %q, last %v", p.Value, p.Quality, p.Last)
	}
}

func TestSites(t *testing.T) {
	b := newBench(t, nil)
	b.alarms.fill(time.Now())
	got := decode[[]siteInfo](t, b.get(t, "/api/v1/sites"))
	if len(got) != 3 || got[0].Name != "heating-east" || got[0].Label.Zh != "供热站" {
		t.Fatalf("%+v", got)
	}
	sewage := got[1]
	if sewage.Devices != 3 || sewage.Points != 10 || sewage.Good != 10 || *sewage.Gateways != (boards{1, 1}) {
		t.Errorf("%+v %+v", sewage, sewage.Gateways)
	}
	if want := map[string]tally{"critical": {1, 1}, "high": {1, 1}}; !reflect.DeepEqual(sewage.Alarms, want) {
		t.Errorf("alarms %v, want %v", sewage.Alarms, want)
	}
	if want := map[string]tally{"low": {0, 1}}; !reflect.DeepEqual(got[0].Alarms, want) {
		t.Errorf("returned: alarms %v, want %v", got[0].Alarms, want)
	}
	if sewage.Key[0] != "sewage-west/sump-level/level" {
		t.Errorf("keys %v", sewage.Key)
	}
	b.poll(b.find("sump-level"), time.Now(), telemetry.NoReply)
	if got := decode[[]siteInfo](t, b.get(t, "/api/v1/sites")); got[1].Good != 9 {
		t.Errorf("%d good points with one silent, want 9", got[1].Good)
	}
}

func TestAlarms(t *testing.T) {
	b := newBench(t, nil)
	if body, _ := io.ReadAll(b.get(t, "/api/v1/alarms").Body); strings.TrimSpace(string(body)) != "[]" {
		t.Errorf("empty list is %s, want []", body)
	}
	b.alarms.fill(time.Now())
	b.alarms.add(alarm.Alarm{Rule: "late", Point: "a/b/c", Priority: alarm.Critical, State: alarm.Suppressed, Start: time.Now()})
	for state, want := range map[string]int{"": 4, "?state=all": 5, "?state=active": 3, "?state=open": 3, "?state=acknowledged": 1,
		"?state=unacknowledged": 2, "?state=returned_unacknowledged": 1, "?state=suppressed": 1} {
		if got := decode[[]alarm.Alarm](t, b.get(t, "/api/v1/alarms"+state)); len(got) != want {
			t.Errorf("%q: %d alarms, want %d", state, len(got), want)
		}
	}
	list := decode[[]alarm.Alarm](t, b.get(t, "/api/v1/alarms"))
	for i := 1; i < len(list); i++ {
		if list[i].Start.After(list[i-1].Start) {
			t.Error("not the latest first")
		}
	}
	id := list[0].ID
	if !strings.Contains(id, "/") || !strings.Contains(id, "|") {
		t.Fatalf("id %q is too tame for this test", id)
	}
	tag := b.get(t, "/api/v1/alarms").Header.Get("ETag")
	if resp := b.get(t, "/api/v1/alarms", "If-None-Match", tag); resp.StatusCode != 304 {
		t.Errorf("unchanged list: %d, want 304", resp.StatusCode)
	}
	path := "/api/v1/alarms/" + url.PathEscape(id) + "/ack"

	// From another site: refused, nothing changed.
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		resp := b.do(t, "POST", path, h[0], h[1])
		if body := decode[map[string]string](t, resp); resp.StatusCode != 403 || body["hint"] == "" {
			t.Errorf("%s %s: %d %v, want 403", h[0], h[1], resp.StatusCode, body)
		}
	}
	if b.alarms.who != "" {
		t.Fatal("a request from another site acknowledged")
	}

	resp := b.do(t, "POST", path, "Sec-Fetch-Site", "same-origin")
	answer := decode[struct{ Alarm alarm.Alarm }](t, resp)
	if resp.StatusCode != 200 || answer.Alarm.State != alarm.Acknowledged || b.alarms.who != "operator" {
		t.Errorf("%d %+v by %q", resp.StatusCode, answer, b.alarms.who)
	}
	if resp := b.get(t, "/api/v1/alarms", "If-None-Match", tag); resp.StatusCode != 200 {
		t.Errorf("changed list: %d, want 200", resp.StatusCode)
	}
	sup := decode[[]alarm.Alarm](t, b.get(t, "/api/v1/alarms?state=suppressed"))[0]
	if resp := b.do(t, "POST", "/api/v1/alarms/"+url.PathEscape(sup.ID)+"/ack"); resp.StatusCode != 409 {
		t.Errorf("suppressed: %d, want 409", resp.StatusCode)
	}
}

func TestHistory(t *testing.T) {
	b := newBench(t, nil)
	got := decode[struct {
		Point, Unit string
		Width       float64
		Buckets     []map[string]any
	}](t, b.get(t, "/api/v1/history?point=sewage-west/sump-level/level&from=2026-01-05T08:00:00%2B08:00&to=2026-01-05T00:10:00Z&buckets=100"))
	if got.Unit != "m" || got.Width != 6 || len(got.Buckets) != 100 {
		t.Fatalf("unit %q, width %v, %d buckets", got.Unit, got.Width, len(got.Buckets))
	}
	if first := got.Buckets[0]; first["start"] != "2026-01-05T00:00:00Z" || first["count"] != 6.0 || first["mean"] == nil || first["worst"] != "good" {
		t.Errorf("%v", first)
	}
	if gap := got.Buckets[62]; gap["mean"] != nil || gap["last"] != nil || gap["code"] != 52.0 {
		t.Errorf("a bucket without a value shows one: %v", gap)
	}
}

func TestListsAndHealth(t *testing.T) {
	b := newBench(t, nil)
	b.alarms.fill(time.Now())
	gws := decode[[]map[string]any](t, b.get(t, "/api/v1/gateways"))
	if len(gws) != 3 || gws[0]["name"] != "compute-north/row-a" || gws[1]["online"] != true || gws[0]["late"] != 0.12 {
		t.Errorf("%v", gws)
	}
	if j := decode[[]JournalEntry](t, b.get(t, "/api/v1/journal?from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z")); len(j) != 8 {
		t.Errorf("%d entries", len(j))
	}
	if l := decode[[]ledger.Row](t, b.get(t, "/api/v1/ledger?site=heating-east")); len(l) != 1 || l[0].Missing != 6 {
		t.Errorf("%+v", l)
	}
	h := decode[map[string]any](t, b.get(t, "/api/v1/health"))
	if h["state"] != "warn" || len(h["components"].([]any)) != 2 {
		t.Errorf("%v", h)
	}
	for path, says := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "luquan_console_streams 0"} {
		resp := b.get(t, path)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || !strings.Contains(string(body), says) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// TestWhatIsNotThere: a hub assembled without its parts says so, and a failing
// part is told as such.
func TestWhatIsNotThere(t *testing.T) {
	b := newBench(t, func(o *Options) {
		*o = Options{Feed: o.Feed, Ready: func() error { return errors.New("the store does not answer") }}
	})
	for path, status := range map[string]int{"/api/v1/alarms": 501, "/api/v1/gateways": 501, "/api/v1/journal": 501, "/api/v1/ledger": 501,
		"/api/v1/health": 501, "/api/v1/history?point=heating-east/heat-meter-1/t1_flow": 501, "/readyz": 503, "/healthz": 200, "/api/v1/sites": 200, "/api/v1/points": 200} {
		if resp := b.get(t, path); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, status)
		}
	}
	if sites := decode[[]siteInfo](t, b.get(t, "/api/v1/sites")); len(sites) != 3 {
		t.Errorf("sites that only the feed knows: %v", sites)
	}
}

func TestPages(t *testing.T) {
	b := newBench(t, nil)
	for _, path := range []string{"/", "/site/heating-east", "/point/a/b/c", "/alarms", "/journal", "/ledger", "/gateways", "/health", "/app.js", "/app.css", "/boot.js", "/icon.svg"} {
		resp := b.get(t, path, "Accept-Encoding", "identity")
		csp := resp.Header.Get("Content-Security-Policy")
		if resp.StatusCode != 200 || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, policy %q", path, resp.StatusCode, csp)
		}
		tag := resp.Header.Get("ETag")
		if again := b.get(t, path, "Accept-Encoding", "identity", "If-None-Match", tag); tag == "" || again.StatusCode != 304 {
			t.Errorf("%s: with its tag %q: %d, want 304", path, tag, again.StatusCode)
		}
		if z := b.get(t, path, "Accept-Encoding", "gzip;q=0"); z.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: gzip though refused", path)
		}
	}
	if resp := b.get(t, "/app.js", "Accept-Encoding", "gzip"); resp.Header.Get("Content-Encoding") != "gzip" || resp.ContentLength > 60_000 {
		t.Errorf("app.js: encoding %q, %d bytes: the first load is to stay under 100 KB", resp.Header.Get("Content-Encoding"), resp.ContentLength)
	}
	for _, path := range []string{"/nonsense", "/dist/app.js", "/../webui.go", "/index.html"} {
		if resp := b.get(t, path); resp.StatusCode != 404 {
			t.Errorf("%s: %d, want 404", path, resp.StatusCode)
		}
	}
}

// TestElsewhere follows a link to a page that is not: a person gets the
// console, whose front end says so, and the status stays 404.
func TestElsewhere(t *testing.T) {
	b := newBench(t, nil)
	resp := b.get(t, "/nonsense", "Accept", "text/html,*/*;q=0.8")
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 404 || !strings.Contains(string(body), "app.js") || resp.Header.Get("ETag") != "" {
		t.Errorf("%v: %d %s", err, resp.StatusCode, body)
	}
}

func TestHandlerNeedsItsFiles(t *testing.T) {
	defer func() {
		if s, _ := recover().(string); !strings.HasPrefix(s, "BUG:") {
			t.Errorf("panic %q", s)
		}
	}()
	Handler(Options{Feed: newBench(t, nil).feed, Assets: fstest.MapFS{}})
}
