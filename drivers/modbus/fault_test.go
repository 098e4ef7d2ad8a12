package modbus

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
	"luquan/drivers/modbus/bus"
)

// TestFaultQualities: what a sample says of each fault that package bus proves
// to be noticed, by the way to the device, of a device read by one request. The
// poll after it is good again.
func TestFaultQualities(t *testing.T) {
	type steps = []drivertest.Step
	change := func(at int) func(l *faultLine, req, b []byte) steps {
		return func(_ *faultLine, _, b []byte) steps {
			b = slices.Clone(b)
			b[at] ^= 0x10
			return steps{{Bytes: b}}
		}
	}
	exception := func(code byte) func(l *faultLine, req, b []byte) steps {
		return func(l *faultLine, _, b []byte) steps {
			if l.tcp {
				b = append(slices.Clone(b[:4]), 0, 3, b[6], b[7]|0x80, code)
			} else {
				b = drivertest.AppendCRC([]byte{b[0], b[1] | 0x80, code})
			}
			return steps{{Bytes: b[:3]}, {Wait: 10 * time.Millisecond, Bytes: b[3:]}}
		}
	}
	unplug := func(n int, away time.Duration) func(l *faultLine, req, b []byte) steps {
		return func(l *faultLine, _, b []byte) steps {
			l.unplug(b[:n], away)
			return nil
		}
	}
	const good, noReply, garbled, refused, lost = "good: a=21930", "no reply:", "garbled:", "refused:", "not connected:"
	for _, tt := range []struct {
		name     string
		rtu, tcp string // the sample; "" is not asked
		do       func(l *faultLine, req, b []byte) steps
	}{
		{"silence", noReply, noReply, func(*faultLine, []byte, []byte) steps { return nil }},
		{"late within the limit", good, good, func(_ *faultLine, _, b []byte) steps { return steps{{Wait: 180 * time.Millisecond, Bytes: b}} }},
		{"late", noReply, noReply, func(_ *faultLine, _, b []byte) steps { return steps{{Wait: 300 * time.Millisecond, Bytes: b}} }},
		{"another unit's answer", noReply, "", func(_ *faultLine, _, b []byte) steps {
			return steps{{Bytes: drivertest.AppendCRC(append([]byte{b[0] + 1}, b[1:len(b)-2]...))}}
		}},
		{"another unit's answer (tcp)", "", garbled, change(6)},
		{"another transaction's answer", "", noReply, change(0)},
		{"truncated", garbled, garbled, func(_ *faultLine, _, b []byte) steps { return steps{{Bytes: b[:4]}} }},
		{"damaged data", garbled, "", change(3)},
		{"damaged protocol identifier", "", garbled, change(2)},
		{"damaged length", "", garbled, change(5)},
		{"damaged function code", garbled, garbled, func(l *faultLine, r, b []byte) steps {
			if l.tcp {
				return change(7)(l, r, b)
			}
			return change(1)(l, r, b)
		}},
		{"damaged byte count", "", garbled, change(8)},
		{"split at two places", good, good, func(_ *faultLine, _, b []byte) steps {
			return steps{{Bytes: b[:2]}, {Wait: 30 * time.Millisecond, Bytes: b[2:5]}, {Wait: 30 * time.Millisecond, Bytes: b[5:]}}
		}},
		{"dribble", garbled, garbled, func(_ *faultLine, _, b []byte) (s steps) {
			for i := range b {
				s = append(s, drivertest.Step{Wait: 60 * time.Millisecond, Bytes: b[i : i+1]})
			}
			return s
		}},
		{"echo", garbled, garbled, func(_ *faultLine, r, b []byte) steps { return steps{{Bytes: append(slices.Clone(r), b...)}} }},
		{"device busy, in two parts", refused, refused, exception(6)},
		{"illegal address, in two parts", refused, refused, exception(2)},
		{"a gateway speaks for a silent device", noReply, noReply, exception(11)},
		{"hang-up", good, good, unplug(0, 0)}, // asked again at once
		{"unplugged mid-answer", lost, lost, unplug(4, 0)},
		{"unplugged for a while", lost, lost, unplug(4, 5*time.Second)},
	} {
		for _, way := range []struct{ name, want, bus string }{
			{"rtu", tt.rtu, "rtu: {port: /dev/ttyS9, baud: 9600}"},
			{"tcp", tt.tcp, "tcp: {address: plc}"},
			{"rtu over tcp", tt.rtu, "tcp: {address: plc, framing: rtu}"},
		} {
			if way.want == "" {
				continue
			}
			t.Run(tt.name+"/"+way.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newFaultLine(t, way.bus)
					if got := l.poll(t); got != good {
						t.Fatalf("undisturbed: %q", got)
					}
					l.fault = tt.do
					if got := l.poll(t); got != way.want {
						t.Errorf("got %q, want %q", got, way.want)
					}
					time.Sleep(20 * time.Second)
					for range 2 { // what is left over may be found by the first
						if got := l.poll(t); got != good {
							t.Errorf("afterwards: %q", got)
						}
					}
				})
			})
		}
	}
}

// faultLine is a bus of one device with one register, whose next answer a fault befalls.
type faultLine struct {
	bus *Bus
	tcp bool // Modbus TCP

	mu    sync.Mutex // guards everything below
	fault func(l *faultLine, req, answer []byte) []drivertest.Step
	far   net.Conn
	away  time.Time // nobody connects before
}

func newFaultLine(t *testing.T, way string) *faultLine {
	t.Helper()
	c, err := parse(t, "name: lan\n"+way+`
timeout: 200ms
devices:
  - name: m1
    unit: 19
    every: 1s
    profile:
      kind: probe
      label: {en: Probe}
      source: {where: test, confidence: high}
      points: [{name: a, label: {en: A}, table: holding, address: 10, type: u16}]
`)
	if err != nil {
		t.Fatal(err)
	}
	_, cost, err := c.openLine()
	if err != nil {
		t.Fatal(err)
	}
	l := &faultLine{tcp: c.TCP != nil && c.TCP.Framing != "rtu"}
	slave := &drivertest.Slave{Value: func(byte, byte, uint16) (uint16, bool) { return 0x55AA, true }}
	slave.Script = func(_ int, req, ans []byte) []drivertest.Step {
		l.mu.Lock()
		f := l.fault
		l.fault = nil
		l.mu.Unlock()
		if f == nil {
			return []drivertest.Step{{Bytes: ans}}
		}
		return f(l, req, ans)
	}
	var serving sync.WaitGroup
	dial := func() (net.Conn, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if time.Now().Before(l.away) {
			return nil, errors.New("no such device")
		}
		near, far := drivertest.Pair()
		l.far = far
		serving.Go(func() {
			if l.tcp {
				slave.ServeTCP(far)
			} else {
				slave.ServeRTU(far)
			}
		})
		return near, nil
	}
	var line *bus.Bus
	if c.RTU != nil {
		slave.Char = c.RTU.options().CharTime()
		line = c.RTU.options().Over(func(context.Context) (net.Conn, error) { return dial() })
	} else {
		o := c.TCP.options()
		o.Dial = func(context.Context, string, string) (net.Conn, error) { return dial() }
		if line, err = bus.DialTCP(o); err != nil {
			t.Fatal(err)
		}
	}
	l.bus = c.build(line, cost, nil)
	t.Cleanup(func() {
		l.bus.Close()
		serving.Wait()
	})
	return l
}

func (l *faultLine) unplug(last []byte, away time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.far.Write(last)
	l.far.Close()
	l.away = time.Now().Add(away)
}

// poll returns the next sample in words.
func (l *faultLine) poll(t *testing.T) string {
	t.Helper()
	time.Sleep(time.Second)
	s, ok := l.bus.Devices()[0].Poll(context.Background(), 0)
	if !ok {
		t.Fatal("poll was cancelled")
	}
	return text(s)
}
