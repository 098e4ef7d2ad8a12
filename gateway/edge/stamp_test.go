package edge

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luquan/gateway/edge/stamp"
	"luquan/gateway/edge/uplink"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// bootClock is a boot whose system clock is wrong by so much.
type bootClock struct {
	id     string
	zero   time.Time
	wrong  time.Duration
	synced bool
}

func (c *bootClock) Now() time.Time           { return time.Now().Add(c.wrong) }
func (c *bootClock) SinceBoot() time.Duration { return time.Since(c.zero) }
func (c *bootClock) BootID() string           { return c.id }
func (c *bootClock) Synchronised() bool       { return c.synced }
func (c *bootClock) RTC() (time.Time, bool)   { return time.Time{}, false }

// TestBootThatNeverLearnt runs three boots without a link, the second without
// the time; then the third stamps all that is on flash.
func TestBootThatNeverLearnt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	text := strings.NewReplacer("127.0.0.1:1502", nobody, "mqtt://127.0.0.1", "mqtt://"+nobody, "every: 1s", "every: 100ms").Replace(good)
	cfg, err := Parse(filepath.Join(t.TempDir(), "g.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	run := func(c *bootClock) {
		t.Helper()
		g, err := New(cfg, Options{Clock: c, Drain: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	run(&bootClock{id: "a", zero: time.Now().Add(-time.Second), synced: true})
	run(&bootClock{id: "b", zero: time.Now().Add(-10 * time.Millisecond), wrong: -time.Duration(time.Now().UnixNano())})
	begun := time.Now()
	third := &bootClock{id: "c", zero: begun.Add(-10 * time.Millisecond), synced: true}
	run(third)

	g, err := New(cfg, Options{Clock: third})
	if err != nil {
		t.Fatal(err)
	}
	type published struct {
		epoch, seq uint64
		payload    []byte
		stamp      wire.Stamp
	}
	var all []published
	codes := map[string]int{}
	last := time.Time{}
	for _, h := range g.queue.Holds() {
		boot := uplink.Boot(h.Label)
		entries, err := g.queue.Read(h.Epoch, 1, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			kind, polled, err := wire.StampOf(e.Payload)
			if err != nil || !polled.Raw || polled.Mono <= 0 {
				t.Fatalf("stored with %+v, %v", polled, err)
			}
			s, ok := g.stamps.Stamp(boot, e.Epoch, e.Seq, polled)
			if !ok {
				t.Fatalf("a record of boot %s waits though the time is known", boot)
			}
			all = append(all, published{e.Epoch, e.Seq, e.Payload, s})
			if want := map[string]telemetry.Clock{"a": 0, "b": 3, "c": 0}[boot]; s.Clock != want {
				t.Errorf("a record of boot %s has clock %d, want %d", boot, s.Clock, want)
			}
			if kind != wire.Reading {
				continue
			}
			codes[boot]++
			at := time.Unix(0, s.Time)
			if !at.After(last) || boot == "b" && at.After(begun) {
				t.Errorf("boot %s: %v after %v; the third boot begins at %v", boot, at, last, begun)
			}
			last = at
		}
	}
	if codes["a"] == 0 || codes["b"] == 0 || codes["c"] == 0 {
		t.Errorf("readings %v", codes)
	}
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	known, err := stamp.Look(os.DirFS(cfg.Buffer.Dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all { // as a reader of the dead board's card finds them
		_, polled, err := wire.StampOf(p.payload)
		if s, ok := known.Of(p.epoch, p.seq, polled); err != nil || !ok || s != p.stamp {
			t.Errorf("%d/%d: flash says %+v, %v; published %+v", p.epoch, p.seq, s, ok, p.stamp)
		}
	}
}
