package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/goburrow/modbus"
)

// Timing is what a device's profile says of its haste. The zero Timing waits
// one second for an answer and rests nowhere.
type Timing struct {
	// Response is the longest time from the end of a request to the first
	// byte of its answer; on TCP, to the last. 0 means DefaultResponse.
	Response time.Duration
	// Pause is the least time between a transaction of the unit and the next one to it.
	Pause time.Duration
	// InFlight is how many requests may be under way over Modbus TCP, this
	// unit's and others' together, while one of this unit's is: 1 to 16; 0
	// means 1. On a line, and with a Pause, it is always 1.
	InFlight int
}

// mostInFlight is what MODBUS Messaging on TCP/IP V1.0b, 4.3.1.2, suggests as
// the most a server should be burdened with.
const mostInFlight = 16

// DefaultResponse is the response limit of a device whose profile names none:
// what MODBUS over Serial Line V1.02, 2.4.1, gives as typical.
const DefaultResponse = time.Second

// framing is RTU or MBAP: requests and their answers over an open stream.
type framing interface {
	// attach begins a new stream; exchange is given what it returns.
	attach(stream) stream
	exchange(context.Context, stream, *exchange) ([]byte, *Error)
}

// Bus is one serial line or one Modbus TCP endpoint. It may be used from any
// goroutine: calls made at once are served in their order, one after the other,
// or side by side where Timing.InFlight allows.
type Bus struct {
	gate    gate
	link    link
	framing framing // RTU's is used by one transaction at a time
	tcp     bool    // the packager is MBAP's
	trace   *trace
}

// errClosed is the cause of every failure after Close.
var errClosed = errors.New("the bus is closed")

func newBus(open func(context.Context) (stream, error), f func(*trace) framing, tcp bool) *Bus {
	t := new(trace)
	b := &Bus{framing: f(t), tcp: tcp, trace: t}
	b.link.opening, b.link.most = make(chan struct{}, 1), backoffMost
	b.link.open = func(ctx context.Context) (stream, error) {
		b.trace.count(func(c *Counters) { c.Attempts++ })
		s, err := open(ctx)
		if err != nil {
			return nil, err
		}
		b.trace.count(func(c *Counters) { c.Opens++ })
		return b.framing.attach(s), nil
	}
	return b
}

// Trace returns the last transactions, oldest first. They are copies.
func (b *Bus) Trace() []Transaction { return b.trace.last() }

// Counters returns what was counted so far.
func (b *Bus) Counters() Counters {
	b.trace.mu.Lock()
	defer b.trace.mu.Unlock()
	return b.trace.counts
}

// Close waits for the transactions under way, at most their deadlines, and
// releases the port. Afterwards every read fails with NotConnected.
func (b *Bus) Close() error {
	b.gate.enter(context.Background(), 1)
	defer b.gate.leave(1)
	return b.link.close()
}

// Reader reads one unit of a Bus. It has no method that changes anything.
// Addresses are those of the protocol, from 0. Data belongs to the caller.
// Every error is an *Error.
type Reader struct {
	bus      *Bus
	packager modbus.Packager
	timing   Timing
}

// reads is all of the library's client that is ever reached: it has no method
// that writes.
type reads interface {
	ReadCoils(address, quantity uint16) ([]byte, error)
	ReadDiscreteInputs(address, quantity uint16) ([]byte, error)
	ReadHoldingRegisters(address, quantity uint16) ([]byte, error)
	ReadInputRegisters(address, quantity uint16) ([]byte, error)
}

// Reader returns a reader of the unit: 1 to 247 on a serial line, 0 to 255
// over TCP, where 0 and 255 mean the endpoint itself.
func (b *Bus) Reader(unit byte, t Timing) *Reader {
	if t.Response <= 0 {
		t.Response = DefaultResponse
	}
	t.InFlight = min(max(t.InFlight, 1), mostInFlight)
	if !b.tcp || t.Pause > 0 {
		t.InFlight = 1
	}
	var p modbus.Packager
	if b.tcp {
		h := modbus.NewTCPClientHandler("") // only its packager is used
		h.SlaveId = unit
		p = h
	} else {
		h := modbus.NewRTUClientHandler("")
		h.SlaveId = unit
		p = h
	}
	return &Reader{bus: b, packager: p, timing: t}
}

// ReadCoils reads 1 to 2000 coils (function code 1), eight to a byte, the first in bit 0.
func (r *Reader) ReadCoils(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, reads.ReadCoils, address, quantity)
}

// ReadDiscreteInputs reads 1 to 2000 inputs (function code 2), eight to a byte, the first in bit 0.
func (r *Reader) ReadDiscreteInputs(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, reads.ReadDiscreteInputs, address, quantity)
}

// ReadHoldingRegisters reads 1 to 125 registers (function code 3), two bytes each, high byte first.
func (r *Reader) ReadHoldingRegisters(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, reads.ReadHoldingRegisters, address, quantity)
}

// ReadInputRegisters reads 1 to 125 registers (function code 4), two bytes each, high byte first.
func (r *Reader) ReadInputRegisters(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, reads.ReadInputRegisters, address, quantity)
}

// read runs one transaction, with ctx carried past the library, which knows
// none, by a sender of its own.
func (r *Reader) read(ctx context.Context, f func(c reads, a, q uint16) ([]byte, error), a, q uint16) ([]byte, error) {
	if int(a)+int(q) > 1<<16 {
		return nil, &Error{Kind: Refused, Code: 2}
	}
	data, err := f(modbus.NewClient2(r.packager, &sender{r.bus, r.timing, ctx}), a, q)
	if err == nil {
		return data, nil
	}
	var e *Error
	if errors.As(err, &e) {
		return nil, e
	}
	var x *modbus.ModbusError
	if errors.As(err, &x) {
		return nil, &Error{Kind: Refused, Code: x.ExceptionCode}
	}
	// The packager or the client refused what the transporter let pass: only
	// a quantity out of range, which no device would have answered either.
	return nil, &Error{Kind: Refused, Code: 3, Err: err}
}

// sender is the modbus.Transporter of one read.
type sender struct {
	bus    *Bus
	timing Timing
	ctx    context.Context
}

// Send implements modbus.Transporter. It refuses every function code that
// does not read. Over TCP it writes the transaction identifier into adu.
func (s *sender) Send(adu []byte) ([]byte, error) {
	x := exchange{request: request{adu: adu}, timing: s.timing}
	pdu := adu
	if s.bus.tcp {
		pdu = adu[mbapHeader-1:]
	}
	if len(pdu) < 6 || !readOnly(pdu[1]) {
		return nil, fmt.Errorf("refusing to send function code %d: this gateway only reads", pdu[1])
	}
	x.unit, x.function = pdu[0], pdu[1]
	x.address, x.quantity = binary.BigEndian.Uint16(pdu[2:]), binary.BigEndian.Uint16(pdu[4:])
	var frame []byte
	var err *Error
	if s.bus.gate.enter(s.ctx, s.timing.InFlight) {
		frame, err = s.bus.transact(s.ctx, &x)
		s.bus.record(&x, frame, err) // before leave: x may hold the line's buffer
		s.bus.gate.leave(s.timing.InFlight)
	} else {
		err = ctxError(s.ctx)
		s.bus.record(&x, nil, err)
	}
	if err != nil {
		return nil, err
	}
	return frame, nil
}

// transact runs one exchange, opening the link if need be. Where an old
// connection breaks before a byte of the answer has come (the peer closed it
// while idle, the adapter was replugged), or any before the request was sent or
// over an answer to another, it is reopened and asked once more.
func (b *Bus) transact(ctx context.Context, x *exchange) ([]byte, *Error) {
	for again := false; ; again = true {
		if ctx.Err() != nil {
			return nil, ctxError(ctx)
		}
		conn, err := b.link.get(ctx)
		if err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctxError(ctx)
			}
			return nil, &Error{Kind: NotConnected, Err: err}
		}
		frame, e := b.framing.exchange(ctx, conn.stream, x)
		switch {
		case e == nil:
			b.link.proved(conn)
			return frame, nil
		case !e.lost:
			if e.Kind != Canceled { // silence proves it too: the peer held it open
				b.link.proved(conn)
			}
			return nil, e
		}
		old := conn.used.Load() || x.start.IsZero() || errors.Is(e.Err, errUnframed)
		b.link.drop(conn, e)
		if !e.dead || !old || again {
			return nil, e
		}
		x.aside(x, nil, e)
	}
}

// record files the transaction in the trace, as it was on the line, and before
// it what else had to be sent for it.
func (b *Bus) record(x *exchange, frame []byte, e *Error) {
	for _, a := range x.asides {
		t := b.transaction(&a.exchange, a.frame, a.err)
		t.Aside = true
		b.trace.add(t)
	}
	if x.probe != nil {
		x = x.probe
	}
	b.trace.add(b.transaction(x, frame, e))
}

func (b *Bus) transaction(x *exchange, frame []byte, e *Error) Transaction {
	t := Transaction{
		Start: x.start, Unit: x.unit, Function: x.function, Address: x.address, Quantity: x.quantity,
		Request: x.adu, Answer: x.received, Dropped: x.dropped,
	}
	if t.Start.IsZero() { // never sent
		t.Start, t.Request = time.Now(), nil
	}
	if x.end.After(t.Start) {
		t.Took = x.end.Sub(t.Start)
	}
	switch {
	case e != nil:
		t.Kind, t.Note = e.Kind, e.Err.Error()
	case b.exception(frame) != 0:
		t.Kind, t.Code = Refused, b.exception(frame)
		t.Note = exceptionName(t.Code)
	}
	return t
}

// exception returns the exception code of an answer, 0 when it brings data.
func (b *Bus) exception(frame []byte) byte {
	if b.tcp {
		frame = frame[mbapHeader-1:]
	}
	if frame[1]&0x80 == 0 {
		return 0
	}
	return frame[2]
}
