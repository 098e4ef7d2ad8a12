package influx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"luquan/gateway/hub/history"
	"luquan/gateway/hub/seqs"
)

// countStep is the span of one query of Count: its answer takes about 60 bytes
// a record and stays under maxAnswer to 1000 records a second.
const countStep = 15 * time.Minute

// Count implements history.Store. It reads epoch and seq of every row of every
// measurement.
func (s *Store) Count(ctx context.Context, site, gateway string, from, to time.Time) ([]history.Records, error) {
	type key struct {
		epoch uint64
		hour  int64
	}
	found := map[key]*seqs.Hour{}
	source := "/.*/"
	if _, rp, ok := strings.Cut(s.cfg.Bucket, "/"); ok {
		source = ident(rp) + "." + source
	}
	for ; from.Before(to); from = from.Add(countStep) {
		end := from.Add(countStep)
		if end.After(to) {
			end = to
		}
		answers, err := s.influxQL(ctx, fmt.Sprintf(`SELECT "epoch", "seq" FROM %s WHERE "site"=%s AND "gateway"=%s AND time>=%d AND time<%d`,
			source, literal(site), literal(gateway), from.UnixNano(), end.UnixNano()))
		if err != nil {
			return nil, err
		}
		for _, a := range answers {
			if a.partial() {
				return nil, errors.New("influx: count: the answer is cut short; raise max-row-limit of InfluxDB")
			}
			for _, row := range a.rows() {
				at, okT := row.integer("time")
				epoch, okE := row.integer("epoch")
				seq, okS := row.integer("seq")
				if !okT || !okE || !okS || epoch < 1 || seq < 1 || seq > seqs.Max {
					continue // not written by a board of ours
				}
				hour, minute := seqs.Place(at)
				k := key{uint64(epoch), hour}
				h := found[k]
				if h == nil {
					h = &seqs.Hour{}
					found[k] = h
				}
				if h.Minutes[minute].Has(uint64(seq)) {
					h.Again[minute]++
				}
				h.Minutes[minute].Add(uint64(seq), uint64(seq))
			}
		}
	}
	out := make([]history.Records, 0, len(found))
	for k, h := range found {
		out = append(out, history.Records{Epoch: k.epoch, Hour: k.hour, Seqs: h})
	}
	return out, nil
}
