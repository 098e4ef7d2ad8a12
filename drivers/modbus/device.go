package modbus

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"luquan/drivers/modbus/bus"
	"luquan/drivers/modbus/plan"
	"luquan/gateway/telemetry"
)

// reader is the part of *bus.Reader a device uses.
type reader interface {
	ReadCoils(ctx context.Context, address, quantity uint16) ([]byte, error)
	ReadDiscreteInputs(ctx context.Context, address, quantity uint16) ([]byte, error)
	ReadHoldingRegisters(ctx context.Context, address, quantity uint16) ([]byte, error)
	ReadInputRegisters(ctx context.Context, address, quantity uint16) ([]byte, error)
}

// device is one device on the bus; it implements drivers.Device.
type device struct {
	readers map[uint8]reader // by the offset of a unit address to the device's own
	log     *slog.Logger
	info    telemetry.DeviceInfo
	groups  []*group
	limits  plan.Limits // Bad grows as the device refuses
	cost    plan.Line
	// inFlight is how many requests of one poll are asked side by side, 1 or more.
	inFlight int

	quiet   map[uint8]*quiet // unit addresses that are silent while another one answers
	refresh atomic.Uint64    // raised by Refresh
	noticed *decoding        // the bus's
	told    telemetry.Quality
	why     error // of the last transaction that failed, for the log
}

// group is what is read at one period.
type group struct {
	points    []point
	spans     []plan.Span // all that the points need
	requests  []request   // in plan order; planned anew when the device refuses one
	refreshed uint64      // the device's refresh at this group's last sample
}

// result is what a request brought in this poll.
type result struct {
	plan.Span
	data    []byte
	quality telemetry.Quality
	code    byte // Modbus exception code when Refused
}

// Info implements drivers.Device.
func (d *device) Info() telemetry.DeviceInfo { return d.info }

// Refresh implements drivers.Refresher.
func (d *device) Refresh() { d.refresh.Add(1) }

// Poll implements drivers.Device.
func (d *device) Poll(ctx context.Context, index int) (telemetry.Sample, bool) {
	g := d.groups[index]
	s := telemetry.Sample{Device: d.info.Name, Kind: d.info.Kind, Group: index, Tags: d.info.Tags}
	a := asking{d: d, ctx: ctx}
	d.spare(g, &a)
	results, ok := d.readAll(g, &a)
	if !ok {
		return s, false
	}
	s.Time = a.last
	if s.Time.IsZero() || a.allGone(g) {
		s.Time = time.Now() // the final time-out
	}
	d.note(g, &a)
	d.fill(&s, g, results)
	d.tell(s.Status)
	return s, true
}

// read runs one transaction; err is why it failed. canceled means that the
// poll was called off.
func (d *device) read(ctx context.Context, r plan.Span) (res result, canceled bool, err error) {
	unit := d.readers[r.Unit]
	f := unit.ReadHoldingRegisters
	switch r.Table {
	case plan.Coil:
		f = unit.ReadCoils
	case plan.Discrete:
		f = unit.ReadDiscreteInputs
	case plan.Input:
		f = unit.ReadInputRegisters
	}
	res.Span = r
	res.data, err = f(ctx, r.Address, r.Count)
	var e *bus.Error
	switch bus.KindOf(err) {
	case 0:
		if err != nil { // a Reader returns nothing but *bus.Error
			panic("BUG: an error that is no bus.Error: " + err.Error())
		}
	case bus.Refused:
		res.quality = telemetry.Refused
		e = err.(*bus.Error)
		res.code = e.Code
		if e.Code == 10 || e.Code == 11 { // a gateway speaking for a device that is silent
			res.quality = telemetry.NoReply
		}
	case bus.Garbled:
		res.quality = telemetry.Garbled
	case bus.NoReply:
		res.quality = telemetry.NoReply
	case bus.NotConnected:
		res.quality = telemetry.NotConnected
	case bus.Canceled:
		return res, true, err
	}
	return res, false, err
}

func covers(r, s plan.Span) bool {
	return r.Unit == s.Unit && r.Table == s.Table && s.Address >= r.Address && int(s.Address)+int(s.Count) <= int(r.Address)+int(r.Count)
}

// tell logs a change of what the device as a whole is like.
func (d *device) tell(q telemetry.Quality) {
	if q == d.told {
		return
	}
	if q == telemetry.Good {
		d.log.Info("device answers again", "was", d.told.String())
	} else {
		d.log.Warn("device cannot be read", "status", q.String(), "error", d.why)
	}
	d.told = q
}
