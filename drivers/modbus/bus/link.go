package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// stream is what frames travel on. Read honours its deadline.
type stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// flush throws away what was received and not read, and says how many bytes
	// it was; the first of them are left in b.
	flush(b []byte) (int, error)
}

// Back-off between attempts to open: the first follows the loss at once.
// They double, so a port or peer that is back is found after at most twice the
// time it was away, and never later than backoffMost; a local port, which costs
// nothing to look for, never later than portBackoffMost.
const (
	backoffFirst    = 250 * time.Millisecond
	backoffMost     = 15 * time.Second
	portBackoffMost = 3 * time.Second
)

// link keeps one stream open. While it waits for the next attempt every
// request fails at once, so a missing port costs no time and no CPU.
type link struct {
	open    func(context.Context) (stream, error)
	most    time.Duration // between two attempts
	opening chan struct{} // of one: whoever is opening

	mu       sync.Mutex // guards everything below; never held while opening
	conn     *connection
	closed   bool
	failures int // attempts since the other end was last there
	retryAt  time.Time
	last     error // why the last attempt failed
}

// connection is an open stream.
type connection struct {
	stream
	used atomic.Bool // a transaction over it has ended, answered or not, without losing it
}

// failer is a stream that notices by itself that it was lost.
type failer interface{ failed() error }

// get returns the open stream, opening it if it is due.
func (l *link) get(ctx context.Context) (*connection, error) {
	select {
	case l.opening <- struct{}{}:
		defer func() { <-l.opening }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c, err := l.current(); c != nil || err != nil {
		return c, err
	}
	s, err := l.open(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			l.fail(err)
		}
		return nil, err
	}
	if l.closed {
		s.Close()
		return nil, errClosed
	}
	l.conn = &connection{stream: s}
	return l.conn, nil
}

// current returns the open stream; neither it nor an error means that it is
// time to open it.
func (l *link) current() (*connection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.conn != nil {
		f, ok := l.conn.stream.(failer)
		if !ok || f.failed() == nil {
			return l.conn, nil
		}
		l.discard(f.failed(), errors.Is(f.failed(), errUnframed))
	}
	if now := time.Now(); now.Before(l.retryAt) {
		return nil, fmt.Errorf("%w (next attempt in %v)", l.last, l.retryAt.Sub(now).Round(10*time.Millisecond))
	}
	return nil, nil
}

// proved notes that the connection outlived a transaction: the other end is there.
func (l *link) proved(c *connection) {
	c.used.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = 0
}

// drop closes the stream, unless that was done already.
func (l *link) drop(c *connection, e *Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == c {
		l.discard(e.Err, e.Kind != NotConnected)
	}
}

// discard closes the stream. One that had worked may be reopened at once, and
// so may one that did not, the first time; then it is backed off from. One that
// we gave up, over what came or over silence, says nothing against the other
// end: to back off from it would make its other units not connected too.
func (l *link) discard(why error, ours bool) {
	if ours || l.conn.used.Load() {
		l.failures = 0
	}
	l.conn.Close() // its error adds nothing: the stream is lost already
	l.conn = nil
	l.fail(why)
	if l.failures == 1 {
		l.retryAt = time.Time{}
	}
}

// close ends the link for good.
func (l *link) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn == nil {
		return nil
	}
	err := l.conn.Close()
	l.conn = nil
	return err
}

// fail notes a failure and when to try again; l.mu is held.
func (l *link) fail(why error) {
	wait := min(backoffFirst<<min(l.failures, 10), l.most)
	l.failures++
	l.last = why
	l.retryAt = time.Now().Add(wait/2 + rand.N(wait/2+1))
}

// timedOut tells a deadline from a lost stream.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// lostError describes a stream that broke.
func lostError(what string, err error, answered bool) *Error {
	kind := NotConnected
	switch {
	case errors.Is(err, errUnframed):
		kind = Garbled
	case errors.Is(err, io.EOF):
		err = errors.New("the other end hung up")
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		err = fmt.Errorf("the port is gone: %w", err)
	}
	return &Error{Kind: kind, Err: fmt.Errorf("%s: %w", what, err), lost: true, dead: !answered}
}

// sleepUntil waits for t or the context; it reports whether t was reached.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleeper is a stream whose short silences are waited for by the kernel's
// clock: Go's timers end up to a millisecond late on an idle machine.
type sleeper interface{ sleep(time.Duration) }

// mostHeld is the longest silence during which a cancellation is not noticed.
const mostHeld = 15 * time.Millisecond

// hold waits for t as sleepUntil does, as exactly as the stream can.
func hold(ctx context.Context, c stream, t time.Time) bool {
	s, ok := c.(sleeper)
	if !ok {
		return sleepUntil(ctx, t)
	}
	for d := time.Until(t); d > 0 && ctx.Err() == nil; d = time.Until(t) {
		if d > mostHeld {
			sleepUntil(ctx, t.Add(-mostHeld))
		} else {
			s.sleep(d)
		}
	}
	return ctx.Err() == nil
}

// ctxError is what a transaction ends with when its context ended it.
func ctxError(ctx context.Context) *Error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{Kind: Canceled, Err: context.Cause(ctx)}
	}
	return noReply("the poll's time was up")
}

// watch makes a cancellation interrupt reads of c; call the result when done.
func watch(ctx context.Context, c stream) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
}

// readUntil reads once before the deadline; with err == nil n is at least 1.
func readUntil(ctx context.Context, c stream, b []byte, deadline time.Time) (n int, err error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	if ctx.Err() != nil { // after the deadline is set: watch fires only once
		return 0, os.ErrDeadlineExceeded
	}
	n, err = c.Read(b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	if n > 0 {
		err = nil // what came counts; an error will come again
	}
	return n, err
}
