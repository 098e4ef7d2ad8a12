package sqlite

import (
	"fmt"
	"testing"
	"time"

	"luquan/gateway/hub/history"
	"luquan/gateway/telemetry"
)

// BenchmarkWrite is a backlog of 10,000 points a second as a hub gets it: 40
// devices of 250 points, in batches of 100 records, with the sealing of the
// hours it fills.
//
//	go test -run xxx -bench Write -benchtime 200x ./gateway/hub/history/sqlite
func BenchmarkWrite(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	at := time.Now().Add(-30 * time.Minute)
	n := 0
	rows := make([]history.Row, 100)
	points := make([]string, 250)
	for i := range points {
		points[i] = fmt.Sprintf("p_%d", i)
	}
	for b.Loop() {
		for i := range rows {
			r := telemetry.Record{Site: "bench", Gateway: "board", Sample: telemetry.Sample{Device: fmt.Sprintf("unit-%d", n%40), Kind: "meter", Time: at.Add(time.Duration(n) * 25 * time.Millisecond)}}
			for k, p := range points {
				r.Readings = append(r.Readings, telemetry.Reading{Point: p, Value: telemetry.FloatValue(float64((n*7919+k*104729)%100_000) / 1000)})
			}
			rows[i] = history.Row{Record: r}
			n++
		}
		if err := s.Write(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*250)/b.Elapsed().Seconds(), "points/s")
}
