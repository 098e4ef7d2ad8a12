package stamp

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEstimate(t *testing.T) {
	const s = int64(time.Second)
	const ms = int64(time.Millisecond)
	repeat := func(x int64, n int) (out []int64) {
		for range n {
			out = append(out, x)
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		beats []int64
		want  int64
	}{
		{"the first counts", []int64{100 * s}, 100 * s},
		{"the quickest counts", []int64{100*s - 400*ms, 100*s - 20*ms, 100*s - 300*ms}, 100*s - 20*ms},
		{"one late beat moves nothing", []int64{100 * s, 70 * s, 100 * s}, 100 * s},
		{"one wrong beat moves nothing", []int64{100 * s, 9000 * s, 100 * s, 9000 * s, 9000 * s}, 100 * s},
		{"a hub that was set forward", append([]int64{100 * s}, repeat(9000*s, 3)...), 9000 * s},
		{"eleven late beats move nothing", append([]int64{100 * s}, repeat(95*s, 11)...), 100 * s},
		{"a hub that was set back", append([]int64{100 * s}, repeat(95*s, 12)...), 95 * s},
		{"strays that do not agree", []int64{100 * s, 9000 * s, 200 * s, 7000 * s, 5000 * s}, 100 * s},
		{"two hubs that differ take turns", []int64{100 * s, 900 * s, 100 * s, 900 * s, 100 * s, 900 * s, 100 * s}, 100 * s},
		{"what is old is forgotten", append([]int64{100 * s}, repeat(100*s-500*ms, 12)...), 100*s - 500*ms},
	} {
		var e estimate
		for _, b := range tt.beats {
			e.take(b)
		}
		if e.off != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, time.Duration(e.off), time.Duration(tt.want))
		}
	}
}
