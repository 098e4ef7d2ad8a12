// Package drivers is the contract between the board's poller and the things
// it reads. A driver turns one device on one bus into samples; it knows its
// bus and the device's profile, never the buffer, the uplink or the hub.
//
// A driver only reads. There is no method here through which a plant could be
// changed, and internal/archtest refuses calls of Modbus write functions.
package drivers

import (
	"context"

	"luquan/gateway/telemetry"
)

// Device is one polled device. All devices of one bus are polled from one
// goroutine, so a Device need not be safe for concurrent use.
type Device interface {
	// Info describes the device; it never changes.
	Info() telemetry.DeviceInfo

	// Poll reads one group of Info().Groups once and returns what came of it.
	// Failure is not an error but a Sample whose Status or readings say so: a
	// Sample is always complete. Poll returns by ctx's deadline; when ctx was
	// cancelled (not: timed out) the sample is meaningless and ok is false.
	Poll(ctx context.Context, group int) (s telemetry.Sample, ok bool)
}

// Bus is what devices hang on: one serial line, one TCP endpoint. Everything
// on one Bus is polled one after the other.
type Bus interface {
	// Name is the bus's name in gateway.yaml.
	Name() string
	// Devices are the bus's devices in the order of gateway.yaml.
	Devices() []Device
	// Close releases the line. After Close, Poll answers not connected.
	Close() error
}

// Gatherer is a Bus whose polls may be gathered: it is a network and no line,
// so nothing is won by spreading them finely over their period, while each
// time a board is woken costs it more than the poll itself.
type Gatherer interface {
	Bus
	Gathers() bool
}

// Refresher is a Device that leaves out points that did not leave their
// deadband. Refresh makes the next sample of every group carry all its points,
// for a hub that may have missed some. It may be called from any goroutine.
type Refresher interface {
	Device
	Refresh()
}

// Watcher is a Device that reports by itself, between polls: an edge on a
// contact. Watch blocks until ctx is done and calls report for every change.
type Watcher interface {
	Device
	Watch(ctx context.Context, report func(telemetry.Sample)) error
}
