package wire

import (
	"slices"
	"strings"
	"testing"

	"luquan/gateway/telemetry"
)

func FuzzDecode(f *testing.F) {
	var t testing.T
	stored := goldenRecords(&t)
	plain := must(Encode(header(len(stored)), linesOf(&t, stored, 1200), false))
	f.Add(plain, false)
	f.Add(must(Encode(header(len(stored)), linesOf(&t, stored, 1200), true)), true)
	f.Add([]byte("#luquan 1 epoch=1 first=1 count=1 lane=live session=a step=0 sent=0 boot=b cfg=00000000\na b=1.0 1"), false)
	f.Fuzz(func(t *testing.T, payload []byte, zst bool) {
		p, err := Decode(liveTopic(zst), payload)
		if err != nil {
			return
		}
		if len(p.Records) != p.Header.Count {
			t.Fatalf("%d records, the header counts %d", len(p.Records), p.Header.Count)
		}
		for i, r := range p.Records {
			if r.Seq != p.Header.First+uint64(i) || r.Epoch != p.Header.Epoch {
				t.Fatalf("record %d has seq %d of epoch %d", i, r.Seq, r.Epoch)
			}
			if r.Err != nil {
				continue
			}
			// What is understood can be stored and comes back the same.
			var stored []byte
			s := r.Sample
			switch r.Kind {
			case Reading:
				slices.SortFunc(s.Tags, func(a, b telemetry.Tag) int { return strings.Compare(a.Key, b.Key) })
				stored, err = Store(s.Sample, site, gateway, s.Clock, 0)
			case Gap:
				stored, err = StoreGap(r.Gap, site, gateway, s.Clock, 0)
			case EpochEnd:
				stored, err = StoreEpochEnd(r.End, site, gateway, s.Time, s.Clock, 0)
			}
			if err != nil {
				if len(r.Line) > MaxLine-200 {
					continue // the reserve of Store
				}
				t.Fatalf("line %q decodes but cannot be stored: %v", r.Line, err)
			}
			line := must(AppendLine(nil, stored, r.Epoch, r.Seq))
			if r.Kind == Gap {
				continue // its stamp may differ from `to` after a correction
			}
			h := p.Header
			h.First, h.Count = r.Seq, 1
			if h.First == 0 {
				continue
			}
			back, err := Decode(liveTopic(false), must(Encode(h, [][]byte{line}, false)))
			if err != nil || back.Records[0].Err != nil {
				t.Fatalf("line %q came back as %q: %v, %v", r.Line, line, err, back.Records)
			}
			got := back.Records[0]
			if r.Kind == Reading && !equalSamples(got.Sample, s) || got.End.Ended != r.End.Ended || got.End.Last != r.End.Last {
				t.Fatalf("line %q came back as %q", r.Line, line)
			}
		}
	})
}

// equalSamples compares but for control characters in strings, which Store replaces.
func equalSamples(a, b telemetry.Record) bool {
	if a.Status != b.Status || a.Group != b.Group || a.Device != b.Device || a.Kind != b.Kind || !a.Time.Equal(b.Time) || a.Clock != b.Clock {
		return false
	}
	byName := map[string]telemetry.Reading{}
	for _, r := range a.Readings {
		byName[r.Point] = r
	}
	n := 0
	for _, r := range b.Readings {
		if r.Quality == telemetry.Good && r.Value.IsZero() {
			continue // says nothing, is not written
		}
		n++
		g := byName[r.Point]
		if g.Quality != r.Quality || g.Value.Class() != r.Value.Class() || g.Value.Float() != r.Value.Float() {
			return false
		}
	}
	return n == len(a.Readings)
}
