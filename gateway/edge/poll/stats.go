package poll

import "time"

// Stats counts what was done on one bus since the start.
type Stats struct {
	Bus    string
	Polls  uint64 // done, answered or not
	Failed uint64 // of them without any sound answer
	// Skipped are slots that could not be kept: the bus was busy, or the
	// device wants more of it than there is.
	Skipped uint64
	// Rested are slots in which a device that fails was left alone.
	Rested   uint64
	Episodes uint64        // times that periods could not be kept for a while; each is told in the log
	Dead     int           // devices that are backed off now
	Busy     time.Duration // spent polling
	Load     float64       // part of the bus's time that the devices that answer want now
	Devices  []DeviceStats // in the order of gateway.yaml
}

// DeviceStats are the counts of one device.
type DeviceStats struct {
	Device                         string
	Polls, Failed, Skipped, Rested uint64
	Silent                         bool // backed off now
}

// episode is a time in which periods of a bus cannot be kept.
type episode struct {
	since, last time.Time
	quiet       time.Duration // without a skipped slot that end it
	skipped     uint64
}

// An episode ends when no slot was skipped for so long, or for so many periods of the last slot skipped.
const (
	calm        = time.Minute
	calmPeriods = 3
)

// skip counts slots that could not be kept, and tells it once an episode.
func (l *loop) skip(s *slot, missed uint64, late time.Duration) {
	now := time.Now()
	first := l.episode.since.IsZero()
	if first {
		l.episode = episode{since: now}
	}
	l.episode.last = now
	l.episode.skipped += missed
	l.episode.quiet = max(calm, calmPeriods*s.period)
	l.count(func(st *Stats) {
		st.Skipped += missed
		st.Devices[s.dev.index].Skipped += missed
		if first {
			st.Episodes++
		}
	})
	if first {
		l.p.log.Warn("periods cannot be kept; slots are skipped", "bus", l.bus.Name(), "device", s.dev.name, "group", s.group,
			"every", s.period, "late", late.Round(time.Millisecond), "load_percent", int(100*l.load()+0.5))
	}
}

// calmed ends the episode if it is over.
func (l *loop) calmed(now time.Time) {
	e := l.episode
	if e.since.IsZero() || now.Sub(e.last) < e.quiet {
		return
	}
	l.p.log.Info("periods are kept again", "bus", l.bus.Name(), "skipped", e.skipped,
		"for", e.last.Sub(e.since).Round(time.Second), "load_percent", int(100*l.load()+0.5))
	l.episode = episode{}
}
