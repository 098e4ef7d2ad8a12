package console

import (
	"net/http"
	"strconv"
	"time"

	"luquan/gateway/hub/live"
	"luquan/gateway/telemetry"
)

// label is a text in both languages; JSON leaves out what is not there.
type label = telemetry.Label

// reading is a value and when it was sure.
type reading struct {
	Value any       `json:"value"`
	Time  time.Time `json:"time"`
}

// state is what of a point changes as it is polled.
type state struct {
	Name        string    `json:"name"`
	Value       any       `json:"value"` // null when there is none: never an old one
	Quality     string    `json:"quality"`
	Code        uint8     `json:"code"`
	Time        time.Time `json:"time,omitzero"`
	AsOf        time.Time `json:"as_of,omitzero"` // from when the age counts
	Unconfirmed bool      `json:"unconfirmed,omitempty"`
	Last        *reading  `json:"last,omitempty"` // the last value known, where value is null
	Gateway     string    `json:"gateway,omitempty"`
	Clock       uint8     `json:"clock,omitempty"`
}

type span struct {
	Min *float64 `json:"min,omitempty"`
	Max *float64 `json:"max,omitempty"`
}

// point is all there is to know of a point.
type point struct {
	state
	Site        string           `json:"site"`
	Device      string           `json:"device"`
	Point       string           `json:"point"`
	Kind        string           `json:"kind"`
	Bus         string           `json:"bus,omitempty"`
	Profile     string           `json:"profile,omitempty"`
	Class       string           `json:"class,omitempty"`
	Unit        string           `json:"unit"`
	Label       label            `json:"label"`
	DeviceLabel label            `json:"device_label"`
	Range       *span            `json:"range,omitempty"`
	Limits      []Limit          `json:"limits,omitempty"`
	Enum        map[string]label `json:"enum,omitempty"`
	Bits        map[string]label `json:"bits,omitempty"`
	Counter     bool             `json:"counter,omitempty"`
	Period      float64          `json:"period"` // seconds; 0 when not announced
	Order       int              `json:"order"`  // among the device's points, as its profile has them
}

// aged is a point with what depends on the moment of asking.
type aged struct {
	point
	Age   *float64 `json:"age"` // seconds, null when never polled
	Stale bool     `json:"stale"`
}

// neverRead is the quality of a point that was announced and not yet read.
const neverRead = "never read"

func jsonValue(v telemetry.Value) any {
	switch v.Class() {
	case telemetry.Float:
		return v.Float()
	case telemetry.Int:
		return v.Int()
	case telemetry.String:
		return v.Str()
	}
	return nil
}

func pointState(e *live.Entry) state {
	s := state{
		Name: e.Name, Value: jsonValue(e.Value), Quality: e.Quality.String(), Code: uint8(e.Quality),
		Time: e.Time.UTC(), AsOf: e.AsOf().UTC(), Unconfirmed: e.Unconfirmed, Gateway: e.Gateway, Clock: uint8(e.Clock),
	}
	if s.Value == nil && e.Quality.HasValue() {
		s.Quality = neverRead // the zero quality says good, and there is nothing to be good
	}
	if s.Value == nil && !e.LastValue.IsZero() {
		s.Last = &reading{jsonValue(e.LastValue), e.LastTime.UTC()}
	}
	return s
}

func (s *server) fullPoint(e *live.Entry) point {
	p := point{
		state: pointState(e), Site: e.Site, Device: e.Device, Point: e.Point, Kind: e.Kind, Bus: e.Bus, Profile: e.Profile,
		Unit: e.Unit, Label: e.Label, DeviceLabel: e.DeviceLabel, Counter: e.Counter, Order: e.Order, Period: e.Period.Seconds(),
		Enum: texts(e.Enum), Bits: texts(e.Bits),
	}
	if e.Class != 0 {
		p.Class = e.Class.String()
	}
	if e.Min != nil || e.Max != nil {
		p.Range = &span{e.Min, e.Max}
	}
	if s.opt.Limits != nil {
		p.Limits = s.opt.Limits(e.Name)
	}
	return p
}

func texts(m map[int64]telemetry.Label) map[string]label {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]label, len(m))
	for k, v := range m {
		out[strconv.FormatInt(k, 10)] = v
	}
	return out
}

func (s *server) points(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "match")
	if err != nil {
		return err
	}
	g, err := glob(p)
	if err != nil {
		return err
	}
	entries, _ := s.opt.Feed.Snapshot(g)
	now := time.Now()
	out := make([]aged, len(entries))
	for i := range entries {
		e := &entries[i]
		out[i] = aged{point: s.fullPoint(e), Stale: e.Stale(now)}
		if at := e.AsOf(); !at.IsZero() {
			age := max(0, now.Sub(at).Round(time.Millisecond).Seconds())
			out[i].Age = &age
		}
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}
