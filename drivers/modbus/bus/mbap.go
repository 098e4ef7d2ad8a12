package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// silentLimit is after how many response limits in a row without a single byte
// a connection is taken for half open and dialled anew.
const silentLimit = 3

// mbap speaks Modbus TCP: requests go out as they come, answers find theirs by
// the transaction identifier, in any order. An answer that nobody waits for any
// more is counted and dropped. Nothing but its framing guards a stream without
// a CRC, so whatever puts that in doubt ends the connection.
type mbap struct {
	trace *trace
	last  atomic.Uint32
	rest  [256]time.Time // of units with a Pause; those are alone on the bus
}

func newMBAP(t *trace) *mbap {
	m := &mbap{trace: t}
	m.last.Store(rand.Uint32())
	return m
}

// id returns the identifier of a new transaction. Those of requests in flight
// together differ in both bytes, so no damage to one of them makes another.
func (m *mbap) id() uint16 { return uint16(m.last.Add(1)) * 0x0101 }

// attach begins a new connection.
func (m *mbap) attach(c stream) stream { return &wire{stream: c, trace: m.trace} }

// unframed is a Garbled that ends the connection.
func unframed(format string, a ...any) *Error {
	e := garbled(format, a...)
	e.lost = true
	return e
}

// exchange sends x.adu, with a transaction identifier of its own written into
// it, and returns the answer as a frame of its own.
func (m *mbap) exchange(ctx context.Context, c stream, x *exchange) ([]byte, *Error) {
	if x.timing.Pause > 0 {
		if !sleepUntil(ctx, m.rest[x.unit].Add(x.timing.Pause)) {
			return nil, ctxError(ctx)
		}
		defer func() { m.rest[x.unit] = x.end }()
	}
	binary.BigEndian.PutUint16(x.adu, m.id())
	x.start = time.Now()
	return c.(*wire).ask(ctx, x)
}

// wire is one connection. Whoever waits for an answer reads it: of those in
// flight one reads for all, the others wait to be told, and the one that has
// what it waited for leaves the reading to the next. So a request that is alone
// costs no change of goroutine, which would be most of its price; and nobody
// reads when nothing is in flight: what comes then, an answer too late or the
// peer's end, is found by the next request.
type wire struct {
	stream
	trace *trace

	mu     sync.Mutex // guards everything below; never held while reading or writing
	calls  []*call    // in flight, oldest first
	reader *call      // whose goroutine reads; nil: nobody's
	buf    []byte     // received, not yet a whole frame
	reads  uint64     // how often something was received
	silent int        // response limits in a row without a byte
	judged time.Time  // when silent was last raised
	broken error      // why the connection is of no more use
	chunk  [512]byte  // the reader's own
}

// call is a request in flight.
type call struct {
	request
	reads uint64 // the wire's when it was sent
	sent  bool   // it waits for its answer now
	over  bool   // the following are set
	frame []byte // the answer
	err   *Error
	heard []byte        // what spoke against it
	at    time.Time     // when the answer or the error came
	told  chan struct{} // of one: it is over, or is to read; made when another reads
}

// tell wakes whoever waits for the call.
func (c *call) tell() {
	if c.told != nil {
		select {
		case c.told <- struct{}{}:
		default: // told already
		}
	}
}

// failed returns why the connection is of no more use, nil while it is.
func (w *wire) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// ask sends x and waits for its answer, for the response limit or the context.
func (w *wire) ask(ctx context.Context, x *exchange) ([]byte, *Error) {
	c := &call{request: x.request}
	w.mu.Lock()
	if w.broken != nil {
		defer w.mu.Unlock()
		x.end = time.Now()
		return nil, lostError("send", w.broken, false)
	}
	c.reads = w.reads
	w.calls = append(w.calls, c)
	w.mu.Unlock()

	deadline := x.start.Add(x.timing.Response)
	w.SetWriteDeadline(deadline)
	_, err := w.Write(x.adu)
	w.mu.Lock()
	if err != nil {
		defer w.mu.Unlock()
		w.remove(c)
		x.end = time.Now()
		return nil, lostError("send", err, false)
	}
	c.sent = true
	if w.reader == nil {
		w.reader = c
	} else {
		c.told = make(chan struct{}, 1)
	}
	w.mu.Unlock()

	if c.told != nil {
		w.wait(ctx, c, x, deadline)
	}
	w.read(ctx, c, x, deadline)
	x.end, x.received = c.at, c.heard
	if c.err == nil {
		x.received = c.frame
	}
	return c.frame, c.err
}

// wait returns when the call is over, or when it is this goroutine's turn to read.
func (w *wire) wait(ctx context.Context, c *call, x *exchange, deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-c.told:
	case <-timer.C:
		w.giveUp(c, x.start, noReply("nothing within %v", x.timing.Response))
	case <-ctx.Done():
		w.giveUp(c, x.start, ctxError(ctx))
	}
}

// read reads for all until c is over, if it is c's turn, and passes the turn on.
func (w *wire) read(ctx context.Context, c *call, x *exchange, deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reader != c {
		return // over: by another's reading, or given up while waiting
	}
	if !c.over {
		stop := watch(ctx, w.stream)
		defer stop()
	}
	for !c.over {
		w.mu.Unlock()
		n, err := readUntil(ctx, w.stream, w.chunk[:], deadline)
		w.mu.Lock()
		switch {
		case n > 0:
			w.reads++
			w.silent = 0
			w.buf = append(w.buf, w.chunk[:n]...)
			w.deliver()
		case !timedOut(err):
			w.fail(err)
		case c.over:
		case ctx.Err() != nil:
			w.end(c, x.start, ctxError(ctx))
		case !time.Now().Before(deadline):
			w.end(c, x.start, noReply("nothing within %v", x.timing.Response))
		} // otherwise the deadline was still the one that ended another's reading
	}
	w.reader = nil
	for _, next := range w.calls {
		if next.sent {
			w.reader = next
			next.tell()
			return
		}
	}
}

// giveUp ends a call that has waited long enough, unless it has just ended.
func (w *wire) giveUp(c *call, start time.Time, why *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.over {
		w.end(c, start, why)
	}
}

// end ends a call that brought no answer in its time.
func (w *wire) end(c *call, start time.Time, why *Error) {
	w.remove(c)
	c.over, c.at, c.err = true, time.Now(), why
	if why.Kind == Canceled {
		return
	}
	if w.mine(c) {
		c.heard = slices.Clone(w.buf)
		c.err = unframed("only %d bytes of a frame came in time", len(w.buf))
	}
	// Calls that waited side by side are one silence.
	if w.reads == c.reads && !start.Before(w.judged) {
		w.judged = c.at
		if w.silent++; w.silent >= silentLimit {
			c.err.lost = true
		}
	}
}

// mine reports whether what was received begins, or may begin, the answer to c.
func (w *wire) mine(c *call) bool {
	return len(w.buf) == 1 || len(w.buf) > 1 && binary.BigEndian.Uint16(w.buf) == c.id()
}

func (c *call) id() uint16 { return binary.BigEndian.Uint16(c.adu) }

func (w *wire) remove(c *call) {
	if i := slices.Index(w.calls, c); i >= 0 {
		w.calls = slices.Delete(w.calls, i, i+1)
	}
}

// finish ends a call with an answer or an error.
func (w *wire) finish(c *call, frame []byte, err *Error, heard []byte) {
	w.remove(c)
	c.over, c.frame, c.err, c.heard, c.at = true, frame, err, heard, time.Now()
	c.tell()
}

// fail ends every call in flight: the connection is of no more use.
func (w *wire) fail(err error) {
	w.broken = err
	for len(w.calls) > 0 {
		c := w.calls[0]
		half := w.mine(c)
		e := lostError("receive", err, half)
		var heard []byte
		if half {
			heard = slices.Clone(w.buf)
		}
		w.finish(c, nil, e, heard)
	}
}

// errUnframed is what the others in flight are told when one answer has put
// the framing in doubt.
var errUnframed = errors.New("the connection was given up over another answer")

// deliver hands out the whole frames; one that puts the framing in doubt ends the connection.
func (w *wire) deliver() {
	used := 0
	defer func() { w.buf = w.buf[:copy(w.buf, w.buf[used:])] }()
	for {
		rest := w.buf[used:]
		v, n, why := parseMBAP(rest)
		if v == more {
			return
		}
		var c *call
		if i := slices.IndexFunc(w.calls, func(c *call) bool { return c.id() == binary.BigEndian.Uint16(rest) }); i >= 0 {
			c = w.calls[i]
		}
		if v == damaged && c == nil && len(w.calls) > 0 {
			c = w.calls[0] // whose it is cannot be told; the oldest has waited longest
		}
		heard := rest
		switch {
		case v == damaged:
		case c == nil:
			w.trace.late(rest[:n])
			used += n
			continue
		default:
			heard = rest[:n]
			if why = checkPDU(c.request, rest[6], rest[mbapHeader:n]); why != "" {
				break
			}
			if v, _, what := parseMBAP(rest[n:]); v == damaged {
				why = "what follows the answer is " + what
				break
			}
			w.finish(c, slices.Clone(rest[:n]), nil, nil)
			used += n
			continue
		}
		if c != nil {
			w.finish(c, nil, unframed("%s", why), slices.Clone(heard))
		}
		used = len(w.buf)
		w.buf, used = w.buf[:0], 0
		w.fail(errUnframed)
		return
	}
}
