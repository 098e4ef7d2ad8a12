package bus

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// ask reads two registers at each address at once and returns when each was
// answered, since now, failing on any but the right values.
func ask(t *testing.T, u *Reader, addresses ...uint16) []time.Duration {
	t.Helper()
	start := time.Now()
	took := make([]time.Duration, len(addresses))
	var all sync.WaitGroup
	for i, a := range addresses {
		all.Go(func() {
			data, err := u.ReadHoldingRegisters(context.Background(), a, 2)
			took[i] = time.Since(start)
			if err != nil || binary.BigEndian.Uint32(data) != uint32(a)<<16|uint32(a+1) {
				t.Errorf("read %d: % x, %v", a, data, err)
			}
		})
		synctest.Wait() // they are asked in this order
	}
	all.Wait()
	return took
}

// TestInFlight: answers in any order find their requests; there are never more
// under way than allowed, and by default one.
func TestInFlight(t *testing.T) {
	for _, tt := range []struct {
		allowed, most int
		want          time.Duration // for six requests of 100 ms
	}{{0, 1, 600 * time.Millisecond}, {1, 1, 600 * time.Millisecond}, {3, 3, 200 * time.Millisecond}, {100, 6, 100 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "tcp", false)
			var mu sync.Mutex
			underWay, most := 0, 0
			r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
				mu.Lock()
				defer mu.Unlock()
				underWay++
				most = max(most, underWay)
				wait := 100*time.Millisecond - time.Duration(n)*time.Microsecond // the later the sooner
				time.AfterFunc(wait-1, func() { mu.Lock(); defer mu.Unlock(); underWay-- })
				return []drivertest.Step{{Wait: wait, Bytes: ans}}
			}
			took := ask(t, r.Reader(1, Timing{Response: limit, InFlight: tt.allowed}), 10, 20, 30, 40, 50, 60)
			if most != tt.most {
				t.Errorf("allowed %d: %d were under way", tt.allowed, most)
			}
			if last := max(took[0], took[5]); last > tt.want || last < tt.want-time.Millisecond {
				t.Errorf("allowed %d: took %v, want %v", tt.allowed, took, tt.want)
			}
			if tt.most == 6 && took[0] < took[5] {
				t.Error("the answers did not come in reverse order")
			}
			if n := len(r.slave.Requests()); n != 6 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestInFlightTimeout: one that is never answered holds no other; its late
// answer is nobody's.
func TestInFlightTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "tcp", false)
		r.slave.Script = func(_ int, req, ans []byte) []drivertest.Step {
			if req[9] == 99 {
				return []drivertest.Step{{Wait: limit + 50*time.Millisecond, Bytes: ans}}
			}
			return []drivertest.Step{{Wait: 10 * time.Millisecond, Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit, InFlight: 2})
		var slow sync.WaitGroup
		slow.Go(func() {
			start := time.Now()
			_, err := u.ReadHoldingRegisters(context.Background(), 99, 2)
			if KindOf(err) != NoReply || time.Since(start) != limit {
				t.Errorf("the silent one: %v after %v", err, time.Since(start))
			}
		})
		synctest.Wait()
		start := time.Now()
		for i := range uint16(15) {
			data, err := u.ReadHoldingRegisters(context.Background(), i, 2)
			wantRegisters(t, data, err, int(i), 2)
		}
		if took := time.Since(start); took != 150*time.Millisecond {
			t.Errorf("the others took %v beside a silent one, want 150ms", took)
		}
		slow.Wait()
		time.Sleep(limit)
		data, err := u.ReadHoldingRegisters(context.Background(), 7, 2) // finds the late one before its own
		wantRegisters(t, data, err, 7, 2)
		if c := r.Counters(); c.Late != 1 || c.NoReply != 1 || c.Answers != 16 || c.Opens != 1 {
			t.Errorf("counters %+v", c)
		}
	})
}

// TestInFlightAlone: a unit that allows one request only, or rests between
// them, has the endpoint to itself, whatever the others allow.
func TestInFlightAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "tcp", false)
		var mu sync.Mutex
		busy := map[byte]int{}
		r.slave.Script = func(_ int, req, ans []byte) []drivertest.Step {
			mu.Lock()
			defer mu.Unlock()
			busy[req[6]]++
			if busy[2]+busy[3] > 0 && busy[1]+busy[2]+busy[3] > 1 {
				t.Errorf("under way: %v", busy)
			}
			time.AfterFunc(20*time.Millisecond, func() { mu.Lock(); defer mu.Unlock(); busy[req[6]]-- })
			return []drivertest.Step{{Wait: 20*time.Millisecond + 1, Bytes: ans}}
		}
		var all sync.WaitGroup
		for i := range 30 {
			timing := []Timing{{InFlight: 8}, {InFlight: 1}, {InFlight: 8, Pause: 5 * time.Millisecond}}[i%3]
			u := r.Reader(byte(1+i%3), timing)
			all.Go(func() {
				data, err := u.ReadHoldingRegisters(context.Background(), uint16(i), 2)
				if err != nil || data[1] != byte(i) {
					t.Errorf("%d: % x, %v", i, data, err)
				}
			})
		}
		all.Wait()
	})
}

// TestInFlightBroken: when one answer spoils the connection, its request fails
// and the others are asked again over a new one, unless half answered.
func TestInFlightBroken(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"protocol":   func(b []byte) []byte { b[2] = 9; return b },
		"length":     func(b []byte) []byte { b[5]++; return append(b, 0) },
		"unit":       func(b []byte) []byte { b[6]++; return b },
		"byte count": func(b []byte) []byte { b[8]--; return b },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, "tcp", false)
			r.slave.Script = func(n int, req, ans []byte) []drivertest.Step {
				if n == 3 && r.dials == 1 { // n counts on each connection
					return []drivertest.Step{{Wait: 10 * time.Millisecond, Bytes: spoil(append([]byte(nil), ans...))}}
				}
				return []drivertest.Step{{Wait: 30 * time.Millisecond, Bytes: ans}}
			}
			u := r.Reader(1, Timing{Response: limit, InFlight: 4})
			ask(t, u, 5) // the connection is proved
			var all sync.WaitGroup
			kinds := make([]Kind, 4)
			for i := range kinds {
				all.Go(func() {
					_, err := u.ReadHoldingRegisters(context.Background(), uint16(10*i), 2)
					kinds[i] = KindOf(err)
				})
				synctest.Wait()
			}
			all.Wait()
			if want := [4]Kind{0, Garbled, 0, 0}; [4]Kind(kinds) != want {
				t.Errorf("%s: %v, want %v", name, kinds, want)
			}
			if c := r.Counters(); c.Opens != 2 || c.Requests != 5 || len(r.Trace()) != 8 {
				t.Errorf("%s: counters %+v, %d traced", name, c, len(r.Trace()))
			}
		})
	}
}

// TestInFlightSilence: what waits side by side is one silence; after three the
// connection is dialled anew, and whoever still waits is asked again.
func TestInFlightSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "tcp", false)
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if n > 1 && r.dials == 1 {
				return nil
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		u := r.Reader(1, Timing{Response: limit, InFlight: 4})
		ask(t, u, 1)
		for round := range silentLimit {
			last := round == silentLimit-1
			var all sync.WaitGroup
			var silent atomic.Int32
			began := time.Now()
			for i := range 4 {
				all.Go(func() {
					_, err := u.ReadHoldingRegisters(context.Background(), uint16(i), 2)
					switch {
					case KindOf(err) == NoReply:
						silent.Add(1)
					case last && err == nil && time.Since(began) == limit:
						// Whoever is told first dials anew, and one whose limit
						// ends in the same instant is answered there, in time.
					default:
						t.Errorf("round %d after %v: %v", round, time.Since(began), err)
					}
				})
			}
			all.Wait()
			if n := silent.Load(); n == 0 || !last && n != 4 {
				t.Errorf("round %d: %d of 4 had no reply", round, n)
			}
			if r.dials != 1 && !last || r.dials > 2 {
				t.Fatalf("%d dials in round %d", r.dials, round)
			}
		}
		ask(t, u, 2, 3, 4, 5)
		if r.dials != 2 {
			t.Errorf("%d dials", r.dials)
		}
	})
}

// TestWaitingForTheBus: a call that waits for its turn obeys its context, and
// whoever is behind it is not held up.
func TestWaitingForTheBus(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if n == 1 {
				return nil
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		u, v := r.Reader(1, Timing{Response: 5 * time.Second}), r.Reader(2, Timing{Response: limit})
		var all sync.WaitGroup
		all.Go(func() { u.ReadHoldingRegisters(context.Background(), 1, 1) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(30*time.Millisecond, cancel)
		all.Go(func() {
			start := time.Now()
			_, err := v.ReadHoldingRegisters(ctx, 2, 1)
			if KindOf(err) != Canceled || time.Since(start) != 30*time.Millisecond {
				t.Errorf("cancelled while waiting: %v after %v", err, time.Since(start))
			}
		})
		synctest.Wait()
		data, err := v.ReadHoldingRegisters(context.Background(), 3, 1)
		wantRegisters(t, data, err, 3, 1)
		all.Wait()
		if n := len(r.slave.Requests()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// TestTransactionIdentifiers: of those that can be in flight together no two
// share a byte, so damage within one byte never makes one another.
func TestTransactionIdentifiers(t *testing.T) {
	m := newMBAP(new(trace))
	var last [mostInFlight]uint16
	for i := range 1 << 17 {
		id := m.id()
		for k := range min(i, len(last)) {
			if old := last[k]; byte(old) == byte(id) || old>>8 == id>>8 {
				t.Fatalf("%04x after %04x", id, old)
			}
		}
		last[i%len(last)] = id
	}
}
