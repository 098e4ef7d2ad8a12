package profile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	firmwareconfig "luquan/firmware-config"
)

const framesDir = "testdata/frames"

// TestFrames decodes every frame of testdata/frames, which were not written by
// this code, through the shipped profiles. Every profile has a file, every
// point of every form of it occurs.
func TestFrames(t *testing.T) {
	lib, err := Load(firmwareconfig.FS, "devices")
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
		t.Run(id, func(t *testing.T) {
			file := filepath.Join(framesDir, id+".yaml")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("profile %s has no frames: %v", id, err)
			}
			done, err := lib.CheckFrames(file, data)
			if err != nil {
				t.Error(err)
			}
			if done.ID != id || done.Cases == 0 {
				t.Errorf("%s: id is %q, with %d cases", file, done.ID, done.Cases)
			}
		})
	}
}

// TestFramesCanFail: each thing that frames are checked for is found, at its place.
func TestFramesCanFail(t *testing.T) {
	lib, err := (&Library{}).With("m.yaml", []byte(head+`limits: {max_registers: 2}
params: {table: {default: input, one_of: [input, holding]}}
points:
  - {name: temperature, table: "${table}", address: 1, type: s16, scale: 0.1, unit: degC}
  - {name: humidity, table: "${table}", address: 2, type: u16, scale: 0.1, unit: "%", invalid: [0xFFFF]}
  - {name: code, table: coil, address: 1, type: bit, unit_offset: 1}
`))
	if err == nil {
		_, err = lib.CheckFrames("f.yaml", []byte("id: n\n"))
	}
	if err == nil || !strings.Contains(err.Error(), `f.yaml:1:5: there is no profile "n"; did you mean "m"?`) {
		t.Errorf("got %v", err)
	}
	const request, answer = "01 04 00 01 00 02 20 0B", "01 04 04 01 31 02 22 2A CE"
	const code = "  - {source: test, frames: [[02 01 00 01 00 01 AC 39, 02 01 01 01 90 0C]], unit: 1, values: {code: 1, temperature: refused, humidity: refused}}\n"
	for _, tt := range []struct{ name, body, want string }{
		{"sound", "frames: [[REQ, ANS]], values: {temperature: 30.5 degC, humidity: 54.6 %}", ""},
		{"another number", "frames: [[REQ, ANS]], values: {temperature: 30.4 degC}", "f.yaml:4:107: temperature is 30.5 degC by these frames, and the file says 30.4 degC"},
		{"another unit", "frames: [[REQ, ANS]], values: {temperature: 30.5 K}", "and the file says 30.5 K"},
		{"refused only", "frames: [[REQ, ANS]], values: {temperature: 30.5 degC}", "f.yaml:3:3: no case has a value of humidity; every point occurs"},
		{"a quality", "frames: [[REQ, ANS]], values: {temperature: invalid}", "and the file says invalid"},
		{"not in the frames", "frames: [[01 04 00 01 00 01 60 0A, 01 04 02 01 31 79 74]], values: {humidity: 54.6 %}", "humidity is refused by these frames"},
		{"no such point", "frames: [[REQ, ANS]], values: {humidty: 1}", `there is no point humidty with these parameters; did you mean "humidity"?`},
		{"check sum", "frames: [[01 04 00 01 00 02 20 0C, ANS]], values: {temperature: 30.5 degC}", "ends with a wrong CRC; 20 0B is right"},
		{"another unit address", "frames: [[REQ, 02 04 04 01 31 02 22 19 CE]], values: {temperature: 30.5 degC}", "is from unit 2, and unit 1 was asked"},
		{"too many", "frames: [[01 04 00 01 00 03 E1 CB, ANS]], values: {temperature: 30.5 degC}", "asks for 3 from 1, and the device gives at most 2 at once"},
		{"too few came", "frames: [[REQ, 01 04 02 01 31 79 74]], values: {temperature: 30.5 degC}", "says 2 bytes and has 2; 4 were asked for"},
		{"another function", "frames: [[REQ, 01 03 04 01 31 02 22 2B 79]], values: {temperature: 30.5 degC}", "answers function 3, and function 4 was asked"},
		{"a write", "frames: [[01 06 00 01 00 02 59 CB, ANS]], values: {temperature: 30.5 degC}", "no request of function 1 to 4"},
		{"not hexadecimal", "frames: [[REQ, 01 0g]], values: {temperature: 30.5 degC}", "is no frame in hexadecimal"},
		{"too short", "frames: [[REQ, 01 02]], values: {temperature: 30.5 degC}", "is too short for a frame"},
		{"one frame", "frames: [[REQ]], values: {temperature: 30.5 degC}", "write [request, answer]"},
		{"a parameter", "params: {tabel: input}, frames: [[REQ, ANS]], values: {temperature: 30.5 degC}", `profile m has no parameter "tabel"`},
		{"no values", "frames: [[REQ, ANS]]", "a case has frames and values"},
	} {
		body := strings.NewReplacer("REQ", request, "ANS", answer).Replace(tt.body)
		_, err := lib.CheckFrames("f.yaml", []byte("id: m\ncases:\n"+code+"  - {source: test, "+body+"}\n"))
		if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	done, err := lib.CheckFrames("f.yaml", []byte("id: m\ncases:\n  - {frames: [["+request+", "+answer+"]], values: {temperature: 30.5 degC}}\n"))
	if want := "f.yaml:3:3: no case has a value of humidity, code; every point occurs at least once, and not only as one that is refused or invalid\nf.yaml:3:5: source is missing; say where the frames come from, or that they were worked by hand"; err == nil || err.Error() != want {
		t.Errorf("got %v, want\n%s", err, want)
	}
	if done != (Checked{"m", 1, 1}) {
		t.Errorf("got %+v", done)
	}
	if _, err := lib.With("m.yaml", []byte("id: m\nkind: pump\n")); err == nil || !strings.Contains(err.Error(), "m.yaml:1:1: source.where is missing") {
		t.Errorf("With takes a profile that is not sound: %v", err)
	}
}

// FuzzFrames: whatever a file of frames holds, it is told without a panic.
func FuzzFrames(f *testing.F) {
	lib, err := Load(firmwareconfig.FS, "devices")
	if err != nil {
		f.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(framesDir, "*.yaml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := lib.CheckFrames("f.yaml", data); err != nil && err.Error() == "" {
			t.Fatal("an error that says nothing")
		}
	})
}
