package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Parity of a serial line.
type Parity byte

// The parities. Without one the standard asks for two stop bits; most devices use one.
const (
	ParityEven Parity = 'E'
	ParityOdd  Parity = 'O'
	ParityNone Parity = 'N'
)

// RTS says how the RS-485 driver is switched on for sending.
type RTS uint8

// RTSNone leaves it to the adapter. The others use the kernel's TIOCSRS485:
// RTS high, or low, while sending.
const (
	RTSNone RTS = iota
	RTSHigh
	RTSLow
)

// RTUOptions describe a serial line.
type RTUOptions struct {
	Port     string // path; a name under /dev/serial/by-id survives replugging
	Baud     int    // bits a second, 300 to 4000000
	Parity   Parity // 0 means even, the standard's default
	StopBits int    // 1 or 2; 0 means 1
	RS485    RTS
	Echo     bool // the adapter returns every byte sent; it is compared and stripped
}

// OpenRTU returns the Bus of a serial line. The port is opened, exclusively,
// by the first read, and again whenever it was lost: a missing port is not an
// error here but NotConnected there. An error means impossible options.
func OpenRTU(o RTUOptions) (*Bus, error) {
	if o.Parity == 0 {
		o.Parity = ParityEven
	}
	if o.StopBits == 0 {
		o.StopBits = 1
	}
	switch {
	case o.Port == "":
		return nil, errors.New("no serial port is named")
	case o.Baud < 300 || o.Baud > 4_000_000:
		return nil, fmt.Errorf("baud %d is outside 300 to 4000000", o.Baud)
	case o.Parity != ParityEven && o.Parity != ParityOdd && o.Parity != ParityNone:
		return nil, fmt.Errorf("parity %q is none of even, odd, none", o.Parity)
	case o.StopBits != 1 && o.StopBits != 2:
		return nil, fmt.Errorf("%d stop bits: 1 or 2", o.StopBits)
	}
	open := func(context.Context) (stream, error) {
		s, err := openPort(o)
		if err != nil {
			return nil, fmt.Errorf("open serial port %s: %w", o.Port, err)
		}
		return s, nil
	}
	b := newBus(open, func(t *trace) framing {
		return &rtu{char: o.CharTime(), gap: o.Gap(), echo: o.Echo, past: true, trace: t}
	}, false)
	b.link.most = portBackoffMost
	return b, nil
}

// CharTime is how long one character takes: start, 8 data bits, parity, stop.
func (o RTUOptions) CharTime() time.Duration {
	bits := 9 + max(o.StopBits, 1)
	if o.Parity != ParityNone {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(o.Baud)
}

// Gap is t3.5, the silence before a request: 3.5 characters, and fixed at
// 1.75 ms above 19200 baud (MODBUS over Serial Line V1.02, 2.5.1.1).
func (o RTUOptions) Gap() time.Duration {
	if o.Baud > 19200 {
		return 1750 * time.Microsecond
	}
	return o.CharTime() * 7 / 2
}

// TCPOptions describe an endpoint.
type TCPOptions struct {
	Address string // host:port; without a port 502 is meant
	RTU     bool   // RTU frames instead of Modbus TCP, as plain serial device servers speak
	// Dial replaces net.Dialer in tests; nil means TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// dialLimit bounds one attempt to connect; the context may end it sooner.
const dialLimit = 3 * time.Second

// tcpGap is the silence before a request in RTU over TCP, where the line's
// speed is the device server's secret: t3.5 at 9600 baud.
const tcpGap = 4 * time.Millisecond

// DialTCP returns the Bus of an endpoint, dialled by the first read and again
// whenever the connection was lost, with jittered back-off. An error means an
// impossible address.
func DialTCP(o TCPOptions) (*Bus, error) {
	if host, port, err := net.SplitHostPort(o.Address); err != nil {
		if _, notIP := netip.ParseAddr(o.Address); o.Address == "" || strings.ContainsAny(o.Address, ":[]") && notIP != nil {
			return nil, fmt.Errorf("address %q is not host:port", o.Address)
		}
		o.Address = net.JoinHostPort(o.Address, "502")
	} else if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
		return nil, fmt.Errorf("address %q is not host:port", o.Address)
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	open := func(ctx context.Context) (stream, error) {
		ctx, cancel := context.WithTimeout(ctx, dialLimit)
		defer cancel()
		c, err := o.Dial(ctx, "tcp", o.Address)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		return newSocket(c), nil
	}
	if o.RTU {
		return newBus(open, func(t *trace) framing { return &rtu{gap: tcpGap, past: true, trace: t} }, false), nil
	}
	return newBus(open, func(t *trace) framing { return newMBAP(t) }, true), nil
}

// socket makes a stream of a connection.
type socket struct{ net.Conn }

// flush drops what the kernel holds for us without waiting for more.
func (s socket) flush(b []byte) (dropped int, err error) {
	var more [512]byte
	rest := func() []byte { // never empty, for a read of nothing says nothing
		if dropped < len(b) {
			return b[dropped:]
		}
		return more[:]
	}
	sc, ok := s.Conn.(syscall.Conn)
	if !ok { // a pipe
		for {
			s.SetReadDeadline(time.Now().Add(time.Millisecond))
			n, err := s.Read(rest())
			dropped += n
			if err != nil {
				if timedOut(err) {
					err = nil
				}
				return dropped, err
			}
		}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	s.SetReadDeadline(time.Time{})
	rerr := raw.Read(func(fd uintptr) bool {
		for {
			var n int
			n, err = syscall.Read(int(fd), rest())
			if n > 0 {
				dropped += n
				continue
			}
			if err == syscall.EINTR {
				continue
			}
			if err == syscall.EAGAIN {
				err = nil
			} else if n == 0 && err == nil {
				err = io.EOF
			}
			return true
		}
	})
	if rerr != nil {
		err = rerr
	}
	return dropped, err
}
