package telemetry

import (
	"math"
	"strconv"
)

// Class is the type of a point's values. A (kind, point) pair has one class
// for ever, in every profile.
type Class uint8

// The three classes.
const (
	Float Class = iota + 1
	Int
	String
)

// String returns float, int or string, as profiles and the API write it.
func (c Class) String() string {
	switch c {
	case Float:
		return "float"
	case Int:
		return "int"
	case String:
		return "string"
	}
	return "class " + strconv.Itoa(int(c))
}

// Value is one value of one of the three classes; the zero Value is no value.
// Values are comparable with ==. A Float is always finite.
type Value struct {
	class Class
	num   uint64 // float bits, or the int
	str   string
}

// FloatValue returns a Float. NaN and infinities are never values: for them
// the zero Value is returned, and the caller tells the quality instead.
func FloatValue(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	if f == 0 {
		f = 0 // no negative zero: it would compare unequal to zero
	}
	return Value{class: Float, num: math.Float64bits(f)}
}

// IntValue returns an Int.
func IntValue(i int64) Value { return Value{class: Int, num: uint64(i)} }

// StringValue returns a String.
func StringValue(s string) Value { return Value{class: String, str: s} }

// Class returns the value's class; 0 for the zero Value.
func (v Value) Class() Class { return v.class }

// IsZero reports whether v is no value.
func (v Value) IsZero() bool { return v.class == 0 }

// Float returns a Float or Int as float64; 0 otherwise.
func (v Value) Float() float64 {
	switch v.class {
	case Float:
		return math.Float64frombits(v.num)
	case Int:
		return float64(int64(v.num))
	}
	return 0
}

// Int returns an Int; 0 otherwise.
func (v Value) Int() int64 {
	if v.class != Int {
		return 0
	}
	return int64(v.num)
}

// Str returns a String; "" otherwise.
func (v Value) Str() string { return v.str }

// String formats the value for people and logs, without a unit.
func (v Value) String() string {
	switch v.class {
	case Float:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case Int:
		return strconv.FormatInt(v.Int(), 10)
	case String:
		return v.str
	}
	return ""
}
