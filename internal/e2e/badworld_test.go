package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// badStop asks the process to end and returns its exit status; it fails when
// that takes longer than a technician waits.
func badStop(t *testing.T, s *server) int {
	t.Helper()
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	cmd := s.cmd
	go func() {
		_ = cmd.Wait() // its status is what counts
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("still running 10 s after SIGTERM; it said:\n%s", s.log)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %v to end after SIGTERM, want at most 3 s", took)
	}
	s.cmd = nil
	badCalm(t, s)
	return cmd.ProcessState.ExitCode()
}

// badCalm fails when something in the log is for programmers.
func badCalm(t *testing.T, s *server) {
	t.Helper()
	for _, word := range []string{"panic", "goroutine ", "runtime error", "DATA RACE"} {
		if strings.Contains(s.log.String(), word) {
			t.Errorf("%q in the log:\n%s", word, s.log)
		}
	}
}

// badTaken holds a port that the test's program would like to have.
func badTaken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// badTakenThings: what another program holds is told, and the other
// program is not disturbed.
func badTakenThings(t *testing.T, bin string) {
	hubd := []string{filepath.Join(bin, "hubd"), "run", "--config", "hub.yaml"}
	hubFiles := map[string]string{"hub.yaml": goodHub, "rules.yaml": goodRules, "page.yaml": goodPage}
	for _, key := range []string{"console", "mqtt"} {
		t.Run(key+" port", func(t *testing.T) {
			dir, addr := badFolder(t), badTaken(t)
			badWrite(t, dir, hubFiles)
			text := regexp.MustCompile(`(?m)^(`+key+`: .*)127\.0\.0\.1:0`).ReplaceAllString(goodHub, "${1}"+addr)
			badWrite(t, dir, map[string]string{"hub.yaml": text})
			stderr, status := badRun(t, dir, hubd...)
			if status != 1 {
				t.Errorf("status %d, want 1", status)
			}
			badSays(t, stderr, `hubd run: `+key+`.listen: `+addr+` is already taken by another program; stop it or choose another port`)
		})
	}
	t.Run("state folder", func(t *testing.T) {
		dir := badFolder(t)
		badWrite(t, dir, hubFiles)
		first := newServer(t, hubd[0], "run", "--config", filepath.Join(dir, "hub.yaml"))
		console := badConsole(t, first)
		stderr, status := badRun(t, dir, hubd...)
		if status != 1 {
			t.Errorf("status %d, want 1", status)
		}
		badSays(t, stderr, `hubd run: state\.dir: state is in use by another process: stop the other hubd or give this one another folder`)
		if resp, err := http.Get(console + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("the first hub suffered: %v, %v", resp, err)
		}
		if status := badStop(t, first); status != 0 {
			t.Errorf("status %d after SIGTERM, want 0", status)
		}
		first.start() // what the lock was for is free again
		badConsole(t, first)
	})
	gatewayd := filepath.Join(bin, "gatewayd")
	t.Run("buffer folder", func(t *testing.T) {
		dir := badFolder(t)
		badWrite(t, dir, map[string]string{"g.yaml": goodGateway})
		first := newServer(t, gatewayd, "--config", filepath.Join(dir, "g.yaml"))
		eventually(t, 10*time.Second, "the first gateway runs", func() bool { return strings.Contains(first.log.String(), "gateway runs") })
		stderr, status := badRun(t, dir, gatewayd, "--config", "g.yaml")
		if status != 1 {
			t.Errorf("status %d, want 1", status)
		}
		badSays(t, stderr, `gatewayd: buffer\.dir: .*"buffer" is in use by another process: stop the other gatewayd or give this one another directory`)
		if status := badStop(t, first); status != 0 {
			t.Errorf("status %d after SIGTERM, want 0", status)
		}
	})
	t.Run("buffer folder is a file", func(t *testing.T) {
		dir := badFolder(t)
		badWrite(t, dir, map[string]string{"g.yaml": goodGateway, "buffer": ""})
		stderr, status := badRun(t, dir, gatewayd, "--config", "g.yaml")
		if status != 1 {
			t.Errorf("status %d, want 1", status)
		}
		badSays(t, stderr, `gatewayd: buffer\.dir: mkdir .*buffer: not a directory; name a folder that this user may write to`)
	})
	t.Run("buffer folder may not be written", func(t *testing.T) {
		dir := badFolder(t)
		badWrite(t, dir, map[string]string{"g.yaml": goodGateway})
		if err := os.Mkdir(filepath.Join(dir, "buffer"), 0o555); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(gatewayd, "--config", "g.yaml")
		cmd.Dir = dir
		if os.Getuid() == 0 { // root may write anywhere
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run() // its status is looked at
		if status := cmd.ProcessState.ExitCode(); status != 1 {
			t.Errorf("status %d, want 1", status)
		}
		badSays(t, stderr.String(), `gatewayd: buffer\.dir: mkdir .*: permission denied; name a folder that this user may write to`)
	})
}

// badConsole waits for the hub's console and returns its address.
func badConsole(t *testing.T, s *server) (url string) {
	t.Helper()
	eventually(t, 15*time.Second, "the hub tells its console", func() bool {
		if m := regexp.MustCompile(`console: (http://\S+)`).FindAllStringSubmatch(s.log.String(), -1); m != nil {
			url = m[len(m)-1][1]
			resp, err := http.Get(url + "/healthz")
			if err != nil {
				return false
			}
			resp.Body.Close()
			return true
		}
		return false
	})
	return url
}

// badNothingAnswers: no broker, no serial port and no device. The gateway
// runs on, tells each once in a while and ends when it is told to.
func badNothingAnswers(t *testing.T, bin string) {
	dir, nobody := badFolder(t), freeAddr(t)
	gateway := strings.ReplaceAll(goodGateway, `127.0.0.1:1"`, nobody+`"`)
	badWrite(t, dir, map[string]string{"plain-file": "", "g.yaml": badEdit(t, gateway, "buses:\n", `buses:
  - name: file
    rtu: {port: `+filepath.Join(dir, "plain-file")+`}
    devices: [{name: level, profile: qdy30a, unit: 1, every: 1s}]
`)})
	g := newServer(t, filepath.Join(bin, "gatewayd"), "--config", filepath.Join(dir, "g.yaml"))
	down := regexp.MustCompile(`level=WARN msg="uplink is down" .* error="mqtt: cannot reach ` + regexp.QuoteMeta(nobody) + `: connection refused; check uplink\.broker" retry_in=(\S+)\n`)
	var waits []time.Duration
	eventually(t, 20*time.Second, "three attempts to reach the broker", func() bool {
		waits = nil
		for _, m := range down.FindAllStringSubmatch(g.log.String(), -1) {
			d, err := time.ParseDuration(m[1])
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, d)
		}
		return len(waits) >= 3
	})
	for i, w := range waits { // half jittered: attempt n waits 2^(n-1) to 2^n seconds
		if low, high := time.Second<<i, 2*time.Second<<i; w < low || w > high {
			t.Errorf("attempt %d waits %v, want %v to %v", i+1, w, low, high)
		}
	}
	for device, why := range map[string]string{
		"heat-meter-1": `open serial port /dev/no-such-port: no such file or directory`,
		"level":        `open serial port .*/plain-file: not a serial port`,
		"plant-meter":  `connect: .*connection refused`,
	} {
		line := regexp.MustCompile(`msg="device cannot be read" .* device=` + device + ` unit=1 status="not connected" error="not connected: ` + why)
		eventually(t, 15*time.Second, device+" is said to be not connected, and why", func() bool { return line.MatchString(g.log.String()) })
		if n := len(line.FindAllString(g.log.String(), -1)); n != 1 {
			t.Errorf("%s is told %d times; once, until it changes, is enough", device, n)
		}
	}
	if status := badStop(t, g); status != 0 {
		t.Errorf("status %d after SIGTERM, want 0", status)
	}
}

// badNoInflux: without its database the hub runs on, says why it is not
// ready, and alarms are raised all the same.
func badNoInflux(t *testing.T, bin string) {
	dir := badFolder(t)
	hook := startWebhook(t)
	mqtt := freeAddr(t)
	badWrite(t, dir, map[string]string{
		"token":      "luquan:none\n",
		"rules.yaml": goodRules,
		"page.yaml":  badEdit(t, goodPage, "http://127.0.0.1:9/page", hook.URL),
		"hub.yaml": badEdit(t, badEdit(t, goodHub, `embedded, listen: "127.0.0.1:0"`, `embedded, listen: "`+mqtt+`"`), "state:",
			`influx: {url: "http://`+freeAddr(t)+`", bucket: telemetry/autogen, token_file: token}`+"\nstate:"),
	})
	hub := newServer(t, filepath.Join(bin, "hubd"), "run", "--config", filepath.Join(dir, "hub.yaml"))
	console := badConsole(t, hub)

	sim := exec.CommandContext(t.Context(), filepath.Join(bin, "plantsim"), "--site", "heating-plant", "--json", "--port-base", "0", "--dir", filepath.Join(dir, "lines"))
	out, err := sim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Wait() }) // killed with the test's context
	var buses struct {
		Buses []struct{ Name, Addr string }
	}
	if err := json.NewDecoder(out).Decode(&buses); err != nil {
		t.Fatal(err)
	}
	meter := ""
	for _, b := range buses.Buses {
		if b.Name == "power-lan" {
			meter = b.Addr
		}
	}
	badWrite(t, dir, map[string]string{"g.yaml": fmt.Sprintf(`site: heating-east
gateway: boiler-house-1
uplink: {broker: "mqtt://%s"}
buffer: {dir: buffer, max: 64MiB}
buses:
  - name: power-lan
    tcp: {address: %q}
    devices: [{name: plant-meter, profile: schneider-iem3000-pm5xxx, unit: 1, every: 1s, points: [u_avg]}]
`, mqtt, meter)})
	g := newServer(t, filepath.Join(bin, "gatewayd"), "--config", filepath.Join(dir, "g.yaml"))

	eventually(t, 20*time.Second, "the alarm is raised and paged", func() bool {
		return hook.count("voltage-high", "raised")+hook.count("voltage-high", "announced") > 0
	})
	eventually(t, 20*time.Second, "/readyz says that the history cannot be written, and why", func() bool {
		resp, err := http.Get(console + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusServiceUnavailable &&
			strings.Contains(string(body), "history cannot be written since") && strings.Contains(string(body), "connection refused")
	})
	for _, s := range []*server{g, hub} {
		if status := badStop(t, s); status != 0 {
			t.Errorf("%s: status %d after SIGTERM, want 0", filepath.Base(s.argv[0]), status)
		}
	}
}
