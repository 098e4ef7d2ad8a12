package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var t0 = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

func device(name string, points ...string) telemetry.DeviceInfo {
	d := telemetry.DeviceInfo{Name: name, Kind: "heat_meter", Groups: []telemetry.Group{{Every: 10 * time.Second}}}
	for _, p := range points {
		d.Groups[0].Points = append(d.Groups[0].Points, telemetry.Point{Name: p, Class: telemetry.Float, Unit: "degC"})
	}
	return d
}

// row is one record of device d of site s, polled sec seconds after t0.
func row(epoch, seq uint64, sec int, status telemetry.Quality, readings ...telemetry.Reading) telemetry.Record {
	return telemetry.Record{Site: "s", Gateway: "g", Epoch: epoch, Seq: seq, Sample: telemetry.Sample{
		Device: "d", Kind: "heat_meter", Time: at(sec), Status: status, Readings: readings,
	}}
}

func at(sec int) time.Time { return t0.Add(time.Duration(sec) * time.Second) }

func val(point string, f float64) telemetry.Reading {
	return telemetry.Reading{Point: point, Value: telemetry.FloatValue(f)}
}

func bad(point string, q telemetry.Quality) telemetry.Reading {
	return telemetry.Reading{Point: point, Quality: q}
}

// TestApply plays rows and compares what the feed then says of point a.
func TestApply(t *testing.T) {
	type want struct {
		value, last string // "" for none
		quality     telemetry.Quality
		sec         int // Time; -1 for never
		unconfirmed bool
	}
	late := 1000 // rows marked so are received at this second
	type in struct {
		rec  telemetry.Record
		recv int // 0: as stamped
	}
	tests := map[string]struct {
		rows []in
		want want
	}{
		"never polled": {nil, want{sec: -1}},
		"a value": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}},
			want{value: "84.2", last: "84.2", sec: 0},
		},
		"no row for the point confirms it: the age restarts, the value stays": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 2, 10, 0), 0}, {row(1, 3, 20, 0, val("b", 1)), 0}},
			want{value: "84.2", last: "84.2", sec: 20},
		},
		"a hole before the confirmation: not believed, the age goes on": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 3, 20, 0), 0}},
			want{value: "84.2", last: "84.2", sec: 0, unconfirmed: true},
		},
		"the hole is filled by a row that changes nothing": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 3, 20, 0), 0}, {row(1, 2, 10, 0, val("b", 2)), late}},
			want{value: "84.2", last: "84.2", sec: 20},
		},
		"the hole is filled by the row that had changed the value": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 3, 20, 0), 0}, {row(1, 2, 10, 0, val("a", 90)), late}},
			want{value: "90", last: "90", sec: 20},
		},
		"a confirmation without any value": {
			[]in{{row(1, 7, 0, 0), 0}},
			want{sec: -1, unconfirmed: true},
		},
		"another epoch's value is not confirmed": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(2, 2, 10, 0), 0}},
			want{value: "84.2", last: "84.2", sec: 0, unconfirmed: true},
		},
		"older never overwrites newer": {
			[]in{{row(2, 1, 100, 0, val("a", 1)), 0}, {row(1, 50, 50, 0, val("a", 2)), late}},
			want{value: "1", last: "1", sec: 100},
		},
		"an older bad row never overwrites a newer value": {
			[]in{{row(1, 2, 100, 0, val("a", 1)), 0}, {row(1, 1, 50, telemetry.NoReply), late}},
			want{value: "1", last: "1", sec: 100},
		},
		"a device-wide failure marks the point and keeps what was last known apart": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 2, 10, telemetry.NoReply), 0}},
			want{last: "84.2", quality: telemetry.NoReply, sec: 10},
		},
		"after a failure a confirmation brings the value back": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 2, 10, telemetry.NoReply), 0}, {row(1, 3, 20, 0), 0}},
			want{value: "84.2", last: "84.2", sec: 20},
		},
		"a late value under a standing failure is the last known": {
			[]in{{row(1, 1, 0, 0, val("a", 84.2)), 0}, {row(1, 3, 20, telemetry.NoReply), 0}, {row(1, 2, 10, 0, val("a", 85)), late}},
			want{last: "85", quality: telemetry.NoReply, sec: 20},
		},
		"a point's own quality": {
			[]in{{row(1, 1, 0, 0, bad("a", telemetry.Invalid), val("b", 1)), 0}},
			want{quality: telemetry.Invalid, sec: 0},
		},
		"out of range carries its value": {
			[]in{{row(1, 1, 0, 0, telemetry.Reading{Point: "a", Value: telemetry.FloatValue(190), Quality: telemetry.OutOfRange}), 0}},
			want{value: "190", last: "190", quality: telemetry.OutOfRange, sec: 0},
		},
		"a stamp from the future does not keep later rows out": {
			[]in{{row(1, 1, 90000, 0, val("a", 1)), 1}, {row(2, 1, 10, 0, val("a", 2)), 0}},
			want{value: "2", last: "2", sec: 10},
		},
		"in one epoch the sequence decides, whatever the clock did": {
			[]in{{row(1, 1, 100, 0, val("a", 1)), 0}, {row(1, 2, 50, 0, val("a", 2)), 101}},
			want{value: "2", last: "2", sec: 50},
		},
		"backlog of an earlier epoch between two rows of this one": {
			[]in{{row(2, 1, 100, 0, val("a", 1)), 0}, {row(1, 9, 50, 0, val("a", 9)), 105}, {row(2, 2, 110, 0), 0}},
			want{value: "1", last: "1", sec: 110},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := New(Options{})
			f.Describe("s", "g", []telemetry.DeviceInfo{device("d", "a", "b")})
			for _, r := range tt.rows {
				recv := r.rec.Time
				if r.recv != 0 {
					recv = at(r.recv)
				}
				f.Apply(r.rec, recv)
			}
			e, ok := f.Get("s/d/a")
			if !ok {
				t.Fatal("point is not there")
			}
			got := want{value: e.Value.String(), last: e.LastValue.String(), quality: e.Quality, sec: -1, unconfirmed: e.Unconfirmed}
			if !e.Time.IsZero() {
				got.sec = int(e.Time.Sub(t0) / time.Second)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestHoldFillsHolesOfEvents(t *testing.T) {
	f := New(Options{})
	f.Describe("s", "g", []telemetry.DeviceInfo{device("d", "a")})
	f.Apply(row(1, 1, 0, 0, val("a", 1)), at(0))
	f.Apply(row(1, 3, 20, 0), at(20))
	if e, _ := f.Get("s/d/a"); !e.Unconfirmed {
		t.Fatal("confirmed across a hole")
	}
	f.Hold("s", "g", 1, 2)
	if e, _ := f.Get("s/d/a"); e.Unconfirmed || !e.Time.Equal(at(20)) {
		t.Errorf("after the hole was filled: unconfirmed %v, time %v", e.Unconfirmed, e.Time)
	}
}

func TestAgeAndStale(t *testing.T) {
	e := Entry{Info: &Info{Period: 10 * time.Second}, Time: at(0), Received: at(1)}
	for _, tt := range []struct {
		name  string
		edit  func(*Entry)
		asOf  time.Time
		now   time.Time
		stale bool
	}{
		{"fresh", func(*Entry) {}, at(0), at(20), false},
		{"older than two periods", func(*Entry) {}, at(0), at(21), true},
		{"stamp from the future counts from receipt", func(e *Entry) { e.Time = at(500) }, at(1), at(22), true},
		{"unsure clock counts from receipt", func(e *Entry) { e.Clock = telemetry.ClockUnsure }, at(1), at(21), false},
		{"backlog just received is old", func(e *Entry) { e.Received = at(3600) }, at(0), at(3601), true},
		{"never polled", func(e *Entry) { e.Time, e.Received = time.Time{}, time.Time{} }, time.Time{}, at(0), true},
	} {
		e := e
		tt.edit(&e)
		if got := e.AsOf(); !got.Equal(tt.asOf) {
			t.Errorf("%s: as of %v, want %v", tt.name, got, tt.asOf)
		}
		if got := e.Stale(tt.now); got != tt.stale {
			t.Errorf("%s: stale %v, want %v", tt.name, got, tt.stale)
		}
	}
}

func TestDescribe(t *testing.T) {
	f := New(Options{Interval: time.Nanosecond})
	f.Apply(row(1, 1, 0, 0, val("a", 1), val("old", 2)), at(0))
	if e, ok := f.Get("s/d/a"); !ok || e.Class != telemetry.Float || e.Unit != "" || e.Period != 0 {
		t.Fatalf("before it was announced: %+v %v", e.Info, ok)
	}
	sub := f.Subscribe("")
	defer sub.Close()
	if d, err := sub.Next(t.Context()); err != nil || !d.Whole || len(d.Entries) != 2 {
		t.Fatalf("first delta: %+v %v", d, err)
	}
	f.Describe("s", "g", []telemetry.DeviceInfo{device("d", "a", "b")})
	d, err := sub.Next(t.Context())
	if err != nil || !reflect.DeepEqual(d.Removed, []string{"s/d/old"}) || len(d.Entries) != 2 {
		t.Fatalf("after the announcement: %+v %v", d, err)
	}
	for _, e := range d.Entries {
		if e.Described <= d.Since {
			t.Errorf("%s: new info is not marked", e.Name)
		}
	}
	if e, _ := f.Get("s/d/a"); e.Value.Float() != 1 || e.Unit != "degC" || e.Period != 10*time.Second {
		t.Errorf("announcement lost the value or was not taken: %+v %+v", e, e.Info)
	}
	if a, _ := f.Get("s/d/a"); a.Order != 0 {
		t.Errorf("order of a is %d, want 0", a.Order)
	}
	if b, _ := f.Get("s/d/b"); b.Order != 1 {
		t.Errorf("order of b is %d, want 1", b.Order)
	}
	// What is not announced is not shown: backlog of an earlier configuration.
	f.Apply(row(1, 2, 10, 0, val("old", 3)), at(10))
	if _, ok := f.Get("s/d/old"); ok || f.Stats().Foreign != 1 {
		t.Errorf("foreign point shown: %v, counted %d", ok, f.Stats().Foreign)
	}
	// A replaced board keeps its devices' values; the old one's words remove nothing.
	f.Describe("s", "g2", []telemetry.DeviceInfo{device("d", "a", "b")})
	f.Describe("s", "g", nil)
	if e, ok := f.Get("s/d/a"); !ok || e.Value.Float() != 1 {
		t.Errorf("device lost when it moved to another board: %+v %v", e, ok)
	}
}

func TestMaxPoints(t *testing.T) {
	f := New(Options{MaxPoints: 2})
	f.Apply(row(1, 1, 0, 0, val("a", 1), val("b", 1), val("c", 1)), at(0))
	if st := f.Stats(); st.Points != 2 || st.Refused != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestSubscriptionCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Options{})
		sub := f.Subscribe("s/d/*")
		defer sub.Close()
		if d, err := sub.Next(t.Context()); err != nil || !d.Whole {
			t.Fatal(d, err)
		}
		for i := range 100 {
			f.Apply(row(1, uint64(i+1), i, 0, val("a", float64(i)), val("b", 1)), at(i))
		}
		start := time.Now()
		d, err := sub.Next(t.Context())
		if err != nil || len(d.Entries) != 2 || d.Whole {
			t.Fatalf("%+v %v", d, err)
		}
		for _, e := range d.Entries {
			if e.Point == "a" && e.Value.Float() != 99 {
				t.Errorf("value %v, want the latest", e.Value)
			}
		}
		if waited := time.Since(start); waited != 250*time.Millisecond {
			t.Errorf("delta after %v, want 250ms: at most four a second", waited)
		}
		// Nothing new: waits until the context ends.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := sub.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err %v, want the deadline", err)
		}
		// Something that the glob does not match is not told.
		r := row(1, 500, 600, 0, val("a", 1))
		r.Site = "elsewhere"
		ctx2, cancel2 := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel2()
		go f.Apply(r, at(600))
		if d, err := sub.Next(ctx2); err == nil {
			t.Errorf("told of another site: %+v", d)
		}
	})
}

func TestResume(t *testing.T) {
	f := New(Options{Interval: time.Nanosecond})
	f.Apply(row(1, 1, 0, 0, val("a", 1), val("b", 1)), at(0))
	sub := f.Subscribe("")
	d, err := sub.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
	f.Apply(row(1, 2, 10, 0, val("a", 2), bad("b", telemetry.Invalid)), at(10))

	again := f.Resume("", d.Cursor)
	defer again.Close()
	d2, err := again.Next(t.Context())
	if err != nil || d2.Whole || len(d2.Entries) != 2 {
		t.Fatalf("resumed: %+v %v", d2, err)
	}
	for _, cursor := range []string{"", "x", "deadbeef-1", f.cursor(999999), f.instance + "-", New(Options{}).cursor(0)} {
		s := f.Resume("", cursor)
		if d, err := s.Next(t.Context()); err != nil || !d.Whole {
			t.Errorf("cursor %q: whole %v, err %v: want a whole snapshot", cursor, d.Whole, err)
		}
		s.Close()
	}
	if n := f.Stats().Readers; n != 1 {
		t.Errorf("%d readers, want 1", n)
	}
}

func TestResumeBeyondTheHorizon(t *testing.T) {
	f := New(Options{Interval: time.Nanosecond})
	f.Describe("s", "g", []telemetry.DeviceInfo{device("d", "keep")})
	sub := f.Subscribe("")
	d, _ := sub.Next(t.Context())
	sub.Close()
	for i := range maxRemovals + 10 {
		f.Describe("s", "g", []telemetry.DeviceInfo{device("d", "keep", fmt.Sprintf("p%d", i))})
	}
	again := f.Resume("", d.Cursor)
	defer again.Close()
	if d, err := again.Next(t.Context()); err != nil || !d.Whole || len(d.Entries) != 2 {
		t.Errorf("whole %v with %d entries, err %v: want a whole snapshot of 2", d.Whole, len(d.Entries), err)
	}
	if len(f.removals) > maxRemovals {
		t.Errorf("%d removals remembered", len(f.removals))
	}
}

func TestSlowReaderIsToldAndCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Options{})
		f.Apply(row(1, 1, 0, 0, val("a", 1)), at(0))
		slow, idle := f.Subscribe(""), f.Subscribe("other/*/*")
		defer idle.Close()
		for _, s := range []*Subscription{slow, idle} {
			if _, err := s.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // nothing changes: nobody is slow
		f.Apply(row(1, 2, 10, 0, val("a", 2)), at(10))
		if _, err := slow.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 40 {
			f.Apply(row(1, uint64(3+i), 20+i, 0, val("a", 3)), at(20+i))
			time.Sleep(time.Second)
		}
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
			t.Errorf("err %v, want ErrSlow", err)
		}
		if _, err := slow.Next(t.Context()); err == nil {
			t.Error("a closed subscription went on")
		}
		if st := f.Stats(); st.Slow != 1 || st.Readers != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// TestSeen compares the interval set with a plain map.
func TestSeen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s, held := seen{}, map[uint64]bool{}
		for range 120 {
			n := rnd.Uint64N(150) + 1
			held[n] = true
			s.add(n)
			a, b := rnd.Uint64N(150)+1, rnd.Uint64N(150)+1
			if a > b {
				a, b = b, a
			}
			want := true
			for k := a; k <= b; k++ {
				want = want && held[k]
			}
			if got := s.all(a, b); got && !want || !got && want && len(s.spans) < maxSpans {
				t.Fatalf("all(%d, %d) = %v, want %v: %v", a, b, got, want, s.spans)
			}
			for i := 1; i < len(s.spans); i++ {
				if s.spans[i].first <= s.spans[i-1].last+1 {
					t.Fatalf("spans touch: %v", s.spans)
				}
			}
		}
	}
}

// TestNothingIsLostToReaders lets writers and readers run and compares every
// reader's picture with the feed's at the end.
func TestNothingIsLostToReaders(t *testing.T) {
	f := New(Options{Interval: time.Millisecond})
	const rows = 2000
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		sub := f.Subscribe("")
		readers.Go(func() {
			defer sub.Close()
			picture := map[string]Entry{}
			ctx, cancel := context.WithCancel(context.Background())
			go func() { <-done; time.AfterFunc(20*time.Millisecond, cancel) }()
			for {
				d, err := sub.Next(ctx)
				if err != nil {
					break
				}
				for _, e := range d.Entries {
					if old, ok := picture[e.Name]; ok && e.Version <= old.Version {
						t.Errorf("%s went back from version %d to %d", e.Name, old.Version, e.Version)
					}
					picture[e.Name] = e
				}
				for _, n := range d.Removed {
					delete(picture, n)
				}
			}
			final, _ := f.Snapshot("")
			if len(final) != len(picture) {
				t.Errorf("reader knows %d points, feed %d", len(picture), len(final))
			}
			for _, e := range final {
				if p := picture[e.Name]; p.Value != e.Value || p.Version != e.Version {
					t.Errorf("%s: reader has %v of version %d, feed %v of %d", e.Name, p.Value, p.Version, e.Value, e.Version)
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for i := range rows {
				r := row(uint64(w+1), uint64(i+1), i, 0, val("a", float64(i)), val("b", float64(w)))
				r.Site = fmt.Sprintf("site-%d", w)
				f.Apply(r, r.Time)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

func benchFeed(b *testing.B, readers int) {
	f := New(Options{})
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("p%02d", i))
	}
	var devices []telemetry.DeviceInfo
	for i := range 100 {
		devices = append(devices, device(fmt.Sprintf("d%d", i), names...))
	}
	f.Describe("s", "g", devices)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range readers {
		sub := f.Subscribe("")
		wg.Go(func() {
			defer sub.Close()
			for {
				if _, err := sub.Next(ctx); err != nil {
					return
				}
			}
		})
	}
	readings := make([]telemetry.Reading, len(names))
	for i, n := range names {
		readings[i] = val(n, float64(i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		r := row(1, uint64(i+1), i, 0, readings...)
		r.Device = devices[i%100].Name
		f.Apply(r, r.Time)
	}
	b.StopTimer()
	cancel()
	wg.Wait()
}

// One operation is one record of 20 points.
func BenchmarkApply(b *testing.B)           { benchFeed(b, 0) }
func BenchmarkApply200Readers(b *testing.B) { benchFeed(b, 200) }
