package profile

import (
	"encoding/binary"
	hexadecimal "encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// With returns a library that has one profile more, or that one in place of the
// one of the same id. Everything wrong with it is in the error.
func (l *Library) With(file string, data []byte) (*Library, error) {
	out := &Library{models: map[string]*rawProfile{}, names: slices.Clone(l.names), pairs: pairs{}}
	maps.Copy(out.models, l.models)
	doc, raw, _ := out.parse(file, data)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	if out.models[raw.ID] = raw; !slices.Contains(out.names, raw.ID) {
		out.names = append(out.names, raw.ID)
		slices.Sort(out.names)
	}
	return out, nil
}

// framesFile is a file of frames; docs/profiles.md describes it.
type framesFile struct {
	ID    string
	Cases []frameCase
}

type frameCase struct {
	Source string
	Params map[string]string
	Unit   int // the device's unit address; 0 is that of the first frame
	Frames [][]string
	Values map[string]conffile.Scalar
}

// Checked is what CheckFrames looked at.
type Checked struct {
	ID            string
	Cases, Values int
}

// CheckFrames decodes the frames of a file through the profile that it names,
// and compares the values with those that the file says. Every frame that is
// none, every value that is another and every point that occurs nowhere is an
// error at its place, together conffile.Errors.
func (l *Library) CheckFrames(file string, data []byte) (Checked, error) {
	var f framesFile
	doc, err := conffile.Parse(file, data, &f)
	if err != nil {
		return Checked{}, err
	}
	done := Checked{ID: f.ID, Cases: len(f.Cases)}
	if _, ok := l.models[f.ID]; !ok {
		doc.Errorf(conffile.Path{"id"}, "there is no profile %q%s", f.ID, suggest(f.ID, l.names))
		return done, doc.Err()
	}
	seen := map[string]bool{}
	for i, c := range f.Cases {
		x := caseCheck{lib: l, doc: doc, at: conffile.Path{"cases", i}, seen: seen}
		x.check(f.ID, c)
		done.Values += len(c.Values)
	}
	var missing []string
	for _, p := range l.Forms(f.ID) {
		for _, name := range p.PointNames() {
			if !seen[name] && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		doc.Errorf(conffile.Path{"cases"}, "no case has a value of %s; every point occurs at least once, and not only as one that is refused or invalid", strings.Join(missing, ", "))
	}
	return done, doc.Err()
}

// caseCheck checks one case; what goes wrong goes into doc.
type caseCheck struct {
	lib  *Library
	doc  *conffile.Doc
	at   conffile.Path
	seen map[string]bool // points of all cases that had a value in one
}

func (x *caseCheck) check(id string, c frameCase) {
	if c.Source == "" {
		x.doc.Errorf(x.at, "source is missing; say where the frames come from, or that they were worked by hand")
	}
	p, err := x.lib.Lookup(id, c.Params)
	if err != nil {
		x.doc.Fail(x.at.With("params"), err)
		return
	}
	var answers []frameAnswer
	bad := false
	for i, pair := range c.Frames {
		a, err := exchange(pair, p.Limits.MaxRegisters)
		if err != nil {
			x.doc.Fail(x.at.With("frames", i), err)
			bad = true
			continue
		}
		answers = append(answers, a)
	}
	if len(c.Frames) == 0 || len(c.Values) == 0 {
		x.doc.Errorf(x.at, "a case has frames and values")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.Values)) {
		at := x.at.With("values", name)
		pt, ok := p.Point(name)
		if !ok {
			x.doc.Errorf(at, "there is no point %s with these parameters%s", name, suggest(name, p.PointNames()))
			continue
		}
		if bad {
			x.seen[name] = true
			continue // told already
		}
		unit := c.Unit
		if unit == 0 {
			unit = int(answers[0].unit)
		}
		v, _, q := pt.Decode(answered(pt, byte(unit+int(pt.UnitOffset)), answers))
		x.seen[name] = x.seen[name] || q.HasValue()
		if want := string(c.Values[name]); !says(pt, v, q, want) {
			got := v.String()
			if v.Class() == telemetry.Float {
				got = strconv.FormatFloat(v.Float(), 'f', -1, 64) // as people write it
			}
			got = strings.TrimSpace(got + " " + pt.Unit)
			switch {
			case !q.HasValue():
				got = q.String()
			case q != telemetry.Good:
				got = q.String() + ", " + got
			}
			x.doc.Errorf(at, "%s is %s by these frames, and the file says %s", name, got, want)
		}
	}
}

// frameAnswer is one exchange over the wire: what was asked for, what came.
type frameAnswer struct {
	unit    byte
	table   Table
	address int
	count   int
	data    []byte // nil when refused
}

// rtuFrame reads a frame in hexadecimal and takes its check sum off.
func rtuFrame(text string) ([]byte, error) {
	b, err := hexadecimal.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%q is no frame in hexadecimal: write bytes such as 01 03 00 00 00 02 C4 0B", text)
	}
	if len(b) < 5 {
		return nil, fmt.Errorf("%q is too short for a frame", text)
	}
	crc := uint16(0xFFFF) // MODBUS over Serial Line V1.02, 6.2.2
	for _, c := range b[:len(b)-2] {
		crc ^= uint16(c)
		for range 8 {
			odd := crc & 1
			if crc >>= 1; odd == 1 {
				crc ^= 0xA001
			}
		}
	}
	if binary.LittleEndian.Uint16(b[len(b)-2:]) != crc {
		return nil, fmt.Errorf("%q ends with a wrong CRC; %02X %02X is right", text, byte(crc), byte(crc>>8))
	}
	return b[:len(b)-2], nil
}

// exchange reads a request and its answer; most is the most registers that the
// device gives at once.
func exchange(pair []string, most int) (a frameAnswer, err error) {
	if len(pair) != 2 {
		return a, fmt.Errorf("there is not one request and one answer; write [request, answer], a list of both for each exchange")
	}
	q, err1 := rtuFrame(pair[0])
	r, err2 := rtuFrame(pair[1])
	if err := errors.Join(err1, err2); err != nil {
		return a, errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if len(q) != 6 || q[1] < 1 || q[1] > 4 {
		return a, fmt.Errorf("%q is no request of function 1 to 4: unit, function, address and count are 6 bytes before the CRC", pair[0])
	}
	a = frameAnswer{unit: q[0], table: Table(q[1]), address: int(q[2])<<8 | int(q[3]), count: int(q[4])<<8 | int(q[5])}
	limit, size := most, 2*a.count
	if a.table.IsBit() {
		limit, size = 2000, (a.count+7)/8
	}
	switch {
	case a.count < 1 || a.count > limit || a.address+a.count > 1<<16:
		return a, fmt.Errorf("%q asks for %d from %d, and the device gives at most %d at once", pair[0], a.count, a.address, limit)
	case r[0] != a.unit:
		return a, fmt.Errorf("%q is from unit %d, and unit %d was asked", pair[1], r[0], a.unit)
	case r[1] == q[1]|0x80 && len(r) == 3:
	case r[1] != q[1]:
		return a, fmt.Errorf("%q answers function %d, and function %d was asked", pair[1], r[1], q[1])
	case int(r[2]) != size || len(r) != 3+size:
		return a, fmt.Errorf("%q says %d bytes and has %d; %d were asked for", pair[1], r[2], len(r)-3, size)
	default:
		a.data = r[3:]
	}
	return a, nil
}

// answered looks a point's words up as the driver does: all that it needs
// together must have come in one answer; what came in none was refused.
func answered(pt *Point, unit byte, answers []frameAnswer) Words {
	return func(t Table, address uint16) (uint16, telemetry.Quality) {
		for _, n := range pt.Needs() {
			if n.Table != t || address < n.Address || int(address) >= int(n.Address)+int(n.Count) {
				continue
			}
			for _, a := range answers {
				if a.unit != unit || a.table != t || a.data == nil || int(n.Address) < a.address || int(n.Address)+int(n.Count) > a.address+a.count {
					continue
				}
				i := int(address) - a.address
				if t.IsBit() {
					return uint16(a.data[i/8]>>(i%8)) & 1, telemetry.Good
				}
				return binary.BigEndian.Uint16(a.data[2*i:]), telemetry.Good
			}
		}
		return 0, telemetry.Refused
	}
}

// says reports whether the value is what the file says: a number and its
// canonical unit, a whole number, a text, or the name of the quality.
func says(pt *Point, v telemetry.Value, q telemetry.Quality, want string) bool {
	if q != telemetry.Good {
		return strings.ReplaceAll(want, "_", " ") == q.String()
	}
	switch v.Class() {
	case telemetry.String:
		return want == v.String()
	case telemetry.Int:
		i, err := strconv.ParseInt(want, 10, 64)
		return err == nil && i == v.Int()
	}
	number, unit, _ := strings.Cut(want, " ")
	f, err := strconv.ParseFloat(number, 64)
	return err == nil && f == v.Float() && unit == pt.Unit
}
