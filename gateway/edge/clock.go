package edge

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"luquan/gateway/edge/stamp"
)

// Clock is what the board can ask for the time: the system's unless Options
// says otherwise.
type Clock = stamp.Clock

// systemClock is this machine's kernel.
type systemClock struct {
	boot    string
	started time.Time
}

// newSystemClock reads the boot's id; where the kernel has none it draws one.
func newSystemClock() systemClock {
	c := systemClock{started: time.Now()}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		c.boot = strings.TrimSpace(string(b))
		return c
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	c.boot = hex.EncodeToString(b)
	return c
}

// Now is the wall clock.
func (systemClock) Now() time.Time { return time.Now() }

// SinceBoot is the monotonic clock that goes on in suspension, clock_gettime(2).
// It and adjtimex(2) never block, and are called for every poll: they are made
// without telling the scheduler, which wakes its monitor for each of the others.
func (c systemClock) SinceBoot() time.Duration {
	var ts unix.Timespec
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return time.Since(c.started)
	}
	return time.Duration(ts.Nano())
}

// BootID names this boot.
func (c systemClock) BootID() string { return c.boot }

// Synchronised asks the kernel whether NTP or PTP keeps its clock, adjtimex(2).
func (systemClock) Synchronised() bool {
	var tx unix.Timex
	state, _, errno := unix.RawSyscall(unix.SYS_ADJTIMEX, uintptr(unsafe.Pointer(&tx)), 0, 0)
	return errno == 0 && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
}

// RTC reads the battery clock, rtc(4); most small boards have none.
func (systemClock) RTC() (time.Time, bool) {
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
		return time.Unix(0, 0)
	}
	info, err := os.Stat(filepath.Clean(exe))
	if err != nil {
		return time.Unix(0, 0)
	}
	return info.ModTime()
}
