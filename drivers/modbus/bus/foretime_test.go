package bus

import (
	"context"
	"testing"
	"time"

	"luquan/drivers/drivertest"
)

// staleFrame answers for register 900 and the ones after it, which nobody asked for here.
func staleFrame(registers byte) []byte {
	b := []byte{1, 3, 2 * registers}
	for i := range registers {
		b = append(b, 900>>8, 900&0xFF+i)
	}
	return drivertest.AppendCRC(b)
}

// TestForetime: an answer to whoever used the line before us is never the
// value of what we ask first, whenever it comes within the foretime.
func TestForetime(t *testing.T) {
	fore := foretime(Timing{Response: limit})
	for late := time.Duration(0); late < fore; late += 23 * time.Millisecond {
		each(t, []string{"rtu", "rtutcp"}, func(t *testing.T, mode string) {
			r := newRig(t, mode, false)
			r.framing.(*rtu).past = true
			r.opened = func() {
				time.AfterFunc(late, func() { r.far.Write(staleFrame(4)) })
			}
			u := r.Reader(1, Timing{Response: limit})
			start := time.Now()
			data, err := u.ReadHoldingRegisters(context.Background(), 100, 4)
			wantRegisters(t, data, err, 100, 4)
			if took := time.Since(start); took < fore || took > fore+limit/2 {
				t.Errorf("the first reading took %v", took)
			}
			start = time.Now()
			data, err = u.ReadHoldingRegisters(context.Background(), 200, 4)
			wantRegisters(t, data, err, 200, 4)
			if took := time.Since(start); took > limit/2 {
				t.Errorf("the second reading took %v", took)
			}
			xs := r.Trace()
			if got := xs[0].Dropped; string(got) != string(staleFrame(4)) {
				t.Errorf("the trace shows % x dropped", got)
			}
			if c := r.Counters(); c.Late != 1 || c.Requests != 2 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestForetimeOfASlowDevice: it owes whoever was before us more than one
// answer, and the last comes when we are asking already.
func TestForetimeOfASlowDevice(t *testing.T) {
	each(t, []string{"rtu", "rtutcp"}, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.framing.(*rtu).past = true
		r.opened = func() {
			time.AfterFunc(5*limit, func() { r.far.Write(staleFrame(4)) })
		}
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if n == 1 { // in the order asked
				return []drivertest.Step{{Wait: limit / 4, Bytes: staleFrame(4)}, {Wait: limit / 4, Bytes: ans}}
			}
			return []drivertest.Step{{Wait: limit / 4, Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit})
		for _, address := range []uint16{100, 200} {
			data, err := u.ReadHoldingRegisters(context.Background(), address, 4)
			wantRegisters(t, data, err, int(address), 4)
		}
		if c := r.Counters(); c.Probes != 1 || c.Late != 2 {
			t.Errorf("%+v", c)
		}
	})
}
