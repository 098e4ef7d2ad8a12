package drivertest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Pair returns the two ends of an in-memory line. Unlike net.Pipe's, its
// writes never block: what nobody reads stays on the line, as on a real one.
// It works inside testing/synctest bubbles.
func Pair() (a, b net.Conn) {
	x, y := newHalf(), newHalf()
	return &end{in: x, out: y}, &end{in: y, out: x}
}

// half is one direction.
type half struct {
	mu       sync.Mutex
	buf      []byte
	closed   bool
	deadline time.Time
	wake     chan struct{} // closed and replaced at every change
}

func newHalf() *half { return &half{wake: make(chan struct{})} }

func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.wake)
	h.wake = make(chan struct{})
}

type end struct{ in, out *half }

func (e *end) Read(b []byte) (int, error) {
	for {
		e.in.mu.Lock()
		deadline, wake := e.in.deadline, e.in.wake
		if !deadline.IsZero() && !deadline.After(time.Now()) {
			e.in.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		}
		if n := copy(b, e.in.buf); n > 0 {
			e.in.buf = e.in.buf[n:]
			e.in.mu.Unlock()
			return n, nil
		}
		closed := e.in.closed
		e.in.mu.Unlock()
		if closed {
			return 0, io.EOF
		}
		var expired <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-wake:
		case <-expired:
		}
	}
}

func (e *end) Write(b []byte) (n int, err error) {
	e.out.change(func() {
		if e.out.closed {
			err = io.ErrClosedPipe
			return
		}
		e.out.buf = append(e.out.buf, b...)
		n = len(b)
	})
	return n, err
}

// Close ends both directions; the other end reads what is left, then io.EOF.
func (e *end) Close() error {
	e.in.change(func() { e.in.closed = true })
	e.out.change(func() { e.out.closed = true })
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.change(func() { e.in.deadline = t })
	return nil
}
func (e *end) SetDeadline(t time.Time) error    { return e.SetReadDeadline(t) }
func (e *end) SetWriteDeadline(time.Time) error { return nil }
func (e *end) LocalAddr() net.Addr              { return lineAddr{} }
func (e *end) RemoteAddr() net.Addr             { return lineAddr{} }

type lineAddr struct{}

func (lineAddr) Network() string { return "line" }
func (lineAddr) String() string  { return "in memory" }
