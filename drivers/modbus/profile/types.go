package profile

import (
	"strconv"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// Profile describes one device model, ready for use: parameters are filled
// in, every point is checked. It is immutable and may be shared.
type Profile struct {
	ID            string // name of its file; "" for one written inline without a base
	Vendor, Model string
	Kind          string // InfluxDB measurement of its devices
	Label         telemetry.Label
	Source        Source
	Unproven      []string // what a first read on site must settle
	Notes         []string
	Serial        Serial
	Limits        Limits
	UsedAt        []string      // kinds of plant it is found in
	Transport     []string      // rtu, tcp; none is not known
	Book          string        // how the maker's book counts its registers
	SharesUnit    bool          // another device on the bus may have its unit address
	Every         time.Duration // default period of its points
	Points        []Point       // in the file's order
}

// Point returns the point of that name.
func (p *Profile) Point(name string) (*Point, bool) {
	for i := range p.Points {
		if p.Points[i].Name == name {
			return &p.Points[i], true
		}
	}
	return nil, false
}

// PointNames returns the names of all points, in the file's order.
func (p *Profile) PointNames() []string {
	names := make([]string, len(p.Points))
	for i := range p.Points {
		names[i] = p.Points[i].Name
	}
	return names
}

// Source says where the facts of a profile come from.
type Source struct {
	Where      string
	Also       []string
	Confidence string // high, medium or low
	Note       string
}

// Serial holds a model's settings as it leaves the factory; zero values are
// not known.
type Serial struct {
	Baud     int
	DataBits int    `yaml:"data_bits"`
	Parity   string // none, even or odd
	StopBits int    `yaml:"stop_bits"`
	Unit     int    // unit address on the line
	Note     string
}

// Gaps says what a device does when a request covers registers it does not
// define.
type Gaps string

// The gap policies. Where nothing is known a request must not cover a gap.
const (
	GapsOK       Gaps = "ok"        // answers something for them
	GapsZeroFill Gaps = "zero-fill" // answers zero, when the request begins on a defined register
	GapsError    Gaps = "error"     // refuses the whole request
)

// Limits are what a model bears in one request and between requests.
type Limits struct {
	MaxRegisters    int           `yaml:"max_registers"` // in one request; loaded profiles: 1 to 125
	Gaps            Gaps          // loaded profiles: never empty
	Pause           time.Duration // least time between an answer and the next request; 0 is none beyond the line's
	ResponseTimeout time.Duration `yaml:"response_timeout"` // 0: the bus's own
	InFlight        int           `yaml:"in_flight"`        // requests at once, over Modbus TCP only: 1 to 16; loaded profiles: never 0
}

// Table is one of the four Modbus tables. Its number is the function code
// that reads it.
type Table uint8

// The four tables.
const (
	Coil     Table = 1
	Discrete Table = 2
	Holding  Table = 3
	Input    Table = 4
)

var tableNames = map[string]Table{"coil": Coil, "discrete": Discrete, "holding": Holding, "input": Input}

// String returns the name used in profiles.
func (t Table) String() string {
	for n, v := range tableNames {
		if v == t {
			return n
		}
	}
	return "table " + strconv.Itoa(int(t))
}

// IsBit reports whether the table holds single bits, not registers.
func (t Table) IsBit() bool { return t == Coil || t == Discrete }

// Type is how a point's words form its raw value.
type Type uint8

// The types. A register of named bits is a U16 with Bits.
const (
	Bit Type = iota + 1 // one coil or discrete input
	U16
	S16
	U32
	S32
	U64
	S64
	F32
	F64
	Text // Point.Length characters, two a register
)

var typeNames = map[string]Type{"bit": Bit, "u16": U16, "s16": S16, "u32": U32, "s32": S32, "u64": U64, "s64": S64, "f32": F32, "f64": F64, "bits": U16}

// String returns the name used in profiles; "string" for Text, whose length
// the point tells.
func (t Type) String() string {
	if t == Text {
		return "string"
	}
	for n, v := range typeNames {
		if v == t && n != "bits" {
			return n
		}
	}
	return "type " + strconv.Itoa(int(t))
}

// Width returns the type's number of bits; 0 for Text.
func (t Type) Width() uint {
	switch t {
	case Bit:
		return 1
	case U16, S16:
		return 16
	case U32, S32, F32:
		return 32
	case U64, S64, F64:
		return 64
	}
	return 0
}

// Signed reports whether the type is a two's complement integer.
func (t Type) Signed() bool { return t == S16 || t == S32 || t == S64 }

// IsFloat reports whether the type is IEEE 754.
func (t Type) IsFloat() bool { return t == F32 || t == F64 }

// Encoding says how the raw words mean something other than one plain number.
type Encoding string

// The encodings. Those marked string give a String point.
const (
	Plain           Encoding = ""
	LowByte         Encoding = "low-byte"           // only bits 0 to 7 of a U16 or S16 count
	HighByte        Encoding = "high-byte"          // only bits 8 to 15
	BitField        Encoding = "bit-field"          // written bit-field:a-b; bits Point.BitLow to BitHigh
	OneHot          Encoding = "one-hot"            // the number of the only bit set; none or several are invalid
	BCD             Encoding = "bcd"                // a decimal digit a nibble
	SignMagnitude   Encoding = "sign-magnitude"     // top bit is the sign of the rest
	Base10000       Encoding = "base-10000"         // U32 or U64: each register is four decimal digits
	IntPlusFraction Encoding = "int-plus-fraction"  // U32 or S32, then its fraction as F32 in the two registers after it
	HiLoVersion     Encoding = "hi-lo-byte-version" // string "high.low"
	HHMM            Encoding = "hhmm-decimal"       // string "12:30" from 1230
	UnixTime        Encoding = "unix-time"          // string, RFC 3339 in UTC, from seconds since 1970
	Days2000        Encoding = "days-since-2000"    // string "2006-01-02"
	DateTime6       Encoding = "datetime-6-bytes"   // string; year, month, day, hour, minute, second, a byte each, in 3 registers
	// DateTime3 is a string of 3 registers, high and low byte: month, day; year since 1900 (0 to 199), hour; minute, second.
	// Source: Schneider Electric 63230-500-225A2, appendix B, and FAQ FA296948, whose example it is: 0119 640B 063B is
	// 2000-01-25 11:06:59.
	DateTime3 Encoding = "datetime-3-registers"
)

// Span is a run of registers or bits that must come in one request.
type Span struct {
	Table   Table
	Address uint16 // zero-based
	Count   uint16
}

// Point is one measured quantity of a model: what it is, and the definition
// a device follows when it answers. The embedded Point says what comes out
// (canonical unit); the other fields say what is on the wire.
type Point struct {
	telemetry.Point

	Table      Table
	Address    uint16 // zero-based protocol address of the first word
	DocAddress string // the number the maker prints; "" is not told
	UnitOffset uint8  // it is read under the device's unit address plus this
	Type       Type
	Length     uint16 // characters of a Text
	Words      uint16 // registers (or bits) that the value itself takes
	WordLittle bool   // least significant register first
	ByteLittle bool   // the two bytes of each register are swapped
	Encoding   Encoding
	BitLow     uint // of a BitField
	BitHigh    uint

	// The value in SourceUnit is raw * Scale * ScaleFrom + Offset.
	Scale, Offset float64
	SourceUnit    string // as the device counts; what UnitFrom tells comes before it
	ScaleFrom     *ScaleFrom
	UnitFrom      *UnitFrom

	Validity *Validity
	Invalid  []Sentinel
	// WrapsAt is the raw value at which a Counter begins again at 0; 0 where
	// that is the full width of Type, or nothing is known.
	WrapsAt uint64
	// FrozenAfter is how long the value may stand still, bit for bit, before
	// it is doubted; 0 where it may stand for ever.
	FrozenAfter time.Duration

	Every  time.Duration // default period
	Access string        // ro or rw in the maker's book, for reference: we only read
	Note   string        // what a technician should know

	conv  conv // raw to canonical, exactly
	needs []Span
	at    conffile.Path // where it was written
}

// Needs returns every span that Decode looks at: the value's own words and
// those of the registers that tell its scale, unit or validity. The slice is
// shared: do not change it.
func (p *Point) Needs() []Span { return p.needs }

// ScaleFrom names a register that scales the value.
type ScaleFrom struct {
	Table   Table
	Address uint16
	Rule    string // pow10: times 10^register (signed); decimals: divided by 10^register; times: times the register
}

// UnitFrom names a register that tells the unit of the value.
type UnitFrom struct {
	Table   Table
	Address uint16
	// Units maps the register to a source unit of the point's dimension. With
	// any other code there is no value.
	Units map[int64]string

	conv map[int64]*conv
}

// Validity names a register that says whether the value is one. The register,
// masked by Mask, is looked up in the lists; what is in none means invalid.
type Validity struct {
	Table      Table
	Address    uint16
	Mask       uint16 // of a bit table: 1
	Good       []int64
	OverRange  []int64
	UnderRange []int64
}

// Sentinel is a raw value that is no value.
type Sentinel struct {
	Raw     string            // a number, nan, inf, -inf, negative, all-ones or max-positive (by width)
	Means   string            // invalid, over_range or under_range
	Quality telemetry.Quality `yaml:"-"` // Means as a quality

	match func(raw uint64) bool // raw as read, in the low bits of its width
}
