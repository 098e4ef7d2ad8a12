package modbus

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/telemetry"
)

// onePoint is a device of one point, polled every second.
func onePoint(chosen, point string) string {
	return fmt.Sprintf(`
name: lan
tcp: {address: plc}
timeout: 200ms
devices:
  - name: m1
    unit: 3
    every: 1s
    %s
    profile:
      kind: probe
      source: {where: test, confidence: high}
      points: [{name: a, table: holding, address: 10, %s}]
`, chosen, point)
}

// TestQualities: what a device tells of its value, in which quality it comes.
func TestQualities(t *testing.T) {
	for _, tt := range []struct {
		name, point string
		words       map[uint16]uint16 // 10 and on
		want        string
	}{
		{"good", "type: s16, scale: 0.1, unit: degC, range: {min: -10, max: 90}", map[uint16]uint16{10: 900}, "good: a=90"},
		{"above the range, carried", "type: s16, scale: 0.1, unit: degC, range: {min: -10, max: 90}", map[uint16]uint16{10: 901}, "good: a=90.1/out of range"},
		{"below the range, carried", "type: s16, scale: 0.1, unit: degC, range: {min: -10, max: 90}", map[uint16]uint16{10: 0xff9b}, "good: a=-10.1/out of range"},
		{"sentinel", "type: s16, scale: 0.1, unit: degC, invalid: [-32768]", map[uint16]uint16{10: 0x8000}, "good: a=/invalid"},
		{"sentinel over range", "type: s16, unit: degC, invalid: [{raw: 32767, means: over_range}]", map[uint16]uint16{10: 0x7fff}, "good: a=/over range"},
		{"sentinel under range", "type: s16, unit: degC, invalid: [{raw: -32767, means: under_range}]", map[uint16]uint16{10: 0x8001}, "good: a=/under range"},
		{"the scaled value of a sentinel is a value", "type: s16, scale: 10, unit: degC, invalid: [100]", map[uint16]uint16{10: 10}, "good: a=100"},
		{"not a number", "type: f32, unit: degC", map[uint16]uint16{10: 0x7fc0}, "good: a=/invalid"},
		{"valid", "type: u16, validity: {address: 11, good: [0]}", map[uint16]uint16{10: 7, 11: 0}, "good: a=7"},
		{"validity tells of a fault", "type: u16, validity: {address: 11, good: [0]}", map[uint16]uint16{10: 7, 11: 3}, "good: a=/invalid"},
		{"validity tells of over range", "type: u16, validity: {address: 11, mask: 0x00ff, good: [0], over_range: [2], under_range: [1]}", map[uint16]uint16{10: 7, 11: 0x8002}, "good: a=/over range"},
		{"validity tells of under range", "type: u16, validity: {address: 11, mask: 0x00ff, good: [0], over_range: [2], under_range: [1]}", map[uint16]uint16{10: 7, 11: 1}, "good: a=/under range"},
		{"validity outranks the sentinel", "type: u16, invalid: [7], validity: {address: 11, good: [0], over_range: [2]}", map[uint16]uint16{10: 7, 11: 2}, "good: a=/over range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, onePoint("", tt.point))
				defer r.close()
				r.slave.Value = func(_, _ byte, at uint16) (uint16, bool) { return tt.words[at], true }
				if got := text(r.poll(t)); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// TestFrozen: a value that stands still for too long carries on as frozen;
// only time in which it was seen to stand counts.
func TestFrozen(t *testing.T) {
	for _, tt := range []struct {
		name, chosen, point, polls string // a number a poll, _ no reply
		want                       string // of each poll: g good, f frozen, o out of range, - nothing
	}{
		{"moves in time", "", "type: u16, frozen_after: 20s", "5 5 5 6 6 6 7", "ggggggg"},
		{"allowed to stand", "", "type: u16", "5 5 5 5 5 5", "gggggg"},
		{"named by the device", "points: [{name: a, frozen_after: 3s}]", "type: u16", "5 5 5 5 5 6 6", "gggffgg"},
		{"switched off by the device", "points: [{name: a, frozen_after: 0s}]", "type: u16, frozen_after: 20s", strings.Repeat("5 ", 24), strings.Repeat("g", 24)},
		{"an outage does not count", "points: [{name: a, frozen_after: 3s}]", "type: u16", "5 5 _ _ _ _ 5 5 5 5", "gg----ggff"},
		{"an outage does not end it", "points: [{name: a, frozen_after: 3s}]", "type: u16", "5 5 5 5 _ 5 6", "gggf-fg"},
		{"frozen outranks out of range", "points: [{name: a, frozen_after: 3s}]", "type: u16, range: {max: 4}", "5 5 5 5 3", "ooofg"},
		{"one bit is a movement", "points: [{name: a, frozen_after: 3s}]", "type: f32, unit: W", "100 100 101 101 101 100", "gggggg"},
		{"a deadband does not hide it", "points: [{name: a, frozen_after: 3s, deadband: 1, max_silence: 10m}]", "type: u16", "5 5 5 5 5 6 6", "g..ffg."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, onePoint(tt.chosen, tt.point))
				defer r.close()
				var now uint16
				r.slave.Value = func(_, _ byte, _ uint16) (uint16, bool) { return now, true }
				got := ""
				start := time.Now()
				for i, w := range strings.Fields(tt.polls) {
					time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second)))
					r.silence(w == "_")
					fmt.Sscan(w, &now)
					s := r.poll(t)
					switch {
					case s.Status != telemetry.Good:
						got += "-"
					case len(s.Readings) == 0:
						got += "."
					case s.Readings[0].Value.IsZero():
						t.Fatalf("poll %d: %s", i, text(s))
					default:
						got += map[telemetry.Quality]string{telemetry.Good: "g", telemetry.Frozen: "f", telemetry.OutOfRange: "o"}[s.Readings[0].Quality]
					}
				}
				if got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				if began := uint64(strings.Count(strings.ReplaceAll(tt.want, "f-f", "ff"), "gf") + strings.Count(tt.want, "of") + strings.Count(tt.want, ".f")); r.Decoding().Frozen != began {
					t.Errorf("counted %d times, want %d", r.Decoding().Frozen, began)
				}
			})
		})
	}
}

// TestCounters: a counter that goes back rolled over or was reset; the value
// is what was read either way.
func TestCounters(t *testing.T) {
	for _, tt := range []struct {
		name, point, polls string // raw numbers, _ no reply
		rollovers, resets  uint64
	}{
		{"counts", "type: u16, counter: true", "1 2 2 70 65535", 0, 0},
		{"the end of 16 bits", "type: u16, counter: true", "65500 65534 3 20", 1, 0},
		{"the end of 32 bits", "type: u32, counter: true", "4294967000 4294967290 100", 1, 0},
		{"the maker's end", "type: u32, counter: true, wraps_at: 1000000", "999000 999900 50", 1, 0},
		{"decimal digits", "type: u32, counter: true, encoding: bcd", "99999990 99999999 2", 1, 0},
		{"reset", "type: u32, counter: true", "120000 120010 0 5", 0, 1},
		{"reset to what it was before", "type: u16, counter: true", "120 130 125 126", 0, 1},
		{"a fast one far from its end", "type: u16, counter: true", "50000 55000 60000 800", 1, 0},
		{"a slow one far from its end", "type: u16, counter: true", "60000 60001 60002 800", 0, 1},
		{"another meter after an outage", "type: u32, counter: true", "500000 500010 _ _ 17", 0, 1},
		{"over the end in an outage", "type: u16, counter: true", "65000 65100 _ _ 90", 1, 0},
		{"no end is known of a float", "type: f32, counter: true, unit: Wh", "1000 2000 3", 0, 1},
		{"no counter", "type: u16", "65534 3 1", 0, 0},
		{"twice", "type: u16, counter: true", "65530 65535 4 65534 2 1", 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, onePoint("", tt.point))
				defer r.close()
				var now float64
				def := r.Devices()[0].(*device).groups[0].points[0].def
				r.slave.Value = func(_, _ byte, at uint16) (uint16, bool) {
					words := encode(def.Type.String(), string(def.Encoding), now)
					return words[at-10], true
				}
				for i, w := range strings.Fields(tt.polls) {
					r.silence(w == "_")
					fmt.Sscan(w, &now)
					s := r.poll(t)
					if w != "_" && (len(s.Readings) != 1 || s.Readings[0].Value.Float() != now || s.Readings[0].Quality != telemetry.Good) {
						t.Errorf("poll %d: %s; want what was read, %v", i, text(s), now)
					}
					time.Sleep(time.Second)
				}
				if got := r.Decoding(); got.Rollovers != tt.rollovers || got.Resets != tt.resets {
					t.Errorf("got %+v, want %d rollovers and %d resets", got, tt.rollovers, tt.resets)
				}
			})
		})
	}
}

// encode is the device's side: the registers of a number.
func encode(typ, encoding string, n float64) []uint16 {
	u := uint64(n)
	if encoding == "bcd" {
		fmt.Sscanf(fmt.Sprint(u), "%x", &u)
	}
	switch typ {
	case "u16":
		return []uint16{uint16(u)}
	case "f32":
		u = uint64(math.Float32bits(float32(n)))
	}
	return []uint16{uint16(u >> 16), uint16(u)}
}
