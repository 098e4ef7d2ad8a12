// Package historytest is the suite every history.Store passes.
package historytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"luquan/gateway/hub/history"
	"luquan/gateway/telemetry"
)

// Base is the time around which the suite writes: the start of an hour two
// days ago, within any retention and older than what a store still gathers.
func Base() time.Time { return time.Now().UTC().Truncate(time.Hour).Add(-48 * time.Hour) }

// Row returns the row of one sample, with the line a board would send.
func Row(site, device, kind string, seq uint64, at time.Time, readings ...telemetry.Reading) history.Row {
	r := telemetry.Record{
		Site: site, Gateway: "board-1", Epoch: 77, Seq: seq,
		Sample: telemetry.Sample{Device: device, Kind: kind, Time: at, Readings: readings},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s,site=%s,gateway=board-1,device=%s status=0i,group=0i", kind, site, device)
	bad := 0
	for _, x := range readings {
		switch x.Value.Class() {
		case telemetry.Float:
			s := x.Value.String()
			if !strings.ContainsAny(s, ".e") {
				s += ".0"
			}
			fmt.Fprintf(&b, ",%s=%s", x.Point, s)
		case telemetry.Int:
			fmt.Fprintf(&b, ",%s=%di", x.Point, x.Value.Int())
		case telemetry.String:
			fmt.Fprintf(&b, ",%s=\"%s\"", x.Point, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(x.Value.Str()))
		}
		if x.Quality != telemetry.Good {
			fmt.Fprintf(&b, ",%s_q=%di", x.Point, x.Quality)
		}
		if x.Quality.Bad() {
			bad++
		}
	}
	if bad > 0 {
		fmt.Fprintf(&b, ",bad_points=%di", bad)
	}
	fmt.Fprintf(&b, ",epoch=77i,seq=%di %d", seq, at.UnixNano())
	return history.Row{Line: []byte(b.String()), Record: r}
}

// F returns a good float reading.
func F(point string, v float64) telemetry.Reading {
	return telemetry.Reading{Point: point, Value: telemetry.FloatValue(v)}
}

// Test runs the suite. open returns the same store each time it is called in
// one subtest: the second call reopens what the first one closed.
func Test(t *testing.T, open func(t *testing.T) history.Store) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, history.Store)
	}{
		{"buckets", buckets}, {"ints", ints}, {"strings", text}, {"qualities", qualities},
		{"twice", twice}, {"late", late}, {"conflict", conflict}, {"marks", marks},
		{"boards", boards}, {"count", count}, {"bad queries", badQueries}, {"empty", empty},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			c.f(t, s)
		})
	}
	t.Run("reopen", func(t *testing.T) {
		s := open(t)
		at := Base()
		write(t, s, Row("plant", "m", "meter", 1, at, F("x", 1.25)))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t)
		defer s.Close()
		if b := query(t, s, "plant/m/x", "meter", at, at.Add(time.Minute), 1); len(b) != 1 || b[0].Last != 1.25 {
			t.Fatalf("after reopening: %+v", b)
		}
	})
}

func write(t *testing.T, s history.Store, rows ...history.Row) {
	t.Helper()
	if err := s.Write(context.Background(), rows); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func query(t *testing.T, s history.Store, point, kind string, from, to time.Time, n int) []history.Bucket {
	t.Helper()
	b, err := s.Query(context.Background(), history.Query{Point: point, Kind: kind, From: from, To: to, Buckets: n})
	if err != nil {
		t.Fatalf("query: %v", err)
	}
	return b
}

// count asks which records are kept, whatever they carry: readings, a row that
// only confirms, a gap; of this board only, by the minute of their stamps.
func count(t *testing.T, s history.Store) {
	at := Base()
	var rows []history.Row
	for i := range uint64(200) {
		var x []telemetry.Reading
		if i%3 > 0 {
			x = append(x, F("x", float64(i)))
		}
		rows = append(rows, Row("plant", "m", "meter", i+1, at.Add(time.Duration(i)*30*time.Second), x...))
	}
	rows = append(rows, Row("plant", "other", "pump", 300, at.Add(time.Second), F("y", 1)), Row("elsewhere", "m", "meter", 301, at, F("x", 1)))
	gap := Row("plant", "g", "gateway_gap", 302, at.Add(time.Second))
	gap.Line = fmt.Appendf(nil, "gateway_gap,site=plant,gateway=board-1 first=1i,last=2i,lost_epoch=5i,epoch=77i,seq=302i %d", at.Add(time.Second).UnixNano())
	gap.Record.Kind = ""
	rows = append(rows, gap)
	write(t, s, rows...)
	write(t, s, rows[:50]...) // again
	for _, c := range []struct {
		board    string
		from, to time.Duration
		want     uint64
		first    [2]uint64 // range of the first minute
	}{
		{"board-1", 0, 2 * time.Hour, 202, [2]uint64{1, 2}},
		{"board-1", 10 * time.Minute, 70 * time.Minute, 120, [2]uint64{21, 22}},
		{"board-1", 99 * time.Minute, 100 * time.Minute, 2, [2]uint64{199, 200}},
		{"board-1", -time.Hour, 0, 0, [2]uint64{}},
		{"board-2", 0, 2 * time.Hour, 0, [2]uint64{}},
	} {
		list, err := s.Count(context.Background(), "plant", c.board, at.Add(c.from), at.Add(c.to))
		if err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		for _, r := range list {
			if r.Epoch != 77 {
				t.Errorf("epoch %d", r.Epoch)
			}
			for m, set := range r.Seqs.Minutes {
				n += set.Count()
				if r.Seqs.Again[m] != 0 {
					t.Errorf("%s after %s: minute %d has rows twice", c.board, c.from, m)
				}
				if start := time.Unix(r.Hour*3600+int64(m)*60, 0); start.Equal(at.Add(c.from)) && len(set) > 0 && set[0] != c.first {
					t.Errorf("%s after %s: %v, want %v first", c.board, c.from, set, c.first)
				}
			}
		}
		if n != c.want {
			t.Errorf("%s from %s to %s: %d records, want %d", c.board, c.from, c.to, n, c.want)
		}
	}
}

// buckets compares with sums made here, over several hours and a From that is
// no round time.
func buckets(t *testing.T, s history.Store) {
	rng := rand.New(rand.NewPCG(1, 2))
	base := Base()
	var rows []history.Row
	values, stamps := []float64{}, []time.Time{}
	for i := range 3000 {
		at := base.Add(time.Duration(i)*5*time.Second + time.Duration(rng.IntN(1e9)))
		v := math.Round(rng.NormFloat64()*1000) / 100
		if i%500 == 0 {
			v = rng.NormFloat64() // a real float among decimals
		}
		values, stamps = append(values, v), append(stamps, at)
		rows = append(rows, Row("plant", "m", "meter", uint64(i+1), at, F("flow", v), F("temp", v/10)))
	}
	write(t, s, rows...)
	for _, q := range []struct {
		from, to time.Duration
		n        int
	}{{0, 5 * time.Hour, 1}, {0, 5 * time.Hour, 300}, {17*time.Minute + 3*time.Second + 7, 3 * time.Hour, 37}, {-time.Hour, 10 * time.Second, 9}} {
		from, to := base.Add(q.from), base.Add(q.to)
		hq := history.Query{Point: "plant/m/flow", Kind: "meter", From: from, To: to, Buckets: q.n}
		want := map[time.Time]*history.Bucket{}
		for i, v := range values {
			if stamps[i].Before(from) || !stamps[i].Before(to) {
				continue
			}
			start := from.Add(stamps[i].Sub(from) / hq.Width() * hq.Width())
			b := want[start]
			if b == nil {
				b = &history.Bucket{Start: start, Min: v, Max: v}
				want[start] = b
			}
			b.Min, b.Max, b.Last = min(b.Min, v), max(b.Max, v), v
			b.Mean = (b.Mean*float64(b.Count) + v) / float64(b.Count+1)
			b.Count++
		}
		got := query(t, s, "plant/m/flow", "meter", from, to, q.n)
		if len(got) != len(want) {
			t.Fatalf("%v: %d buckets, want %d", q, len(got), len(want))
		}
		for i, g := range got {
			w := want[g.Start]
			if w == nil || g.Min != w.Min || g.Max != w.Max || g.Last != w.Last || g.Count != w.Count ||
				math.Abs(g.Mean-w.Mean) > 1e-9*(1+math.Abs(w.Mean)) {
				t.Fatalf("%v: bucket %d is %+v, want %+v", q, i, g, w)
			}
			if i > 0 && !got[i-1].Start.Before(g.Start) {
				t.Fatalf("%v: bucket %d is out of order", q, i)
			}
		}
	}
}

func ints(t *testing.T, s history.Store) {
	at := Base()
	for i, v := range []int64{3, math.MaxInt64, math.MinInt64, 0} {
		write(t, s, Row("plant", "m", "meter", uint64(i+1), at.Add(time.Duration(i)*time.Second),
			telemetry.Reading{Point: "energy", Value: telemetry.IntValue(v)}))
	}
	b := query(t, s, "plant/m/energy", "meter", at, at.Add(4*time.Second), 4)
	if len(b) != 4 || b[0].Last != 3 || b[1].Max != math.MaxInt64 || b[2].Min != math.MinInt64 || b[3].Count != 1 {
		t.Fatalf("%+v", b)
	}
}

func text(t *testing.T, s history.Store) {
	at := Base()
	for i, v := range []string{"idle", `run "fast", \ 热`, "idle"} {
		write(t, s, Row("plant", "m", "meter", uint64(i+1), at.Add(time.Duration(i)*time.Second),
			telemetry.Reading{Point: "mode", Value: telemetry.StringValue(v)}))
	}
	b := query(t, s, "plant/m/mode", "meter", at, at.Add(4*time.Second), 2)
	if len(b) != 2 || b[0].Text != `run "fast", \ 热` || b[0].Count != 2 || b[1].Text != "idle" || b[1].Last != 0 {
		t.Fatalf("%+v", b)
	}
}

func qualities(t *testing.T, s history.Store) {
	at := Base()
	write(t, s,
		Row("plant", "m", "meter", 1, at, F("x", 5)),
		Row("plant", "m", "meter", 2, at.Add(1*time.Second), telemetry.Reading{Point: "x", Value: telemetry.FloatValue(99), Quality: telemetry.OutOfRange}),
		Row("plant", "m", "meter", 3, at.Add(10*time.Second), telemetry.Reading{Point: "x", Quality: telemetry.NoReply}),
		Row("plant", "m", "meter", 4, at.Add(20*time.Second)), // confirms x: coverage, not a sample
		Row("plant", "m", "meter", 5, at.Add(30*time.Second), F("x", 0)))
	b := query(t, s, "plant/m/x", "meter", at, at.Add(40*time.Second), 4)
	if len(b) != 3 {
		t.Fatalf("%+v", b)
	}
	if b[0].Count != 2 || b[0].Max != 99 || b[0].Worst != telemetry.OutOfRange {
		t.Errorf("a value out of range: %+v", b[0])
	}
	if b[1].Count != 0 || b[1].Worst != telemetry.NoReply || b[1].Last != 0 {
		t.Errorf("no reply: %+v", b[1])
	}
	if b[2].Count != 1 || b[2].Last != 0 || b[2].Worst != telemetry.Good || !b[2].Start.Equal(at.Add(30*time.Second)) {
		t.Errorf("a good zero: %+v", b[2])
	}
}

func twice(t *testing.T, s history.Store) {
	at := Base()
	var rows []history.Row
	for i := range 50 {
		rows = append(rows, Row("plant", "m", "meter", uint64(i+1), at.Add(time.Duration(i)*time.Second), F("x", float64(i)/10)))
	}
	write(t, s, rows...)
	write(t, s, rows[10:40]...)
	write(t, s, rows[5], rows[5])
	if b := query(t, s, "plant/m/x", "meter", at, at.Add(time.Minute), 1); len(b) != 1 || b[0].Count != 50 || b[0].Last != 4.9 {
		t.Fatalf("written twice: %+v", b)
	}
}

func late(t *testing.T, s history.Store) {
	at := Base()
	order := rand.New(rand.NewPCG(3, 4)).Perm(400)
	for from := 0; from < len(order); from += 40 {
		var rows []history.Row
		for _, i := range order[from : from+40] {
			rows = append(rows, Row("plant", "m", "meter", uint64(i+1), at.Add(time.Duration(i)*time.Minute), F("x", float64(i))))
		}
		write(t, s, rows...)
	}
	b := query(t, s, "plant/m/x", "meter", at, at.Add(400*time.Minute), 40)
	if len(b) != 40 {
		t.Fatalf("%d buckets", len(b))
	}
	for i, x := range b {
		if x.Count != 10 || x.Min != float64(10*i) || x.Last != float64(10*i+9) {
			t.Fatalf("bucket %d: %+v", i, x)
		}
	}
}

func conflict(t *testing.T, s history.Store) {
	at := Base()
	write(t, s, Row("plant", "m", "meter", 1, at, F("x", 1)))
	var rows []history.Row
	for i := 1; i < 30; i++ {
		rows = append(rows, Row("plant", "m", "meter", uint64(i+1), at.Add(time.Duration(i)*time.Second), F("x", 2)))
	}
	for _, i := range []int{7, 19} {
		rows[i] = Row("plant", "other", "meter", uint64(i+2), at.Add(time.Duration(i+1)*time.Second),
			telemetry.Reading{Point: "x", Value: telemetry.StringValue("two")})
	}
	err := s.Write(context.Background(), rows)
	var re *history.RejectedError
	if !errors.As(err, &re) {
		t.Fatalf("a text where floats are kept: %v", err)
	}
	if len(re.Rows) != 2 || re.Rows[0].Index != 7 || re.Rows[1].Index != 19 || re.Rows[0].Reason == "" {
		t.Fatalf("rejected %+v, want rows 7 and 19 with a reason", re.Rows)
	}
	if b := query(t, s, "plant/m/x", "meter", at, at.Add(time.Minute), 1); len(b) != 1 || b[0].Count != 28 {
		t.Fatalf("the good rows beside a bad one: %+v", b)
	}
}

// marks are lines that are no readings.
func marks(t *testing.T, s history.Store) {
	at := Base()
	gap := history.Row{
		Line: fmt.Appendf(nil, `gateway_gap,site=plant,gateway=board-1 first=3i,last=9i,lost_epoch=5i,from=%di,to=%di,reason="buffer full",epoch=77i,seq=4i %[2]d`,
			at.UnixNano(), at.Add(time.Second).UnixNano()),
		Record: telemetry.Record{Site: "plant", Gateway: "board-1", Epoch: 77, Seq: 4, Sample: telemetry.Sample{Time: at}},
	}
	write(t, s, Row("plant", "m", "meter", 3, at, F("x", 1)), gap)
}

// boards proves that a replaced board keeps a point's history.
func boards(t *testing.T, s history.Store) {
	at := Base()
	a := Row("plant", "m", "meter", 1, at, F("x", 1))
	b := Row("plant", "m", "meter", 1, at.Add(time.Second), F("x", 2))
	b.Record.Gateway = "board-2"
	b.Line = []byte(strings.Replace(string(b.Line), "board-1", "board-2", 1))
	c := Row("plant-2", "m", "meter", 1, at.Add(time.Second), F("x", 7))
	write(t, s, b, a, c)
	got := query(t, s, "plant/m/x", "meter", at, at.Add(time.Minute), 1)
	if len(got) != 1 || got[0].Count != 2 || got[0].Last != 2 || got[0].Min != 1 || got[0].Max != 2 {
		t.Fatalf("%+v", got)
	}
}

func badQueries(t *testing.T, s history.Store) {
	at := Base()
	ok := history.Query{Point: "plant/m/x", Kind: "meter", From: at, To: at.Add(time.Hour), Buckets: 10}
	for _, f := range []func(*history.Query){
		func(q *history.Query) { q.Point = `plant/m/x" OR 1=1` },
		func(q *history.Query) { q.Point = "plant/m" },
		func(q *history.Query) { q.Kind = `meter"; DROP MEASUREMENT "meter` },
		func(q *history.Query) { q.To = q.From },
		func(q *history.Query) { q.Buckets = 0 },
		func(q *history.Query) { q.Buckets = history.MaxBuckets + 1 },
	} {
		q := ok
		f(&q)
		if b, err := s.Query(context.Background(), q); err == nil {
			t.Errorf("%+v: no error, %d buckets", q, len(b))
		}
	}
}

func empty(t *testing.T, s history.Store) {
	write(t, s)
	at := Base()
	if b := query(t, s, "nowhere/m/x", "meter", at, at.Add(time.Hour), 5); len(b) != 0 {
		t.Fatalf("%+v", b)
	}
}
