package modbus

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers/drivertest"
)

// sideBySide is a device of six values, each in a request of its own, that
// may be asked three at once.
const sideBySide = `
name: lan
tcp: {address: plc}
devices:
  - name: m1
    unit: 3
    every: 1s
    profile:
      kind: probe
      label: {en: Probe}
      source: {where: test, confidence: high}
      limits: {in_flight: 3}
      points:
        - {name: a, label: {en: A}, table: holding, address: 0, type: u16}
        - {name: b, label: {en: B}, table: holding, address: 10, type: u16}
        - {name: c, label: {en: C}, table: holding, address: 20, type: u16}
        - {name: d, label: {en: D}, table: holding, address: 30, type: u16}
        - {name: e, label: {en: E}, table: holding, address: 40, type: u16}
        - {name: f, label: {en: F}, table: holding, address: 50, type: u16}
        - {name: f2, label: {en: F2}, table: holding, address: 51, type: u16}
`

// TestSideBySide: requests of one poll are under way together, in rounds of
// three; answers in any order, refusals and time-outs among them give each
// point its own value or quality, and a refused request is divided as ever.
func TestSideBySide(t *testing.T) {
	const wait = 100 * time.Millisecond
	for name, tt := range map[string]struct {
		missing []uint16
		silent  []uint16
		want    string
		took    time.Duration
		asked   int
	}{
		"all answer":       {nil, nil, "good: a=0 b=10 c=20 d=30 e=40 f=50 f2=51", 2 * wait, 6},
		"one is refused":   {[]uint16{10}, nil, "good: a=0 b=/refused c=20 d=30 e=40 f=50 f2=51", 2 * wait, 6},
		"one is divided":   {[]uint16{51}, nil, "good: a=0 b=10 c=20 d=30 e=40 f=50 f2=/refused", 4 * wait, 8},
		"one is silent":    {nil, []uint16{40}, "good: a=0 b=10 c=20 d=30 e=/no_reply f=50 f2=51", time.Second + wait, 6},
		"the rest is left": {nil, []uint16{0, 10, 20}, "no_reply:", time.Second, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, sideBySide)
				defer r.close()
				r.slave.Value = func(_, _ byte, a uint16) (uint16, bool) { return a, !slices.Contains(tt.missing, a) }
				began := time.Now()
				r.slave.Script = func(n int, req, ans []byte) []drivertest.Step {
					address := binary.BigEndian.Uint16(req[8:])
					if slices.Contains(tt.silent, address) {
						return nil
					}
					// Whatever is asked at once is answered in the opposite order.
					return []drivertest.Step{{Wait: wait - time.Duration(n)*time.Microsecond, Bytes: ans}}
				}
				s, ok := r.Devices()[0].Poll(t.Context(), 0)
				if got := strings.ReplaceAll(text(s), " reply", "_reply"); !ok || got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if took := time.Since(began).Round(time.Millisecond); took > tt.took || took < tt.took-wait/10 {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if got := r.requests(); len(got) != tt.asked {
					t.Errorf("asked %v", got)
				}
				if s.Time.After(time.Now()) || s.Time.Before(began) {
					t.Errorf("stamped %v", s.Time.Sub(began))
				}
			})
		})
	}
}

// TestSideBySideCalledOff: a cancelled poll ends at once with all it had under way.
func TestSideBySideCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sideBySide)
		defer r.close()
		r.silence(true)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Millisecond, cancel)
		began := time.Now()
		if s, ok := r.Devices()[0].Poll(ctx, 0); ok || time.Since(began) != 30*time.Millisecond {
			t.Errorf("%q after %v", text(s), time.Since(began))
		}
		r.silence(false)
		time.Sleep(time.Second)
		if got, want := text(r.poll(t)), "good: a=0 b=10 c=20 d=30 e=40 f=50 f2=51"; got != want {
			t.Errorf("then %q, want %q", got, want)
		}
	})
}
