package sqlite

import (
	"time"

	"luquan/gateway/hub/history"
	"luquan/gateway/telemetry"
)

// aggregate gathers series, given in order of time, into a query's buckets.
type aggregate struct {
	from, to, width int64
	all             []history.Bucket // Mean holds the sum
}

func newAggregate(q history.Query) *aggregate {
	return &aggregate{
		from: q.From.UnixNano(), to: q.To.UnixNano(), width: q.Width().Nanoseconds(),
		all: make([]history.Bucket, q.Buckets),
	}
}

// whole takes a block by its summary when all of it falls into one bucket.
func (a *aggregate) whole(m summary) bool {
	if m.class == telemetry.String || m.first < a.from || m.last >= a.to || (m.first-a.from)/a.width != (m.last-a.from)/a.width {
		return false
	}
	b := &a.all[(m.first-a.from)/a.width]
	b.Worst = b.Worst.Worst(m.worst)
	if m.values > 0 {
		if b.Count == 0 {
			b.Min, b.Max = m.min, m.max
		}
		b.Min, b.Max, b.Last = min(b.Min, m.min), max(b.Max, m.max), m.final
		b.Mean += m.sum
		b.Count += m.values
	}
	return true
}

func (a *aggregate) series(s series) {
	for _, x := range s.samples {
		if x.ts < a.from || x.ts >= a.to {
			continue
		}
		b := &a.all[(x.ts-a.from)/a.width]
		b.Worst = b.Worst.Worst(x.q)
		if !x.has {
			continue
		}
		b.Count++
		if s.class == telemetry.String {
			b.Text = s.texts[x.bits]
			continue
		}
		v := s.number(x)
		if b.Count == 1 {
			b.Min, b.Max = v, v
		}
		b.Min, b.Max, b.Last = min(b.Min, v), max(b.Max, v), v
		b.Mean += v
	}
}

func (a *aggregate) buckets() []history.Bucket {
	out := make([]history.Bucket, 0, len(a.all))
	for i, b := range a.all {
		if b.Count == 0 && b.Worst == telemetry.Good {
			continue
		}
		b.Start = time.Unix(0, a.from+int64(i)*a.width).UTC()
		if b.Count > 0 {
			b.Mean /= float64(b.Count)
		}
		out = append(out, b)
	}
	return out
}
