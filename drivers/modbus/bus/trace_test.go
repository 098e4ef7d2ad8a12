package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// tapped is the slave's end of a line, with a log of what went over it.
type tapped struct {
	net.Conn
	mu         *sync.Mutex
	heard, say *[]byte
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.heard = append(*c.heard, b[:n]...)
	return n, err
}

func (c tapped) Write(b []byte) (int, error) {
	c.mu.Lock()
	*c.say = append(*c.say, b...)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// TestTraceIsTheLine: what the ring shows is, byte for byte and in its order,
// what went over the line, whatever came of it, while others read the ring.
func TestTraceIsTheLine(t *testing.T) {
	each(t, allModes, func(t *testing.T, mode string) {
		r := newRig(t, mode, false)
		var mu sync.Mutex
		var heard, said []byte
		r.tap = func(c net.Conn) net.Conn { return tapped{c, &mu, &heard, &said} }
		r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, a != 150 }
		var calm atomic.Bool
		r.slave.Script = func(n int, _, ans []byte) []drivertest.Step {
			if calm.Load() {
				return []drivertest.Step{{Bytes: ans}}
			}
			damage := 4
			if mode == "tcp" { // which ends the connection, so not before the late one has come
				damage = 0
			}
			switch n % 8 {
			case 2: // late, but within the silence that follows
				return []drivertest.Step{{Wait: limit * 3 / 2, Bytes: ans}}
			case damage:
				if mode == "tcp" {
					ans[2]++ // the protocol identifier
				} else {
					ans[3]++
				}
			case 5: // silent
				return nil
			case 6: // noise, when nothing is expected any more
				if mode != "tcp" {
					return []drivertest.Step{{Wait: limit * 3 / 2, Bytes: []byte{0x55, 0x55}}}
				}
			case 7: // noise after the end, beyond what a driver's switching explains
				if mode != "tcp" {
					ans = append(ans, 0xFF, 0xFE, 0xFD)
				}
			}
			return []drivertest.Step{{Bytes: ans}}
		}
		reading := make(chan struct{})
		var readers sync.WaitGroup
		readers.Go(func() {
			for at := uint64(0); ; {
				select {
				case <-reading:
					return
				default:
				}
				xs := r.Trace()
				for i, x := range xs {
					if i > 0 && x.Number != xs[i-1].Number+1 || len(x.Request) >= 8 && mode != "tcp" && !crcOK(x.Request) {
						t.Errorf("torn: %+v", x)
						return
					}
				}
				if len(xs) > 0 {
					at = max(at, xs[len(xs)-1].Number)
				}
				if c := r.Counters(); c.Requests > at+1 {
					at = c.Requests
				}
				time.Sleep(7 * time.Millisecond)
			}
		})
		start := time.Now()
		kinds := map[Kind]int{}
		for i := range traceDepth / 2 { // no more than the ring holds, probes included
			u := r.Reader(byte(1+i%3), Timing{Response: limit})
			_, err := u.ReadHoldingRegisters(context.Background(), uint16(145+i%9), uint16(1+i%3))
			kinds[KindOf(err)]++
			if KindOf(err) == NotConnected {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(2 * limit)
		close(reading)
		readers.Wait()
		// what is still to come is dropped before one more request
		calm.Store(true)
		r.Reader(9, Timing{Response: limit}).ReadHoldingRegisters(context.Background(), 1, 1)

		var asked, came []byte
		traced := map[Kind]int{}
		last := start
		for _, x := range r.Trace() {
			asked = append(asked, x.Request...)
			came = append(append(came, x.Dropped...), x.Answer...)
			if !x.Aside {
				traced[x.Kind]++
			}
			if x.Start.Before(last) || x.Took < 0 || x.Took > 2*limit {
				t.Errorf("transaction %d began %v after the one before and took %v", x.Number, x.Start.Sub(last), x.Took)
			}
			last = x.Start.Add(x.Took)
			if x.Kind == 0 && !bytes.Contains(x.Answer, binary.BigEndian.AppendUint16(nil, x.Address)) {
				t.Errorf("% x answered by % x", x.Request, x.Answer)
			}
			if (x.Kind == 0 || x.Kind == Refused) == (x.Note != "" && x.Code == 0) {
				t.Errorf("kind %v, code %d, note %q", x.Kind, x.Code, x.Note)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if !bytes.Equal(asked, heard) {
			t.Errorf("the slave heard other requests than the ring shows: %s", difference(asked, heard))
		}
		if !bytes.Equal(came, said) {
			t.Errorf("the slave said other bytes than the ring shows: %s", difference(came, said))
		}
		kinds[0]++ // the last one
		for k := range Kind(Canceled + 1) {
			if kinds[k] != traced[k] {
				t.Errorf("%v: %d times told, %d times in the ring", k, kinds[k], traced[k])
			}
		}
		for _, k := range []Kind{0, Refused, Garbled, NoReply} {
			if kinds[k] == 0 {
				t.Errorf("%v never occurred", k)
			}
		}
		if c := r.Counters(); c.Late == 0 || mode != "tcp" && c.Stray == 0 {
			t.Errorf("nothing late, or nothing stray: %+v", c)
		}
	})
}

// difference tells where two sequences part.
func difference(ring, line []byte) string {
	i := 0
	for i < min(len(ring), len(line)) && ring[i] == line[i] {
		i++
	}
	return fmt.Sprintf("byte %d on, ring % x..., line % x...", i, ring[i:min(i+20, len(ring))], line[i:min(i+20, len(line))])
}

// TestTraceIsBounded: a line that never falls silent does not grow the ring.
func TestTraceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "rtu", false)
		r.slave.Script = func(int, []byte, []byte) []drivertest.Step {
			return []drivertest.Step{{Wait: limit * 3 / 2, Bytes: slices.Repeat([]byte{0x55}, 20*mostDropped)}}
		}
		for range traceDepth + 5 {
			r.Reader(1, Timing{Response: limit}).ReadHoldingRegisters(context.Background(), 1, 1)
		}
		most := 0
		for _, x := range r.trace.ring {
			most = max(most, cap(x.Request)+cap(x.Answer)+cap(x.Dropped))
		}
		if most > 3*mostDropped || r.Counters().Stray < 20*mostDropped {
			t.Errorf("a transaction holds up to %d bytes; %+v", most, r.Counters())
		}
	})
}
