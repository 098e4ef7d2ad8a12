package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"luquan/gateway/telemetry"
)

// Meta describes what a board's records mean: retained on MetaDoc, whose Arg
// is its cfg, and kept on flash with the records of that cfg.
type Meta struct {
	Site, Gateway string
	Linger        time.Duration // how long live waits to fill a payload
	Devices       []telemetry.DeviceInfo
}

// maxMeta bounds a Meta that is read: 10,000 points take about 3 MB.
const maxMeta = 16 << 20

type metaJSON struct {
	Cfg     string       `json:"cfg,omitempty"`
	V       int          `json:"v"`
	Site    string       `json:"site"`
	Gateway string       `json:"gateway"`
	Linger  string       `json:"linger,omitempty"`
	Devices []deviceJSON `json:"devices"`
}

type deviceJSON struct {
	Name    string            `json:"name"`
	Kind    string            `json:"kind"`
	Bus     string            `json:"bus,omitempty"`
	Profile string            `json:"profile,omitempty"`
	Label   *telemetry.Label  `json:"label,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
	Groups  []groupJSON       `json:"groups"`
}

type groupJSON struct {
	Index  int         `json:"index"`
	Every  string      `json:"every"` // "10s"
	Points []pointJSON `json:"points"`
}

type pointJSON struct {
	Name    string                    `json:"name"`
	Class   string                    `json:"class"`
	Unit    string                    `json:"unit,omitempty"`
	Label   *telemetry.Label          `json:"label,omitempty"`
	Min     *float64                  `json:"min,omitempty"`
	Max     *float64                  `json:"max,omitempty"`
	Enum    map[int64]telemetry.Label `json:"enum,omitempty"`
	Bits    map[int64]telemetry.Label `json:"bits,omitempty"`
	Counter bool                      `json:"counter,omitempty"`
}

// Marshal returns the JSON of m and its cfg, the first eight hex digits of the
// SHA-256 of that JSON without its cfg. Both are the same for the same m.
func (m Meta) Marshal() (doc []byte, cfg string, err error) {
	j := metaJSON{V: 1, Site: m.Site, Gateway: m.Gateway, Devices: []deviceJSON{}}
	if m.Linger > 0 {
		j.Linger = m.Linger.String()
	}
	for _, d := range m.Devices {
		j.Devices = append(j.Devices, deviceToJSON(d))
	}
	if _, err := j.meta(); err != nil {
		return nil, "", fmt.Errorf("wire: meta: %w", err)
	}
	if doc, err = json.Marshal(j); err != nil {
		return nil, "", fmt.Errorf("wire: meta: %w", err)
	}
	sum := sha256.Sum256(doc)
	j.Cfg = hex.EncodeToString(sum[:4])
	if doc, err = json.Marshal(j); err != nil {
		return nil, "", fmt.Errorf("wire: meta: %w", err)
	}
	return doc, j.Cfg, nil
}

// ParseMeta reads what Marshal returned and checks every name and class in it.
func ParseMeta(doc []byte) (m Meta, cfg string, err error) {
	if len(doc) > maxMeta {
		return Meta{}, "", fmt.Errorf("wire: meta of %d bytes is over %d", len(doc), maxMeta)
	}
	var j metaJSON
	if err := json.Unmarshal(doc, &j); err != nil {
		return Meta{}, "", fmt.Errorf("wire: meta: %w", err)
	}
	if j.V != 1 {
		return Meta{}, "", fmt.Errorf("wire: meta: version %d is not 1", j.V)
	}
	if !validCfg(j.Cfg) {
		return Meta{}, "", fmt.Errorf("wire: meta: cfg %q is not eight hex digits", short(j.Cfg))
	}
	if m, err = j.meta(); err != nil {
		return Meta{}, "", fmt.Errorf("wire: meta: %w", err)
	}
	return m, j.Cfg, nil
}

func deviceToJSON(d telemetry.DeviceInfo) deviceJSON {
	j := deviceJSON{Name: d.Name, Kind: d.Kind, Bus: d.Bus, Profile: d.Profile, Label: labelPtr(d.Label), Groups: []groupJSON{}}
	for _, t := range d.Tags {
		if j.Tags == nil {
			j.Tags = map[string]string{}
		}
		j.Tags[t.Key] = t.Value
	}
	for _, g := range d.Groups {
		gj := groupJSON{Index: g.Index, Every: g.Every.String(), Points: []pointJSON{}}
		for _, p := range g.Points {
			gj.Points = append(gj.Points, pointJSON{Name: p.Name, Class: p.Class.String(), Unit: p.Unit,
				Label: labelPtr(p.Label), Min: p.Min, Max: p.Max, Enum: p.Enum, Bits: p.Bits, Counter: p.Counter})
		}
		j.Groups = append(j.Groups, gj)
	}
	return j
}

func labelPtr(l telemetry.Label) *telemetry.Label {
	if l == (telemetry.Label{}) {
		return nil
	}
	return &l
}

// meta checks j and returns what it describes.
func (j metaJSON) meta() (Meta, error) {
	if !telemetry.ValidName(j.Site) || !telemetry.ValidName(j.Gateway) {
		return Meta{}, fmt.Errorf("site %q and gateway %q must be of [a-z0-9-]", short(j.Site), short(j.Gateway))
	}
	m := Meta{Site: j.Site, Gateway: j.Gateway}
	if j.Linger != "" {
		var err error
		if m.Linger, err = time.ParseDuration(j.Linger); err != nil || m.Linger < 0 {
			return Meta{}, fmt.Errorf("linger %q is no duration", short(j.Linger))
		}
	}
	seen := map[string]bool{}
	for _, dj := range j.Devices {
		if seen[dj.Name] {
			return Meta{}, fmt.Errorf("device %q comes twice", short(dj.Name))
		}
		seen[dj.Name] = true
		d, err := dj.device()
		if err != nil {
			return Meta{}, fmt.Errorf("device %q: %w", short(dj.Name), err)
		}
		m.Devices = append(m.Devices, d)
	}
	return m, nil
}

func (j deviceJSON) device() (telemetry.DeviceInfo, error) {
	d := telemetry.DeviceInfo{Name: j.Name, Kind: j.Kind, Bus: j.Bus, Profile: j.Profile}
	if !telemetry.ValidName(j.Name) || !telemetry.ValidKind(j.Kind) {
		return d, fmt.Errorf("name or kind %q is not allowed", short(j.Kind))
	}
	if j.Label != nil {
		d.Label = *j.Label
	}
	for _, k := range []string{"area", "asset", "system"} { // sorted
		if v, ok := j.Tags[k]; ok {
			if err := CheckTag(k, v); err != nil {
				return d, err
			}
			d.Tags = append(d.Tags, telemetry.Tag{Key: k, Value: v})
		}
	}
	if len(d.Tags) != len(j.Tags) {
		return d, fmt.Errorf("tags may be area, system and asset only")
	}
	points, groups := map[string]bool{}, map[int]bool{}
	for _, gj := range j.Groups {
		every, err := time.ParseDuration(gj.Every)
		if err != nil || every < 0 || gj.Index < 0 || groups[gj.Index] {
			return d, fmt.Errorf("group %d: it comes twice or its period %q is no duration", gj.Index, short(gj.Every))
		}
		groups[gj.Index] = true
		g := telemetry.Group{Index: gj.Index, Every: every}
		for _, pj := range gj.Points {
			if points[pj.Name] {
				return d, fmt.Errorf("point %q comes twice", short(pj.Name))
			}
			points[pj.Name] = true
			p, err := pj.point()
			if err != nil {
				return d, err
			}
			g.Points = append(g.Points, p)
		}
		d.Groups = append(d.Groups, g)
	}
	return d, nil
}

func (j pointJSON) point() (telemetry.Point, error) {
	p := telemetry.Point{Name: j.Name, Unit: j.Unit, Min: j.Min, Max: j.Max, Enum: j.Enum, Bits: j.Bits, Counter: j.Counter}
	if j.Label != nil {
		p.Label = *j.Label
	}
	if !telemetry.ValidPoint(j.Name) {
		return p, fmt.Errorf("point name %q is not allowed", short(j.Name))
	}
	for _, f := range []*float64{j.Min, j.Max} {
		if f != nil && (math.IsNaN(*f) || math.IsInf(*f, 0)) {
			return p, fmt.Errorf("point %s: its range is not finite", j.Name)
		}
	}
	switch j.Class {
	case "float":
		p.Class = telemetry.Float
	case "int":
		p.Class = telemetry.Int
	case "string":
		p.Class = telemetry.String
	default:
		return p, fmt.Errorf("point %s: class %q is not float, int or string", j.Name, short(j.Class))
	}
	return p, nil
}
