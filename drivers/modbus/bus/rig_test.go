package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// rig is a Bus over in-memory lines with a scripted slave at the far end.
type rig struct {
	*Bus
	slave  *drivertest.Slave
	opened func() // called with each connection, if not nil
	mu     sync.Mutex
	far    net.Conn // the slave's end of the line in use
	dials  int
	err    error                   // what dialling answers with, if not nil
	tap    func(net.Conn) net.Conn // put before the slave, if not nil
}

// newRig makes a rig inside a synctest bubble. mode: rtu (a 9600 baud line), tcp, rtutcp.
func newRig(t *testing.T, mode string, echo bool) *rig {
	t.Helper()
	r := &rig{slave: &drivertest.Slave{}}
	var serving sync.WaitGroup
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.dials++
		if r.err != nil {
			return nil, r.err
		}
		near, far := drivertest.Pair()
		r.far = far
		if r.tap != nil {
			far = r.tap(far)
		}
		if r.opened != nil {
			r.opened()
		}
		serving.Go(func() {
			serve := r.slave.ServeRTU
			if mode == "tcp" {
				serve = r.slave.ServeTCP
			}
			if err := serve(far); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Log("slave:", err)
			}
		})
		return near, nil
	}
	switch mode {
	case "rtu":
		o := RTUOptions{Baud: 9600, Parity: ParityEven, StopBits: 1}
		r.slave.Char = o.CharTime()
		r.Bus = newBus(func(ctx context.Context) (stream, error) {
			c, err := dial(ctx, "", "")
			if err != nil {
				return nil, err
			}
			return socket{c}, nil
		}, func(tr *trace) framing {
			return &rtu{char: o.CharTime(), gap: o.Gap(), echo: echo, trace: tr}
		}, false)
	default:
		b, err := DialTCP(TCPOptions{Address: "plc", RTU: mode == "rtutcp", Dial: dial})
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := b.framing.(*rtu); ok {
			f.past = false // of no interest to most tests
		}
		r.Bus = b
	}
	t.Cleanup(func() { // runs inside the bubble
		r.Close()
		serving.Wait()
	})
	return r
}

func (r *rig) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.far.Close()
}

const limit = 200 * time.Millisecond

// each runs f in a bubble for every transport.
func each(t *testing.T, modes []string, f func(t *testing.T, mode string)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, mode) })
		})
	}
}

var allModes = []string{"rtu", "tcp", "rtutcp"}

// wantRegisters fails unless data is registers address.. each holding its own address.
func wantRegisters(t *testing.T, data []byte, err error, address, n int) {
	t.Helper()
	if err != nil {
		t.Fatalf("read %d: %v", address, err)
	}
	if len(data) != 2*n {
		t.Fatalf("read %d: %d bytes, want %d", address, len(data), 2*n)
	}
	for i := range n {
		if got := int(binary.BigEndian.Uint16(data[2*i:])); got != address+i {
			t.Fatalf("register %d holds %d: the value of another register", address+i, got)
		}
	}
}

func wantKind(t *testing.T, err error, want Kind) {
	t.Helper()
	if got := KindOf(err); got != want {
		t.Fatalf("got %v (%v), want %v", got, err, want)
	}
}
