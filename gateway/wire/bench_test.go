package wire

import (
	"fmt"
	"testing"

	"luquan/gateway/telemetry"
)

// BenchmarkPublish is the cost of a record of 250 points from sample to
// compressed payload, 40 of which a board of 10,000 points makes each second.
func BenchmarkPublish(b *testing.B) {
	s := telemetry.Sample{Device: "d", Kind: "pump", Time: stamp}
	for i := range 250 {
		s.Readings = append(s.Readings, telemetry.Reading{Point: fmt.Sprint("p", i), Value: telemetry.FloatValue(float64(i*7919%1000) / 8)})
	}
	for b.Loop() {
		stored := must(Store(s, site, gateway, 0, 0))
		line := must(AppendLine(nil, stored, epoch, 1200))
		must(Encode(header(1), [][]byte{line}, true))
	}
}

// BenchmarkDecode is the hub's side of the same.
func BenchmarkDecode(b *testing.B) {
	s := telemetry.Sample{Device: "d", Kind: "pump", Time: stamp}
	for i := range 250 {
		s.Readings = append(s.Readings, telemetry.Reading{Point: fmt.Sprint("p", i), Value: telemetry.FloatValue(float64(i*7919%1000) / 8)})
	}
	payload := must(Encode(header(1), [][]byte{must(AppendLine(nil, must(Store(s, site, gateway, 0, 0)), epoch, 1200))}, true))
	for b.Loop() {
		must(Decode(liveTopic(true), payload))
	}
}
