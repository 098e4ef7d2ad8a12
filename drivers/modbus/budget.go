package modbus

import (
	"cmp"
	"time"

	"luquan/drivers/modbus/bus"
	"luquan/drivers/modbus/plan"
	"luquan/drivers/modbus/profile"
)

// Budget is how a bus's time is spent when every device answers as fast as it
// is taken to.
type Budget struct {
	Bus   string
	Share float64 // of the bus's time; above 1 the periods cannot be kept
	Loads []Load  // by device in the file's order, then by period
}

// Load is the points of one device that are read at one period.
type Load struct {
	Device, Profile string
	Points          int
	Requests        int           // of one poll
	Poll            time.Duration // bus time of one
	Slow            time.Duration // bus time of one in which every answer comes at the last moment allowed
	Silent          time.Duration // bus time of one that is not answered: the time-out of the first request to each unit address
	Every           time.Duration
	Share           float64 // of the bus's time
}

// Budget plans the bus as Open does and tells what its polls cost. turnaround
// is what a device is taken to need before it answers, and over TCP the whole
// round trip; 0 is what Open itself supposes, 20 ms and over TCP 5 ms. No port
// is opened and nothing is dialled. c need not have been validated; if it is
// wrong, that is the error.
func (c Config) Budget(lib *profile.Library, turnaround time.Duration) (Budget, error) {
	c, err := c.checked(lib)
	if err != nil {
		return Budget{}, err
	}
	line, cost, err := c.openLine()
	if err != nil {
		return Budget{}, err
	}
	bus := c.build(line, cost, nil)
	defer bus.Close() // was never opened
	if turnaround > 0 {
		cost = c.cost(turnaround)
	}
	b := Budget{Bus: c.Name}
	var loads []plan.Load
	for i, dev := range bus.devices {
		d := dev.(*device)
		limits := c.Devices[i].resolved.Limits
		for j, g := range d.groups {
			var requests []plan.Request
			for _, r := range g.requests {
				requests = append(requests, r.Span)
			}
			every := d.info.Groups[j].Every
			load := plan.Load{Poll: cost.Poll(requests, limits.Pause), Every: every}
			loads = append(loads, load)
			response := c.response(limits)
			b.Loads = append(b.Loads, Load{
				Device: d.info.Name, Profile: d.info.Profile, Points: len(g.points), Requests: len(requests),
				Poll: load.Poll, Slow: c.cost(response).Poll(requests, limits.Pause), Silent: c.silent(requests, response),
				Every: every, Share: plan.Share([]plan.Load{load}),
			})
		}
	}
	b.Share = plan.Share(loads)
	return b, nil
}

// response is the response limit of a device.
func (c *Config) response(l profile.Limits) time.Duration {
	return cmp.Or(l.ResponseTimeout, c.Timeout, bus.DefaultResponse)
}

// cost is what a transaction costs when the device needs so long to answer.
func (c *Config) cost(turnaround time.Duration) plan.Line {
	if c.TCP != nil {
		gap := c.TCP.options().Gap()
		return plan.Line{Fixed: turnaround + gap, Silence: gap}
	}
	o := c.RTU.options()
	return plan.RTU(o.Baud, o.Parity != bus.ParityNone, o.StopBits, turnaround)
}

// silent is what the requests of a poll cost when none is answered: the first
// to each unit is sent.
func (c *Config) silent(requests []plan.Request, response time.Duration) (sum time.Duration) {
	for i, r := range requests { // in order of the units
		if i == 0 || r.Unit != requests[i-1].Unit {
			sum += c.wait(r, response)
		}
	}
	return sum
}

// wait is what a request costs that is not answered.
func (c *Config) wait(r plan.Request, response time.Duration) time.Duration {
	if c.TCP != nil {
		return c.TCP.options().Wait(response)
	}
	return c.RTU.options().Wait(r.Bytes(), response)
}
