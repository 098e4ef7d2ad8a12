package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

// stream is what frames travel on. Read honours its deadline.
type stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// flush throws away what was received and not read, and says how many bytes it was.
	flush() (int, error)
}

// Back-off between attempts to open: the first follows the loss at once.
const (
	backoffFirst = 250 * time.Millisecond
	backoffMost  = 15 * time.Second
)

// link keeps one stream open. While it waits for the next attempt every
// request fails at once, so a missing port costs no time and no CPU.
type link struct {
	open     func(context.Context) (stream, error)
	conn     stream
	used     bool // an answer has come over conn
	failures int  // attempts since the last answer
	retryAt  time.Time
	last     error // why the last attempt failed
}

// get returns the open stream, opening it if it is due.
func (l *link) get(ctx context.Context) (conn stream, opened bool, err error) {
	if l.conn != nil {
		return l.conn, false, nil
	}
	if now := time.Now(); now.Before(l.retryAt) {
		return nil, false, fmt.Errorf("%w (next attempt in %v)", l.last, l.retryAt.Sub(now).Round(10*time.Millisecond))
	}
	conn, err = l.open(ctx)
	if err != nil {
		if ctx.Err() == nil || !errors.Is(ctx.Err(), context.Canceled) {
			l.fail(err)
		}
		return nil, false, err
	}
	l.conn, l.used = conn, false
	return conn, true, nil
}

// proved notes that an answer came: the link is sound.
func (l *link) proved() { l.used, l.failures = true, 0 }

// drop closes the stream. One that had worked may be reopened at once, and so
// may one that did not, the first time; then it is backed off from.
func (l *link) drop(why error) {
	if l.conn == nil {
		return
	}
	l.conn.Close() // its error adds nothing: the stream is lost already
	l.conn = nil
	l.fail(why)
	if l.used || l.failures == 1 {
		l.retryAt = time.Time{}
	}
}

func (l *link) fail(why error) {
	wait := min(backoffFirst<<min(l.failures, 10), backoffMost)
	l.failures++
	l.last = why
	l.retryAt = time.Now().Add(wait/2 + rand.N(wait/2+1))
}

// timedOut tells a deadline from a lost stream.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// lostError describes a stream that broke.
func lostError(what string, err error, answered bool) *Error {
	switch {
	case errors.Is(err, io.EOF):
		err = errors.New("the other end hung up")
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		err = fmt.Errorf("the port is gone: %w", err)
	}
	return &Error{Kind: NotConnected, Err: fmt.Errorf("%s: %w", what, err), lost: true, dead: !answered}
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
