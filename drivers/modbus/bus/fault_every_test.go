package bus

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// frames are one answer of each kind, to questions of unit 17.
var frames = []struct {
	name      string
	exception bool
	question
}{
	{"registers", false, question{17, 3, 0x0300, 4}},
	{"bits", false, question{17, 1, 0x0300, 20}},
	{"exception", true, question{17, 4, 0x0300, 4}},
}

// every asks the question once for each of n faults, and an undisturbed one
// after it; want is what the disturbed one must end with.
func every(t *testing.T, l lane, x question, n int, want func(i int) Kind, do func(i int, a *attempt, b []byte)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, l, rand.New(rand.NewPCG(1, 1)))
		var f *fault // guarded by p.mu, as all that the plan uses
		p.plan = func() *fault {
			g := f
			f = nil
			return g
		}
		for i := range n {
			if o := p.ask(t, x); o.err != nil {
				t.Fatalf("undisturbed, before number %d: %v", i, o.err)
			}
			p.mu.Lock()
			f = &fault{name: fmt.Sprint(i), do: func(a *attempt, b []byte) { do(i, a, b) }}
			p.mu.Unlock()
			if o := p.ask(t, x); o.kind != want(i) {
				t.Fatalf("number %d: %v (%v), want %v\n%s", i, o.kind, o.err, want(i), dump(p.Trace()))
			}
		}
	})
}

// TestEverySplitAtTwoPlaces sends one answer of each kind in three parts, cut at
// every two places, with longer between them than t3.5.
func TestEverySplitAtTwoPlaces(t *testing.T) {
	for _, l := range lanes {
		if l.inFlight > 1 {
			continue
		}
		for _, x := range frames {
			t.Run(l.name+"/"+x.name, func(t *testing.T) {
				want := ok
				if x.exception {
					want = Refused
				}
				const longest = 6 + 3 + 8 // a TCP header and four registers
				every(t, l, x.question, longest*longest, func(int) Kind { return want }, func(n int, a *attempt, b []byte) {
					if x.exception {
						b = a.exception()
					}
					i, k := n/longest, n%longest
					if i > k || k > len(b) {
						i, k = 0, 0
					}
					a.send(b[:i])
					a.after(10*time.Millisecond, b[i:k])
					a.after(10*time.Millisecond, b[k:])
				})
			})
		}
	}
}

// TestEveryHeader changes every byte of the Modbus TCP header, the function code
// and the byte count to every other value: nothing of it is ever taken for an answer.
func TestEveryHeader(t *testing.T) {
	tcp := lanes[2]
	for _, x := range frames {
		t.Run(x.name, func(t *testing.T) {
			places := 9
			if x.exception {
				places = 8 // the last is the exception code, which may be anything
			}
			want := func(i int) Kind {
				if i/255 < 2 {
					return NoReply // another transaction's
				}
				return Garbled
			}
			every(t, tcp, x.question, places*255, want, func(i int, a *attempt, b []byte) {
				if x.exception {
					b = a.exception()
				}
				b[i/255] ^= byte(1 + i%255)
				a.send(b)
			})
		})
	}
}

// TestEveryBurst damages an answer by every burst of up to 16 bits at every
// place, more than two million of them: none is data any more, and none but
// those that change the function code or the byte count, and so the bytes the
// CRC is taken over, can be anything else than damage.
func TestEveryBurst(t *testing.T) {
	for _, x := range frames {
		r := request{unit: x.unit, function: x.function, address: x.address, quantity: x.quantity, adu: make([]byte, 8)}
		sound := drivertest.AppendCRC(append([]byte{x.unit, x.function, byte(r.dataBytes())}, x.data(0x1234)...))
		if x.exception {
			sound = drivertest.AppendCRC([]byte{x.unit, x.function | 0x80, 2})
		}
		if v, n, _ := parseRTU(r, sound); v != answer || n != len(sound) {
			t.Fatalf("%s: % x is %v", x.name, sound, v)
		}
		b, bursts, odd := make([]byte, len(sound)), 0, 0
		for n := 1; n <= 16; n++ {
			for at := range 8*len(sound) - n + 1 {
				for pattern := range uint32(1) << max(n-2, 0) {
					copy(b, sound)
					flipBits(b, at, n, pattern<<1)
					v, _, _ := parseRTU(r, b)
					bursts++
					switch length := b[1] != sound[1] || b[2] != sound[2]; {
					case v == answer && b[1] < 0x80:
						t.Fatalf("%s: % x accepted, of % x", x.name, b, sound)
					case (v == answer || v == foreign) && !length:
						t.Fatalf("%s: % x is a sound frame, of % x", x.name, b, sound)
					case v == answer || v == foreign:
						odd++
					}
				}
			}
		}
		t.Logf("%s: %d bursts, of which %d changed the length so that another frame without a value came of it", x.name, bursts, odd)
	}
}
