package modbus

import (
	"time"

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
	Every           time.Duration
	Share           float64 // of the bus's time
}

// Budget plans the bus as Open does and tells what its polls cost. No port is
// opened and nothing is dialled. c need not have been validated; if it is
// wrong, that is the error.
func (c Config) Budget(lib *profile.Library) (Budget, error) {
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
	b := Budget{Bus: c.Name}
	var loads []plan.Load
	for i, dev := range bus.devices {
		d := dev.(*device)
		for j, g := range d.groups {
			var requests []plan.Request
			for _, r := range g.requests {
				requests = append(requests, r.Span)
			}
			every := d.info.Groups[j].Every
			load := plan.Load{Poll: cost.Poll(requests, c.Devices[i].resolved.Limits.Pause), Every: every}
			loads = append(loads, load)
			b.Loads = append(b.Loads, Load{
				Device: d.info.Name, Profile: d.info.Profile, Points: len(g.points), Requests: len(requests),
				Poll: load.Poll, Every: every, Share: plan.Share([]plan.Load{load}),
			})
		}
	}
	b.Share = plan.Share(loads)
	return b, nil
}
