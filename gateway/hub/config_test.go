package hub

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// After a lost connection the MQTT library keeps one goroutine for up to 10 s.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/eclipse/paho%2emqtt%2egolang.(*client).Publish"))
}

const good = `name: shouyang
state: {dir: state}
rules: [rules.yaml]
`

func TestParse(t *testing.T) {
	c, err := Parse("/etc/luquan/hub.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.Broker != "embedded" || c.Console.Listen != "127.0.0.1:8080" || c.Sites[0] != "*" {
		t.Errorf("defaults: %+v", c)
	}
	if c.State.Dir != "/etc/luquan/state" || c.History.Dir != "/etc/luquan/state/history" || c.Rules[0] != "/etc/luquan/rules.yaml" {
		t.Errorf("paths: %+v", c)
	}
	if c.History.Keep.Duration() != 400*24*time.Hour {
		t.Errorf("keep: %v", c.History.Keep)
	}
}

func TestParseMistakes(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"wrong key", good + "ruels: []\n", `h.yaml:4:1: unknown key "ruels"; did you mean "rules"?`},
		{"no name", "state: {dir: s}\n", "name is missing"},
		{"no state", "name: a\n", "state.dir is missing"},
		{"console for all", good + "console: {listen: \"0.0.0.0:8080\"}\n", "h.yaml:4:19: 0.0.0.0:8080 is not on loopback, and the console has no log-in yet"},
		{"broker for all", good + "mqtt: {listen: \":1883\"}\n", "is not on loopback, and the embedded broker has no TLS yet"},
		{"outside broker", good + "mqtt: {broker: \"hub.example.org\"}\n", "is neither embedded nor a broker's address"},
		{"both", good + "mqtt: {broker: \"mqtt://h\", listen: \"127.0.0.1:1883\"}\n", "take one of them away"},
		{"keep", good + "history: {keep: 1y}\n", `"1y" is not a number of days; write for example 400d`},
		{"influx", good + "influx: {url: localhost}\n", `"localhost" is not the address of an InfluxDB`},
		{"card", good + "overview: [{site: a, points: [flow]}]\n", `"flow" is not device/point`},
		{"two mistakes", "name: A\nstate: {dir: s}\nsites: []\n", "h.yaml:1:7: \"A\" cannot be a name: use a-z, 0-9 and -, at most 63\nh.yaml:3:8: sites is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("h.yaml", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s in it", err, tt.want)
			}
		})
	}
}

const rule = `rules:
  - id: hot
    points: "*/meter/temp"
    high: 50
    priority: high
    page: duty
    message: {zh: 热, en: hot}
`

func TestReadRules(t *testing.T) {
	for _, tt := range []struct {
		name        string
		rules, page string // "" is no file
		want        string
	}{
		{"sound", rule, "channels: {a: {webhook: {url: \"http://127.0.0.1:1/\"}}}\nrotas: {duty: {notify: [a]}}\n", ""},
		{"no page file", rule, "", "the rule pages rota \"duty\", but hub.yaml names no page file"},
		{"unknown rota", rule, "channels: {a: {webhook: {url: \"http://127.0.0.1:1/\"}}}\nrotas: {night: {notify: [a]}}\n", "duty"},
		{"no rule file", "", "", "no file fits"},
		{"mistakes in both", strings.Replace(rule, "high: 50", "high: warm", 1), "channels: {a: {webhok: {}}}\n", "unknown key \"webhok\""},
		{"a channel of no kind", rule, "channels: {a: {}}\nrotas: {duty: {notify: [a]}}\n", "says no kind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := Config{Rules: []string{filepath.Join(dir, "*.rules.yaml")}}
			write := func(name, text string) string {
				p := filepath.Join(dir, name)
				if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return p
			}
			if tt.rules != "" {
				write("a.rules.yaml", tt.rules)
			}
			if tt.page != "" {
				cfg.Page = write("page.yaml", tt.page)
			}
			_, _, err := readRules(cfg)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got  %v\nwant %s in it", err, tt.want)
			}
			if tt.name == "mistakes in both" && err != nil && !strings.Contains(err.Error(), "a.rules.yaml:4:11: ") {
				t.Errorf("the rule file's own mistake is missing: %v", err)
			}
		})
	}
}

// TestExample reads the hub.yaml that stands beside the example sites.
func TestExample(t *testing.T) {
	cfg, err := Load("../../firmware-config/sites/hub.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules, plan, err := readRules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules.Rules()) < 10 || plan == nil || len(cfg.Overview) != 6 {
		t.Errorf("%d rules, plan %v, %d cards", len(rules.Rules()), plan, len(cfg.Overview))
	}
}

func TestLoopbackOnly(t *testing.T) {
	h := loopbackOnly(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:8080": 200, "localhost": 200, "[::1]:8080": 200,
		"evil.example": 421, "evil.example:8080": 421, "192.0.2.1:8080": 421, "": 421,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}
