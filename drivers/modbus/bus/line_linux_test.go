package bus

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luquan/drivers/drivertest"
)

// pacedLine is the far end of a pseudo-terminal that keeps the time of an
// RS-485 line: a request is through after its characters' time, the device
// turns round, and the answer comes no faster than its characters, in bursts.
// It has a thread of its own and sleeps by the kernel's clock, so that what is
// measured is the gateway and not Go's timers twice.
type pacedLine struct {
	char       time.Duration
	turnaround func() time.Duration

	mu     sync.Mutex
	sent   []time.Time // when the gateway handed over each request: it began after
	begun  []time.Time // when each request was there: it began on the line before
	ended  []time.Time // when the last character of each answer went out: it was there after
	ending chan struct{}
}

// start serves the line; call the result to end it.
func (l *pacedLine) start(t testing.TB, link string) (stop func()) {
	master, port := drivertest.PTY(t)
	if err := os.Symlink(port, link); err != nil {
		t.Fatal(err)
	}
	l.ending = make(chan struct{})
	done := make(chan error, 1)
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		var err error
		raw.Control(func(fd uintptr) { err = l.serve(int(fd)) })
		done <- err
	}()
	return func() {
		close(l.ending)
		if err := <-done; err != nil {
			t.Error(err)
		}
		master.Close()
	}
}

func (l *pacedLine) serve(fd int) error {
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	var req [8]byte
	for {
		for got := 0; got < len(req); {
			select {
			case <-l.ending:
				return nil
			default:
			}
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			unix.Poll(fds, 50)
			n, err := unix.Read(fd, req[got:])
			switch {
			case n > 0:
				got += n
			case err == unix.EIO: // nobody has the port open
				unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
			}
		}
		begun := time.Now()
		if drivertest.CRC(req[:6]) != binary.LittleEndian.Uint16(req[6:]) || req[1] < 1 || req[1] > 4 {
			return fmt.Errorf("request % x is no read", req)
		}
		count := binary.BigEndian.Uint16(req[4:])
		ans := []byte{req[0], req[1], byte(2 * count)}
		for i := range count {
			ans = binary.BigEndian.AppendUint16(ans, binary.BigEndian.Uint16(req[2:])+i)
		}
		ans = drivertest.AppendCRC(ans)
		l.mu.Lock()
		l.begun = append(l.begun, begun)
		l.mu.Unlock()
		at := begun.Add(time.Duration(len(req))*l.char + l.turnaround())
		for b := range slices.Chunk(ans, 62) {
			at = at.Add(time.Duration(len(b)) * l.char)
			for d := time.Until(at); d > 0; d = time.Until(at) {
				ts := unix.NsecToTimespec(int64(d))
				unix.Nanosleep(&ts, nil)
			}
			if len(b) < 62 || &b[61] == &ans[len(ans)-1] {
				l.mu.Lock()
				l.ended = append(l.ended, time.Now())
				l.mu.Unlock()
			}
			unix.Write(fd, b)
		}
	}
}

// openPaced returns the Bus at the near end of a paced line.
func openPaced(t testing.TB, l *pacedLine, o RTUOptions) (b *Bus, stop func()) {
	o.Port = filepath.Join(t.TempDir(), "port")
	end := l.start(t, o.Port)
	b, err := OpenRTU(o)
	if err != nil {
		t.Fatal(err)
	}
	open := b.link.open
	b.link.open = func(ctx context.Context) (stream, error) {
		s, err := open(ctx)
		return stamped{s, l}, err
	}
	return b, func() { b.Close(); end() }
}

// stamped notes when requests are handed to the port.
type stamped struct {
	stream
	line *pacedLine
}

func (s stamped) Write(b []byte) (int, error) {
	s.line.mu.Lock()
	s.line.sent = append(s.line.sent, time.Now())
	s.line.mu.Unlock()
	return s.stream.Write(b)
}

func (s stamped) sleep(d time.Duration) { s.stream.(sleeper).sleep(d) }

// early tells of every request that began before t3.5 was over since the end
// of the answer before it.
func (l *pacedLine) early(t testing.TB, gap time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(l.sent); i++ {
		if since := l.sent[i].Sub(l.ended[i-1]); since < gap {
			t.Errorf("request %d was sent %v after the line's last character, t3.5 is %v", i, since, gap)
		}
	}
}

// idle returns by how much longer than t3.5 the line lay idle before each
// request, sorted: until the gateway handed it over, and until the line had
// noticed, the scheduling of the line's own thread included.
func (l *pacedLine) idle(gap time.Duration) (sent, begun []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(l.begun); i++ {
		sent = append(sent, l.sent[i].Sub(l.ended[i-1])-gap)
		begun = append(begun, l.begun[i].Sub(l.ended[i-1])-gap)
	}
	slices.Sort(sent)
	slices.Sort(begun)
	return sent, begun
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// BenchmarkLine is the line's efficiency: 20 devices of 40 registers that turn
// round in 3 ms; request, turnaround, answer and t3.5 at the line's speed over
// the time taken. 1 is perfect.
func BenchmarkLine(bm *testing.B) {
	for _, baud := range []int{9600, 19200, 115200} {
		bm.Run(strconv.Itoa(baud), func(bm *testing.B) {
			const devices, registers, turnaround = 20, 40, 3 * time.Millisecond
			o := RTUOptions{Baud: baud, Parity: ParityEven, StopBits: 1}
			l := &pacedLine{char: o.CharTime(), turnaround: func() time.Duration { return turnaround }}
			b, stop := openPaced(bm, l, o)
			defer stop()
			var units [devices]*Reader
			for i := range units {
				units[i] = b.Reader(byte(1+i), Timing{Response: time.Second})
			}
			wire := 8*o.CharTime() + turnaround + (5+2*registers)*o.CharTime() + o.Gap()
			units[0].ReadHoldingRegisters(context.Background(), 0, registers) // opens the port
			for bm.Loop() {                                                   // one round
				for _, u := range units {
					if _, err := u.ReadHoldingRegisters(context.Background(), 0, registers); err != nil {
						bm.Fatal(err)
					}
				}
			}
			bm.ReportMetric(float64(devices*wire)/(float64(bm.Elapsed())/float64(bm.N)), "efficiency")
			l.early(bm, o.Gap())
		})
	}
}

// BenchmarkLineBusy is how much longer than t3.5 the line lies idle between an
// answer and the next request while devices turn round in 5 to 200 ms and one
// core has other work.
func BenchmarkLineBusy(bm *testing.B) {
	for _, baud := range []int{9600, 19200, 115200} {
		bm.Run(strconv.Itoa(baud), func(bm *testing.B) {
			defer spin(bm)()
			o := RTUOptions{Baud: baud, Parity: ParityEven, StopBits: 1}
			rnd := rand.New(rand.NewPCG(7, uint64(baud))) // of the line's goroutine
			l := &pacedLine{char: o.CharTime(), turnaround: func() time.Duration {
				return 5*time.Millisecond + time.Duration(rnd.Int64N(int64(195*time.Millisecond)))
			}}
			b, stop := openPaced(bm, l, o)
			defer stop()
			for i := 0; bm.Loop(); i++ {
				u := b.Reader(byte(1+i%20), Timing{Response: time.Second})
				if _, err := u.ReadHoldingRegisters(context.Background(), 0, 40); err != nil {
					bm.Fatal(err)
				}
			}
			l.early(bm, o.Gap())
			sent, begun := l.idle(o.Gap())
			if len(sent) == 0 {
				return
			}
			for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "max": 1} {
				bm.ReportMetric(float64(quantile(sent, q).Microseconds()), name+"-µs")
				bm.ReportMetric(float64(quantile(begun, q).Microseconds()), name+"-seen-µs")
			}
			bm.ReportMetric(float64((o.Gap() + time.Millisecond).Microseconds()), "bound-µs")
		})
	}
}

// spinning makes this test binary a program that keeps a core busy until its
// standard input ends.
const spinning = "LUQUAN_SPIN"

// spin keeps one core busy with another program.
func spin(t testing.TB) (stop func()) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSpin$")
	cmd.Env = append(os.Environ(), spinning+"=1", "GOMAXPROCS=1")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		in.Close()
		cmd.Wait()
	}
}

// TestSpin is that program.
func TestSpin(t *testing.T) {
	if os.Getenv(spinning) == "" {
		t.Skip("only of use to BenchmarkLineBusy")
	}
	var done atomic.Bool
	go func() { io.Copy(io.Discard, os.Stdin); done.Store(true) }()
	for !done.Load() { // a core kept busy, on purpose
	}
}
