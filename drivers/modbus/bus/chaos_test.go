package bus

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"luquan/drivers/drivertest"
)

// TestChaos throws every fault at a line of five units, by chance, and accepts
// no wrong value: register values name unit, table, address and the request
// they were served in, and answers later than the limit but within twice it occur.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	each(t, allModes, func(t *testing.T, mode string) {
		asks := rand.New(rand.NewPCG(seed, 1)) // of this goroutine
		rnd := rand.New(rand.NewPCG(seed, 2))  // of the slave; guarded by mu
		r := newRig(t, mode, false)
		r.slave.Value = func(unit, fc byte, a uint16) (uint16, bool) {
			return uint16(unit)<<13 | uint16(fc)<<10 | a, a != 13
		}
		faults := make(map[string]int)
		var mu sync.Mutex
		r.slave.Script = func(_ int, _, ans []byte) []drivertest.Step {
			mu.Lock()
			defer mu.Unlock()
			b := append([]byte(nil), ans...)
			pick := func(name string) { faults[name]++ }
			k := rnd.IntN(len(b))
			switch rnd.IntN(16) {
			case 0:
				pick("silent")
				return nil
			case 1:
				pick("late")
				return []drivertest.Step{{Wait: limit + time.Duration(rnd.IntN(150))*time.Millisecond, Bytes: b}}
			case 2:
				pick("burst") // up to 16 bits: a CRC-16 surely detects it
				if mode == "tcp" {
					b[rnd.IntN(9)] ^= byte(1 + rnd.IntN(255)) // header and byte count: no CRC guards the data
				} else if x := uint16(1 + rnd.IntN(65535)); k+1 < len(b) {
					b[k] ^= byte(x >> 8)
					b[k+1] ^= byte(x)
				} else {
					b[k] ^= byte(1 + rnd.IntN(255))
				}
			case 3:
				pick("truncated")
				b = b[:k]
				if mode == "tcp" { // TCP itself never loses the rest
					r.mu.Lock()
					r.far.Write(b)
					r.mu.Unlock()
					r.hangUp()
					return nil
				}
			case 4:
				pick("split")
				return []drivertest.Step{{Bytes: b[:k]}, {Wait: time.Duration(rnd.IntN(40)) * time.Millisecond, Bytes: b[k:]}}
			case 5:
				pick("hang up")
				r.hangUp()
			case 6:
				pick("noise before")
				b = append([]byte{byte(rnd.IntN(256))}, b...)
			case 7:
				pick("dribble")
				var s []drivertest.Step
				for i := range b {
					s = append(s, drivertest.Step{Wait: 20 * time.Millisecond, Bytes: b[i : i+1]})
				}
				return s
			}
			return []drivertest.Step{{Wait: time.Duration(rnd.IntN(100)) * time.Millisecond, Bytes: b}}
		}
		outcomes := map[Kind]int{}
		const n = 20000
		for range n {
			unit := byte(1 + asks.IntN(5))
			fc := byte(3 + asks.IntN(2))
			address, q := uint16(asks.IntN(1000)), 1+asks.IntN(4)
			u := r.Reader(unit, Timing{Response: limit})
			read := u.ReadHoldingRegisters
			if fc == 4 {
				read = u.ReadInputRegisters
			}
			data, err := read(context.Background(), address, uint16(q))
			outcomes[KindOf(err)]++
			if err != nil {
				if KindOf(err) == NotConnected {
					time.Sleep(time.Second)
				}
				continue
			}
			for i := range q {
				want := uint16(unit)<<13 | uint16(fc)<<10 | (address + uint16(i))
				if got := binary.BigEndian.Uint16(data[2*i:]); got != want {
					t.Fatalf("unit %d fc %d register %d: accepted %#x, want %#x\n%s", unit, fc, address, got, want, dump(r.Trace()))
				}
			}
		}
		mu.Lock() // a slave may still be answering
		defer mu.Unlock()
		t.Logf("outcomes %v faults %v counters %+v", outcomes, faults, r.Counters())
		for _, f := range []string{"silent", "late", "burst", "truncated", "split", "hang up", "noise before", "dribble"} {
			if faults[f] == 0 {
				t.Errorf("fault %q never occurred", f)
			}
		}
		if outcomes[0] < n/4 {
			t.Errorf("only %d of %d reads succeeded", outcomes[0], n)
		}
		for _, k := range []Kind{Refused, Garbled, NoReply, NotConnected} {
			if outcomes[k] == 0 {
				t.Errorf("%v never occurred", k)
			}
		}
	})
}

func dump(xs []Transaction) (s string) {
	for _, x := range xs[max(0, len(xs)-5):] {
		s += fmt.Sprintf("%d %v > % x < % x %v %s\n", x.Number, x.Took, x.Request, x.Answer, x.Kind, x.Note)
	}
	return s
}

func FuzzParseRTU(f *testing.F) {
	f.Add(byte(3), byte(1), uint16(2), []byte{3, 1, 1, 0xFF, 0, 0})
	f.Add(byte(3), byte(3), uint16(1), drivertest.AppendCRC([]byte{3, 3, 2, 0, 9}))
	f.Add(byte(3), byte(4), uint16(125), drivertest.AppendCRC([]byte{3, 0x84, 2}))
	f.Fuzz(func(t *testing.T, unit, fc byte, q uint16, b []byte) {
		r := request{unit: unit, function: 1 + fc%4, quantity: 1 + q%125, adu: make([]byte, 8)}
		v, n, why := parseRTU(r, b)
		switch v {
		case answer:
			if b[0] != unit || n > len(b) || drivertest.CRC(b[:n]) != 0 || (b[1] == r.function) != (n == 5+r.dataBytes() && b[1] < 0x80) {
				t.Fatalf("accepted % x for %+v", b, r)
			}
		case foreign:
			if n < 5 || n > len(b) || drivertest.CRC(b[:n]) != 0 {
				t.Fatalf("foreign % x", b)
			}
		case damaged:
			if why == "" {
				t.Fatal("damaged without a word why")
			}
		}
		soundFrame(b)
	})
}

func FuzzParseMBAP(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := request{unit: 1, function: 3, quantity: 1, adu: []byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1}}
		v, n, _ := parseMBAP(b)
		if v != answer {
			return
		}
		if n > len(b) || n < 9 {
			t.Fatalf("answer of %d in %d bytes", n, len(b))
		}
		if checkPDU(r, b[6], b[mbapHeader:n]) == "" && b[7] == 3 && n != 11 {
			t.Fatalf("accepted % x", b)
		}
	})
}
