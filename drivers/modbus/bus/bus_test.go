package bus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/drivers/drivertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadsTheFourTables(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		u := r.Reader(7, Timing{Response: limit})
		ctx := context.Background()
		data, err := u.ReadHoldingRegisters(ctx, 100, 125)
		wantRegisters(t, data, err, 100, 125)
		data, err = u.ReadInputRegisters(ctx, 65535, 1)
		wantRegisters(t, data, err, 65535, 1)
		for _, f := range []func(context.Context, uint16, uint16) ([]byte, error){u.ReadCoils, u.ReadDiscreteInputs} {
			bits, err := f(ctx, 1, 10) // each bit is its address's lowest
			if err != nil || len(bits) != 2 || bits[0] != 0x55 || bits[1] != 0x01 {
				t.Fatalf("bits % x, %v", bits, err)
			}
		}
		for i, want := range []byte{3, 4, 1, 2} {
			req := r.slave.Requests()[i]
			if mode == "tcp" {
				req = req[6:]
			}
			if req[0] != 7 || req[1] != want {
				t.Errorf("request %d is unit %d function %d, want 7 and %d", i, req[0], req[1], want)
			}
		}
		if c := r.Counters(); c.Requests != 4 || c.Answers != 4 || c.Stray != 0 || c.Opens != 1 {
			t.Errorf("counters %+v", c)
		}
	})
}

// TestEverySplit delivers a data answer and an exception in two parts split at
// every place, with a pause between them longer than t1.5 and t3.5.
func TestEverySplit(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		cut := 0
		r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, a != 500 }
		r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
			c := min(cut, len(ans))
			return []drivertest.Step{{Bytes: ans[:c]}, {Wait: 15 * time.Millisecond, Bytes: ans[c:]}}
		}
		u := r.Reader(1, Timing{Response: limit})
		for cut = 0; cut <= 20; cut++ {
			data, err := u.ReadHoldingRegisters(context.Background(), 10, 4)
			wantRegisters(t, data, err, 10, 4)
			_, err = u.ReadHoldingRegisters(context.Background(), 500, 1)
			wantKind(t, err, Refused)
			if e := err.(*Error); e.Code != 2 {
				t.Fatalf("cut at %d: exception %d, want 2", cut, e.Code)
			}
		}
	})
}

// TestLateAnswer is pitfall A1 of the usual library: a reply of 250 ms under a
// limit of 200 ms, then other registers of the same unit. With no guard every
// read returns the value of the one before.
func TestLateAnswer(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if n == 1 || n == 4 {
				return []drivertest.Step{{Wait: 250 * time.Millisecond, Bytes: ans}}
			}
			return []drivertest.Step{{Wait: 5 * time.Millisecond, Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit})
		for i, address := range []uint16{100, 200, 300, 400, 500, 600} {
			data, err := u.ReadHoldingRegisters(context.Background(), address, 2)
			if i == 0 || i == 3 {
				wantKind(t, err, NoReply)
				continue
			}
			wantRegisters(t, data, err, int(address), 2)
		}
		time.Sleep(limit)
		data, err := u.ReadHoldingRegisters(context.Background(), 700, 2)
		wantRegisters(t, data, err, 700, 2)
		if c := r.Counters(); c.Late != 2 {
			t.Errorf("%d late answers counted, want 2: %+v", c.Late, c)
		}
	})
}

// TestLateAnswerOfAnotherUnit: it comes while the next unit is being asked. It
// is dropped, and the next unit's answer still counts; nothing has been waited for.
func TestLateAnswerOfAnotherUnit(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Value = func(unit, _ byte, _ uint16) (uint16, bool) { return uint16(unit), true }
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if n == 1 {
				return []drivertest.Step{{Wait: 290 * time.Millisecond, Bytes: ans}}
			}
			return []drivertest.Step{{Wait: 150 * time.Millisecond, Bytes: ans}}
		}
		_, err := r.Reader(1, Timing{Response: limit}).ReadHoldingRegisters(context.Background(), 0, 1)
		wantKind(t, err, NoReply)
		start := time.Now()
		data, err := r.Reader(2, Timing{Response: limit}).ReadHoldingRegisters(context.Background(), 0, 1)
		wantRegisters(t, data, err, 2, 1)
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("a late neighbour cost the next unit time: %v", took)
		}
		if c := r.Counters(); c.Late != 1 {
			t.Errorf("late answers: %+v", c)
		}
	})
}

func TestDamage(t *testing.T) {
	damage := map[string]struct {
		change func(ans []byte) []byte
		want   Kind
		modes  []string
	}{
		"wrong CRC":           {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, Garbled, []string{"rtu", "rtutcp"}},
		"flipped data":        {func(b []byte) []byte { b[4] ^= 0x10; return b }, Garbled, []string{"rtu", "rtutcp"}},
		"wrong unit":          {func(b []byte) []byte { b[6]++; return b }, Garbled, []string{"tcp"}},
		"another's frame":     {func(b []byte) []byte { b[0]++; return drivertest.AppendCRC(b[:len(b)-2]) }, NoReply, []string{"rtu", "rtutcp"}},
		"write function":      {func(b []byte) []byte { b[1] = 6; return drivertest.AppendCRC(b[:len(b)-2]) }, Garbled, []string{"rtu", "rtutcp"}},
		"other read":          {func(b []byte) []byte { b[7] = 3; return b }, Garbled, []string{"tcp"}},
		"short by two":        {func(b []byte) []byte { return b[:len(b)-2] }, Garbled, allModes},
		"first byte only":     {func(b []byte) []byte { return b[:1] }, Garbled, allModes},
		"twice":               {func(b []byte) []byte { return append(b[:len(b):len(b)], b...) }, Garbled, []string{"rtu", "rtutcp"}},
		"protocol identifier": {func(b []byte) []byte { b[2] = 1; return b }, Garbled, []string{"tcp"}},
		"impossible length":   {func(b []byte) []byte { b[4] = 9; return b }, Garbled, []string{"tcp"}},
		"byte count":          {func(b []byte) []byte { b[8]++; return b }, Garbled, []string{"tcp"}},
		"another transaction": {func(b []byte) []byte { b[1]++; return b }, NoReply, []string{"tcp"}},
		"echo only":           {func(b []byte) []byte { return nil }, NoReply, allModes},
	}
	for name, d := range damage {
		t.Run(name, func(t *testing.T) {
			each(t, d.modes, func(t *testing.T, mode string) {
				r := newRig(t, mode, false)
				r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
					if n == 2 {
						ans = d.change(append([]byte(nil), ans...))
					}
					return []drivertest.Step{{Bytes: ans}}
				}
				u := r.Reader(3, Timing{Response: limit})
				data, err := u.ReadInputRegisters(context.Background(), 10, 3)
				wantRegisters(t, data, err, 10, 3)
				_, err = u.ReadInputRegisters(context.Background(), 20, 3)
				wantKind(t, err, d.want)
				// Whatever it was, the next read is sound again.
				data, err = u.ReadInputRegisters(context.Background(), 30, 3)
				wantRegisters(t, data, err, 30, 3)
			})
		})
	}
}

// TestDribble: a byte every 30 ms must not hold the line beyond the deadline.
func TestDribble(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(_ int, _, ans []byte) (s []drivertest.Step) {
			for i := range ans {
				s = append(s, drivertest.Step{Wait: 30 * time.Millisecond, Bytes: ans[i : i+1]})
			}
			return s
		}
		start := time.Now()
		_, err := r.Reader(1, Timing{Response: limit}).ReadHoldingRegisters(context.Background(), 0, 50)
		wantKind(t, err, Garbled)
		if took := time.Since(start); took > 200*time.Millisecond+slack*2+150*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestContext(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(int, []byte, []byte) []drivertest.Step { return nil }
		u := r.Reader(1, Timing{Response: 5 * time.Second})
		for name, tt := range map[string]struct {
			ctx  func() (context.Context, context.CancelFunc)
			want Kind
		}{
			"deadline": {func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), 70*time.Millisecond)
			}, NoReply},
			"cancelled": {func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(70*time.Millisecond, cancel)
				return ctx, cancel
			}, Canceled},
		} {
			ctx, cancel := tt.ctx()
			start := time.Now()
			_, err := u.ReadHoldingRegisters(ctx, 0, 1)
			cancel()
			if took := time.Since(start); took != 70*time.Millisecond {
				t.Errorf("%s: took %v, want 70ms", name, took)
			}
			wantKind(t, err, tt.want)
			time.Sleep(10 * time.Second) // outwait
		}
	})
}

func TestHangUpAndReconnect(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		u := r.Reader(1, Timing{Response: limit})
		data, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantRegisters(t, data, err, 1, 1)

		r.hangUp() // while idle: the next read does not notice
		data, err = u.ReadHoldingRegisters(context.Background(), 2, 1)
		wantRegisters(t, data, err, 2, 1)

		r.hangUp()
		r.err = errors.New("connection refused")
		for range 100 { // refused for 10 s: backed off, and each read fails at once
			start := time.Now()
			_, err = u.ReadHoldingRegisters(context.Background(), 3, 1)
			wantKind(t, err, NotConnected)
			if time.Since(start) > 10*time.Millisecond {
				t.Fatalf("a read while not connected took %v", time.Since(start))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if r.dials > 14 {
			t.Errorf("%d dials in 10 s", r.dials)
		}
		r.err = nil
		time.Sleep(backoffMost)
		data, err = u.ReadHoldingRegisters(context.Background(), 4, 1)
		wantRegisters(t, data, err, 4, 1)
	})
}

// TestLostMidAnswer: no value, and no second request for what was half answered.
func TestLostMidAnswer(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if n == 2 {
				time.AfterFunc(100*time.Millisecond, r.hangUp)
				return []drivertest.Step{{Bytes: ans[:4]}}
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit})
		data, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantRegisters(t, data, err, 1, 1)
		_, err = u.ReadHoldingRegisters(context.Background(), 2, 1)
		wantKind(t, err, NotConnected)
		data, err = u.ReadHoldingRegisters(context.Background(), 3, 1)
		wantRegisters(t, data, err, 3, 1)
		if n := len(r.slave.Requests()); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
	})
}

// TestHalfOpen: a peer that went away without a word is dialled anew.
func TestHalfOpen(t *testing.T) {
	each(t, []string{"tcp", "rtutcp"}, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		silent := true
		r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
			if silent {
				return nil
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit})
		for i := range silentLimit {
			if i > 0 && mode == "rtutcp" {
				time.Sleep(reckoned(limit))
			}
			_, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
			wantKind(t, err, NoReply)
		}
		silent = false
		time.Sleep(backoffMost)
		data, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantRegisters(t, data, err, 1, 1)
		if r.dials != 2 {
			t.Errorf("%d dials, want 2", r.dials)
		}
	})
}

func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "rtu", true)
		broken := false
		r.slave.Script = func(n int, req, ans []byte) []drivertest.Step {
			e := append([]byte(nil), req...)
			if broken {
				e[2] ^= 4
			}
			if n%2 == 0 {
				return []drivertest.Step{{Bytes: append(e, ans...)}}
			}
			return []drivertest.Step{{Bytes: e[:3]}, {Bytes: e[3:]}, {Wait: 50 * time.Millisecond, Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit})
		for i := range 4 {
			data, err := u.ReadHoldingRegisters(context.Background(), uint16(i), 3)
			wantRegisters(t, data, err, i, 3)
		}
		broken = true
		_, err := u.ReadHoldingRegisters(context.Background(), 9, 1)
		wantKind(t, err, Garbled)
	})
	synctest.Test(t, func(t *testing.T) { // an echo nobody configured is told, and is never data
		r := newRig(t, "rtu", false)
		r.slave.Script = func(_ int, req, _ []byte) []drivertest.Step { return []drivertest.Step{{Bytes: req}} }
		_, err := r.Reader(1, Timing{Response: limit}).ReadCoils(context.Background(), 0x0300, 20)
		wantKind(t, err, Garbled)
	})
}

// TestGap: the line is silent for t3.5 before every request, and a unit rests.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "rtu", false)
		u := r.Reader(1, Timing{Response: limit})
		v := r.Reader(2, Timing{Response: limit, Pause: 250 * time.Millisecond})
		for i := range 6 {
			reader := u
			if i%2 == 1 {
				reader = v
			}
			data, err := reader.ReadHoldingRegisters(context.Background(), uint16(i), 9)
			wantRegisters(t, data, err, i, 9)
		}
		gap := RTUOptions{Baud: 9600, Parity: ParityEven}.Gap()
		last := map[byte]time.Time{}
		var end time.Time
		for _, x := range r.Trace() {
			if !end.IsZero() && x.Start.Sub(end) < gap {
				t.Errorf("request %d only %v after the last byte, t3.5 is %v", x.Number, x.Start.Sub(end), gap)
			}
			end = x.Start.Add(x.Took)
			if x.Unit == 2 && !last[2].IsZero() && x.Start.Sub(last[2]) < 250*time.Millisecond {
				t.Errorf("unit 2 rested %v", x.Start.Sub(last[2]))
			}
			last[x.Unit] = end
		}
	})
}

// TestTrace: the last transactions, whole, oldest first, no more than the ring holds.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "tcp", false)
		r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, a != traceDepth+22 }
		u := r.Reader(1, Timing{Response: limit})
		for i := range traceDepth + 22 + 1 {
			u.ReadHoldingRegisters(context.Background(), uint16(i), 1)
		}
		got := r.Trace()
		if len(got) != traceDepth || got[0].Number != 24 {
			t.Fatalf("%d transactions from %d", len(got), got[0].Number)
		}
		last := got[len(got)-1]
		if last.Kind != Refused || last.Code != 2 || last.Address != traceDepth+22 || len(last.Request) != 12 || len(last.Answer) != 9 {
			t.Errorf("last is %+v", last)
		}
		last.Answer[0]++ // a copy
		if r.Trace()[traceDepth-1].Answer[0] == last.Answer[0] {
			t.Error("Trace hands out its own memory")
		}
	})
}

// TestOnlyReads: what does not read is refused before a byte is sent, even if
// someone reached the transporter.
func TestOnlyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range allModes {
			r := newRig(t, mode, false)
			u := &sender{r.Bus, Timing{Response: limit, InFlight: 1}, context.Background()}
			for fc := range 256 {
				if readOnly(byte(fc)) {
					continue
				}
				adu := []byte{1, byte(fc), 0, 0, 0, 1, 0, 0}
				if mode == "tcp" {
					adu = []byte{0, 1, 0, 0, 0, 6, 1, byte(fc), 0, 0, 0, 1}
				}
				if _, err := u.Send(adu); err == nil {
					t.Errorf("%s: function code %d was sent", mode, fc)
				}
			}
			if r.dials != 0 {
				t.Errorf("%s: dialled", mode)
			}
		}
	})
}

func TestClose(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		u := r.Reader(1, Timing{Response: limit})
		data, err := u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantRegisters(t, data, err, 1, 1)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = u.ReadHoldingRegisters(context.Background(), 1, 1)
		wantKind(t, err, NotConnected)
		if r.dials != 1 {
			t.Error("reopened after Close")
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []RTUOptions{{Baud: 9600}, {Port: "x", Baud: 1}, {Port: "x", Baud: 9600, Parity: 'X'}, {Port: "x", Baud: 9600, StopBits: 3}} {
		if _, err := OpenRTU(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	for _, a := range []string{"", "a:b:c", "a:0", ":502", "a:99999", "a:x"} {
		if _, err := DialTCP(TCPOptions{Address: a}); err == nil {
			t.Errorf("address %q accepted", a)
		}
	}
	if got := (RTUOptions{Baud: 9600, Parity: ParityEven}).CharTime(); got != 11*time.Second/9600 {
		t.Errorf("a character at 9600 8E1 takes %v", got)
	}
	if got := (RTUOptions{Baud: 115200}).Gap(); got != 1750*time.Microsecond {
		t.Errorf("t3.5 at 115200 is %v", got)
	}
}
