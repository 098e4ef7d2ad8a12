package edge

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"luquan/drivers/modbus"
	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Config is gateway.yaml, as docs/contract.md describes it.
type Config struct {
	Site    string
	Gateway string
	Uplink  UplinkConfig
	Buffer  BufferConfig
	Clock   ClockConfig
	Buses   []modbus.Config

	lib *profile.Library // what it was checked with; nil in a Config made by hand
}

// UplinkConfig says where readings go and when the board may forget them.
type UplinkConfig struct {
	// Broker is a URL: mqtt, mqtts, ws or wss.
	Broker string
	TLS    TLSConfig
	// Commit is hub (freed when stored), broker (freed on PUBACK) or none
	// (one-way link, kept by age).
	Commit string
	// Compression is zstd or none.
	Compression string
	// Linger is how long live waits to fill a payload.
	Linger time.Duration
}

// TLSConfig names PEM files, relative to the configuration file.
type TLSConfig struct{ CA, Cert, Key string }

// BufferConfig is the queue on flash.
type BufferConfig struct {
	Dir string
	// Max is the quota in bytes; beyond it the oldest records are dropped and declared lost.
	Max conffile.Size
	// CommitEvery is what a power cut can cost.
	CommitEvery time.Duration `yaml:"commit_every"`
}

// ClockConfig says which clocks make a stamp trustworthy.
type ClockConfig struct {
	// Trust lists adjtimex (the kernel says it is synchronised), rtc (a battery clock that agrees) and
	// hub (the hub's time over MQTT).
	Trust []string
	// Hold is how long after connecting records wait for such a clock; then they
	// go out with clock=3.
	Hold time.Duration
}

// The bounds and defaults of gateway.yaml.
const (
	minBuffer      = 8 << 20
	defaultBuffer  = conffile.Size(2 << 30)
	minCommitEvery = 100 * time.Millisecond
	maxCommitEvery = time.Hour
	maxLinger      = time.Minute
	maxHold        = time.Hour
)

// Profiles returns the device models that are built in.
func Profiles() (*profile.Library, error) { return profile.Load(firmwareconfig.FS, "devices") }

// Load reads and checks gateway.yaml. Every mistake is in the error, each at
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
	lib, err := Profiles()
	if err != nil {
		return Config{}, err
	}
	return ParseWith(lib, file, data)
}

// ParseWith is Parse with device models that were already read, which takes
// most of Parse's time.
func ParseWith(lib *profile.Library, file string, data []byte) (Config, error) {
	c := Config{
		Uplink: UplinkConfig{Commit: "hub", Compression: "zstd"},
		Buffer: BufferConfig{Max: defaultBuffer, CommitEvery: 5 * time.Second},
		Clock:  ClockConfig{Trust: []string{"adjtimex", "rtc", "hub"}, Hold: 30 * time.Second},
	}
	doc, _ := conffile.Parse(file, data, &c)
	c.lib = lib
	c.check(doc, lib)
	base := filepath.Dir(file)
	for _, p := range []*string{&c.Buffer.Dir, &c.Uplink.TLS.CA, &c.Uplink.TLS.Cert, &c.Uplink.TLS.Key} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	return c, doc.Err()
}

func (c *Config) check(doc *conffile.Doc, lib *profile.Library) {
	name := func(key, value, example string) {
		switch {
		case value == "":
			doc.Errorf(conffile.Path{key}, "%s is missing; name it, for example %s: %s", key, key, example)
		case !telemetry.ValidName(value):
			doc.Errorf(conffile.Path{key}, "%q cannot be a name: use a-z, 0-9 and -, at most 63; Chinese belongs in labels", value)
		}
	}
	name("site", c.Site, "heating-east")
	name("gateway", c.Gateway, "boiler-house-1")
	if c.Site == "hub" {
		doc.Errorf(conffile.Path{"site"}, "no site may be named hub: the hub's own topics stand there")
	}
	c.checkUplink(doc)
	if c.Buffer.Dir == "" {
		doc.Errorf(conffile.Path{"buffer", "dir"}, "buffer.dir is missing; name a directory on flash, for example dir: /var/lib/luquan/buffer")
	}
	if c.Buffer.Max < minBuffer {
		doc.Errorf(conffile.Path{"buffer", "max"}, "buffer.max is %s, and less than 8MiB holds no useful backlog", c.Buffer.Max)
	}
	if c.Buffer.CommitEvery < minCommitEvery || c.Buffer.CommitEvery > maxCommitEvery {
		doc.Errorf(conffile.Path{"buffer", "commit_every"}, "buffer.commit_every is %s; choose between 100ms and 1h", c.Buffer.CommitEvery)
	}
	for i, t := range c.Clock.Trust {
		if !slices.Contains([]string{"adjtimex", "rtc", "hub"}, t) {
			doc.Errorf(conffile.Path{"clock", "trust", i}, "clock source %q is not known; known: adjtimex, rtc, hub", t)
		}
	}
	if c.Clock.Hold < 0 || c.Clock.Hold > maxHold {
		doc.Errorf(conffile.Path{"clock", "hold"}, "clock.hold is %s; choose between 0s and 1h", c.Clock.Hold)
	}
	c.checkBuses(doc, lib)
}

func (c *Config) checkUplink(doc *conffile.Doc) {
	at := conffile.Path{"uplink"}
	u, err := url.Parse(c.Uplink.Broker)
	switch {
	case c.Uplink.Broker == "":
		doc.Errorf(at.With("broker"), "uplink.broker is missing; name the MQTT broker, for example broker: mqtts://hub.example.org:8883")
	case err != nil || u.Host == "" || !slices.Contains([]string{"mqtt", "mqtts", "ws", "wss"}, u.Scheme):
		doc.Errorf(at.With("broker"), "%q is not a broker's address; write mqtt://host:1883, mqtts://host:8883, ws://host:port/path or wss://host/path", c.Uplink.Broker)
	case (u.Scheme == "mqtt" || u.Scheme == "mqtts") && u.Port() == "":
		port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[u.Scheme]
		c.Uplink.Broker = u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port) + u.Path
	}
	oneOf := func(key, value string, of ...string) {
		if !slices.Contains(of, value) {
			doc.Errorf(at.With(key), "uplink.%s is %q; it is one of %s", key, value, strings.Join(of, ", "))
		}
	}
	oneOf("commit", c.Uplink.Commit, "hub", "broker", "none")
	oneOf("compression", c.Uplink.Compression, "zstd", "none")
	if c.Uplink.Linger < 0 || c.Uplink.Linger > maxLinger {
		doc.Errorf(at.With("linger"), "uplink.linger is %s; choose between 0s and 1m", c.Uplink.Linger)
	}
	if (c.Uplink.TLS.Cert == "") != (c.Uplink.TLS.Key == "") {
		doc.Errorf(at.With("tls"), "uplink.tls has one of cert and key; a client certificate needs both")
	}
}

func (c *Config) checkBuses(doc *conffile.Doc, lib *profile.Library) {
	if len(c.Buses) == 0 {
		doc.Errorf(conffile.Path{"buses"}, "no bus is named; a gateway without one reads nothing")
	}
	buses, devices := map[string]bool{}, map[string]string{}
	ports, units := map[string]string{}, map[string]string{}
	for i := range c.Buses {
		b, at := &c.Buses[i], conffile.Path{"buses", i}
		if buses[b.Name] && b.Name != "" {
			doc.Errorf(at.With("name"), "bus %q is named twice", b.Name)
		}
		buses[b.Name] = true
		b.Validate(doc, at, lib)
		if b.RTU != nil && b.RTU.Port != "" {
			if other, taken := ports[b.RTU.Port]; taken {
				doc.Errorf(at.With("rtu", "port"), "port %s belongs to bus %q already; a serial line has one master: put the devices on that bus", b.RTU.Port, other)
			}
			ports[b.RTU.Port] = b.Name
		}
		for j, d := range b.Devices {
			if b.TCP != nil && d.Unit != nil { // one unit of one endpoint, reached by two buses
				unit := fmt.Sprintf("%s unit %d", b.TCP.Address, *d.Unit)
				if other, taken := units[unit]; taken && other != b.Name {
					doc.Errorf(at.With("devices", j, "unit"), "%s is read on bus %q already; read it once", unit, other)
				}
				units[unit] = b.Name
			}
			dat := at.With("devices", j, "name")
			if other, taken := devices[d.Name]; taken && d.Name != "" {
				doc.Errorf(dat, "device %q stands on bus %q already; a device's name is unique in its site", d.Name, other)
			}
			if d.Name != "" && d.Name == c.Gateway {
				doc.Errorf(dat, "device %q has the gateway's own name, which its health is reported under", d.Name)
			}
			devices[d.Name] = b.Name
		}
	}
}

// clientTLS reads the files that c names. nil when the broker's scheme has no TLS.
func (c UplinkConfig) clientTLS() (*tls.Config, error) {
	if !strings.HasPrefix(c.Broker, "mqtts:") && !strings.HasPrefix(c.Broker, "wss:") {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS.CA != "" {
		pem, err := os.ReadFile(c.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("uplink.tls.ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("uplink.tls.ca: %s holds no certificate in PEM form", c.TLS.CA)
		}
	}
	if c.TLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("uplink.tls: certificate %s with key %s: %w", c.TLS.Cert, c.TLS.Key, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
