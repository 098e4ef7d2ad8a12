package bus

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// silentLimit is after how many transactions in a row without a single byte a
// connection is taken for half open and dialled anew.
const silentLimit = 3

// mbap speaks Modbus TCP. Bytes that arrive after a time-out stay in buf, so
// the stream keeps its framing, and are dropped by their transaction identifier.
// Nothing but its framing guards a stream without a CRC, so whatever puts that
// in doubt ends the connection.
type mbap struct {
	trace  *trace
	id     uint16 // of the last request; the packagers' own would collide between units
	buf    []byte
	silent int
	rest   [256]time.Time
	space  [1024]byte
}

func newMBAP(t *trace) *mbap { return &mbap{trace: t, id: uint16(rand.Uint32())} }

func (m *mbap) reset() { m.buf, m.silent = m.space[:0], 0 }

// unframed is a Garbled that ends the connection.
func unframed(format string, a ...any) *Error {
	e := garbled(format, a...)
	e.lost = true
	return e
}

// exchange sends x.adu, with a transaction identifier of its own written into
// it, and returns the answer as a frame of its own.
func (m *mbap) exchange(ctx context.Context, c stream, x *exchange) ([]byte, *Error) {
	stop := watch(ctx, c)
	defer stop()
	if p := x.timing.Pause; p > 0 && !sleepUntil(ctx, m.rest[x.unit].Add(p)) {
		return nil, ctxError(ctx)
	}
	m.id++
	binary.BigEndian.PutUint16(x.adu, m.id)
	x.start = time.Now()
	deadline := x.start.Add(x.timing.Response)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	defer func() {
		if x.end.IsZero() {
			x.end = time.Now()
		}
		m.rest[x.unit] = x.end
	}()
	c.SetWriteDeadline(deadline)
	if _, err := c.Write(x.adu); err != nil {
		return nil, lostError("send", err, false)
	}
	heard := false
	for {
		for {
			v, n, why := parseMBAP(x.request, m.buf)
			if v == more {
				break
			}
			if v == damaged {
				x.received = append([]byte(nil), m.buf...)
				return nil, unframed("%s", why)
			}
			frame := append([]byte(nil), m.buf[:n]...)
			m.buf = m.space[:copy(m.space[:], m.buf[n:])]
			if v == foreign {
				m.trace.count(func(c *Counters) { c.Late++ })
				continue
			}
			x.received = frame
			if why := checkPDU(x.request, frame[6], frame[mbapHeader:]); why != "" {
				return nil, unframed("%s", why)
			}
			if v, _, why := parseMBAP(x.request, m.buf); v == damaged {
				return nil, unframed("what follows the answer is %s", why)
			}
			return frame, nil
		}
		n, err := readUntil(ctx, c, m.buf[len(m.buf):cap(m.buf)], deadline)
		m.buf = m.buf[:len(m.buf)+n]
		switch {
		case err == nil:
			heard, m.silent = true, 0
			x.end = time.Now()
			continue
		case !timedOut(err):
			return nil, lostError("receive", err, heard)
		case ctx.Err() != nil && ctxError(ctx).Kind == Canceled:
			return nil, ctxError(ctx)
		}
		x.end = time.Now()
		x.received = append([]byte(nil), m.buf...)
		var e *Error
		if len(m.buf) > 0 {
			e = unframed("only %d bytes of a frame came in time", len(m.buf))
		} else {
			e = noReply("nothing within %v", x.timing.Response)
		}
		if !heard {
			if m.silent++; m.silent >= silentLimit {
				e.lost = true
			}
		}
		return nil, e
	}
}
