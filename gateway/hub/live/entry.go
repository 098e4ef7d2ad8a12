package live

import (
	"time"

	"luquan/gateway/telemetry"
)

// Info is what is known of a point from its gateway's announcement. It is
// immutable; a new announcement makes a new Info.
type Info struct {
	Name                string // site/device/point
	Site, Device, Point string
	Kind                string // what the device is, e.g. heat_meter
	Bus, Profile        string
	Group               int
	Order               int           // place among the device's points as announced, from 0
	Period              time.Duration // 0 when the point was not announced
	DeviceLabel, Label  telemetry.Label
	Class               telemetry.Class // 0 when neither announced nor read
	Unit                string
	Min, Max            *float64 // the maker's range in Unit, or nil
	Enum, Bits          map[int64]telemetry.Label
	Counter             bool
	Tags                []telemetry.Tag
}

// Entry is the state of one point. It is a copy and stays as it was read.
type Entry struct {
	*Info
	Gateway string // the board that read it last
	// Value is zero when the point was never read or Quality carries none.
	Value   telemetry.Value
	Quality telemetry.Quality
	// Status is the device-wide outcome of the last poll of the point's group.
	Status telemetry.Quality
	// Time is the stamp of the last poll that read, confirmed or failed to
	// read the point; zero when it was never polled. Received is when the hub
	// got that record.
	Time, Received time.Time
	Clock          telemetry.Clock
	// LastValue is the value last read, at LastTime, even while Quality
	// carries none.
	LastValue telemetry.Value
	LastTime  time.Time
	// Unconfirmed reports that a later row said "unchanged", but rows between
	// it and the value are missing. Time then stays where the value was sure.
	Unconfirmed bool

	Epoch, Seq uint64 // the record that Time comes from
	// Version orders changes of the feed; Described is the version at which
	// Info last changed.
	Version, Described uint64
}

// AsOf returns the instant from which the entry's age counts: its stamp, but
// never later than the hub got it, and the hub's receipt when the board's
// clock is unsure. It is zero when the point was never polled.
func (e *Entry) AsOf() time.Time {
	return asOf(e.Time, e.Received, e.Clock)
}

// Stale reports that the entry is older than two of its periods at now. A
// point of unknown period is never stale; one never polled always is.
func (e *Entry) Stale(now time.Time) bool {
	at := e.AsOf()
	if at.IsZero() {
		return true
	}
	return e.Period > 0 && now.Sub(at) > 2*e.Period
}

func asOf(stamp, received time.Time, clock telemetry.Clock) time.Time {
	if clock == telemetry.ClockUnsure || received.Before(stamp) {
		return received
	}
	return stamp
}
