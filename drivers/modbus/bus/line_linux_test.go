package bus

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
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
// It is a process of its own and sleeps by the kernel's clock, so that what is
// measured is the gateway and not Go's timers or its scheduler twice.
type pacedLine struct {
	Char         time.Duration
	Least, Most  time.Duration // of turning round
	Begun, Ended []int64       // when each request was there, and when the last character of each answer was about to go out
	sent         []int64       // when the gateway handed over each request
	mu           sync.Mutex    // guards sent
}

// clock is the kernel's monotonic clock, the same in every process.
func clock() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// lineProcess makes this test binary the far end of a line: it prints the name
// of its pseudo-terminal, and when its standard input ends what it saw.
const lineProcess = "LUQUAN_LINE"

// TestLineProcess is that program.
func TestLineProcess(t *testing.T) {
	spec := os.Getenv(lineProcess)
	if spec == "" {
		t.Skip("only of use to BenchmarkLine and BenchmarkLineBusy")
	}
	var l pacedLine
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		t.Fatal(err)
	}
	master, port := drivertest.PTY(t)
	fmt.Println(port)
	var ending atomic.Bool
	go func() { io.Copy(io.Discard, os.Stdin); ending.Store(true) }()
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = l.serve(int(fd), &ending) })
	if err != nil {
		t.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(&l)
}

func (l *pacedLine) serve(fd int, ending *atomic.Bool) error {
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	rnd := rand.New(rand.NewPCG(7, uint64(l.Char)))
	var req [8]byte
	for {
		begun := int64(0)
		for got := 0; got < len(req); {
			if ending.Load() {
				return nil
			}
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			unix.Poll(fds, 50)
			n, err := unix.Read(fd, req[got:])
			switch {
			case n > 0:
				if got == 0 {
					begun = clock()
				}
				got += n
			case err == unix.EIO: // nobody has the port open
				unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
			}
		}
		if drivertest.CRC(req[:6]) != binary.LittleEndian.Uint16(req[6:]) || req[1] < 1 || req[1] > 4 {
			return fmt.Errorf("request % x is no read", req)
		}
		count := binary.BigEndian.Uint16(req[4:])
		ans := []byte{req[0], req[1], byte(2 * count)}
		for i := range count {
			ans = binary.BigEndian.AppendUint16(ans, binary.BigEndian.Uint16(req[2:])+i)
		}
		ans = drivertest.AppendCRC(ans)
		l.Begun = append(l.Begun, begun)
		at := begun + int64(time.Duration(len(req))*l.Char+l.Least)
		if l.Most > l.Least {
			at += rnd.Int64N(int64(l.Most - l.Least))
		}
		for b := range slices.Chunk(ans, 62) {
			at += int64(time.Duration(len(b)) * l.Char)
			for d := at - clock(); d > 0; d = at - clock() {
				ts := unix.NsecToTimespec(d)
				unix.Nanosleep(&ts, nil)
			}
			if &b[len(b)-1] == &ans[len(ans)-1] {
				l.Ended = append(l.Ended, clock())
			}
			unix.Write(fd, b)
		}
	}
}

// openPaced returns the Bus at the near end of a paced line; stop ends both and
// brings what the line saw.
func openPaced(t testing.TB, l *pacedLine, o RTUOptions) (b *Bus, stop func()) {
	spec, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLineProcess$")
	cmd.Env, cmd.Stderr = append(os.Environ(), lineProcess+"="+string(spec)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	port, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	o.Port = strings.TrimSpace(port)
	if b, err = OpenRTU(o); err != nil {
		t.Fatal(err)
	}
	open := b.link.open
	b.link.open = func(ctx context.Context) (stream, error) {
		s, err := open(ctx)
		return stamped{s, l}, err
	}
	return b, func() {
		in.Close()
		if err := json.NewDecoder(out).Decode(l); err != nil {
			t.Error(err)
		}
		io.Copy(io.Discard, out)
		cmd.Wait()
		b.Close()
	}
}

// stamped notes when requests are handed to the port.
type stamped struct {
	stream
	line *pacedLine
}

func (s stamped) Write(b []byte) (int, error) {
	s.line.mu.Lock()
	s.line.sent = append(s.line.sent, clock())
	s.line.mu.Unlock()
	return s.stream.Write(b)
}

func (s stamped) sleep(d time.Duration) { s.stream.(sleeper).sleep(d) }

// early tells of every request that began before t3.5 was over since the end
// of the answer before it.
func (l *pacedLine) early(t testing.TB, gap time.Duration) {
	t.Helper()
	for i := 1; i < len(l.sent); i++ {
		if since := time.Duration(l.sent[i] - l.Ended[i-1]); since < gap {
			t.Errorf("request %d was sent %v after the line's last character, t3.5 is %v", i, since, gap)
		}
	}
}

// idle returns by how much longer than t3.5 the line lay idle before each
// request, sorted: until the gateway handed it over, and until the line had
// noticed, the scheduling of the line's own process included.
func (l *pacedLine) idle(gap time.Duration) (sent, begun []time.Duration) {
	for i := 1; i < len(l.Begun); i++ {
		sent = append(sent, time.Duration(l.sent[i]-l.Ended[i-1])-gap)
		begun = append(begun, time.Duration(l.Begun[i]-l.Ended[i-1])-gap)
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
			l := &pacedLine{Char: o.CharTime(), Least: turnaround}
			b, stop := openPaced(bm, l, o)
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
			stop()
			l.early(bm, o.Gap())
		})
	}
}

// BenchmarkLineBusy is how much longer than t3.5 the line lies idle between an
// answer and the next request while devices turn round in 5 to 200 ms and one
// core has other work. The bound is 1000 µs, for -benchtime=200x or more.
func BenchmarkLineBusy(bm *testing.B) {
	for _, baud := range []int{9600, 19200, 115200} {
		bm.Run(strconv.Itoa(baud), func(bm *testing.B) {
			defer spin(bm)()
			o := RTUOptions{Baud: baud, Parity: ParityEven, StopBits: 1}
			l := &pacedLine{Char: o.CharTime(), Least: 5 * time.Millisecond, Most: 200 * time.Millisecond}
			b, stop := openPaced(bm, l, o)
			for i := 0; bm.Loop(); i++ {
				u := b.Reader(byte(1+i%20), Timing{Response: time.Second})
				if _, err := u.ReadHoldingRegisters(context.Background(), 0, 40); err != nil {
					bm.Fatal(err)
				}
			}
			stop()
			l.early(bm, o.Gap())
			sent, begun := l.idle(o.Gap())
			if len(sent) == 0 {
				return
			}
			for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "max": 1} {
				bm.ReportMetric(float64(quantile(sent, q).Microseconds()), name+"-µs")
				bm.ReportMetric(float64(quantile(begun, q).Microseconds()), name+"-seen-µs")
			}
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
