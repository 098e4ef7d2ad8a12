package bus

import "encoding/binary"

// request is what an answer is checked against.
type request struct {
	unit, function    byte
	address, quantity uint16
	adu               []byte // as sent
}

// dataBytes is the byte count a right answer must announce.
func (r request) dataBytes() int {
	if r.function <= 2 {
		return (int(r.quantity) + 7) / 8
	}
	return 2 * int(r.quantity)
}

// readOnly reports whether the function code is one of the four that read.
func readOnly(function byte) bool { return function >= 1 && function <= 4 }

// verdict is what a look at the received bytes says.
type verdict uint8

const (
	more    verdict = iota // not enough bytes yet
	answer                 // the first n bytes are the answer, or the exception, asked for
	foreign                // the first n bytes are a sound frame, but another's
	damaged                // the bytes cannot become an answer
)

// parseRTU looks at the bytes received since the request went out. It needs no
// silence to find a frame's end: the length follows from the function code and
// the byte count. why is set when the verdict is damaged.
func parseRTU(r request, b []byte) (v verdict, n int, why string) {
	if len(b) < 2 {
		return more, 0, ""
	}
	if len(b) >= len(r.adu) && string(b[:len(r.adu)]) == string(r.adu) {
		return damaged, 0, "the request came back: the adapter echoes (set echo: true) or no device took it off the line"
	}
	mine := b[0] == r.unit
	switch {
	case mine && b[1] == r.function|0x80, !mine && b[1] > 0x80 && readOnly(b[1]&^0x80):
		n = 5
	case mine && b[1] == r.function, !mine && readOnly(b[1]):
		if len(b) < 3 {
			return more, 0, ""
		}
		if mine && int(b[2]) != r.dataBytes() {
			// A late answer to another request of ours, or damage.
			if v, n, _ := parseOther(b); v != damaged {
				return v, n, ""
			}
			return damaged, 0, "wrong byte count"
		}
		n = 5 + int(b[2])
	case mine && readOnly(b[1]&^0x80):
		return parseOther(b)
	case mine:
		return damaged, 0, "wrong function code"
	default:
		return damaged, 0, "wrong unit"
	}
	if len(b) < n {
		return more, n, ""
	}
	if !crcOK(b[:n]) {
		return damaged, 0, "CRC does not match"
	}
	if !mine {
		return foreign, n, ""
	}
	return answer, n, ""
}

// parseOther takes a frame of the right unit and another read function: the
// late answer to an earlier request, if it is sound.
func parseOther(b []byte) (verdict, int, string) {
	n := 5
	if b[1]&0x80 == 0 {
		if len(b) < 3 {
			return more, 0, ""
		}
		n += int(b[2])
	}
	if len(b) < n {
		return more, n, ""
	}
	if !crcOK(b[:n]) {
		return damaged, 0, "CRC does not match"
	}
	return foreign, n, ""
}

// soundFrame returns the length of the CRC-true answer that b begins with, if
// it is one.
func soundFrame(b []byte) (n int, ok bool) {
	if len(b) < 5 {
		return 0, false
	}
	n = 5
	if readOnly(b[1]) {
		n += int(b[2])
	} else if !readOnly(b[1] &^ 0x80) {
		return 0, false
	}
	if len(b) < n || !crcOK(b[:n]) {
		return 0, false
	}
	return n, true
}

// mbapHeader is transaction, protocol, length and unit.
const mbapHeader = 7

// parseMBAP looks at the bytes of a TCP connection that are not yet consumed.
// With answer the first n are one whole frame, whosever it is; damaged means
// that the stream has lost its framing and the connection is of no more use.
func parseMBAP(b []byte) (v verdict, n int, why string) {
	if len(b) < 6 {
		return more, 0, ""
	}
	if binary.BigEndian.Uint16(b[2:]) != 0 {
		return damaged, 0, "not Modbus TCP (protocol identifier is not 0)"
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < 3 || length > 254 {
		return damaged, 0, "impossible length in the Modbus TCP header"
	}
	n = 6 + length
	if len(b) < n {
		return more, n, ""
	}
	return answer, n, ""
}

// checkPDU compares the answer's unit, function and byte count with the
// request. pdu begins with the function code and holds nothing after the data.
func checkPDU(r request, unit byte, pdu []byte) string {
	switch {
	case unit != r.unit:
		return "wrong unit"
	case string(pdu) == string(r.adu[mbapHeader:]):
		return "the request came back: whatever is at the other end only echoes"
	case pdu[0] == r.function|0x80:
		if len(pdu) != 2 {
			return "exception of wrong length"
		}
	case pdu[0] != r.function:
		return "wrong function code"
	case int(pdu[1]) != r.dataBytes() || len(pdu) != 2+r.dataBytes():
		return "wrong byte count"
	}
	return ""
}

// crcTable holds the remainders of CRC-16/MODBUS (polynomial 0xA001, reflected).
var crcTable = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0xA001
			} else {
				c >>= 1
			}
		}
		t[i] = c
	}
	return t
}()

func crc16(b []byte) uint16 {
	c := uint16(0xFFFF)
	for _, x := range b {
		c = c>>8 ^ crcTable[byte(c)^x]
	}
	return c
}

// crcOK reports whether b ends in its own CRC, low byte first.
func crcOK(b []byte) bool {
	n := len(b) - 2
	return n > 0 && crc16(b[:n]) == uint16(b[n])|uint16(b[n+1])<<8
}
