package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
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
}

// DefaultResponse is the response limit of a device whose profile names none:
// what MODBUS over Serial Line V1.02, 2.4.1, gives as typical.
const DefaultResponse = time.Second

// framing is RTU or MBAP: one request and its answer over an open stream.
type framing interface {
	exchange(context.Context, stream, *exchange) ([]byte, *Error)
	reset()
}

// Bus is one serial line or one Modbus TCP endpoint. Its Readers are used one
// at a time; calls made at once are served one after the other. Trace,
// Counters and Close may be called from any goroutine.
type Bus struct {
	mu      sync.Mutex // held for a whole transaction; guards what follows
	link    link
	framing framing
	tcp     bool // the packager is MBAP's
	closed  bool

	trace *trace
}

// errClosed is the cause of every failure after Close.
var errClosed = errors.New("the bus is closed")

func newBus(open func(context.Context) (stream, error), f func(*trace) framing, tcp bool) *Bus {
	t := new(trace)
	return &Bus{link: link{open: open}, framing: f(t), tcp: tcp, trace: t}
}

// Trace returns the last transactions, oldest first. They are copies.
func (b *Bus) Trace() []Transaction { return b.trace.last() }

// Counters returns what was counted so far.
func (b *Bus) Counters() Counters {
	b.trace.mu.Lock()
	defer b.trace.mu.Unlock()
	return b.trace.counts
}

// Close waits for the transaction under way, at most its deadline, and
// releases the port. Afterwards every read fails with NotConnected.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.link.conn == nil {
		return nil
	}
	err := b.link.conn.Close()
	b.link.conn = nil
	return err
}

// Reader reads one unit of a Bus. It has no method that changes anything.
// Addresses are those of the protocol, from 0. Data belongs to the caller.
// Every error is an *Error.
type Reader struct {
	bus    *Bus
	client modbus.Client // reached through the four methods below, never handed out
	sender *sender
}

// Reader returns a reader of the unit: 1 to 247 on a serial line, 0 to 255
// over TCP, where 0 and 255 mean the endpoint itself.
func (b *Bus) Reader(unit byte, t Timing) *Reader {
	if t.Response <= 0 {
		t.Response = DefaultResponse
	}
	s := &sender{bus: b, timing: t}
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
	return &Reader{bus: b, client: modbus.NewClient2(p, s), sender: s}
}

// ReadCoils reads 1 to 2000 coils (function code 1), eight to a byte, the first in bit 0.
func (r *Reader) ReadCoils(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, r.client.ReadCoils, address, quantity)
}

// ReadDiscreteInputs reads 1 to 2000 inputs (function code 2), eight to a byte, the first in bit 0.
func (r *Reader) ReadDiscreteInputs(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, r.client.ReadDiscreteInputs, address, quantity)
}

// ReadHoldingRegisters reads 1 to 125 registers (function code 3), two bytes each, high byte first.
func (r *Reader) ReadHoldingRegisters(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, r.client.ReadHoldingRegisters, address, quantity)
}

// ReadInputRegisters reads 1 to 125 registers (function code 4), two bytes each, high byte first.
func (r *Reader) ReadInputRegisters(ctx context.Context, address, quantity uint16) ([]byte, error) {
	return r.read(ctx, r.client.ReadInputRegisters, address, quantity)
}

// read runs one transaction under the bus's lock, with ctx carried past the
// library, which knows none, by the sender.
func (r *Reader) read(ctx context.Context, f func(a, q uint16) ([]byte, error), a, q uint16) ([]byte, error) {
	if int(a)+int(q) > 1<<16 {
		return nil, &Error{Kind: Refused, Code: 2}
	}
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	r.sender.ctx = ctx
	data, err := f(a, q)
	r.sender.ctx = nil
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

// sender is the modbus.Transporter of one Reader.
type sender struct {
	bus    *Bus
	timing Timing
	ctx    context.Context // of the call under way; guarded by bus.mu
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
	frame, err := s.bus.transact(s.ctx, &x)
	s.bus.record(&x, frame, err)
	if err != nil {
		return nil, err
	}
	return frame, nil
}

// transact runs one exchange, opening the link if need be. An old connection
// that breaks before a byte of the answer has come (the peer closed it while
// idle, the adapter was replugged) is reopened and asked once more.
func (b *Bus) transact(ctx context.Context, x *exchange) ([]byte, *Error) {
	for again := false; ; again = true {
		if b.closed {
			return nil, &Error{Kind: NotConnected, Err: errClosed}
		}
		if ctx.Err() != nil {
			return nil, ctxError(ctx)
		}
		conn, opened, err := b.link.get(ctx)
		if err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctxError(ctx)
			}
			return nil, &Error{Kind: NotConnected, Err: err}
		}
		if opened {
			b.framing.reset()
			b.trace.count(func(c *Counters) { c.Opens++ })
		}
		frame, e := b.framing.exchange(ctx, conn, x)
		if e == nil || e.Kind == Refused {
			b.link.proved()
			return frame, e
		}
		old := b.link.used
		if e.lost {
			b.link.drop(e.Err)
		}
		if !e.dead || !old || again {
			return nil, e
		}
	}
}

// record files the transaction in the trace, as it was on the line.
func (b *Bus) record(x *exchange, frame []byte, e *Error) {
	if x.probe != nil {
		x = x.probe
	}
	t := Transaction{
		Start: x.start, Unit: x.unit, Function: x.function, Address: x.address, Quantity: x.quantity,
		Request: x.adu, Answer: x.received,
	}
	if t.Start.IsZero() {
		t.Start = time.Now() // never sent
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
	b.trace.add(t)
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
