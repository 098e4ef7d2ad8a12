package profile_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"luquan/drivers/modbus/profile"
	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

const framesDir = "testdata/frames"

// framesFile is testdata/frames/<id>.yaml; docs/profiles.md describes it.
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

// answer is one exchange over the wire: what was asked for, what came.
type answer struct {
	unit    byte
	table   profile.Table
	address int
	count   int
	data    []byte
	refused bool
}

func frame(text string) ([]byte, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%q is no frame in hexadecimal: %v", text, err)
	}
	if len(b) < 5 {
		return nil, fmt.Errorf("%q is too short for a frame", text)
	}
	crc := uint16(0xFFFF)
	for _, c := range b[:len(b)-2] {
		crc ^= uint16(c)
		for range 8 {
			odd := crc & 1
			if crc >>= 1; odd == 1 {
				crc ^= 0xA001
			}
		}
	}
	if got := binary.LittleEndian.Uint16(b[len(b)-2:]); got != crc {
		return nil, fmt.Errorf("%q ends with the CRC %02X %02X, and %02X %02X is right", text, byte(got), byte(got>>8), byte(crc), byte(crc>>8))
	}
	return b[:len(b)-2], nil
}

// exchange reads a request and its answer.
func exchange(pair []string, most int) (a answer, err error) {
	if len(pair) != 2 {
		return a, fmt.Errorf("there are %d frames in %q; write [request, answer]", len(pair), pair)
	}
	q, err := frame(pair[0])
	if err != nil {
		return a, err
	}
	r, err := frame(pair[1])
	if err != nil {
		return a, err
	}
	if len(q) != 6 || q[1] < 1 || q[1] > 4 {
		return a, fmt.Errorf("%q is no request of function 1 to 4", pair[0])
	}
	a = answer{unit: q[0], table: profile.Table(q[1]), address: int(q[2])<<8 | int(q[3]), count: int(q[4])<<8 | int(q[5])}
	limit, size := most, 2*a.count
	if a.table.IsBit() {
		limit, size = 2000, (a.count+7)/8
	}
	switch {
	case a.count < 1 || a.count > limit || a.address+a.count > 1<<16:
		return a, fmt.Errorf("%q asks for %d, and the device gives at most %d", pair[0], a.count, limit)
	case r[0] != a.unit:
		return a, fmt.Errorf("%q answers for unit %d, and %d was asked", pair[1], r[0], a.unit)
	case r[1] == q[1]|0x80 && len(r) == 3:
		a.refused = true
	case r[1] != q[1]:
		return a, fmt.Errorf("%q answers function %d, and %d was asked", pair[1], r[1], q[1])
	case int(r[2]) != size || len(r) != 3+size:
		return a, fmt.Errorf("%q says %d bytes and has %d; %d were asked for", pair[1], r[2], len(r)-3, size)
	default:
		a.data = r[3:]
	}
	return a, nil
}

// words looks a point's words up as the driver does: all that it needs
// together must have come in one answer.
func words(pt *profile.Point, unit byte, answers []answer) profile.Words {
	return func(t profile.Table, address uint16) (uint16, telemetry.Quality) {
		for _, n := range pt.Needs() {
			if n.Table != t || address < n.Address || int(address) >= int(n.Address)+int(n.Count) {
				continue
			}
			for _, a := range answers {
				if a.unit != unit || a.table != t || a.refused || int(n.Address) < a.address || int(n.Address)+int(n.Count) > a.address+a.count {
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

// same reports whether v is what the file says.
func same(pt *profile.Point, v telemetry.Value, q telemetry.Quality, want string) bool {
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

// run checks one case and notes in seen which points occurred; it returns what
// is wrong.
func (c frameCase) run(lib *profile.Library, id string, seen map[string]bool) (wrong []string) {
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if c.Source == "" {
		fail("source is missing: say where the frames come from")
	}
	p, err := lib.Lookup(id, c.Params)
	if err != nil {
		return append(wrong, err.Error())
	}
	var answers []answer
	for _, pair := range c.Frames {
		a, err := exchange(pair, p.Limits.MaxRegisters)
		if err != nil {
			fail("%v", err)
			continue
		}
		answers = append(answers, a)
	}
	if len(wrong) > 0 || len(answers) == 0 || len(c.Values) == 0 {
		return append(wrong, "a case has frames and values")
	}
	if c.Unit == 0 {
		c.Unit = int(answers[0].unit)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Values)) {
		pt, ok := p.Point(name)
		if !ok {
			fail("there is no point %s with these parameters", name)
			continue
		}
		v, _, q := pt.Decode(words(pt, byte(c.Unit+int(pt.UnitOffset)), answers))
		if want := string(c.Values[name]); !same(pt, v, q, want) {
			got := strings.TrimSpace(v.String() + " " + pt.Unit)
			if q != telemetry.Good {
				got = strings.TrimSpace(q.String() + " " + got)
			}
			fail("%s is %s, the file says %s", name, got, want)
			continue
		}
		seen[name] = true
	}
	return wrong
}

// TestFrames decodes every frame of testdata/frames, which were not written by
// this code, through the shipped profiles. Every profile has a file, every
// point of every form of it occurs.
func TestFrames(t *testing.T) {
	lib, err := profile.Load(firmwareconfig.FS, "devices")
	if err != nil {
		t.Error(err) // the sound ones are checked all the same
	}
	files, err := filepath.Glob(filepath.Join(framesDir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if id := strings.TrimSuffix(filepath.Base(file), ".yaml"); !slices.Contains(lib.Names(), id) {
			t.Errorf("%s: there is no profile %s", file, id)
		}
	}
	for _, id := range lib.Names() {
		t.Run(id, func(t *testing.T) { framesOf(t, lib, id) })
	}
}

func framesOf(t *testing.T, lib *profile.Library, id string) {
	file := filepath.Join(framesDir, id+".yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("profile %s has no frames: %v", id, err)
	}
	var f framesFile
	doc, err := conffile.Parse(file, data, &f)
	if err != nil {
		t.Fatal(err)
	}
	if f.ID != id {
		t.Errorf("%s: id is %q", file, f.ID)
	}
	seen := map[string]bool{}
	for i, c := range f.Cases {
		line, _ := doc.Pos(conffile.Path{"cases", i})
		for _, w := range c.run(lib, id, seen) {
			t.Errorf("%s:%d: %s", file, line, w)
		}
	}
	var missing []string
	for _, p := range forms(t, lib, id) {
		for _, name := range p.PointNames() {
			if !seen[name] && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("%s: these points occur nowhere: %s", file, strings.Join(missing, ", "))
	}
}

// TestFramesCanFail: each thing that the frames are checked for is found.
func TestFramesCanFail(t *testing.T) {
	lib := library(t)
	good := []string{"01 04 00 01 00 02 20 0B", "01 04 04 01 31 02 22 2A CE"}
	pair := func(q, a string) [][]string { return [][]string{{q, a}} }
	for want, c := range map[string]frameCase{
		"":                                     {Values: map[string]conffile.Scalar{"temperature": "30.5 degC", "humidity": "54.6 %"}},
		"the file says 30.4 degC":              {Values: map[string]conffile.Scalar{"temperature": "30.4 degC"}},
		"the file says 30.5 K":                 {Values: map[string]conffile.Scalar{"temperature": "30.5 K"}},
		"the file says invalid":                {Values: map[string]conffile.Scalar{"temperature": "invalid"}},
		"humidity is refused":                  {Frames: pair("01 04 00 01 00 01 60 0A", "01 04 02 01 31 79 74"), Values: map[string]conffile.Scalar{"humidity": "54.6 %"}},
		"there is no point x":                  {Values: map[string]conffile.Scalar{"x": "1"}},
		"and 20 0B is right":                   {Frames: pair("01 04 00 01 00 02 20 0C", good[1])},
		"answers for unit 2":                   {Frames: pair(good[0], "02 04 04 01 31 02 22 19 CE")},
		"asks for 3, and":                      {Frames: pair("01 04 00 01 00 03 E1 CB", good[1])},
		"says 2 bytes and has 2; 4 were asked": {Frames: pair(good[0], "01 04 02 01 31 79 74")},
		"answers function 3":                   {Frames: pair(good[0], "01 03 04 01 31 02 22 2B 79")},
		"no request of function 1 to 4":        {Frames: pair("01 06 00 01 00 02 59 CB", good[1])},
		"is no frame in hexadecimal":           {Frames: pair(good[0], "01 0g")},
		"write [request, answer]":              {Frames: [][]string{{good[0]}}},
		"profile xy-md02 has no parameter":     {Params: map[string]string{"tabel": "input"}},
		"a case has frames and values":         {Values: map[string]conffile.Scalar{}},
		"source is missing":                    {Source: "none"},
	} {
		if c.Frames == nil {
			c.Frames = [][]string{good}
		}
		if c.Values == nil {
			c.Values = map[string]conffile.Scalar{"temperature": "30.5 degC"}
		}
		switch c.Source {
		case "":
			c.Source = "test"
		case "none":
			c.Source = ""
		}
		got := strings.Join(c.run(lib, "xy-md02", map[string]bool{}), "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("want %q, got %q", want, got)
		}
	}
}
