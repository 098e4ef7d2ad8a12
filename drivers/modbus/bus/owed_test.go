package bus

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// TestMuchTooSlow: a device that takes up to several times its limit, over
// requests of one length, never has a value taken for another register's.
func TestMuchTooSlow(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	delays := map[string]func(n int, rng *rand.Rand) time.Duration{
		"1.5 limits": func(int, *rand.Rand) time.Duration { return limit * 3 / 2 },
		"2.2 limits": func(int, *rand.Rand) time.Duration { return limit * 22 / 10 },
		"4.5 limits": func(int, *rand.Rand) time.Duration { return limit * 9 / 2 }, // it falls behind for ever
		"mixed": func(n int, _ *rand.Rand) time.Duration {
			return []time.Duration{0, limit / 3, limit * 14 / 10, limit * 23 / 10, limit * 31 / 10}[n*7%5]
		},
		"any": func(_ int, rng *rand.Rand) time.Duration { return time.Duration(rng.Int64N(int64(5 * limit))) },
	}
	for name, delay := range delays {
		t.Run(name, func(t *testing.T) {
			for world := range uint64(20) {
				each(t, []string{"rtu", "rtutcp"}, func(t *testing.T, mode string) {
					device, pauses := rand.New(rand.NewPCG(seed, 2*world)), rand.New(rand.NewPCG(seed, 2*world+1)) // of two goroutines
					r := newRig(t, mode, false)
					var free time.Time // one request after the other, as a device does
					r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
						now := time.Now()
						if free.Before(now) {
							free = now
						}
						free = free.Add(delay(n, device))
						return []drivertest.Step{{Wait: free.Sub(now), Bytes: ans}}
					}
					u := r.Reader(1, Timing{Response: limit})
					for range 100 {
						for _, address := range []uint16{100, 200, 300} {
							data, err := u.ReadHoldingRegisters(context.Background(), address, 4)
							if err != nil {
								break // as the driver does: the rest of the poll is not asked for
							}
							wantRegisters(t, data, err, int(address), 4)
						}
						time.Sleep(time.Duration(pauses.Int64N(int64(3 * limit))))
					}
					if r.Counters().Probes == 0 {
						t.Error("nothing was probed")
					}
				})
			}
		})
	}
}

// TestLeftAlone: a device that owes as many answers as are remembered is not
// asked for more until they can no longer come.
func TestLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "rtu", false)
		var asked atomic.Int64
		var answers atomic.Bool
		r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
			asked.Add(1)
			if !answers.Load() {
				return nil
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: time.Millisecond})
		read := func() ([]byte, error) { return u.ReadHoldingRegisters(context.Background(), 100, 4) }
		for range mostDebts + 10 {
			_, err := read()
			wantKind(t, err, NoReply)
		}
		if asked.Load() != mostDebts {
			t.Errorf("asked %d times, want %d", asked.Load(), mostDebts)
		}
		answers.Store(true)
		time.Sleep(leastPatience + time.Second)
		data, err := read()
		wantRegisters(t, data, err, 100, 4)
	})
}

// TestLossIsMended: after one lost answer the next reads work, whether the
// device answers the probe or refuses it; nothing is probed twice.
func TestLossIsMended(t *testing.T) {
	for name, refuses := range map[string]bool{"answers": false, "refuses": true} {
		t.Run(name, func(t *testing.T) {
			each(t, []string{"rtu", "rtutcp"}, func(t *testing.T, mode string) {
				r := newRig(t, mode, false)
				r.slave.Script = func(n int, req, ans []byte) []drivertest.Step {
					if n == 2 {
						return nil
					}
					if refuses && binary.BigEndian.Uint16(req[4:]) != 4 {
						ans = drivertest.AppendCRC([]byte{req[0], req[1] | 0x80, 3})
					}
					return []drivertest.Step{{Bytes: ans}}
				}
				u := r.Reader(1, Timing{Response: limit})
				for i, address := range []uint16{100, 200, 300, 400, 500} {
					data, err := u.ReadHoldingRegisters(context.Background(), address, 4)
					if i == 1 {
						wantKind(t, err, NoReply)
						continue
					}
					wantRegisters(t, data, err, int(address), 4)
				}
				if c := r.Counters(); c.Probes != 1 {
					t.Errorf("%d probes, want 1", c.Probes)
				}
			})
		})
	}
}

// TestIgnoredProbe: a device that is silent on what it does not know comes
// back by itself when the lost answer can no longer be expected.
func TestIgnoredProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "rtu", false)
		r.slave.Script = func(n int, req, ans []byte) []drivertest.Step {
			if n == 1 || binary.BigEndian.Uint16(req[4:]) != 4 {
				return nil
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit})
		start := time.Now()
		for {
			data, err := u.ReadHoldingRegisters(context.Background(), 100, 4)
			if err == nil {
				wantRegisters(t, data, err, 100, 4)
				break
			}
			if time.Since(start) > leastPatience+3*time.Second {
				t.Fatalf("still %v", err)
			}
			time.Sleep(limit)
		}
	})
}

// TestProbe: a probe asks for what lies where the request begins, in a form of its own.
func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		function          byte
		address, quantity uint16
		owed              debts
		want              uint16
	}{
		{3, 100, 4, nil, 1},
		{3, 100, 1, nil, 2},
		{3, 65535, 1, nil, 2}, // refused by the device, which tells as much
		{3, 100, 4, debts{{form: form{3, 2}}}, 2},
		{3, 100, 4, debts{{form: form{3, 2}}, {form: form{3, 4}}, {form: form{3, 6}}}, 5},
		{1, 0, 8, nil, 9},
		{2, 0, 100, nil, 1},
	} {
		r := request{unit: 7, function: tt.function, address: tt.address, quantity: tt.quantity}
		p := tt.owed.probe(r)
		if p.quantity != tt.want || p.dataBytes() == r.dataBytes() || p.address != r.address || p.unit != 7 {
			t.Errorf("%d registers: probe %+v, want %d", tt.quantity, p, tt.want)
		}
		if !crcOK(p.adu) || len(p.adu) != 8 {
			t.Errorf("probe % x is no frame", p.adu)
		}
	}
}
