package plan

import "time"

// Line says what a transaction costs on a bus: Fixed for any, PerByte for
// each byte of data. Make one with RTU or TCP.
type Line struct {
	Fixed   time.Duration
	PerByte time.Duration
	// Silence is the part of Fixed that goes by before the request. A pause
	// that the device wants runs meanwhile.
	Silence time.Duration
}

// DefaultTurnaround is what a device is taken to need before it answers, when
// nothing better is known.
const DefaultTurnaround = 20 * time.Millisecond

// RTU returns the costs of a serial line. A character has a start bit, 8 data
// bits, perhaps a parity bit and stop bits: 10 or 11 bits. turnaround is the
// time from the end of a request to the beginning of its answer; the silence by
// which the device knows that the request has ended is in it. The silence of 3.5
// characters before each request is 1.75 ms above 19200 baud (MODBUS over Serial
// Line V1.02, 2.5.1.1).
func RTU(baud int, parity bool, stopBits int, turnaround time.Duration) Line {
	bits := 9 + max(1, stopBits)
	if parity {
		bits++
	}
	char := time.Duration(bits) * time.Second / time.Duration(max(1, baud))
	silence := 35 * char / 10
	if baud > 19200 {
		silence = 1750 * time.Microsecond
	}
	return Line{Fixed: turnaround + silence + (rtuRequest+rtuAnswer)*char, PerByte: char, Silence: silence}
}

// Bytes of a read request, and of its answer beside the data.
const (
	rtuRequest = 8
	rtuAnswer  = 5
)

// TCP returns the costs of a network: the round trip is everything, bytes are
// free.
func TCP(roundTrip time.Duration) Line { return Line{Fixed: roundTrip} }

// Time is what one transaction takes.
func (l Line) Time(r Request) time.Duration {
	return l.Fixed + time.Duration(r.Bytes())*l.PerByte
}

// Bytes is how many bytes of data the answer to the span carries.
func (s Span) Bytes() int {
	if s.Table.isBit() {
		return (int(s.Count) + 7) / 8
	}
	return 2 * int(s.Count)
}

// Poll is what all of the requests take one after the other, with the pause
// the device wants between two.
func (l Line) Poll(requests []Request, pause time.Duration) time.Duration {
	sum := max(0, pause-l.Silence) * time.Duration(max(0, len(requests)-1))
	for _, r := range requests {
		sum += l.Time(r)
	}
	return sum
}

// Load is a poll that returns.
type Load struct {
	Poll  time.Duration // bus time of one
	Every time.Duration // its period
}

// Share returns the part of the bus's time that the loads take: above 1 they
// cannot all keep their periods.
func Share(loads []Load) float64 {
	share := 0.0
	for _, l := range loads {
		if l.Every > 0 {
			share += float64(l.Poll) / float64(l.Every)
		}
	}
	return share
}
