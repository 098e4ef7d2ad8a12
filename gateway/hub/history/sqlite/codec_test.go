package sqlite

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"luquan/gateway/telemetry"
)

func randomSeries(rng *rand.Rand) series {
	var s series
	ts := int64(rng.Uint64N(1 << 60))
	unit := int64(1)
	for range rng.IntN(10) {
		unit *= 10
	}
	kind := rng.IntN(6)
	x := float64(rng.IntN(1000))
	for range 1 + rng.IntN(300) {
		ts += unit * (1 + int64(rng.IntN(50)))
		q := []telemetry.Quality{0, 0, 0, 20, 25}[rng.IntN(5)]
		if rng.IntN(10) == 0 {
			s.add(ts, telemetry.NoReply, telemetry.Value{})
			continue
		}
		x += float64(rng.IntN(21) - 10)
		switch kind {
		case 0:
			s.add(ts, q, telemetry.FloatValue(x/1000))
		case 1:
			s.add(ts, q, telemetry.FloatValue(float64(float32(x*math.Pi))))
		case 2:
			s.add(ts, q, telemetry.FloatValue(rng.NormFloat64()*1e200))
		case 3:
			s.add(ts, q, telemetry.IntValue(int64(rng.Uint64())))
		case 4:
			s.add(ts, q, telemetry.StringValue([]string{"", "run", "停"}[rng.IntN(3)]))
		case 5:
			s.add(ts, telemetry.Invalid, telemetry.Value{})
		}
	}
	return s
}

func same(a, b series) bool {
	if len(a.samples) != len(b.samples) {
		return false
	}
	for i, x := range a.samples {
		y := b.samples[i]
		if x.ts != y.ts || x.q != y.q || x.has != y.has || a.value(x) != b.value(y) {
			return false
		}
	}
	return true
}

func TestBlockRoundTrip(t *testing.T) {
	modes := map[byte]int{}
	for seed := range uint64(3000) {
		s := randomSeries(rand.New(rand.NewPCG(seed, 5)))
		b := encodeBlock(s)
		got, err := decodeBlock(b)
		if err != nil || !same(s, got) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		m, _, _, err := decodeSummary(b)
		if err != nil || m != s.summarize() {
			t.Fatalf("seed %d: summary %+v, want %+v, %v", seed, m, s.summarize(), err)
		}
		var vals []uint64
		for _, x := range s.samples {
			if x.has {
				vals = append(vals, x.bits)
			}
		}
		if s.class == telemetry.Float && len(vals) > 0 {
			modes[appendFloats(nil, vals)[0]]++
		}
	}
	for _, mode := range []byte{modeDec, modeF32, modeF64} {
		if modes[mode] < 50 {
			t.Errorf("mode %d was used %d times", mode, modes[mode])
		}
	}
}

// TestExactFloats: floats come back bit for bit, whatever they are.
func TestExactFloats(t *testing.T) {
	for _, vs := range [][]float64{
		{0.1, 0.2, 0.30000000000000004}, {1e-9, 1e9}, {math.MaxFloat64, math.SmallestNonzeroFloat64}, {9007199254740993, 1},
		{84.2, 84.25, 12.51}, {1e15, 0.001}, {-0.05, -1e6}, {123456.789012345}, {0},
	} {
		var s series
		for i, v := range vs {
			s.add(int64(i), 0, telemetry.FloatValue(v))
		}
		got, err := decodeBlock(encodeBlock(s))
		if err != nil || !same(s, got) {
			t.Errorf("%v: %v", vs, err)
		}
	}
}

func TestMerge(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 6))
		want := map[int64]float64{}
		var parts []series
		for range 1 + rng.IntN(3) {
			var s series
			for range rng.IntN(40) {
				ts, v := int64(rng.IntN(50)), float64(rng.IntN(9))
				s.add(ts, 0, telemetry.FloatValue(v))
				want[ts] = v
			}
			parts = append(parts, s)
		}
		m := merge(parts...)
		got := map[int64]float64{}
		for _, x := range m.samples {
			got[x.ts] = m.number(x)
		}
		if !reflect.DeepEqual(got, want) || len(m.samples) != len(want) || !sorted(m.samples) {
			t.Fatalf("seed %d: %v, want %v", seed, m.samples, want)
		}
	}
}

func FuzzDecodeBlock(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(encodeBlock(randomSeries(rand.New(rand.NewPCG(seed, 5)))), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, keep bool) {
		if !keep {
			b = reseal(b)
		}
		s, err := decodeBlock(b)
		if err != nil {
			return
		}
		again, err := decodeBlock(encodeBlock(s))
		if err != nil || !same(s, again) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}

func FuzzDecodeHot(f *testing.F) {
	f.Add(encodeHot([]hotSample{{1, 5, 0, telemetry.FloatValue(1.5)}, {2, 5, 52, telemetry.Value{}}, {9, 3, 20, telemetry.StringValue("x")}, {9, 9, 0, telemetry.IntValue(-4)}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		xs, err := decodeHot(reseal(b))
		if err != nil {
			return
		}
		again, err := decodeHot(encodeHot(xs))
		if err != nil || !reflect.DeepEqual(xs, again) {
			t.Fatalf("%v came back as %v, %v", xs, again, err)
		}
	})
}

// reseal gives garbage a right checksum, so that the fuzzer gets past it.
func reseal(b []byte) []byte {
	if len(b) < 5 {
		return b
	}
	b = append([]byte(nil), b...)
	b[0] = version
	putCRC(b)
	return b
}
