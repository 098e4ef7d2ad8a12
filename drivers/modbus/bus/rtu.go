package bus

import (
	"context"
	"slices"
	"time"
)

// slack is allowed on top of every limit of a serial line: an FTDI adapter at
// its default latency_timer holds bytes back for 16 ms.
const slack = 20 * time.Millisecond

// fifo is how many characters an adapter may collect before it delivers any.
const fifo = 64

// maxRTU is the longest RTU frame.
const maxRTU = 256

// exchange is one transaction while it runs.
type exchange struct {
	request
	timing   Timing
	start    time.Time // the request was handed over
	end      time.Time // the last byte of the answer
	received []byte    // all bytes since start
	dropped  []byte    // what came before it and was nobody's, up to mostDropped
	probe    *exchange // sent in its place and failed
	asides   []aside   // what else was sent for it
}

// aside is a request sent on behalf of another: a probe that was answered, or
// a first attempt over a connection that proved dead.
type aside struct {
	exchange
	frame []byte
	err   *Error
}

// aside notes what was sent for x, and what came of it, for the trace.
func (x *exchange) aside(a *exchange, frame []byte, err *Error) {
	y := *a
	y.asides, y.probe = nil, nil
	y.adu, y.received, y.dropped = slices.Clone(a.adu), slices.Clone(a.received), slices.Clone(a.dropped)
	x.asides = append(x.asides, aside{y, frame, err})
	x.start, x.end, x.received = time.Time{}, time.Time{}, nil
	if a == x {
		x.dropped = nil
	}
}

// drop keeps what is thrown away before x is sent, for the trace.
func (x *exchange) drop(b []byte) {
	x.dropped = append(x.dropped, b[:min(len(b), mostDropped-len(x.dropped))]...)
}

// rtu speaks RTU frames over a stream and knows the state of the line.
type rtu struct {
	char  time.Duration // one character on the line; 0: not known (RTU over TCP)
	gap   time.Duration // t3.5
	echo  bool          // the adapter returns what we send
	past  bool          // the devices outlive us: before the first stream others may have asked them
	trace *trace

	busy  time.Time // the line was last seen or made busy then
	dirty bool      // after an error: the line must fall silent first
	// silent counts response limits in a row without a byte, since the time
	// beside it. Over TCP, when it is silentLimit and no answer is reckoned with
	// any more, the connection is taken for half open.
	silent int
	since  time.Time
	// late[unit] is until when an answer to a failed request may still come.
	late [256]time.Time
	// rest[unit] is when that unit's last transaction ended, for Timing.Pause.
	rest [256]time.Time
	// owed[unit] is what that unit was asked and did not answer; slow[unit] how
	// long after its request was given up the latest late answer came.
	owed [256]debts
	slow [256]time.Duration
	// opened is when the first stream came, where there is a past: answers to
	// whoever used the line before us may follow it.
	opened time.Time
	// inherits[unit]: such an answer came, so others may: it is probed first.
	inherits [256]bool
	// sent are the last requests: where something echoes, an echo may look like
	// an answer, when it comes late to another of them.
	sent [8][8]byte
	next int
	buf  [2 * maxRTU]byte
}

// attach forgets what a lost stream left behind; late answers stay possible.
func (r *rtu) attach(c stream) stream {
	r.busy, r.dirty, r.silent = time.Now(), false, 0
	if r.past {
		r.past, r.opened = false, r.busy
	}
	return c
}

// quiet is the silence that ends whatever is still being sent to us.
func (r *rtu) quiet() time.Duration { return r.gap + slack }

// exchange sends x.adu and waits for its answer, which it returns as a frame
// of its own. Where an older answer could be taken for it, a probe goes first;
// while that is not answered neither is x, which then says what became of the probe.
func (r *rtu) exchange(ctx context.Context, c stream, x *exchange) ([]byte, *Error) {
	stop := watch(ctx, c)
	defer stop()
	x.probe = nil
	if err := r.settle(ctx, c, x); err != nil {
		return nil, err
	}
	owed := &r.owed[x.unit]
	owed.forget(time.Now())
	if owed.full() {
		return nil, noReply("the device owes %d answers and is left alone until they can no longer come, or have", len(*owed))
	}
	for owed.owes(x.form()) || r.inherits[x.unit] { // again while probes are refused: each settles one
		p := &exchange{request: owed.probe(x.request), timing: x.timing, dropped: x.dropped}
		x.dropped = nil
		r.trace.count(func(c *Counters) { c.Probes++ })
		frame, err := r.once(ctx, c, p)
		if err != nil {
			x.probe = p
			return nil, err
		}
		r.inherits[x.unit] = false
		x.aside(p, frame, nil)
		if err := r.settle(ctx, c, x); err != nil {
			return nil, err
		}
	}
	return r.once(ctx, c, x)
}

// once is one request and its answer on a line that is ours. Its deadline is
// absolute: the request's line time, the response limit, the answer's line
// time, and slack; or the context's, if sooner.
func (r *rtu) once(ctx context.Context, c stream, x *exchange) ([]byte, *Error) {
	x.start = time.Now()
	c.SetWriteDeadline(x.start.Add(x.timing.Response + time.Second))
	if _, err := c.Write(x.adu); err != nil {
		r.dirty = true
		return nil, lostError("send", err, false)
	}
	copy(r.sent[r.next%len(r.sent)][:], x.adu)
	r.next++
	sent := x.start.Add(time.Duration(len(x.adu)) * r.char)
	r.busy = sent
	frame, err := r.receive(ctx, c, x, sent)
	if err != nil {
		x.end = time.Now()
	}
	r.rest[x.unit] = x.end
	if err != nil {
		r.dirty = r.dirty || len(x.received) > 0
		// What the limit allows may still come after damage; after a
		// time-out a device that is a little too slow still will. What was
		// damaged need not have been the answer: that is owed still.
		limit := sent.Add(x.timing.Response + slack)
		if err.Kind != Garbled {
			limit = x.end.Add(x.timing.Response)
		}
		if !err.lost {
			r.owe(x)
		}
		if limit.After(x.end) {
			r.late[x.unit] = limit
		}
		switch {
		case len(x.received) > 0:
			r.silent = 0
		case err.Kind == NoReply && r.char == 0 && ctx.Err() == nil:
			if r.silent++; r.silent == 1 {
				r.since = x.end
			}
			if r.silent >= silentLimit && x.end.Sub(r.since) >= reckoned(x.timing.Response) {
				err.lost = true
			}
		}
		return nil, err
	}
	r.silent = 0
	r.dirty, r.late[x.unit] = false, time.Time{}
	return frame, nil
}

// settled notes a sound frame that is not the answer asked for.
func (r *rtu) settled(frame []byte) {
	r.trace.count(func(c *Counters) { c.Late++ })
	r.late[frame[0]] = time.Time{}
	r.pay(frame)
}

// owe notes that x was given up.
func (r *rtu) owe(x *exchange) {
	r.owed[x.unit].add(x.form(), x.end, max(reckoned(x.timing.Response), 2*r.slow[x.unit]))
}

// pay takes the sound frame for what its unit owes, and reports whether it owed that.
func (r *rtu) pay(frame []byte) bool {
	given, was := r.owed[frame[0]].settle(frame)
	if was {
		r.slow[frame[0]] = time.Since(given)
	}
	return was
}

// receive collects bytes until they are the answer, cannot be, or time is up.
func (r *rtu) receive(ctx context.Context, c stream, x *exchange, sent time.Time) ([]byte, *Error) {
	size := 5 + x.dataBytes()
	limit := sent.Add(x.timing.Response + slack)
	first := limit.Add(time.Duration(min(size, fifo)) * r.char)
	whole := limit.Add(time.Duration(size) * r.char)
	b, skip := r.buf[:0], 0 // skip: echo and foreign frames before the answer
	for {
		deadline := whole
		if len(b) == skip && skip == 0 {
			deadline = first
		}
		if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
			deadline = d
		}
		if len(b) == cap(b) {
			return nil, garbled("more bytes than any answer has")
		}
		n, err := readUntil(ctx, c, b[len(b):cap(b)], deadline)
		b = b[:len(b)+n]
		x.received = b
		switch {
		case err == nil:
			x.end = time.Now()
			r.busy = x.end
		case !timedOut(err):
			return nil, lostError("receive", err, len(b) > 0)
		case ctx.Err() != nil && ctxError(ctx).Kind == Canceled:
			return nil, ctxError(ctx)
		case len(b) > skip:
			return nil, garbled("only %d of the answer's bytes came in time", len(b)-skip)
		case len(b) > len(x.adu) || len(b) > 0 && !r.echo:
			return nil, noReply("only answers of others within %v", x.timing.Response)
		default:
			return nil, noReply("nothing within %v", x.timing.Response)
		}
		if r.echo && skip == 0 {
			if len(b) < len(x.adu) {
				continue
			}
			if string(b[:len(x.adu)]) != string(x.adu) {
				return nil, garbled("the echo differs from what was sent: a collision, or echo: true on an adapter without one")
			}
			skip = len(x.adu)
		}
	frames:
		for {
			v, n, why := parseRTU(x.request, b[skip:])
			switch v {
			case answer:
				if trail := len(b) - skip - n; trail > 2 { // one or two are the glitch of a driver switching off
					return nil, garbled("%d bytes follow the answer", trail)
				}
				frame := append([]byte(nil), b[skip:skip+n]...)
				if r.echoes(frame) {
					return nil, garbled("an earlier request came back: something on the line echoes")
				}
				if frame[1]&0x80 != 0 && r.pay(frame) {
					// Whichever of those owed it refuses, it carries no value; one fewer stays owed.
					r.owe(x)
					return frame, nil
				}
				if r.pay(frame) { // an older request's, of the same form
					r.trace.count(func(c *Counters) { c.Late++ })
					skip += n
					continue
				}
				// In the order asked: what is older will not be answered any more.
				r.owed[x.unit] = nil
				return frame, nil
			case foreign:
				r.settled(b[skip : skip+n])
				skip += n
			case damaged:
				return nil, garbled("%s", why)
			case more:
				break frames
			}
		}
	}
}

// echoes reports whether the frame is one of the last requests. An answer can
// be alike only if it brings 17 to 24 bits from an address of 0300h to 03FFh
// that spell one; it is told as damage, as one that spells its own request is.
func (r *rtu) echoes(frame []byte) bool {
	return len(frame) == len(r.sent[0]) && slices.Contains(r.sent[:], [8]byte(frame))
}

// settle returns when the line is ours: silent, with no answer under way that
// could be taken for the one to x, the unit rested, t3.5 gone by.
func (r *rtu) settle(ctx context.Context, c stream, x *exchange) *Error {
	if p := x.timing.Pause; p > 0 && !sleepUntil(ctx, r.rest[x.unit].Add(p)) {
		return ctxError(ctx)
	}
	if err := r.outwait(ctx, c, x); err != nil {
		return err
	}
	most := time.Now().Add(x.timing.Response + slack)
	for {
		if !hold(ctx, c, r.busy.Add(r.gap)) {
			return ctxError(ctx)
		}
		n, err := c.flush(r.buf[:])
		x.drop(r.buf[:min(n, len(r.buf))])
		if err != nil {
			return lostError("flush", err, false)
		}
		if n == 0 {
			return nil
		}
		r.trace.count(func(c *Counters) { c.Stray += uint64(n) })
		r.busy = time.Now()
		if d, ok := ctx.Deadline(); r.busy.After(most) || ok && r.busy.After(d) {
			return errBabble()
		}
	}
}

// foretime is how long after the first opening an answer to whoever used the
// line before us, another gatewayd that was killed perhaps, is waited for: its
// limit, and a second for a device that is slower than it should be. A probe of
// each unit would cover still slower ones, but a device that does not know it
// would stay silent to us; so one follows only where such an answer came.
func foretime(t Timing) time.Duration { return t.Response + time.Second }

// errBabble is a line on which something does not stop sending: a stuck driver,
// another master, the wrong speed. It is waited for one response limit.
func errBabble() *Error { return garbled("the line does not fall silent, nothing could be asked") }

// outwait reads and drops until the line has been silent after an error, and
// until the late answer of this unit has come or can no longer be expected.
func (r *rtu) outwait(ctx context.Context, c stream, x *exchange) *Error {
	b := r.buf[:0]
	defer func() { r.trace.count(func(c *Counters) { c.Stray += uint64(len(b)) }) }()
	unit, fore := x.unit, r.opened.Add(foretime(x.timing))
	most := time.Now() // after it, a line that does not fall silent is not waited for
	for _, t := range []time.Time{r.late[unit], fore} {
		if t.After(most) {
			most = t
		}
	}
	most = most.Add(x.timing.Response + slack)
	for {
		until := r.late[unit]
		if fore.After(until) {
			until = fore
		}
		if r.dirty && r.busy.Add(r.quiet()).After(until) {
			until = r.busy.Add(r.quiet())
		}
		if d, ok := ctx.Deadline(); ok && d.Before(until) {
			until = d
		} else if !until.After(time.Now()) {
			r.dirty, r.late[unit] = false, time.Time{}
			return nil
		} else if time.Now().After(most) {
			return errBabble()
		}
		n, err := readUntil(ctx, c, b[len(b):cap(b)], until)
		if err != nil {
			if !timedOut(err) {
				return lostError("receive", err, false)
			}
			if ctx.Err() != nil {
				return ctxError(ctx)
			}
			continue
		}
		r.busy, r.dirty = time.Now(), true
		x.drop(b[len(b) : len(b)+n])
		b = b[:len(b)+n]
		if n, ok := soundFrame(b); ok && !r.echoes(b[:n]) {
			r.settled(b[:n])
			r.inherits[b[0]] = r.inherits[b[0]] || r.busy.Before(fore)
			b = r.buf[:copy(r.buf[:], b[n:])]
			continue
		}
		if len(b) == cap(b) {
			r.trace.count(func(c *Counters) { c.Stray += uint64(len(b)) })
			b = b[:0]
		}
	}
}
