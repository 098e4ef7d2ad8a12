package e2e

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// wan is a TCP proxy that is a long line: every byte arrives half a round trip
// later, and no faster than the rate allows. It counts what it carries, TLS and
// all, and how many segments of a usual line that would be.
type wan struct {
	ln       net.Listener
	to       string
	oneWay   time.Duration
	rate     float64 // bytes a second in each direction; 0: no bound
	up, down carried
	conns    sync.Map
	join     sync.WaitGroup
}

// carried counts one direction.
type carried struct {
	bytes   atomic.Int64
	packets atomic.Int64 // segments of at most 1400 bytes, one at least for each read
}

// hop is a piece of the stream on its way.
type hop struct {
	data []byte
	due  time.Time
}

func newWAN(t testing.TB, to string, roundTrip time.Duration, rate float64) *wan {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wan{ln: ln, to: to, oneWay: roundTrip / 2, rate: rate}
	w.join.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			// Small buffers: what waits must wait in the line, not in the kernel.
			for _, c := range []net.Conn{in, out} {
				w.conns.Store(c, true)
				if rate > 0 {
					c.(*net.TCPConn).SetReadBuffer(32 << 10)
				}
			}
			w.join.Go(func() { w.carry(out, in, &w.up) })
			w.join.Go(func() { w.carry(in, out, &w.down) })
		}
	})
	t.Cleanup(w.close)
	return w
}

func (w *wan) addr() string { return w.ln.Addr().String() }

func (w *wan) close() {
	w.ln.Close()
	w.conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	w.join.Wait()
}

// carry moves one direction until either end closes. The line holds what is
// under way and a router's buffer of 64 KiB; then the sender has to wait.
func (w *wan) carry(to, from net.Conn, c *carried) {
	defer to.Close()
	defer from.Close()
	depth := 16 << 20
	if w.rate > 0 {
		depth = 64<<10 + int(w.rate*w.oneWay.Seconds())
	}
	const piece = 8 << 10
	line := make(chan hop, max(2, depth/piece))
	var out sync.WaitGroup
	out.Go(func() {
		for h := range line {
			time.Sleep(time.Until(h.due)) // the line itself
			if _, err := to.Write(h.data); err != nil {
				from.Close()
				for range line {
				}
				return
			}
		}
	})
	var free time.Time // when the line has taken in what came before
	buf := make([]byte, piece)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			c.bytes.Add(int64(n))
			c.packets.Add(int64((n + 1399) / 1400))
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			if w.rate > 0 {
				free = free.Add(time.Duration(float64(n) / w.rate * 1e9))
			}
			line <- hop{append([]byte(nil), buf[:n]...), free.Add(w.oneWay)}
		}
		if err != nil {
			break
		}
	}
	close(line)
	out.Wait()
}
