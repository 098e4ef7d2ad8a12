package sqlite

import (
	"sync"
	"testing"
	"time"

	"luquan/gateway/hub/history"
	"luquan/gateway/hub/history/historytest"
	"luquan/gateway/telemetry"
)

// TestConcurrent writes, seals and reads at once: a reader never sees fewer
// samples than were durable before it asked, and never one twice.
func TestConcurrent(t *testing.T) {
	s, err := open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 150
	var wg sync.WaitGroup
	var mu sync.Mutex
	durable, done := 0, false
	wg.Go(func() {
		for i := range n {
			at := historytest.Base().Add(time.Duration(i) * time.Minute)
			if err := s.Write(ctx, []history.Row{historytest.Row("s", "m", "meter", uint64(i+1), at, historytest.F("x", float64(i)),
				telemetry.Reading{Point: "mode", Value: telemetry.StringValue([]string{"on", "off", "fault"}[i%3])})}); err != nil {
				t.Error(err)
			}
			mu.Lock()
			durable = i + 1
			mu.Unlock()
		}
		mu.Lock()
		done = true
		mu.Unlock()
	})
	state := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		return durable, done
	}
	wg.Go(func() {
		for over := false; !over; {
			_, over = state()
			if _, err := s.maintain(ctx, later()); err != nil {
				t.Error(err)
			}
		}
	})
	for _, point := range []string{"s/m/x", "s/m/mode"} {
		wg.Go(func() {
			for over := false; !over; {
				var before int
				before, over = state()
				got := count(t, s, point)
				after, _ := state()
				if got < before || got > after+1 {
					t.Errorf("%d samples of %s, %d were durable before and %d after", got, point, before, after)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := count(t, s, "s/m/x"); got != n {
		t.Errorf("%d samples in the end", got)
	}
}
