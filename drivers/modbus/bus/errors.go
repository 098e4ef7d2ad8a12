package bus

import (
	"errors"
	"fmt"
)

// Kind says how a transaction failed.
type Kind uint8

// The kinds of failure. They correspond one to one to the telemetry qualities
// of the same names; Canceled means that the caller gave up and nothing is
// known about the device.
const (
	Refused      Kind = iota + 1 // the device answered with a Modbus exception
	Garbled                      // something came, but no sound answer
	NoReply                      // nothing came within the limit
	NotConnected                 // the port or the peer could not be reached, or was lost
	Canceled                     // the context was cancelled
)

// String returns the kind as the trace and the logs print it.
func (k Kind) String() string {
	switch k {
	case 0:
		return "ok"
	case Refused:
		return "refused"
	case Garbled:
		return "garbled"
	case NoReply:
		return "no reply"
	case NotConnected:
		return "not connected"
	case Canceled:
		return "canceled"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is a transaction that brought no data. Every error of a Reader is one.
type Error struct {
	Kind Kind
	Code byte  // Modbus exception code when Kind is Refused
	Err  error // what happened, in words

	lost bool // the connection cannot be used any further
	dead bool // lost before a byte of the answer came
}

// Error says what happened, with the exception's name where there is one.
func (e *Error) Error() string {
	if e.Kind == Refused {
		return fmt.Sprintf("refused: exception %d (%s)", e.Code, exceptionName(e.Code))
	}
	return e.Kind.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause, nil for an exception.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of a Reader's error, 0 for nil and for any other error.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func garbled(format string, a ...any) *Error {
	return &Error{Kind: Garbled, Err: fmt.Errorf(format, a...)}
}

func noReply(format string, a ...any) *Error {
	return &Error{Kind: NoReply, Err: fmt.Errorf(format, a...)}
}

// exceptionName names the codes of MODBUS Application Protocol V1.1b3, section 7.
func exceptionName(code byte) string {
	switch code {
	case 1:
		return "illegal function"
	case 2:
		return "illegal data address"
	case 3:
		return "illegal data value"
	case 4:
		return "device failure"
	case 5:
		return "acknowledge"
	case 6:
		return "device busy"
	case 8:
		return "memory parity error"
	case 10:
		return "gateway path unavailable"
	case 11:
		return "gateway target did not respond"
	}
	return "unknown"
}
