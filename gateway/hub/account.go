package hub

import (
	"context"
	"time"

	"luquan/gateway/hub/console"
	"luquan/gateway/hub/history"
	"luquan/gateway/hub/ledger"
)

// account answers from the ledger, compared with the history if that is asked.
func (h *Hub) account(ctx context.Context, q console.LedgerQuery) ([]ledger.Row, error) {
	return h.ledger.Account(ctx, ledgerQuery(q, h.store))
}

// countingStore is the little of a history that a comparison needs.
type countingStore interface {
	Count(ctx context.Context, site, gateway string, from, to time.Time) ([]history.Records, error)
}

func ledgerQuery(q console.LedgerQuery, store countingStore) ledger.Query {
	out := ledger.Query{
		Site: q.Site, Gateway: q.Gateway, From: q.From, To: q.To,
		ByGateway: q.ByGateway, ByEpoch: q.ByEpoch, ByHour: q.ByHour,
	}
	if q.Verify {
		out.Verify = counter{store}
	}
	return out
}

// counter lets the ledger count in the history.
type counter struct{ store countingStore }

// Count is ledger.Counter's.
func (c counter) Count(ctx context.Context, site, gateway string, from, to time.Time) ([]ledger.Counted, error) {
	list, err := c.store.Count(ctx, site, gateway, from, to)
	out := make([]ledger.Counted, len(list))
	for i, r := range list {
		out[i] = ledger.Counted(r)
	}
	return out, err
}

func (h *Hub) importPayload(ctx context.Context, topic string, payload []byte) (any, error) {
	return h.consumer.Import(ctx, topic, payload)
}
