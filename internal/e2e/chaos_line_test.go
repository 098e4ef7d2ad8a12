package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Where the board stands.
const (
	chaosSite    = "chaos"
	chaosGateway = "board"
	// chaosCommit is buffer.commit_every: what a kill of the board may cost.
	chaosCommit = 500 * time.Millisecond
)

// chaos is the whole line: plant, gatewayd, two links, mosquitto, hubd, influxd.
type chaos struct {
	t     *testing.T
	rng   *rand.Rand
	dir   string
	plant *chaosPlant

	db                          influx
	board, broker, hub, history *server
	boardLink                   *chaosLink // board to broker
	hubLink                     *chaosLink // hub to broker
	historyLink                 *chaosLink // hub to InfluxDB
	boardDisk, hubDisk          *smallDisk
	console                     string
	stalls                      *stallMeter

	hubKilled bool

	kills  []boardKill
	clocks []clockPeriod // of the board, in order
	steps  []int         // those of clocks that are steps
}

// boardKill is one SIGKILL of gatewayd.
type boardKill struct {
	at    time.Time
	epoch uint64        // that it had
	upto  uint64        // all to here it had said to be on flash
	grace time.Duration // what it may cost beyond commit_every
	cost  int           // serial numbers that were lost with it
	age   time.Duration // of the oldest of them
}

func newChaos(t *testing.T, rng *rand.Rand) *chaos {
	t.Helper()
	need(t, "mosquitto")
	need(t, "influxd")
	c := &chaos{t: t, rng: rng, dir: t.TempDir(), stalls: startStallMeter(t)}
	if out, err := exec.Command("go", "build", "-o", c.dir+"/", "luquan/cmd/hubd").CombinedOutput(); err != nil {
		t.Fatalf("build hubd: %v\n%s", err, out)
	}
	c.boardDisk = mountDisk(t, filepath.Join(c.dir, "flash"), 25<<20)
	c.hubDisk = mountDisk(t, filepath.Join(c.dir, "state"), 16<<20)
	c.plant = startChaosPlant(t)

	var mqtt string
	c.db, c.history = startInfluxServer(t)
	mqtt, c.broker = startMosquitto(t)
	// What odd-one measures is a text already: as a number it is refused.
	resp, err := http.Post(c.db.url+"/write?db=telemetry", "text/plain", strings.NewReader(
		fmt.Sprintf("chaos_odd,site=%s,gateway=%s,device=odd-one level=\"a text\" %d", chaosSite, chaosGateway, time.Now().UnixNano())))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	c.boardLink, c.hubLink = newChaosLink(t, mqtt), newChaosLink(t, mqtt)
	u, err := url.Parse(c.db.url)
	if err != nil {
		t.Fatal(err)
	}
	c.historyLink = newChaosLink(t, u.Host)

	console := freeAddr(t)
	c.console = "http://" + console
	c.write("influx.token", c.db.token+"\n")
	c.write("hub.yaml", fmt.Sprintf("name: chaos\nmqtt: {broker: \"mqtt://%s\"}\ninflux: {url: \"http://%s\", bucket: %q, token_file: influx.token}\nconsole: {listen: %q}\nstate: {dir: %q}\n",
		c.hubLink.addr(), c.historyLink.addr(), c.db.bucket, console, c.hubDisk.dir))
	c.write("gateway.yaml", c.plant.config(c.boardLink.addr(), filepath.Join(c.boardDisk.dir, "buffer"), chaosCommit))
	c.hub = newServer(t, filepath.Join(c.dir, "hubd"), "run", "--config", filepath.Join(c.dir, "hub.yaml"))
	c.setClock(func(s *clockSetting) { s.Boot, s.Began, s.Synced = "first-chaos", sinceBoot(), true })
	c.board = c.boardCommand()
	t.Cleanup(c.keepLogs)
	return c
}

func (c *chaos) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// keepLogs writes what the processes said where -chaos.logs says.
func (c *chaos) keepLogs() {
	if *chaosLogs == "" {
		return
	}
	if err := os.MkdirAll(*chaosLogs, 0o755); err != nil {
		c.t.Error(err)
		return
	}
	for name, s := range map[string]*server{"gatewayd": c.board, "hubd": c.hub, "mosquitto": c.broker, "influxd": c.history} {
		if err := os.WriteFile(filepath.Join(*chaosLogs, name+".log"), []byte(s.log.String()), 0o644); err != nil {
			c.t.Error(err)
		}
	}
}

// alive reports whether a process runs: it was started and has not ended.
func alive(s *server) bool {
	if s.cmd == nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(rest, "Z")
}

// checkAlive fails when a process has ended by itself, and starts it again.
func (c *chaos) checkAlive() {
	for _, s := range []*server{c.board, c.broker, c.hub, c.history} {
		if !alive(s) {
			out := s.log.String()
			c.t.Errorf("%s ended by itself; it said last:\n%s", filepath.Base(s.argv[0]), out[max(0, len(out)-2000):])
			s.kill()
			s.start()
		}
	}
}

// killed kills a process and reports whether it was SIGKILL that ended it.
func killed(s *server) bool {
	cmd := s.cmd
	s.kill()
	if cmd == nil || cmd.ProcessState == nil {
		return false
	}
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// smallDisk is a mounted file system of a few MiB, or an ordinary folder where
// none can be mounted.
type smallDisk struct {
	dir     string
	mounted bool
	filler  string
}

func mountDisk(t *testing.T, dir string, size int64) *smallDisk {
	t.Helper()
	d := &smallDisk{dir: dir, filler: filepath.Join(dir, "filler")}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	switch {
	case err == nil:
		d.mounted = true
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 2); err != nil { // MNT_DETACH
				t.Errorf("unmount %s: %v", dir, err)
			}
		})
	case os.Getenv("LUQUAN_REAL") == "1":
		t.Fatalf("a small file system cannot be mounted and LUQUAN_REAL=1 asks for it: %v", err)
	default:
		t.Logf("a small file system cannot be mounted (%v): no disk is filled in this run", err)
	}
	return d
}

// fill takes all the room there is and reports whether the disk then refused more.
func (d *smallDisk) fill() (bool, error) {
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return errors.Is(err, syscall.ENOSPC), err
	}
	defer f.Close()
	for piece := make([]byte, 64<<10); ; {
		if _, err := f.Write(piece); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			return false, err
		}
		if len(piece) <= 512 {
			return true, nil
		}
		piece = piece[:len(piece)/2]
	}
}

func (d *smallDisk) empty() error { return os.Remove(d.filler) }

// stallMeter notes by how much this machine lets a process oversleep: what is
// late by that is not the product's delay.
type stallMeter struct {
	mu   sync.Mutex
	late []stall
}

type stall struct {
	at time.Time
	by time.Duration
}

func startStallMeter(t *testing.T) *stallMeter {
	m := &stallMeter{}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		const tick = 10 * time.Millisecond
		for last := time.Now(); ; {
			select {
			case <-done:
				return
			case <-time.After(tick):
			}
			now := time.Now()
			if by := now.Sub(last) - tick; by > tick {
				m.mu.Lock()
				m.late = append(m.late, stall{now, by})
				m.mu.Unlock()
			}
			last = now
		}
	}()
	return m
}

// worst is the longest stall since then.
func (m *stallMeter) worst(since time.Time) (by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.late {
		if s.at.After(since) {
			by = max(by, s.by)
		}
	}
	return by
}
