package hub

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Config is hub.yaml, as docs/contract.md describes it.
type Config struct {
	Name    string
	Sites   []string // globs of the sites this hub owns
	MQTT    MQTTConfig
	Influx  *InfluxConfig // nil: the embedded history
	History HistoryConfig
	Rules   []string // globs of rule files, relative to the configuration
	Page    string   // page.yaml; "" pages nobody
	Console ConsoleConfig
	State   StateConfig
	// Overview names the sites for people and the points their cards show.
	Overview []OverviewConfig
}

// OverviewConfig is one card of the console's overview.
type OverviewConfig struct {
	Site  string
	Label telemetry.Label
	// Points are device/point, at most eight.
	Points []string
}

// MQTTConfig names the broker: "embedded", which then listens on Listen, or a URL.
type MQTTConfig struct {
	Broker string
	Listen string
}

// InfluxConfig names an InfluxDB that speaks the v2 write API.
type InfluxConfig struct {
	URL       string
	Org       string
	Bucket    string
	TokenFile string `yaml:"token_file"`
}

// HistoryConfig is the embedded history.
type HistoryConfig struct {
	Dir  string
	Keep Days
}

// ConsoleConfig is where the console is served.
type ConsoleConfig struct{ Listen string }

// StateConfig is where the hub keeps its ledger, journal and quarantine.
type StateConfig struct{ Dir string }

// Days is a number of days, written 400d.
type Days int

// UnmarshalScalar sets d from its written form.
func (d *Days) UnmarshalScalar(text string) error {
	var n int
	if _, err := fmt.Sscanf(text, "%dd", &n); err != nil || fmt.Sprintf("%dd", n) != text || n < 1 || n > 36500 {
		return fmt.Errorf("%q is not a number of days; write for example 400d", text)
	}
	*d = Days(n)
	return nil
}

// Duration returns d as a duration of 24-hour days.
func (d Days) Duration() time.Duration { return time.Duration(d) * 24 * time.Hour }

// Load reads and checks hub.yaml. Every mistake is in the error, each at
// file:line:col (conffile.Errors).
func Load(path string) (Config, error) {
	data, err := conffile.Read(path)
	if err != nil {
		return Config{}, err
	}
	return Parse(path, data)
}

// Parse is Load for data that was already read; file is its name in errors and
// the place that relative paths start from.
func Parse(file string, data []byte) (Config, error) {
	c := Config{
		Sites:   []string{"*"},
		MQTT:    MQTTConfig{Broker: "embedded", Listen: "127.0.0.1:1883"},
		History: HistoryConfig{Keep: 400},
		Console: ConsoleConfig{Listen: "127.0.0.1:8080"},
	}
	doc, _ := conffile.Parse(file, data, &c)
	c.check(doc)
	base := filepath.Dir(file)
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	abs(&c.State.Dir)
	if c.History.Dir == "" && c.State.Dir != "" {
		c.History.Dir = filepath.Join(c.State.Dir, "history")
	}
	abs(&c.History.Dir)
	abs(&c.Page)
	for i := range c.Rules {
		abs(&c.Rules[i])
	}
	if c.Influx != nil {
		abs(&c.Influx.TokenFile)
	}
	return c, doc.Err()
}

func (c *Config) check(doc *conffile.Doc) {
	switch {
	case c.Name == "":
		doc.Errorf(conffile.Path{"name"}, "name is missing; name this hub, for example name: shouyang")
	case !telemetry.ValidName(c.Name):
		doc.Errorf(conffile.Path{"name"}, "%q cannot be a name: use a-z, 0-9 and -, at most 63", c.Name)
	}
	if len(c.Sites) == 0 {
		doc.Errorf(conffile.Path{"sites"}, `sites is empty; a hub that owns no site stores nothing; write sites: ["*"] for all`)
	}
	if c.MQTT.Broker == "embedded" {
		checkLoopback(doc, conffile.Path{"mqtt", "listen"}, c.MQTT.Listen, "the embedded broker has no TLS yet; name an outside broker in mqtt.broker")
	} else {
		checkBroker(doc, c.MQTT.Broker)
		if doc.Has(conffile.Path{"mqtt", "listen"}) {
			doc.Errorf(conffile.Path{"mqtt", "listen"}, "mqtt.listen is for the embedded broker, and mqtt.broker names another; take one of them away")
		}
	}
	checkLoopback(doc, conffile.Path{"console", "listen"}, c.Console.Listen, "the console has no log-in yet; put a reverse proxy with a log-in before it")
	if c.State.Dir == "" {
		doc.Errorf(conffile.Path{"state", "dir"}, "state.dir is missing; name a directory, for example dir: /var/lib/luquan/hub")
	}
	if c.Influx != nil {
		c.Influx.check(doc, conffile.Path{"influx"})
	}
	for i, o := range c.Overview {
		at := conffile.Path{"overview", i}
		if !telemetry.ValidName(o.Site) {
			doc.Errorf(at.With("site"), "%q is not a site's name", o.Site)
		}
		if len(o.Points) > 8 {
			doc.Errorf(at.With("points"), "a card shows at most 8 points, and here are %d", len(o.Points))
		}
		for j, p := range o.Points {
			if device, point, ok := strings.Cut(p, "/"); !ok || !telemetry.ValidName(device) || !telemetry.ValidPoint(point) {
				doc.Errorf(at.With("points", j), "%q is not device/point, for example heat-meter-1/flow_temp", p)
			}
		}
	}
}

func checkBroker(doc *conffile.Doc, broker string) {
	u, err := url.Parse(broker)
	if err != nil || u.Host == "" || !slices.Contains([]string{"mqtt", "mqtts", "ws", "wss"}, u.Scheme) {
		doc.Errorf(conffile.Path{"mqtt", "broker"}, "%q is neither embedded nor a broker's address such as mqtt://127.0.0.1:1883", broker)
	}
}

func checkLoopback(doc *conffile.Doc, at conffile.Path, addr, why string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		doc.Errorf(at, "%q is not host:port, for example 127.0.0.1:8080", addr)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		doc.Errorf(at, "%q is no port; it is a number from 1 to 65535, or 0 for any free one", port)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		doc.Errorf(at, "%s is not on loopback, and %s", addr, why)
	}
}

func (c *InfluxConfig) check(doc *conffile.Doc, at conffile.Path) {
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || !strings.HasPrefix(u.Scheme, "http") {
		doc.Errorf(at.With("url"), "%q is not the address of an InfluxDB, for example http://127.0.0.1:8086", c.URL)
	}
	if c.Bucket == "" {
		doc.Errorf(at.With("bucket"), "influx.bucket is missing; name the bucket, or db/rp for InfluxDB 1.8")
	}
}

// token reads the token, without the newline that editors leave.
func (c *InfluxConfig) token() (string, error) {
	if c.TokenFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("influx.token_file: cannot read the token: %w; write it there, readable by this user only", err)
	}
	return strings.TrimSpace(string(data)), nil
}
