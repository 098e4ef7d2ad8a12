package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"luquan/gateway/edge"
	"luquan/internal/daemon"
)

// chaosBoardEnv, when set, makes TestChaosBoardProcess a gatewayd whose clock
// the test sets: the folder of its configuration.
const chaosBoardEnv = "LUQUAN_CHAOS_BOARD"

// TestChaosBoardProcess is no test: TestChaos starts it as a process of its
// own. It is cmd/gatewayd --debug but for edge.Options.Clock.
func TestChaosBoardProcess(t *testing.T) {
	dir := os.Getenv(chaosBoardEnv)
	if dir == "" {
		t.Skip("started by TestChaos only")
	}
	root := &cobra.Command{Use: "gatewayd", RunE: func(cmd *cobra.Command, _ []string) error {
		cfg, err := edge.Load(filepath.Join(dir, "gateway.yaml"))
		if err != nil {
			return err
		}
		clock := boardClock{filepath.Join(dir, clockFile)}
		g, err := edge.New(cfg, edge.Options{Logger: daemon.DebugLogger(cmd.ErrOrStderr()), Version: daemon.Version(), Clock: clock})
		if err != nil {
			return err
		}
		return g.Run(cmd.Context())
	}}
	os.Exit(daemon.Main(root, nil))
}

// boardCommand starts the board's process. Its program is a copy that is a day
// old: no clock before a program's build is believed.
func (c *chaos) boardCommand() *server {
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		c.t.Fatal(err)
	}
	exe, yesterday := filepath.Join(c.dir, "gatewayd"), time.Now().AddDate(0, 0, -1)
	if err := os.WriteFile(exe, program, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Chtimes(exe, yesterday, yesterday); err != nil {
		c.t.Fatal(err)
	}
	c.t.Setenv(chaosBoardEnv, c.dir)
	return newServer(c.t, exe, "-test.run", "^TestChaosBoardProcess$", "-test.timeout", "24h")
}

const clockFile = "clock.json"

// clockSetting is what the board's clocks show.
type clockSetting struct {
	Boot   string        // id of the boot
	Began  int64         // CLOCK_BOOTTIME of this machine when the board's boot began, ns
	Offset time.Duration // the board's wall clock less the true time
	Synced bool          // its kernel says that NTP keeps it
}

// boardClock reads the setting at every call: the test changes it.
type boardClock struct{ file string }

func (b boardClock) read() (s clockSetting) {
	data, err := os.ReadFile(b.file)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		panic(err)
	}
	return s
}

func (b boardClock) Now() time.Time           { return time.Unix(0, time.Now().UnixNano()).Add(b.read().Offset) }
func (b boardClock) SinceBoot() time.Duration { return time.Duration(sinceBoot() - b.read().Began) }
func (b boardClock) BootID() string           { return b.read().Boot }
func (b boardClock) Synchronised() bool       { return b.read().Synced }
func (b boardClock) RTC() (time.Time, bool)   { return time.Time{}, false }

func sinceBoot() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// clockPeriod is a stretch of true time in which the board's clock stood so.
type clockPeriod struct {
	clockSetting
	from  time.Time
	until time.Time // zero: it still does
}

// setClock changes the board's clocks at once.
func (c *chaos) setClock(change func(*clockSetting)) {
	c.t.Helper()
	var s clockSetting
	before := time.Now()
	if n := len(c.clocks); n > 0 {
		s = c.clocks[n-1].clockSetting
	}
	change(&s)
	data, err := json.Marshal(s)
	if err != nil {
		c.t.Fatal(err)
	}
	tmp := filepath.Join(c.dir, clockFile+".new")
	c.write(clockFile+".new", string(data))
	if err := os.Rename(tmp, filepath.Join(c.dir, clockFile)); err != nil {
		c.t.Fatal(err)
	}
	if n := len(c.clocks); n > 0 { // a rename may take its time: both held meanwhile
		c.clocks[n-1].until = time.Now()
	}
	c.clocks = append(c.clocks, clockPeriod{clockSetting: s, from: before})
}

// reboot gives the board a new boot: what its monotonic clock counts from. Half
// of the time it begins without knowing the time, in 1970.
func (c *chaos) reboot() {
	unset := c.rng.IntN(2) == 0
	c.setClock(func(s *clockSetting) {
		s.Boot = fmt.Sprintf("%08x-chaos", c.rng.Uint32())
		s.Began = sinceBoot()
		if unset {
			s.Offset, s.Synced = time.Duration(-time.Now().UnixNano()), false
		}
	})
}

// stepClock sets the board's clock forward or back, by up to two hours, while
// its kernel says that NTP keeps it: the board has to believe it. Mending sets
// it right, one time in four without its kernel saying so. Whether it was felt,
// the stamps tell: judgeClock.
func (c *chaos) stepClock() (func(), func() bool) {
	step := time.Duration((math.Pow(7200, c.rng.Float64())) * float64(time.Second))
	if c.rng.IntN(2) == 0 {
		step = -step
	}
	c.setClock(func(s *clockSetting) { s.Offset, s.Synced = step, true })
	at := len(c.clocks) - 1
	c.steps = append(c.steps, at)
	c.wait(time.Second, 2*time.Second)
	return func() {
		c.setClock(func(s *clockSetting) { s.Offset, s.Synced = 0, c.rng.IntN(4) > 0 })
	}, func() bool { return true }
}

// stampSlack is by how much a stamp may come after the answer was sent: the
// rest of the poll, and a machine that is busy.
const stampSlack = 1500 * time.Millisecond

// judgeClock compares each stamp with what the board's clock showed when the
// plant answered, and returns how many steps were seen in the stamps.
func (c *chaos) judgeClock(a account) (felt int) {
	at := map[string]map[uint32]time.Time{}
	for d, list := range c.plant.all() {
		at[d] = map[uint32]time.Time{}
		for _, s := range list {
			at[d][s.serial] = s.at
		}
	}
	seen := map[int]bool{}
	codes := map[uint64]int{}
	for device, list := range a.serials() {
		for n, rows := range list {
			true_ := at[device][n]
			r := rows[0]
			if r.uint("bad_points") > 0 {
				continue // the plant fell silent within the poll: stamped with the time-out
			}
			off := time.Unix(0, r.time).Sub(true_)
			code := r.uint("clock")
			codes[code]++
			fits := false
			for i, p := range c.clocks {
				late := off - p.Offset
				near := late > -100*time.Millisecond && late < stampSlack
				then := !p.from.After(true_.Add(stampSlack)) && (p.until.IsZero() || p.until.After(true_.Add(-100*time.Millisecond)))
				switch code {
				case 0: // the clock of that moment
					fits = fits || near && then && p.Synced
					if near && then && p.Offset != 0 {
						seen[i] = true
					}
				case 1: // one that was synchronised, at another moment
					fits = fits || near && p.Synced
				}
			}
			switch code {
			case 2: // the hub's, which is true
				fits = off > -2*time.Second && off < stampSlack+time.Second
			case 3:
				fits = true // it says itself that it is not known
			}
			if !fits {
				c.t.Errorf("%s: serial %d was served at %s and has the stamp %s with clock=%d: %v apart, which no clock showed",
					device, n, true_.Format("15:04:05.000"), time.Unix(0, r.time).Format("01-02 15:04:05.000"), code, off.Round(time.Millisecond))
			}
		}
	}
	for _, i := range c.steps {
		if seen[i] {
			felt++
		}
	}
	c.t.Logf("stamps by clock code: %v", codes)
	return felt
}
