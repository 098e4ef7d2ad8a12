package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// need returns the path of a real program, or skips; under LUQUAN_REAL=1 it fails.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if out, e := exec.Command("go", "env", "GOPATH").Output(); e == nil {
			path = filepath.Join(string(bytes.TrimSpace(out)), "bin", name)
			_, err = os.Stat(path)
		}
	}
	if err == nil {
		return path
	}
	if os.Getenv("LUQUAN_REAL") == "1" {
		t.Fatalf("%s is missing and LUQUAN_REAL=1 asks for it: %v", name, err)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// freeAddr returns a loopback address whose port was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually polls cond until it holds; it fails with what when the time is over.
func eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond) // between looks at a real server, which tells nobody when it is done
	}
}

// server is a real program under the test's control.
type server struct {
	t    testing.TB
	argv []string
	log  *lockedBuffer

	cmd *exec.Cmd
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newServer(t testing.TB, argv ...string) *server {
	s := &server{t: t, argv: argv, log: &lockedBuffer{}}
	s.start()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			out := s.log.String()
			t.Logf("%s said (last 4 KiB):\n%s", filepath.Base(argv[0]), out[max(0, len(out)-4096):])
		}
	})
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // none outlives the test
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// kill ends it with SIGKILL, as a power cut would.
func (s *server) kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	_ = s.cmd.Wait() // "signal: killed" is what was asked for
	s.cmd = nil
}

func startMosquitto(t testing.TB) (addr string, s *server) {
	t.Helper()
	path := need(t, "mosquitto")
	addr = freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence false\nmax_inflight_messages 1000\nmax_queued_messages 0\n", port, host)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, path, "-c", conf)
	waitTCP(t, addr)
	return addr, s
}

func waitTCP(t testing.TB, addr string) {
	t.Helper()
	eventually(t, 15*time.Second, addr+" answers", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// influx is a real InfluxDB 1.8 with Flux: bucket db/rp, token user:pass.
type influx struct{ url, bucket, token string }

func startInflux(t testing.TB) influx {
	t.Helper()
	db, _ := startInfluxServer(t)
	return db
}

func startInfluxServer(t testing.TB) (influx, *server) {
	t.Helper()
	path := need(t, "influxd")
	dir, addr, rpc := t.TempDir(), freeAddr(t), freeAddr(t)
	conf := filepath.Join(dir, "influxdb.conf")
	text := fmt.Sprintf(`reporting-disabled = true
bind-address = %q
[meta]
dir = %q
[data]
dir = %q
wal-dir = %q
query-log-enabled = false
[http]
bind-address = %q
flux-enabled = true
log-enabled = false
[monitor]
store-enabled = false
`, rpc, dir+"/meta", dir+"/data", dir+"/wal", addr)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, path, "-config", conf)
	base := "http://" + addr
	eventually(t, 30*time.Second, "influxd answers", func() bool {
		resp, err := http.Get(base + "/ping")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusNoContent
	})
	resp, err := http.Post(base+"/query?q=CREATE+DATABASE+telemetry", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return influx{url: base, bucket: "telemetry/autogen", token: "luquan:none"}, s
}
