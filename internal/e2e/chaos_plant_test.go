package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// chaosUnit is a device of the plant: every complete read of its first four
// registers gives the next serial number (u32) and the level (f32) that belongs
// to it, and is written down.
type chaosUnit struct {
	name, kind string
	every      time.Duration
	notes      int // texts of 240 characters behind it, each read by a request of its own
}

// chaosUnits are what the two buses carry. The texts make records of some
// kilobytes, so that a disk fills within seconds; what odd-one measures is of
// a type that the database refuses, so that it lands in quarantine.
var chaosUnits = [2][]chaosUnit{
	{{"quick", "chaos_meter", 100 * time.Millisecond, 0}, {"steady", "chaos_meter", 250 * time.Millisecond, 0}},
	{{"wordy", "chaos_log", 100 * time.Millisecond, 24}, {"odd-one", "chaos_odd", 250 * time.Millisecond, 8}},
}

// served is one serial number given away.
type served struct {
	serial uint32
	at     time.Time // when the answer was about to be sent
}

// chaosPlant serves the units. It is quiet when told to: then it takes the
// requests and answers none.
type chaosPlant struct {
	addrs [2]string
	quiet atomic.Bool

	mu  sync.Mutex
	log map[string][]served // by unit
	bad []string            // requests that no reader of ours sends
}

func startChaosPlant(t *testing.T) *chaosPlant {
	t.Helper()
	p := &chaosPlant{log: map[string][]served{}}
	var join sync.WaitGroup
	done := make(chan struct{})
	for bus := range chaosUnits {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.addrs[bus] = ln.Addr().String()
		t.Cleanup(func() { ln.Close() })
		join.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				join.Go(func() {
					defer c.Close()
					ended := make(chan struct{})
					defer close(ended)
					go func() {
						select {
						case <-done:
							c.Close()
						case <-ended:
						}
					}()
					p.serve(bus, c)
				})
			}
		})
	}
	t.Cleanup(func() { close(done) })
	return p
}

// serve answers one connection: function 3, Modbus TCP.
func (p *chaosPlant) serve(bus int, c net.Conn) {
	r := bufio.NewReader(c)
	var req [12]byte
	for {
		if _, err := io.ReadFull(r, req[:]); err != nil {
			return
		}
		unit, fn := int(req[6]), req[7]
		first, n := int(binary.BigEndian.Uint16(req[8:])), int(binary.BigEndian.Uint16(req[10:]))
		if fn != 3 || unit < 1 || unit > len(chaosUnits[bus]) || n < 1 || n > 125 {
			p.mu.Lock()
			p.bad = append(p.bad, fmt.Sprintf("% x", req))
			p.mu.Unlock()
			return
		}
		u := chaosUnits[bus][unit-1]
		p.mu.Lock()
		if p.quiet.Load() {
			p.mu.Unlock()
			continue
		}
		serial := uint32(len(p.log[u.name]))
		if first == 0 && n >= 4 {
			serial++
		}
		answer := append([]byte(nil), req[:4]...)
		answer = binary.BigEndian.AppendUint16(answer, uint16(3+2*n))
		answer = append(answer, req[6], fn, byte(2*n))
		answer = append(answer, u.registers(serial)[2*first:2*(first+n)]...)
		at := time.Now()
		_, err := c.Write(answer)
		if err == nil && first == 0 && n >= 4 {
			p.log[u.name] = append(p.log[u.name], served{serial, at})
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// noteAt is the first register of a text.
func noteAt(k int) int { return 200 + 120*k }

func (u chaosUnit) registers(serial uint32) []byte {
	b := make([]byte, 2*(noteAt(u.notes)+125))
	binary.BigEndian.PutUint32(b, serial)
	binary.BigEndian.PutUint32(b[4:], math.Float32bits(float32(levelOf(u.name, serial))))
	for k := range u.notes {
		copy(b[2*noteAt(k):], noteOf(k, serial))
	}
	return b
}

// levelOf is the level that was served with a serial number: exact in a float32.
func levelOf(name string, serial uint32) float64 {
	return float64((uint64(serial)*7919+uint64(len(name))*104729)%100003) / 8
}

// noteOf is the k-th text that is served after a serial number was.
func noteOf(k int, serial uint32) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d.%d", serial, k)
	for x := serial*2654435761 + uint32(k)*40503 + 1; b.Len() < 240; {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		fmt.Fprintf(&b, "-%08x", x)
	}
	return b.String()[:240]
}

// all returns what was served so far, by unit.
func (p *chaosPlant) all() map[string][]served {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string][]served{}
	for u, l := range p.log {
		out[u] = slices.Clone(l)
	}
	return out
}

func (p *chaosPlant) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.log {
		n += len(l)
	}
	return n
}

// config is the board's file.
func (p *chaosPlant) config(broker, dir string, commitEvery time.Duration) string {
	var y strings.Builder
	fmt.Fprintf(&y, "site: %s\ngateway: %s\nuplink: {broker: \"mqtt://%s\"}\nbuffer: {dir: %q, max: 8MiB, commit_every: %s}\nclock: {hold: 2s}\nbuses:\n",
		chaosSite, chaosGateway, broker, dir, commitEvery)
	for bus, units := range chaosUnits {
		fmt.Fprintf(&y, "  - name: bus-%d\n    tcp: {address: %q}\n    timeout: 10s\n    devices:\n", bus, p.addrs[bus])
		for i, u := range units {
			fmt.Fprintf(&y, "      - name: %s\n        unit: %d\n        every: %s\n        profile:\n          kind: %s\n          points:\n", u.name, i+1, u.every, u.kind)
			fmt.Fprintf(&y, "            - {name: serial, table: holding, address: 0, type: u32}\n            - {name: level, table: holding, address: 2, type: f32, unit: m}\n")
			for k := range u.notes {
				fmt.Fprintf(&y, "            - {name: note_%d, table: holding, address: %d, type: \"string:240\"}\n", k, noteAt(k))
			}
		}
	}
	return y.String()
}
