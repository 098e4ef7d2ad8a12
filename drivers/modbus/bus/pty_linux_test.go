package bus

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"luquan/drivers/drivertest"
)

// plug makes a pseudo-terminal with a slave behind it and lets link point to
// its port, as /dev/serial/by-id does.
func plug(t testing.TB, link string, s *drivertest.Slave) (unplug func()) {
	t.Helper()
	master, port := drivertest.PTY(t)
	os.Remove(link)
	if err := os.Symlink(port, link); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeRTU(ptyEnd{master}) }()
	return func() {
		master.Close()
		<-done
	}
}

// ptyEnd outlives the moments when nobody has the port open: reading the
// master then fails with EIO.
type ptyEnd struct{ *os.File }

func (p ptyEnd) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if pe, ok := err.(*os.PathError); ok && pe.Err == syscall.EIO {
			runtime.Gosched()
			continue
		}
		return n, err
	}
}

func openPTY(t testing.TB, baud int, s *drivertest.Slave) (b *Bus, link string, unplug func()) {
	t.Helper()
	link = filepath.Join(t.TempDir(), "port")
	unplug = plug(t, link, s)
	b, err := OpenRTU(RTUOptions{Port: link, Baud: baud, Parity: ParityEven})
	if err != nil {
		t.Fatal(err)
	}
	return b, link, unplug
}

func TestSerialPort(t *testing.T) {
	s := &drivertest.Slave{}
	b, link, unplug := openPTY(t, 115200, s)
	defer b.Close()
	u := b.Reader(1, Timing{Response: limit})
	for i := range 20 {
		data, err := u.ReadHoldingRegisters(context.Background(), uint16(i), 125)
		wantRegisters(t, data, err, i, 125)
	}

	// Nobody else gets it, not even root.
	other, err := OpenRTU(RTUOptions{Port: link, Baud: 9600})
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.Reader(1, Timing{}).ReadCoils(context.Background(), 0, 1)
	wantKind(t, err, NotConnected)
	other.Close()

	// Pulled out: told as such, at once, and found again under its name.
	unplug()
	os.Remove(link)
	cpu := cpuTime()
	for range 50 {
		start := time.Now()
		_, err = u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantKind(t, err, NotConnected)
		if took := time.Since(start); took > limit/2 {
			t.Fatalf("a read without a port took %v", took)
		}
	}
	if used := cpuTime() - cpu; used > 500*time.Millisecond {
		t.Errorf("50 reads without a port cost %v of CPU", used)
	}
	unplug = plug(t, link, s)
	defer unplug()
	b.link.retryAt = time.Time{} // its back-off is tested below
	data, err := u.ReadHoldingRegisters(context.Background(), 7, 9)
	wantRegisters(t, data, err, 7, 9)
}

// TestReplugged: a port that is away is looked for ever more rarely, however
// often it is asked for, and one that is back under its name, though it is
// another device, answers after at most twice the time it was away.
func TestReplugged(t *testing.T) {
	s := &drivertest.Slave{}
	b, link, unplug := openPTY(t, 115200, s)
	defer b.Close()
	u := b.Reader(1, Timing{Response: limit})
	data, err := u.ReadHoldingRegisters(context.Background(), 5, 1)
	wantRegisters(t, data, err, 5, 1)
	for _, away := range []time.Duration{300 * time.Millisecond, 2500 * time.Millisecond} {
		unplug()
		os.Remove(link)
		before, cpu, start := b.Counters(), cpuTime(), time.Now()
		asked := time.NewTicker(2 * time.Millisecond)
		n := uint64(0)
		for time.Since(start) < away {
			<-asked.C
			n++
			_, err := u.ReadHoldingRegisters(context.Background(), 5, 1)
			wantKind(t, err, NotConnected)
		}
		used, after := cpuTime()-cpu, b.Counters()
		// one at once, one more at once, then after 1/8 s or more, 1/4 s, 1/2 s...
		most := uint64(2)
		for wait := backoffFirst / 2; wait < away; wait = 2*wait + backoffFirst/2 {
			most++
		}
		if tried := after.Attempts - before.Attempts; tried < 1 || tried > most {
			t.Errorf("away for %v and asked for %d times it was tried %d times, want 1 to %d", away, n, tried, most)
		}
		if used > away/5 {
			t.Errorf("that cost %v of CPU", used)
		}
		unplug = plug(t, link, s)
		start = time.Now()
		for {
			data, err = u.ReadHoldingRegisters(context.Background(), 7, 9)
			if err == nil || time.Since(start) > time.Minute {
				break
			}
			<-asked.C
		}
		asked.Stop()
		wantRegisters(t, data, err, 7, 9)
		took := time.Since(start)
		t.Logf("away for %v: %d attempts for %d readings, %v of CPU, back after %v", away, after.Attempts-before.Attempts, n, used, took)
		if took > min(2*away+backoffFirst, portBackoffMost)+limit {
			t.Errorf("away for %v, it answered %v after it was back", away, took)
		}
	}
	unplug()
}

// TestPortWithAPast: what a device answers to another program, which had the
// port before us and is gone, is no reading of ours, whenever it comes.
func TestPortWithAPast(t *testing.T) {
	for _, late := range []time.Duration{0, limit / 20, limit / 2, limit, limit * 3 / 2, limit * 19 / 10, limit * 4, limit * 5} {
		t.Run(late.String(), func(t *testing.T) {
			t.Parallel()
			asked := make(chan time.Time, 1)
			answered := make(chan struct{})
			var at time.Time // when it was answered, roughly
			s := &drivertest.Slave{Script: func(n int, _, ans []byte) []drivertest.Step {
				if n == 1 {
					asked <- time.Now()
					time.AfterFunc(late, func() { at = time.Now(); close(answered) })
					return []drivertest.Step{{Wait: late, Bytes: ans}}
				}
				<-answered // in the order asked
				return []drivertest.Step{{Wait: 2 * time.Millisecond, Bytes: ans}}
			}}
			b, link, unplug := openPTY(t, 115200, s)
			defer unplug()
			defer b.Close()
			before, err := os.OpenFile(link, os.O_RDWR|syscall.O_NOCTTY, 0)
			if err != nil {
				t.Fatal(err)
			}
			before.Write(drivertest.AppendCRC([]byte{1, 3, 3, 0x84, 0, 4}))
			was := <-asked
			before.Close()
			u := b.Reader(1, Timing{Response: limit})
			for _, address := range []uint16{100, 200, 300} {
				for tries := 1; ; tries++ { // a busy machine may answer too late
					data, err := u.ReadHoldingRegisters(context.Background(), address, 4)
					if KindOf(err) == NoReply && tries < 50 {
						continue
					}
					if <-answered; at.Sub(was) > late+limit/2 {
						t.Skipf("the machine is too busy: what should have come after %v came after %v", late, at.Sub(was))
					}
					wantRegisters(t, data, err, int(address), 4)
					break
				}
			}
		})
	}
}

// TestUnpluggedMidAnswer: the usual library spins here for ever at full CPU.
func TestUnpluggedMidAnswer(t *testing.T) {
	s := &drivertest.Slave{}
	pulled := make(chan struct{}, 1)
	s.Script = func(n int, _, ans []byte) []drivertest.Step {
		if n == 2 {
			pulled <- struct{}{}
			return []drivertest.Step{{Bytes: ans[:3]}}
		}
		return []drivertest.Step{{Bytes: ans}}
	}
	b, _, unplug := openPTY(t, 115200, s)
	defer b.Close()
	u := b.Reader(1, Timing{Response: time.Second})
	data, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
	wantRegisters(t, data, err, 1, 1)
	go func() { <-pulled; unplug() }()
	start := time.Now()
	_, err = u.ReadHoldingRegisters(context.Background(), 2, 1)
	wantKind(t, err, NotConnected)
	if took := time.Since(start); took > 900*time.Millisecond {
		t.Errorf("noticed after %v", took)
	}
}

// TestSerialCancel: a cancelled context ends a read on a real descriptor.
func TestSerialCancel(t *testing.T) {
	s := &drivertest.Slave{Script: func(int, []byte, []byte) []drivertest.Step { return nil }}
	b, _, unplug := openPTY(t, 19200, s)
	defer unplug()
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	_, err := b.Reader(1, Timing{Response: 10 * time.Second}).ReadHoldingRegisters(ctx, 1, 1)
	wantKind(t, err, Canceled)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestMissingPort: a sentence, not a panic, and nothing opened.
func TestMissingPort(t *testing.T) {
	b, err := OpenRTU(RTUOptions{Port: "/nowhere/ttyUSB0", Baud: 9600})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, err = b.Reader(1, Timing{}).ReadHoldingRegisters(context.Background(), 0, 1)
	wantKind(t, err, NotConnected)
	if want := "not connected: open serial port /nowhere/ttyUSB0: no such file or directory"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b2, _ := OpenRTU(RTUOptions{Port: file, Baud: 9600})
	defer b2.Close()
	_, err = b2.Reader(1, Timing{}).ReadHoldingRegisters(context.Background(), 0, 1)
	wantKind(t, err, NotConnected)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRTU reads 40 registers over a pseudo-terminal whose far end takes
// request and answer no faster than the line would, and turns round in 3 ms.
// wire/took is the line's minimum over what was needed: 1 is perfect.
func BenchmarkRTU(bm *testing.B) {
	for _, baud := range []int{9600, 19200, 115200} {
		bm.Run(strconv.Itoa(baud), func(bm *testing.B) {
			const registers, turnaround = 40, 3 * time.Millisecond
			o := RTUOptions{Baud: baud, Parity: ParityEven, StopBits: 1}
			s := &drivertest.Slave{Char: o.CharTime()}
			s.Script = func(_ int, _, ans []byte) []drivertest.Step {
				return []drivertest.Step{{Wait: turnaround, Bytes: ans}}
			}
			b, _, unplug := openPTY(bm, baud, s)
			defer unplug()
			defer b.Close()
			u := b.Reader(1, Timing{Response: time.Second})
			wire := 8*o.CharTime() + turnaround + (5+2*registers)*o.CharTime() + o.Gap()
			for bm.Loop() {
				if _, err := u.ReadHoldingRegisters(context.Background(), 0, registers); err != nil {
					bm.Fatal(err)
				}
			}
			took := bm.Elapsed() / time.Duration(bm.N)
			bm.ReportMetric(float64(wire)/float64(took), "wire/took")
		})
	}
}

// BenchmarkTCP is what a read costs beyond the network: an in-memory line and
// a slave that answers at once.
func BenchmarkTCP(bm *testing.B) {
	near, far := drivertest.Pair()
	s := &drivertest.Slave{}
	go s.ServeTCP(far)
	b := newBus(func(context.Context) (stream, error) { return socket{near}, nil }, func(t *trace) framing { return newMBAP(t) }, true)
	defer b.Close()
	u := b.Reader(1, Timing{})
	bm.ReportAllocs()
	for bm.Loop() {
		if _, err := u.ReadHoldingRegisters(context.Background(), 0, 125); err != nil {
			bm.Fatal(err)
		}
	}
}
