package health

import (
	"time"

	"luquan/gateway/telemetry"
)

// World is what the hub knows at one moment. A Report refers to it: it must not
// be changed after.
type World struct {
	Start  time.Time // of the hub: what it has not heard since may still come
	Broker Part      // the hub's own connection to it
	Store  Part
	Boards []Board
	Points []Point // in any order
}

// Part is a part of the hub.
type Part struct {
	Down  bool
	Since time.Time       // of the present state; zero where it is not known
	Why   telemetry.Label // of being down
}

// Board is one gateway as the hub hears it.
type Board struct {
	Site, Name string
	Heard      bool      // its state has come since the hub's start
	Online     bool      // as its state, or its last will, says
	StateAt    time.Time // when that came
	PayloadAt  time.Time // when its last readable payload came; zero: never
	RefusedAt  time.Time // when its last payload that nobody here can read came
	Refused    string    // why not
}

// Point is the latest of one point.
type Point struct {
	Site, Gateway, Bus, Device string
	Point                      string // within the device
	Name                       string // site/device/point
	DeviceLabel, Label         telemetry.Label
	Period                     time.Duration // 0: not known
	Status, Quality            telemetry.Quality
	Polled                     bool      // it ever was
	Stale                      bool      // its last poll is older than two of its periods (live.Entry.Stale)
	Good                       time.Time // of the last value; zero: never
}

// silent reports that the point has no value to be believed.
func (p *Point) silent() bool { return !p.Polled || p.Stale || p.Quality.Bad() }

// failed reports that its last poll failed for the device as a whole, or is
// overdue.
func (p *Point) failed() bool { return !p.Polled || p.Stale || p.Status.Bad() }

// id returns the point's sensor.
func (p *Point) id() ID {
	return ID{Level: Sensor, Site: p.Site, Gateway: p.Gateway, Bus: p.Bus, Device: p.Device, Point: p.Point}
}
