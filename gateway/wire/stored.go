package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"luquan/gateway/telemetry"
)

// Kind says what a record is.
type Kind uint8

// The kinds of records. The numbers stand in the stored form.
const (
	Reading  Kind = 1 // a group of a device was polled
	Gap      Kind = 2 // records are declared lost
	EpochEnd Kind = 3 // how an earlier epoch ended
)

// String returns reading, gap or epoch end.
func (k Kind) String() string {
	switch k {
	case Reading:
		return "reading"
	case Gap:
		return "gap"
	case EpochEnd:
		return "epoch end"
	}
	return "kind " + strconv.Itoa(int(k))
}

const (
	// MaxLine is the most bytes of one line, without its newline.
	MaxLine = 60 << 10
	// MaxEpoch is the largest epoch: 53 bits, so that it survives a float64.
	MaxEpoch = 1<<53 - 1

	gapMeasurement   = "gateway_gap"
	epochMeasurement = "gateway_epoch"

	storedVersion = 1
	rawVersion    = 2 // the same with what the clocks showed in place of the stamp
	storedHeader  = 21
	// tailRoom is what AppendLine may add to head and fields.
	tailRoom = len(" ,clock=3i,epoch=9007199254740991i,seq=9223372036854775807i -9223372036854775808")
)

// Stamp is when a stored record was true and by which clock.
type Stamp struct {
	Time  int64           // nanoseconds since 1970 UTC
	Clock telemetry.Clock // what Time rests on
	Mono  time.Duration   // monotonic clock since boot at that moment; 0: not known
	// Raw says that it is no stamp yet but what the clocks showed at the poll:
	// Time the system's, Clock what that rested on (gateway/edge/stamp). A
	// record must get its stamp before it can become a line.
	Raw bool
}

// Store returns the stored form of a sample: what the board's queue keeps
// until AppendLine gives the line. mono is the monotonic clock since boot at
// s.Time. Newlines in string values become spaces. A value that comes with a
// bad quality is left out. An error means that the sample breaks the contract
// (a name, a class, more than MaxLine) and names what does.
func Store(s telemetry.Sample, site, gateway string, clock telemetry.Clock, mono time.Duration) ([]byte, error) {
	if !telemetry.ValidKind(s.Kind) || s.Kind == gapMeasurement || s.Kind == epochMeasurement {
		return nil, fmt.Errorf("wire: kind %q of device %q may not name a measurement", s.Kind, s.Device)
	}
	if !telemetry.ValidName(s.Device) {
		return nil, fmt.Errorf("wire: device name %q must be of [a-z0-9-]", s.Device)
	}
	if s.Group < 0 {
		return nil, fmt.Errorf("wire: device %q: group %d is negative", s.Device, s.Group)
	}
	b, err := begin(Reading, s.Kind, site, gateway, Stamp{Time: s.Time.UnixNano(), Clock: clock, Mono: mono}, room(s))
	if err != nil {
		return nil, err
	}
	b = append(append(b, ",device="...), s.Device...)
	for i, t := range s.Tags {
		if err := CheckTag(t.Key, t.Value); err != nil {
			return nil, fmt.Errorf("wire: device %q: %w", s.Device, err)
		}
		if i > 0 && s.Tags[i-1].Key >= t.Key {
			return nil, fmt.Errorf("wire: device %q: tags are not sorted or %q comes twice", s.Device, t.Key)
		}
		b = append(append(append(b, ','), t.Key...), '=')
		b = appendTagValue(b, t.Value)
	}
	b = endHead(b)
	bad := 0
	var seen seen
	for i := range s.Readings {
		r := &s.Readings[i]
		if !telemetry.ValidPoint(r.Point) || seen.twice(s.Readings, i) {
			return nil, fmt.Errorf("wire: device %q: point name %q is not allowed or comes twice", s.Device, r.Point)
		}
		if r.Quality.HasValue() && !r.Value.IsZero() {
			b = append(append(b, r.Point...), '=')
			b = append(appendValue(b, r.Value), ',')
		}
		if r.Quality != telemetry.Good {
			b = append(append(b, r.Point...), "_q="...)
			b = append(strconv.AppendUint(b, uint64(r.Quality), 10), "i,"...)
		}
		if r.Quality.Bad() {
			bad++
		}
	}
	b = appendInt(b, "status=", int64(s.Status))
	b = appendInt(b, ",group=", int64(s.Group))
	if bad > 0 {
		b = appendInt(b, ",bad_points=", int64(bad))
	}
	return end(b)
}

// room is about what a sample takes: names, values of usual length, head and tail.
func room(s telemetry.Sample) int {
	n := 256
	for i := range s.Readings {
		n += len(s.Readings[i].Point) + 14
	}
	return n
}

// seen finds a name that comes twice in a list of readings. It holds places in
// the list by the hash of their names, probed linearly: a map of strings, made
// anew for every record, would cost more than all the rest of Store.
type seen struct {
	fixed [1024]uint32 // place + 1
	table []uint32
}

// twice notes the name at place i, the places before it being noted already,
// and reports whether it stands there before.
func (s *seen) twice(list []telemetry.Reading, i int) bool {
	if i == 0 {
		s.table = s.fixed[:]
		for 2*len(list) > len(s.table) {
			s.table = make([]uint32, 2*len(s.table))
		}
	}
	name := list[i].Point
	h := uint32(2166136261) // FNV-1a
	for k := range len(name) {
		h = (h ^ uint32(name[k])) * 16777619
	}
	for at := int(h); ; at++ {
		at &= len(s.table) - 1
		switch p := s.table[at]; {
		case p == 0:
			s.table[at] = uint32(i + 1)
			return false
		case list[p-1].Point == name:
			return true
		}
	}
}

// StoreGap returns the stored form of a declaration of loss, stamped g.To.
func StoreGap(g telemetry.Gap, site, gateway string, clock telemetry.Clock, mono time.Duration) ([]byte, error) {
	if g.LostEpoch == 0 || g.LostEpoch > MaxEpoch || g.First == 0 || g.Last < g.First || g.Last > math.MaxInt64 {
		return nil, fmt.Errorf("wire: gap of epoch %d, seq %d to %d is no range", g.LostEpoch, g.First, g.Last)
	}
	b, err := begin(Gap, gapMeasurement, site, gateway, Stamp{Time: g.To.UnixNano(), Clock: clock, Mono: mono}, 224)
	if err != nil {
		return nil, err
	}
	b = endHead(b)
	b = appendInt(b, "first=", int64(g.First))
	b = appendInt(b, ",last=", int64(g.Last))
	b = appendInt(b, ",lost_epoch=", int64(g.LostEpoch))
	b = appendInt(b, ",from=", g.From.UnixNano())
	b = appendInt(b, ",to=", g.To.UnixNano())
	b = append(b, ",reason="...)
	return end(appendString(b, g.Reason))
}

// StoreEpochEnd returns the stored form of how an earlier epoch ended, stamped at.
func StoreEpochEnd(e telemetry.EpochEnd, site, gateway string, at time.Time, clock telemetry.Clock, mono time.Duration) ([]byte, error) {
	if e.Ended == 0 || e.Ended > MaxEpoch || e.Last > math.MaxInt64 {
		return nil, fmt.Errorf("wire: end of epoch %d at seq %d is out of range", e.Ended, e.Last)
	}
	b, err := begin(EpochEnd, epochMeasurement, site, gateway, Stamp{Time: at.UnixNano(), Clock: clock, Mono: mono}, 160)
	if err != nil {
		return nil, err
	}
	b = endHead(b)
	b = appendInt(b, "ended=", int64(e.Ended))
	b = appendInt(b, ",last=", int64(e.Last))
	b = append(b, ",reason="...)
	return end(appendString(b, e.Reason))
}

// StampOf returns the kind and the stamp of a stored record.
func StampOf(stored []byte) (Kind, Stamp, error) {
	if len(stored) < storedHeader || stored[0] != storedVersion && stored[0] != rawVersion {
		return 0, Stamp{}, fmt.Errorf("wire: stored record of %d bytes is not of version %d or %d", len(stored), storedVersion, rawVersion)
	}
	return Kind(stored[1]), Stamp{
		Clock: telemetry.Clock(stored[2]),
		Time:  int64(binary.LittleEndian.Uint64(stored[3:])),
		Mono:  time.Duration(binary.LittleEndian.Uint64(stored[11:])),
		Raw:   stored[0] == rawVersion,
	}, nil
}

// WithStamp returns a copy of a stored record with another stamp, or, when
// it is Raw, with what the clocks showed in its place. It is for a record that
// was never published.
func WithStamp(stored []byte, s Stamp) ([]byte, error) {
	b := bytes.Clone(stored)
	return b, PutStamp(b, s)
}

// PutStamp is WithStamp in place, for a record that nobody else has yet.
func PutStamp(stored []byte, s Stamp) error {
	if _, _, err := StampOf(stored); err != nil {
		return err
	}
	putStamp(stored, s)
	return nil
}

// AppendLine appends the record's final line, without a newline, to dst: the
// same line for the same arguments, always, at most MaxLine bytes. That of a
// record without a stamp is for people: it has the system's clock at the poll,
// and clock=3 if that rested on nothing; what is published may differ.
func AppendLine(dst, stored []byte, epoch, seq uint64) ([]byte, error) {
	_, s, err := StampOf(stored)
	if err != nil {
		return dst, err
	}
	if s.Raw {
		s.Raw = false
		if s.Clock < telemetry.ClockUnsure {
			s.Clock = telemetry.ClockTrusted
		}
	}
	return AppendLineAt(dst, stored, s, epoch, seq)
}

// AppendLineAt is AppendLine for a record whose stamp is kept apart from it.
func AppendLineAt(dst, stored []byte, s Stamp, epoch, seq uint64) ([]byte, error) {
	if _, _, err := StampOf(stored); err != nil {
		return dst, err
	}
	if s.Raw || s.Clock > telemetry.ClockUnsure {
		return dst, fmt.Errorf("wire: epoch %d seq %d has no stamp yet", epoch, seq)
	}
	if epoch == 0 || epoch > MaxEpoch || seq == 0 || seq > math.MaxInt64 {
		return dst, fmt.Errorf("wire: epoch %d seq %d is out of range", epoch, seq)
	}
	n := storedHeader + int(binary.LittleEndian.Uint16(stored[19:]))
	if n >= len(stored) {
		return dst, fmt.Errorf("wire: stored record of %d bytes ends inside its head", len(stored))
	}
	dst = append(dst, stored[storedHeader:n]...)
	dst = append(append(dst, ' '), stored[n:]...)
	if s.Clock != telemetry.ClockTrusted {
		dst = appendInt(dst, ",clock=", int64(s.Clock))
	}
	dst = appendInt(dst, ",epoch=", int64(epoch))
	dst = append(appendInt(dst, ",seq=", int64(seq)), ' ')
	return strconv.AppendInt(dst, s.Time, 10), nil
}

// CheckTag reports why a device may not have this tag, or nil. The key is
// area, system or asset; the value is neither empty nor over 256 bytes and
// holds no backslash and no control character, which line protocol cannot carry.
func CheckTag(key, value string) error {
	if key != "area" && key != "system" && key != "asset" {
		return fmt.Errorf("tag %q is not one of area, system, asset", key)
	}
	if value == "" || len(value) > 256 || !utf8.ValidString(value) {
		return fmt.Errorf("tag %s must be 1 to 256 bytes of UTF-8", key)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r == '\\' || r < ' ' || r == 0x7f }) {
		return fmt.Errorf("tag %s: %q has a backslash or a control character; leave it out", key, value)
	}
	return nil
}

// begin starts a stored record: header, measurement and the two common tags.
func begin(k Kind, measurement, site, gateway string, s Stamp, room int) ([]byte, error) {
	if !telemetry.ValidName(site) || !telemetry.ValidName(gateway) {
		return nil, fmt.Errorf("wire: site %q and gateway %q must be of [a-z0-9-]", site, gateway)
	}
	if s.Clock > telemetry.ClockUnsure {
		return nil, fmt.Errorf("wire: clock code %d is unknown", s.Clock)
	}
	b := make([]byte, storedHeader, storedHeader+room)
	b[1] = byte(k)
	putStamp(b, s)
	b = append(b, measurement...)
	b = append(append(b, ",site="...), site...)
	return append(append(b, ",gateway="...), gateway...), nil
}

func putStamp(b []byte, s Stamp) {
	b[0] = storedVersion
	if s.Raw {
		b[0] = rawVersion
	}
	b[2] = byte(s.Clock)
	binary.LittleEndian.PutUint64(b[3:], uint64(s.Time))
	binary.LittleEndian.PutUint64(b[11:], uint64(s.Mono))
}

// endHead notes where the head ends. A head is far under 64 KiB: its names
// have 63 bytes and its three tags 256.
func endHead(b []byte) []byte {
	binary.LittleEndian.PutUint16(b[19:], uint16(len(b)-storedHeader))
	return b
}

// end refuses what AppendLine could make longer than MaxLine.
func end(b []byte) ([]byte, error) {
	if n := len(b) - storedHeader + tailRoom; n > MaxLine {
		return nil, fmt.Errorf("wire: record of up to %d bytes is over the %d of one line; poll fewer points in one group", n, MaxLine)
	}
	return b, nil
}

func appendInt(b []byte, key string, i int64) []byte {
	return append(strconv.AppendInt(append(b, key...), i, 10), 'i')
}

// appendValue writes a field's value; the zero Value has none and is a bug of the caller.
func appendValue(b []byte, v telemetry.Value) []byte {
	switch v.Class() {
	case telemetry.Float:
		return appendFloat(b, v.Float())
	case telemetry.Int:
		return append(strconv.AppendInt(b, v.Int(), 10), 'i')
	case telemetry.String:
		return appendString(b, v.Str())
	}
	panic("BUG: wire: value of " + v.Class().String())
}

// appendFloat writes f, which is finite, shortest and always with a point or
// an exponent: without one readers of line protocol may take it for an int.
func appendFloat(b []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-5 || a >= 1e15) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	n := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if bytes.IndexByte(b[n:], '.') < 0 {
		b = append(b, ".0"...)
	}
	return b
}

// appendString writes a quoted string. One record is one line, so what would
// break it becomes a space; bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = append(b, ' ')
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

func appendTagValue(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c == ',' || c == '=' || c == ' ' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return b
}
