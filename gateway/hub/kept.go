package hub

import (
	"context"

	"luquan/gateway/hub/console"
	"luquan/gateway/hub/ingest"
)

// kept shows the quarantine to the console.
type kept struct {
	quarantine *ingest.Quarantine
	consumer   *ingest.Consumer
}

// Find is console.Quarantine's.
func (k kept) Find(f console.QuarantineFilter, limit int) ([]console.QuarantineEntry, int, error) {
	list, total, err := k.quarantine.Find(ingest.Filter(f), limit)
	if err != nil {
		return nil, 0, err
	}
	out := make([]console.QuarantineEntry, len(list))
	for i, e := range list {
		out[i] = console.QuarantineEntry{ID: e.ID(), Time: e.Time, Site: e.Site, Gateway: e.Gateway, Epoch: e.Epoch, Seq: e.Seq,
			Reason: e.Reason, Line: e.Line, Raw: e.Raw}
	}
	return out, total, nil
}

// Retry is console.Quarantine's.
func (k kept) Retry(ctx context.Context, f console.QuarantineFilter) (any, error) {
	return k.consumer.Retry(ctx, ingest.Filter(f))
}

// Drop is console.Quarantine's.
func (k kept) Drop(f console.QuarantineFilter) (int, error) {
	return k.quarantine.Drop(ingest.Filter(f))
}
