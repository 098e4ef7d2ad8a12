package telemetry

import (
	"strings"
	"time"
)

// Label is a text in the two languages of the console. An empty one falls
// back to the other, and both empty to the name.
type Label struct {
	En string `json:"en,omitempty" yaml:"en"`
	Zh string `json:"zh,omitempty" yaml:"zh"`
}

// Point describes one measured quantity of a device: what a profile says of
// it. It is immutable once loaded and may be shared.
type Point struct {
	Name  string // [a-z][a-z0-9_]{0,62}
	Class Class
	Unit  string // canonical unit, "" for a number without one
	Label Label
	// Min and Max are the range the maker gives, in Unit; nil where no source gives one.
	Min, Max *float64
	// Enum names the values of an Int point, Bits its bit numbers; nil where there are none.
	Enum, Bits map[int64]Label
	// Counter reports that the value only grows until it wraps or is reset.
	Counter bool
}

// DeviceInfo describes a device as the gateway announces it in meta/<cfg> and
// the hub shows it.
type DeviceInfo struct {
	Name    string
	Kind    string // InfluxDB measurement
	Bus     string
	Profile string
	Label   Label
	Tags    []Tag // optional: area, system, asset; sorted by key
	Groups  []Group
}

// Group is a set of a device's points that are read together at one period.
type Group struct {
	Index  int           // from 0, unique in the device
	Every  time.Duration // period
	Points []Point
}

// Tag is one of a device's optional tags.
type Tag struct{ Key, Value string }

// FullName returns site/device/point.
func FullName(site, device, point string) string {
	return site + "/" + device + "/" + point
}

// ValidName reports whether s may name a site, gateway or device:
// [a-z0-9][a-z0-9-]{0,62}.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > maxName || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

const maxName = 63

// ValidKind reports whether s may name a kind: [a-z][a-z0-9_]{0,62}.
func ValidKind(s string) bool {
	if len(s) == 0 || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c-'a' > 'z'-'a' && c-'0' > '9'-'0' && c != '_' { // bytes: below the range they wrap
			return false
		}
	}
	return true
}

// reserved reports whether s is a column of every row.
func reserved(s string) bool {
	switch s {
	case "site", "gateway", "device", "status", "seq", "epoch", "group", "clock", "bad_points", "time", "topic", "host",
		"area", "system", "asset":
		return true
	}
	return false
}

// ValidPoint reports whether s may name a point: well formed, not one of the
// reserved columns, not beginning gateway_ and not ending _q.
func ValidPoint(s string) bool {
	return ValidKind(s) && !reserved(s) &&
		!strings.HasPrefix(s, "gateway_") && !strings.HasSuffix(s, "_q")
}

// Match reports whether name matches the glob: both are split at '/', '*'
// matches any run of characters inside one level, and the number of levels
// must be the same. The glob "" matches everything.
func Match(glob, name string) bool {
	if glob == "" {
		return true
	}
	for {
		g, grest, gmore := strings.Cut(glob, "/")
		n, nrest, nmore := strings.Cut(name, "/")
		if gmore != nmore || !matchLevel(g, n) {
			return false
		}
		if !gmore {
			return true
		}
		glob, name = grest, nrest
	}
}

// matchLevel matches one level: the text before the first '*' is a prefix,
// the text after the last a suffix, what is between must follow in order.
func matchLevel(g, n string) bool {
	parts := strings.Split(g, "*")
	if len(parts) == 1 {
		return g == n
	}
	if !strings.HasPrefix(n, parts[0]) {
		return false
	}
	n = n[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(n, p)
		if i < 0 {
			return false
		}
		n = n[i+len(p):]
	}
	return strings.HasSuffix(n, last)
}
