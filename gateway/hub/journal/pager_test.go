package journal

import (
	"context"
	"errors"
	"testing"
	"time"

	"luquan/gateway/page"
)

// hook is a channel that refuses its first message for now.
type hook struct{ got chan page.Message }

func (h *hook) Name() string { return "hook" }

func (h *hook) Notify(ctx context.Context, m page.Message) (bool, error) {
	h.got <- m
	if len(h.got) == 1 {
		return true, errors.New("503")
	}
	return false, nil
}

// TestPagerOnJournal: what the engine raised and cleared leaves the real
// outbox in order, once, and the attempts are in the journal.
func TestPagerOnJournal(t *testing.T) {
	j := open(t, t.TempDir())
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	h := &hook{got: make(chan page.Message, 10)}
	pager := page.NewPager([]page.Channel{h}, j, nil)
	done := make(chan error, 1)
	go func() { done <- pager.Run(ctx) }()
	e := engine(t)
	ev := steps(e, 0, 90, 90, 80)
	for i := range ev { // outbox entries are given up a day after they were made
		ev[i].At = time.Now()
	}
	apply(t, j, plan(t), ev)
	pager.Wake()
	for {
		p, err := j.Pending(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(p) == 0 {
			break
		}
		select { // the outbox tells nobody when it is empty
		case <-ctx.Done():
			t.Fatal("not delivered in 30 s")
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(h.got)
	var got []string
	for m := range h.got {
		got = append(got, string(m.Transition))
	}
	if len(got) != 3 || got[0] != "raised" || got[1] != "raised" || got[2] != "cleared" {
		t.Errorf("sent %v", got)
	}
	entries, err := j.Journal(context.Background(), time.Time{}, time.Time{}, 100)
	if err != nil || len(entries) != 2+6 {
		t.Errorf("%d entries, %v; want 2 of the alarm and 6 of attempts", len(entries), err)
	}
}
