package wire

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"luquan/gateway/telemetry"
)

// parseLine fills r from r.Line. On error r keeps what was understood and the
// caller must not use it.
func parseLine(r *Record, site, gateway string) error {
	line := string(r.Line)
	if len(line) > MaxLine {
		return fmt.Errorf("line of %d bytes is over %d", len(line), MaxLine)
	}
	if !utf8.ValidString(line) {
		return fmt.Errorf("line is not UTF-8")
	}
	head, rest, ok := cutUnescaped(line, ' ')
	if !ok {
		return fmt.Errorf("line has no fields")
	}
	measurement, tags, _ := cutUnescaped(head, ',')
	if !telemetry.ValidKind(measurement) {
		return fmt.Errorf("measurement %q is not a kind", short(measurement))
	}
	s := &r.Sample
	s.Kind = measurement
	if err := parseTags(s, tags); err != nil {
		return err
	}
	if s.Site != site || s.Gateway != gateway {
		return fmt.Errorf("line of %s/%s in a payload of %s/%s", short(s.Site), short(s.Gateway), site, gateway)
	}
	var f fields
	rest, err := f.parse(rest)
	if err != nil {
		return err
	}
	stamp, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return fmt.Errorf("time stamp %q is no integer of nanoseconds", short(rest))
	}
	s.Time = time.Unix(0, stamp).UTC()
	if c := f.take("clock", 0, int64(telemetry.ClockUnsure), false); f.err == nil {
		s.Clock = telemetry.Clock(c)
	}
	s.Epoch = uint64(f.take("epoch", 1, MaxEpoch, true))
	s.Seq = uint64(f.take("seq", 1, math.MaxInt64, true))
	if f.err != nil {
		return f.err
	}
	if s.Epoch != r.Epoch || s.Seq != r.Seq {
		return fmt.Errorf("line says epoch %d seq %d where the header has %d and %d", s.Epoch, s.Seq, r.Epoch, r.Seq)
	}
	switch measurement {
	case gapMeasurement:
		r.Kind = Gap
		return parseGap(r, &f)
	case epochMeasurement:
		r.Kind = EpochEnd
		return parseEpochEnd(r, &f)
	}
	r.Kind = Reading
	return parseReadings(s, &f)
}

func parseTags(s *telemetry.Record, tags string) error {
	seen := map[string]bool{}
	for tags != "" {
		var tag string
		tag, tags, _ = cutUnescaped(tags, ',')
		k, v, ok := cutUnescaped(tag, '=')
		v = unescapeTag(v)
		if !ok || v == "" || seen[k] {
			return fmt.Errorf("tag %q has no value or comes twice", short(tag))
		}
		seen[k] = true
		switch k {
		case "site":
			s.Site = v
		case "gateway":
			s.Gateway = v
		case "device":
			s.Device = v
		default:
			if err := CheckTag(k, v); err != nil {
				return err
			}
			s.Tags = append(s.Tags, telemetry.Tag{Key: k, Value: v})
		}
	}
	return nil
}

func parseGap(r *Record, f *fields) error {
	g := &r.Gap
	g.First = uint64(f.take("first", 1, math.MaxInt64, true))
	g.Last = uint64(f.take("last", 1, math.MaxInt64, true))
	g.LostEpoch = uint64(f.take("lost_epoch", 1, MaxEpoch, true))
	g.From = time.Unix(0, f.take("from", math.MinInt64, math.MaxInt64, true)).UTC()
	g.To = time.Unix(0, f.take("to", math.MinInt64, math.MaxInt64, true)).UTC()
	g.Reason = f.takeString("reason")
	if f.err == nil && g.Last < g.First {
		return fmt.Errorf("gap from seq %d to %d is no range", g.First, g.Last)
	}
	return f.err
}

func parseEpochEnd(r *Record, f *fields) error {
	r.End.Ended = uint64(f.take("ended", 1, MaxEpoch, true))
	r.End.Last = uint64(f.take("last", 0, math.MaxInt64, true))
	r.End.Reason = f.takeString("reason")
	return f.err
}

func parseReadings(s *telemetry.Record, f *fields) error {
	if !telemetry.ValidName(s.Device) {
		return fmt.Errorf("device %q is not a name", short(s.Device))
	}
	s.Status = telemetry.Quality(f.take("status", 0, 255, true))
	s.Group = int(f.take("group", 0, math.MaxInt32, true))
	badPoints := f.take("bad_points", 0, math.MaxInt32, false)
	if f.err != nil {
		return f.err
	}
	index := map[string]int{}
	reading := func(point string) (*telemetry.Reading, error) {
		if !telemetry.ValidPoint(point) {
			return nil, fmt.Errorf("field %q may not name a point", short(point))
		}
		i, ok := index[point]
		if !ok {
			i = len(s.Readings)
			index[point] = i
			s.Readings = append(s.Readings, telemetry.Reading{Point: point})
		}
		return &s.Readings[i], nil
	}
	for _, x := range f.list {
		if strings.HasPrefix(x.key, "gateway_") {
			continue // columns of a later version: no point may be named so
		}
		point, isQuality := strings.CutSuffix(x.key, "_q")
		r, err := reading(point)
		if err != nil {
			return err
		}
		if !isQuality {
			r.Value = x.value
			continue
		}
		if q := x.value.Int(); x.value.Class() != telemetry.Int || q < 0 || q > 255 {
			return fmt.Errorf("field %s is no quality code", x.key)
		} else {
			r.Quality = telemetry.Quality(q)
		}
	}
	bad := int64(0)
	for _, r := range s.Readings {
		if r.Quality.Bad() {
			bad++
			if !r.Value.IsZero() {
				return fmt.Errorf("point %s carries a value and is %s", r.Point, r.Quality)
			}
		}
	}
	if bad != badPoints {
		return fmt.Errorf("bad_points is %d where %d points are bad", badPoints, bad)
	}
	return nil
}

// fields are the fields of one line in their order. take and takeString
// remove one; the first thing that went wrong stays in err.
type fields struct {
	list []field
	err  error
}

type field struct {
	key   string
	value telemetry.Value
}

// parse reads the fields and returns what follows them.
func (f *fields) parse(s string) (rest string, err error) {
	seen := map[string]bool{}
	for {
		key, after, ok := strings.Cut(s, "=")
		if !ok || !fieldKey(key) {
			return "", fmt.Errorf("field %q is not name=value", short(s))
		}
		if seen[key] {
			return "", fmt.Errorf("field %s comes twice", key)
		}
		seen[key] = true
		v, after, err := parseValue(after)
		if err != nil {
			return "", fmt.Errorf("field %s: %w", key, err)
		}
		f.list = append(f.list, field{key, v})
		switch {
		case strings.HasPrefix(after, ","):
			s = after[1:]
		case strings.HasPrefix(after, " "):
			return after[1:], nil
		default:
			return "", fmt.Errorf("after field %s comes %q, not a comma or a time stamp", key, short(after))
		}
	}
}

func fieldKey(s string) bool {
	return s != "" && len(s) <= 65 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// pull removes a field; the zero Value when there is none.
func (f *fields) pull(key string) telemetry.Value {
	for i, x := range f.list {
		if x.key == key {
			f.list = append(f.list[:i], f.list[i+1:]...)
			return x.value
		}
	}
	return telemetry.Value{}
}

func (f *fields) take(key string, lo, hi int64, must bool) int64 {
	v := f.pull(key)
	if v.IsZero() && !must {
		return 0
	}
	if v.Class() != telemetry.Int || v.Int() < lo || v.Int() > hi {
		if f.err == nil {
			f.err = fmt.Errorf("field %s is missing or no integer from %d to %d", key, lo, hi)
		}
		return 0
	}
	return v.Int()
}

func (f *fields) takeString(key string) string {
	v := f.pull(key)
	if v.Class() != telemetry.String && f.err == nil {
		f.err = fmt.Errorf("field %s is missing or no string", key)
	}
	return v.Str()
}

// parseValue reads one value and returns what follows it.
func parseValue(s string) (telemetry.Value, string, error) {
	if strings.HasPrefix(s, `"`) {
		str, rest, ok := unquote(s[1:])
		if !ok {
			return telemetry.Value{}, "", fmt.Errorf("string has no closing quote")
		}
		return telemetry.StringValue(str), rest, nil
	}
	n := strings.IndexAny(s, ", ")
	if n < 0 {
		n = len(s)
	}
	text, rest := s[:n], s[n:]
	if digits, ok := strings.CutSuffix(text, "i"); ok {
		i, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || strings.HasPrefix(digits, "+") {
			return telemetry.Value{}, "", fmt.Errorf("%q is no 64 bit integer", short(text))
		}
		return telemetry.IntValue(i), rest, nil
	}
	// ParseFloat also knows inf, nan, hexadecimal and underscores; we do not.
	if strings.Trim(text, "0123456789.eE+-") != "" || !strings.ContainsAny(text, ".eE") {
		return telemetry.Value{}, "", fmt.Errorf("%q is no float (with point or exponent), integer (with i) or string (quoted)", short(text))
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(x, 0) {
		return telemetry.Value{}, "", fmt.Errorf("%q is no finite float", short(text))
	}
	return telemetry.FloatValue(x), rest, nil
}

// unquote reads a string up to its closing quote.
func unquote(s string) (str, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// cutUnescaped is strings.Cut at the first sep that no backslash precedes.
func cutUnescaped(s string, sep byte) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case sep:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func unescapeTag(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\,`, ",", `\=`, "=", `\ `, " ").Replace(s)
}

// short bounds what an error repeats of its input.
func short(s string) string {
	if len(s) > 48 {
		return strings.ToValidUTF8(s[:48], "") + "..."
	}
	return s
}
