package edge

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"luquan/gateway/telemetry"
)

// clock turns the moment a driver saw into the stamp a record keeps, and says
// what the stamp rests on. Two stamps of one device never coincide: within a
// running clock each is later than the one before, across boots too (floor is
// the last stamp of the boot before).
type clock struct {
	trust        []string
	synchronised func() bool              // the kernel's clock is disciplined
	rtc          func() (time.Time, bool) // the board's battery clock
	build        time.Time                // no honest clock is earlier
	started      time.Time                // with the monotonic reading that an unset clock counts from

	mu     sync.Mutex
	floor  time.Time            // no stamp is earlier
	last   map[string]time.Time // by device
	offset time.Duration        // the hub's clock less ours
	hubAt  time.Time            // when the offset was learnt; zero: never

	rtcAt   time.Time // when the battery clock was last read
	rtcGood bool      // and whether it agreed then
}

func newClock(trust []string) *clock {
	return &clock{
		trust: trust, last: map[string]time.Time{},
		synchronised: kernelSynchronised, rtc: readRTC,
		build: buildTime(), started: time.Now(),
	}
}

// kernelSynchronised asks the kernel whether NTP or PTP keeps its clock, adjtimex(2).
func kernelSynchronised() bool {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	return err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
}

// readRTC reads the battery clock, rtc(4); most small boards have none.
func readRTC() (time.Time, bool) {
	data, err := os.ReadFile("/sys/class/rtc/rtc0/since_epoch")
	if err != nil {
		return time.Time{}, false
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return time.Unix(sec, 0), err == nil
}

// buildTime is when this program was installed: its file's time. A clock that
// is earlier is surely wrong.
func buildTime() time.Time {
	exe, err := os.Executable()
	if err != nil {
		return time.Time{}
	}
	info, err := os.Stat(filepath.Clean(exe))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// notBefore raises the floor to the last stamp that is on flash.
func (c *clock) notBefore(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor, c.rtcAt = t, time.Time{} // the battery clock is judged anew
}

// HubTime takes the hub's clock, heard at received by ours.
func (c *clock) HubTime(hub, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset, c.hubAt = hub.Sub(received), received
}

// rtcAgrees reports whether the battery clock is later than the build and the
// last stamp on flash and within two seconds of the system's clock. It counts
// whole seconds, so it is read once in each, not for every record.
func (c *clock) rtcAgrees(t time.Time) bool {
	if t.Sub(c.rtcAt).Abs() >= time.Second || c.rtcAt.IsZero() {
		rtc, ok := c.rtc()
		c.rtcAt = t
		c.rtcGood = ok && rtc.After(c.build) && rtc.After(c.floor) && t.Sub(rtc).Abs() < 2*time.Second
	}
	return c.rtcGood
}

// Now is the current time by the best clock there is, and what it rests on.
func (c *clock) Now() (time.Time, telemetry.Clock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge(time.Now())
}

func (c *clock) judge(t time.Time) (time.Time, telemetry.Clock) {
	switch {
	case slices.Contains(c.trust, "adjtimex") && c.synchronised(),
		slices.Contains(c.trust, "rtc") && c.rtcAgrees(t):
		return t, telemetry.ClockTrusted
	case slices.Contains(c.trust, "hub") && !c.hubAt.IsZero():
		return t.Add(c.offset), telemetry.ClockHub
	}
	if t.Before(c.build) {
		// An unset clock begins in 1970. Counting on from the build keeps the
		// order and the distances; clock=3 says that the instant is not known.
		t = c.build.Add(t.Sub(c.started))
	}
	return t, telemetry.ClockUnsure
}

// Stamp returns the stamp of a record of device that was true at t.
func (c *clock) Stamp(device string, t time.Time) (time.Time, telemetry.Clock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, code := c.judge(t)
	last := c.last[device]
	if last.Before(c.floor) {
		last = c.floor
	}
	// A clock that was set back is believed: holding on to a stamp from the
	// future would give every later record the same false hour.
	if !at.After(last) && last.Sub(at) < time.Second {
		at = last.Add(1)
	}
	c.last[device] = at
	return at, code
}
