package bus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// TestBabble: a line that does not fall silent is told as garbled, within the
// response limit and not never, and is read again when it does.
func TestBabble(t *testing.T) {
	each(t, []string{"rtu", "rtutcp"}, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		u := r.Reader(1, Timing{Response: limit})
		data, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantRegisters(t, data, err, 1, 1)

		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					r.far.Write([]byte{0x55})
				}
			}
		}()
		time.Sleep(time.Second)
		for range 10 {
			start := time.Now()
			_, err := u.ReadHoldingRegisters(context.Background(), 2, 1)
			wantKind(t, err, Garbled)
			if took := time.Since(start); took > 3*limit {
				t.Errorf("given up after %v", took)
			}
		}
		close(stop)
		<-stopped
		time.Sleep(limit)
		data, err = u.ReadHoldingRegisters(context.Background(), 3, 1)
		wantRegisters(t, data, err, 3, 1)
		if n := len(r.slave.Requests()); n != 2 {
			t.Errorf("%d requests went out, want 2: none into the babble", n)
		}
	})
}

// TestSilentNeighbour: an endpoint that hangs up when idle is dialled anew for
// a unit that answers, whatever became of the one that was asked before it.
func TestSilentNeighbour(t *testing.T) {
	each(t, []string{"tcp", "rtutcp"}, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(_ int, req, ans []byte) []drivertest.Step {
			if unitOf(mode, req) == 5 {
				return nil
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		dead, alive := r.Reader(5, Timing{Response: limit}), r.Reader(1, Timing{Response: limit})
		for i := range 20 {
			_, err := dead.ReadHoldingRegisters(context.Background(), 1, 1)
			wantKind(t, err, NoReply)
			time.Sleep(time.Second)
			r.hangUp()
			time.Sleep(time.Second)
			data, err := alive.ReadHoldingRegisters(context.Background(), uint16(i), 1)
			wantRegisters(t, data, err, i, 1)
			r.hangUp()
		}
	})
}

// TestSilentEndpoint: one that accepts and never answers gives no reply, however long.
func TestSilentEndpoint(t *testing.T) {
	each(t, []string{"tcp", "rtutcp"}, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(int, []byte, []byte) []drivertest.Step { return nil }
		for i := range 40 {
			_, err := r.Reader(byte(1+i%4), Timing{Response: limit}).ReadHoldingRegisters(context.Background(), 1, 1)
			wantKind(t, err, NoReply)
		}
	})
}

// TestGarblingNeighbour: a unit whose answers end the connection, as those of
// servers that always answer for unit 1 do, is garbled for ever and never not
// connected; the endpoint's other units stay readable.
func TestGarblingNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "tcp", false)
		r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
			ans[6] = 1
			return []drivertest.Step{{Bytes: ans}}
		}
		good, bad := r.Reader(1, Timing{Response: limit}), r.Reader(2, Timing{Response: limit})
		for i := range 50 {
			for range 3 {
				_, err := bad.ReadHoldingRegisters(context.Background(), 1, 1)
				wantKind(t, err, Garbled)
			}
			data, err := good.ReadHoldingRegisters(context.Background(), uint16(i), 1)
			wantRegisters(t, data, err, i, 1)
		}
		r.hangUp()
		r.err = errors.New("connection refused")
		for range 100 {
			_, err := good.ReadHoldingRegisters(context.Background(), 1, 1)
			wantKind(t, err, NotConnected)
		}
		if dials := r.dials; dials > 160 {
			t.Errorf("%d dials: a refusal is not backed off from", dials)
		}
	})
}

// unitOf is the unit that a request is for.
func unitOf(mode string, req []byte) byte {
	if mode == "tcp" {
		return req[6]
	}
	return req[0]
}
