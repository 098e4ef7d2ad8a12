package drivertest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"luquan/drivers"
	"luquan/gateway/telemetry"
)

// Plant is what TestDevice asks of the world behind a driver: a bus with at
// least one device, all of whose points have plausible values, and a switch.
type Plant struct {
	Bus drivers.Bus
	// Silence makes every device stop answering, and answer again.
	Silence func(silent bool)
	// Close ends what open started, after the Bus was closed; nil for nothing.
	Close func()
}

// TestDevice holds a driver against the contract in package drivers. open is
// called in a testing/synctest bubble, once for each part.
func TestDevice(t *testing.T, open func(t *testing.T) Plant) {
	part := func(name string, f func(t *testing.T, p Plant)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t)
				defer func() {
					p.Bus.Close()
					if p.Close != nil {
						p.Close()
					}
				}()
				f(t, p)
			})
		})
	}
	part("info", checkInfo)
	part("first sample is complete", func(t *testing.T, p Plant) {
		eachGroup(p, func(d drivers.Device, g telemetry.Group) {
			s := poll(t, d, g.Index)
			if s.Status != telemetry.Good || len(s.Readings) != len(g.Points) {
				t.Fatalf("%s group %d: status %v, %d readings of %d points: %+v", s.Device, g.Index, s.Status, len(s.Readings), len(g.Points), s.Readings)
			}
		})
	})
	part("silence", func(t *testing.T, p Plant) {
		eachGroup(p, func(d drivers.Device, g telemetry.Group) {
			poll(t, d, g.Index)
			p.Silence(true)
			for range 3 {
				time.Sleep(g.Every)
				s := poll(t, d, g.Index)
				if s.Status != telemetry.NoReply && s.Status != telemetry.NotConnected {
					t.Fatalf("%s: silent, but its status is %v", s.Device, s.Status)
				}
				for _, r := range s.Readings {
					if !r.Value.IsZero() {
						t.Fatalf("%s/%s: value %v while silent", s.Device, r.Point, r.Value)
					}
				}
			}
			p.Silence(false)
			var s telemetry.Sample
			for range 10 { // back-off of its connection is allowed
				time.Sleep(max(g.Every, 10*time.Second))
				if s = poll(t, d, g.Index); s.Status == telemetry.Good {
					break
				}
			}
			if s.Status != telemetry.Good || len(s.Readings) != len(g.Points) {
				t.Fatalf("%s: after the silence status %v with %d readings of %d points", s.Device, s.Status, len(s.Readings), len(g.Points))
			}
		})
	})
	part("deadline", func(t *testing.T, p Plant) {
		p.Silence(true)
		eachGroup(p, func(d drivers.Device, g telemetry.Group) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			s, ok := d.Poll(ctx, g.Index)
			if took := time.Since(start); took > 60*time.Millisecond {
				t.Fatalf("%s: polled for %v with a deadline of 50ms", s.Device, took)
			}
			if !ok || !s.Status.Bad() {
				t.Fatalf("%s: a deadline gives ok %v, status %v; want a sample that says no reply", s.Device, ok, s.Status)
			}
		})
	})
	part("cancellation", func(t *testing.T, p Plant) {
		p.Silence(true)
		eachGroup(p, func(d drivers.Device, g telemetry.Group) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(30*time.Millisecond, cancel)
			start := time.Now()
			_, ok := d.Poll(ctx, g.Index)
			if ok || time.Since(start) > 40*time.Millisecond {
				t.Fatalf("cancelled after 30ms: ok %v after %v", ok, time.Since(start))
			}
		})
	})
	part("refresh", func(t *testing.T, p Plant) {
		eachGroup(p, func(d drivers.Device, g telemetry.Group) {
			poll(t, d, g.Index)
			time.Sleep(g.Every)
			poll(t, d, g.Index)
			if r, ok := d.(drivers.Refresher); ok {
				r.Refresh()
				time.Sleep(g.Every)
				if s := poll(t, d, g.Index); len(s.Readings) != len(g.Points) {
					t.Fatalf("%s: after Refresh %d readings of %d points", s.Device, len(s.Readings), len(g.Points))
				}
			}
		})
	})
	part("after close", func(t *testing.T, p Plant) {
		if err := p.Bus.Close(); err != nil {
			t.Fatal(err)
		}
		eachGroup(p, func(d drivers.Device, g telemetry.Group) {
			if s := poll(t, d, g.Index); s.Status != telemetry.NotConnected || len(s.Readings) != 0 {
				t.Fatalf("%s: after Close status %v", s.Device, s.Status)
			}
		})
	})
}

func eachGroup(p Plant, f func(drivers.Device, telemetry.Group)) {
	for _, d := range p.Bus.Devices() {
		for _, g := range d.Info().Groups {
			f(d, g)
		}
	}
}

func checkInfo(t *testing.T, p Plant) {
	if !telemetry.ValidName(p.Bus.Name()) || len(p.Bus.Devices()) == 0 {
		t.Fatalf("bus %q with %d devices", p.Bus.Name(), len(p.Bus.Devices()))
	}
	names := map[string]bool{}
	for _, d := range p.Bus.Devices() {
		info := d.Info()
		if !telemetry.ValidName(info.Name) || names[info.Name] || !telemetry.ValidKind(info.Kind) || info.Bus != p.Bus.Name() {
			t.Errorf("device %+v", info)
		}
		names[info.Name] = true
		points := map[string]bool{}
		for i, g := range info.Groups {
			if g.Index != i || g.Every <= 0 || len(g.Points) == 0 {
				t.Errorf("%s: group %d has index %d, period %v, %d points", info.Name, i, g.Index, g.Every, len(g.Points))
			}
			for _, pt := range g.Points {
				if !telemetry.ValidPoint(pt.Name) || points[pt.Name] || pt.Class < telemetry.Float || pt.Class > telemetry.String {
					t.Errorf("%s: point %+v is not valid, or in two groups", info.Name, pt)
				}
				points[pt.Name] = true
			}
		}
	}
}

// poll polls once and checks what holds for every sample.
func poll(t *testing.T, d drivers.Device, group int) telemetry.Sample {
	t.Helper()
	start := time.Now()
	s, ok := d.Poll(t.Context(), group)
	info := d.Info()
	if !ok || s.Device != info.Name || s.Kind != info.Kind || s.Group != group {
		t.Fatalf("polling %s group %d gave ok %v, %+v", info.Name, group, ok, s)
	}
	if s.Time.Before(start) || s.Time.After(time.Now()) {
		t.Fatalf("%s: stamped %v, polled from %v to %v", s.Device, s.Time, start, time.Now())
	}
	class := map[string]telemetry.Class{}
	for _, p := range info.Groups[group].Points {
		class[p.Name] = p.Class
	}
	for _, r := range s.Readings {
		switch want, known := class[r.Point]; {
		case !known:
			t.Fatalf("%s: reading of %q, which is not of group %d or came twice", s.Device, r.Point, group)
		case r.Quality.HasValue() && r.Value.Class() != want:
			t.Fatalf("%s/%s: a %v, announced as %v", s.Device, r.Point, r.Value.Class(), want)
		case !r.Quality.HasValue() && !r.Value.IsZero():
			t.Fatalf("%s/%s: quality %v with value %v", s.Device, r.Point, r.Quality, r.Value)
		}
		delete(class, r.Point)
	}
	return s
}
