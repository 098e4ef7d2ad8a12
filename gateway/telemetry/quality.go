package telemetry

import "strconv"

// Quality says how far a value can be believed. The codes are one ordered
// table, so the worst of several is the largest; they are part of the wire
// contract and never change their meaning. Codes under 30 carry a value
// ("uncertain" unless Good), codes from 30 carry none.
type Quality uint8

// The quality codes of docs/contract.md.
const (
	Good         Quality = 0  // the device answered and the value is plausible
	OutOfRange   Quality = 20 // answered, but outside the range the maker gives; the value is carried
	Frozen       Quality = 21 // answered, but has not moved for longer than its kind allows; the value is carried
	OverRange    Quality = 30 // the device says: above what it can measure; no value
	UnderRange   Quality = 31 // the device says: below what it can measure; no value
	Invalid      Quality = 40 // the device says: no value (sentinel, sensor fault)
	Refused      Quality = 50 // the device answered with a Modbus exception
	Garbled      Quality = 51 // an answer came but was damaged
	NoReply      Quality = 52 // no answer within the response limit
	NotConnected Quality = 53 // the bus itself could not be reached
)

// HasValue reports whether a reading of this quality carries a value.
func (q Quality) HasValue() bool { return q < 30 }

// Bad reports whether a reading of this quality must not be used as a value.
// Unknown codes from 30 on are bad.
func (q Quality) Bad() bool { return q >= 30 }

// Uncertain reports whether the value is carried but doubted. Unknown codes
// under 30 are uncertain.
func (q Quality) Uncertain() bool { return q > 0 && q < 30 }

// Worst returns the worse of the two.
func (q Quality) Worst(r Quality) Quality { return max(q, r) }

// String returns the short English name of the code, used in the API and logs.
func (q Quality) String() string {
	switch q {
	case Good:
		return "good"
	case OutOfRange:
		return "out of range"
	case Frozen:
		return "frozen"
	case OverRange:
		return "over range"
	case UnderRange:
		return "under range"
	case Invalid:
		return "invalid"
	case Refused:
		return "refused"
	case Garbled:
		return "garbled"
	case NoReply:
		return "no reply"
	case NotConnected:
		return "not connected"
	}
	if q.Uncertain() {
		return "uncertain " + strconv.Itoa(int(q))
	}
	return "bad " + strconv.Itoa(int(q))
}

// Clock says what a record's time stamp rests on.
type Clock uint8

// The clock codes of docs/contract.md, "Clock".
const (
	ClockTrusted   Clock = 0 // the system clock was synchronised
	ClockMonotonic Clock = 1 // corrected afterwards from the monotonic clock
	ClockHub       Clock = 2 // corrected from the hub's time
	ClockUnsure    Clock = 3 // nothing to go by: the order is right, the instant may not be
)
