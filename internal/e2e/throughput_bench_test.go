package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/hub/broker"
	"luquan/gateway/wire"
)

// The load of BenchmarkThroughput: units*points floats a second.
const (
	units  = 40
	points = 250
	warmUp = 6 * time.Second // start, first polls, first collections
)

// BenchmarkThroughput runs the real gatewayd, a process of its own, against
// forty units of 250 float32 points, each read once a second over Modbus TCP
// and never twice the same: 10,000 points a second, polled, decoded, encoded
// and appended to the buffer on disk. It reports what gatewayd itself takes
// (user and system time, as getrusage has them, and VmRSS), after the start.
//
//	go test -run xxx -bench Throughput -benchtime 20x ./internal/e2e
//
// Each iteration is one second of the wall clock: keep -benchtime at 20x or more.
func BenchmarkThroughput(b *testing.B) {
	exe := filepath.Join(b.TempDir(), "gatewayd")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags", "-s=false", "-o", exe, "luquan/cmd/gatewayd").CombinedOutput(); err != nil {
		b.Fatalf("build gatewayd: %v\n%s", err, out)
	}
	for _, c := range []struct {
		name, commit      string
		endpoints, points int
	}{
		{"no-broker", "hub", 1, points},
		{"no-broker-40-endpoints", "hub", units, points},
		{"broker", "broker", 1, points},
		{"idle", "hub", 1, 1}, // what is not a matter of the points
	} {
		b.Run(c.name, func(b *testing.B) { throughput(b, exe, c.commit, c.endpoints, c.points) })
	}
}

func throughput(b *testing.B, exe, commit string, endpoints, points int) {
	if b.N < 5 {
		return // the testing package's first try: too short to say anything
	}
	p := startFloats(b, endpoints)
	addr := "127.0.0.1:1" // nobody
	if commit == "broker" {
		br, err := broker.Start("127.0.0.1:0", nil)
		if err != nil {
			b.Fatal(err)
		}
		defer br.Close(b.Context())
		addr = br.Addr()
	}
	dir := b.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(config, throughputConfig(addr, commit, p.addrs, points), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, "--config", config)
	cmd.Stderr = b.Output()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Process.Kill()
	time.Sleep(warmUp)
	began, before, asked := time.Now(), cpuTime(b, cmd.Process.Pid), p.answered.Load()
	b.ResetTimer()
	time.Sleep(time.Duration(b.N) * time.Second) // the measurement itself
	b.StopTimer()
	took, cpu := time.Since(began).Seconds(), cpuTime(b, cmd.Process.Pid)-before
	requests := float64(p.answered.Load()-asked) / took
	rss := resident(b, cmd.Process.Pid)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	rate := float64(units*points) * took
	if commit == "hub" {
		stored := storedPoints(b, filepath.Join(dir, "buffer"))
		seconds := time.Since(began).Seconds() + warmUp.Seconds()
		if want := float64(units * points * b.N); float64(stored) < want {
			b.Fatalf("%d points were stored in %.0f s; want at least %.0f", stored, seconds, want)
		}
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		b.ReportMetric(float64(time.Duration(usage.Utime.Nano()+usage.Stime.Nano()).Milliseconds()), "ms-cpu-in-all")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(cpu.Seconds()*1e6/rate, "us-cpu/point")
	b.ReportMetric(100*cpu.Seconds()/took, "%-cpu")
	b.ReportMetric(float64(rss)/1024, "MB-rss")
	b.ReportMetric(requests, "requests/s")
}

// cpuTime is the user and system time of all threads of a process so far,
// proc_pid_schedstat and proc(5): to the nanosecond where the kernel counts so.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skipf("needs Linux's /proc: %v", err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		b.Fatalf("/proc/%d/stat: %s", pid, stat)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// resident is VmRSS in KiB.
func resident(b *testing.B, pid int) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// storedPoints counts the points with a good value in a buffer that is closed.
func storedPoints(b *testing.B, dir string) (n int) {
	b.Helper()
	gap := func(buffer.Lost) []byte { b.Error("records were lost"); return nil }
	q, err := buffer.Open(buffer.Options{Dir: dir, Max: 1 << 30, CommitEvery: time.Hour, EncodeGap: gap, EncodeEnd: func(buffer.EpochEnd) []byte { return nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	for _, h := range q.Holds() {
		for from := h.First; from <= h.Last; {
			entries, err := q.Read(h.Epoch, from, 256, 4<<20)
			if err != nil {
				b.Fatal(err)
			}
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				from = e.Seq + 1
				if kind, _, err := wire.StampOf(e.Payload); err != nil || kind != wire.Reading {
					continue
				}
				line, err := wire.AppendLine(nil, e.Payload, e.Epoch, e.Seq)
				if err != nil {
					b.Fatal(err)
				}
				n += strings.Count(string(line), "p_")
			}
		}
	}
	return n
}

func throughputConfig(broker, commit string, endpoints []string, points int) []byte {
	var y strings.Builder
	fmt.Fprintf(&y, "site: bench\ngateway: board\nuplink: {broker: \"mqtt://%s\", commit: %s}\nbuffer: {dir: buffer, max: 1GiB}\nbuses:\n", broker, commit)
	for i, addr := range endpoints {
		fmt.Fprintf(&y, "  - name: lan-%d\n    tcp: {address: %q}\n    devices:\n", i, addr)
		for u := i + 1; u <= units; u += len(endpoints) {
			fmt.Fprintf(&y, "      - name: unit-%d\n        unit: %d\n        every: 1s\n        profile:\n          kind: meter\n          points:\n", u, u)
			for p := range points {
				fmt.Fprintf(&y, "            - {name: p_%d, table: holding, address: %d, type: f32, unit: W}\n", p, 2*p)
			}
		}
	}
	return []byte(y.String())
}

// floats is a Modbus TCP server of float32 registers that never read the same twice.
type floats struct {
	addrs    []string
	answered atomic.Int64
}

func startFloats(b *testing.B, endpoints int) *floats {
	f := &floats{}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range endpoints {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		f.addrs = append(f.addrs, l.Addr().String())
		b.Cleanup(func() { l.Close() })
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					go func() { <-done; c.Close() }()
					f.serve(c)
				})
			}
		})
	}
	b.Cleanup(func() { close(done) })
	return f
}

func (f *floats) serve(c net.Conn) {
	r := bufio.NewReader(c)
	var req [12]byte
	answer := make([]byte, 0, 260)
	for t := 0.0; ; t++ {
		if _, err := io.ReadFull(r, req[:]); err != nil {
			return
		}
		first, n := binary.BigEndian.Uint16(req[8:]), int(binary.BigEndian.Uint16(req[10:]))
		answer = append(answer[:0], req[:4]...)
		answer = binary.BigEndian.AppendUint16(answer, uint16(3+2*n))
		answer = append(answer, req[6], req[7], byte(2*n))
		for i := range n / 2 {
			at := float64(int(first)/2 + i)
			v := float32((50 + at) * (1 + 0.1*math.Sin(t/100+at))) // all 24 bits in use
			answer = binary.BigEndian.AppendUint32(answer, math.Float32bits(v))
		}
		if n%2 == 1 {
			answer = append(answer, 0, 0)
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
		f.answered.Add(1)
	}
}
