package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"luquan/gateway/hub/history"
)

const (
	sealGrace = 2 * time.Minute // after an hour's end live samples still come
	sealIdle  = time.Minute     // a past hour is sealed when nothing came for so long
	sealAtAge = 10 * time.Minute
	sealStep  = 200 // blocks of one transaction
	pruneStep = 500 // points of one transaction
)

// sealing is an hour on its way into blocks. What comes for it meanwhile
// begins a new hot hour.
type sealing struct {
	*hour
	ids  []int64 // points, sorted
	next int     // in ids
}

type pruneState struct {
	before int64 // hours before this one go
	ids    []int64
	next   int
}

// maintainLoop does a bounded piece of work a second, more when there is some.
func (s *Store) maintainLoop(ctx context.Context) {
	wait := time.NewTimer(time.Second)
	defer wait.Stop()
	said := ""
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		more, err := s.maintain(ctx, time.Now())
		switch {
		case err != nil && ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			s.log.Error("history not maintained, it is tried again", "error", err)
		case err == nil:
			said = ""
		}
		if more && err == nil {
			wait.Reset(50 * time.Millisecond)
		} else {
			wait.Reset(time.Second)
		}
	}
}

// maintain does one piece of work that is due at now: seals some blocks or
// removes what is older than Keep. more reports that it did something.
func (s *Store) maintain(ctx context.Context, now time.Time) (more bool, err error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.mu.Lock()
	if s.sealing == nil {
		s.sealing = s.pick(now)
	}
	job := s.sealing
	s.mu.Unlock()
	if job != nil {
		return true, s.seal(ctx, job)
	}
	return s.pruneSome(ctx, now)
}

// pick takes the hour that is to be sealed next out of the hot ones. mu is held.
func (s *Store) pick(now time.Time) *sealing {
	var best *hour
	for _, h := range s.hot {
		over := now.UnixNano() >= (h.n+1)*hourNs+int64(sealGrace)
		rest := now.Sub(h.last) >= sealIdle || now.Sub(h.first) >= sealAtAge
		if (over && rest || s.samples > maxHot) && (best == nil || h.n < best.n) {
			best = h
		}
	}
	if best == nil {
		return nil
	}
	delete(s.hot, best.n)
	j := &sealing{hour: best}
	for id := range best.series {
		j.ids = append(j.ids, id)
	}
	slices.Sort(j.ids)
	return j
}

// seal writes the next blocks of j; with the last ones its hot rows go.
func (s *Store) seal(ctx context.Context, j *sealing) error {
	end := min(j.next+sealStep, len(j.ids))
	tx, err := s.wdb.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer tx.Rollback()
	for _, id := range j.ids[j.next:end] {
		if err := s.sealOne(ctx, tx, id<<hourBits|j.n, j.series[id]); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
	}
	if end == len(j.ids) {
		for _, row := range j.rows {
			if _, err := tx.ExecContext(ctx, "DELETE FROM hot WHERE id=?", row); err != nil {
				return fmt.Errorf("seal: %w", err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	j.next = end
	if end == len(j.ids) {
		s.mu.Lock()
		s.samples -= j.count
		s.sealing = nil
		s.mu.Unlock()
	}
	return nil
}

// sealOne joins hot samples with the block that may be there already.
func (s *Store) sealOne(ctx context.Context, tx *sql.Tx, key int64, hot *series) error {
	parts := []series{}
	var old []byte
	err := tx.QueryRowContext(ctx, "SELECT data FROM blocks WHERE key=?", key).Scan(&old)
	switch {
	case err == nil:
		sr, derr := decodeBlock(old)
		if derr == nil {
			parts = append(parts, sr)
			break
		}
		s.damaged.Add(1)
		s.log.Error("block not readable, kept in the table damaged", "key", key, "error", derr)
		if _, err := tx.ExecContext(ctx, "INSERT INTO damaged (key, data) VALUES (?,?)", key, old); err != nil {
			return err
		}
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO blocks (key, data) VALUES (?,?)", key, encodeBlock(merge(append(parts, *hot)...)))
	return err
}

// pruneSome removes blocks older than Keep, some points at a time.
func (s *Store) pruneSome(ctx context.Context, now time.Time) (more bool, err error) {
	if s.cfg.Keep <= 0 {
		return false, nil
	}
	p := &s.prune
	if before := now.Add(-s.cfg.Keep).UnixNano() / hourNs; before > p.before && p.next >= len(p.ids) {
		p.before, p.next, p.ids = before, 0, p.ids[:0]
		s.mu.RLock()
		for id := range s.byID {
			p.ids = append(p.ids, id)
		}
		s.mu.RUnlock()
		slices.Sort(p.ids)
	}
	if p.next >= len(p.ids) {
		return false, nil
	}
	tx, err := s.wdb.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("prune: %w", err)
	}
	defer tx.Rollback()
	if p.next == 0 {
		if _, err := tx.ExecContext(ctx, "DELETE FROM records WHERE hour<?", p.before); err != nil {
			return false, fmt.Errorf("prune: %w", err)
		}
	}
	end := min(p.next+pruneStep, len(p.ids))
	for _, id := range p.ids[p.next:end] {
		if _, err := tx.ExecContext(ctx, "DELETE FROM blocks WHERE key>=? AND key<?", id<<hourBits, id<<hourBits|p.before); err != nil {
			return false, fmt.Errorf("prune: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("prune: %w", err)
	}
	p.next = end
	return true, nil
}

// Query implements history.Store.
func (s *Store) Query(ctx context.Context, q history.Query) ([]history.Bucket, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	from, to := q.From.UnixNano(), q.To.UnixNano()
	h0, h1 := from/hourNs, (to-1)/hourNs
	// Hot samples first: one that is sealed meanwhile is then met twice,
	// which merge undoes, and never missed.
	id, hot := s.hotOf(pointKey{q.Kind, q.Point}, h0, h1)
	if id == 0 {
		return nil, nil
	}
	a := newAggregate(q)
	rows, err := s.rdb.QueryContext(ctx, "SELECT key, data FROM blocks WHERE key BETWEEN ? AND ? ORDER BY key", id<<hourBits|h0, id<<hourBits|h1)
	if err != nil {
		return nil, fmt.Errorf("sqlite: query: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key int64
		var data sql.RawBytes
		if err := rows.Scan(&key, &data); err != nil {
			return nil, fmt.Errorf("sqlite: query: %w", err)
		}
		n := key & maxHour
		for len(hot) > 0 && hot[0].n < n {
			a.series(merge(hot[0].parts...))
			hot = hot[1:]
		}
		var parts []series
		if len(hot) > 0 && hot[0].n == n {
			parts, hot = hot[0].parts, hot[1:]
		} else if m, _, _, err := decodeSummary(data); err == nil && a.whole(m) {
			continue
		}
		sr, err := decodeBlock(data)
		if err != nil {
			s.damaged.Add(1)
			s.log.Error("block not readable, its hour is missing from the answer", "point", q.Point, "key", key, "error", err)
		} else {
			parts = append([]series{sr}, parts...)
		}
		if len(parts) > 0 {
			a.series(merge(parts...))
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlite: query: %w", err)
	}
	for _, h := range hot {
		a.series(merge(h.parts...))
	}
	return a.buckets(), nil
}

// hotHour is what is hot of one point in one hour, older part first.
type hotHour struct {
	n     int64
	parts []series
}

// hotOf returns a point's id, 0 when it is not known, and its hot hours from
// h0 to h1 in order. Samples are only ever appended, so the slices may be read
// without the lock.
func (s *Store) hotOf(k pointKey, h0, h1 int64) (int64, []hotHour) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := s.points[k]
	if p == nil {
		return 0, nil
	}
	var out []hotHour
	take := func(h *hour) {
		sr := h.series[p.id]
		if sr == nil || h.n < h0 || h.n > h1 {
			return
		}
		part := series{class: sr.class, samples: sr.samples, texts: sr.texts}
		i := slices.IndexFunc(out, func(x hotHour) bool { return x.n == h.n })
		if i < 0 {
			out = append(out, hotHour{n: h.n})
			i = len(out) - 1
		}
		out[i].parts = append(out[i].parts, part)
	}
	if s.sealing != nil {
		take(s.sealing.hour)
	}
	for _, h := range s.hot {
		take(h)
	}
	slices.SortFunc(out, func(a, b hotHour) int { return int(a.n - b.n) })
	return p.id, out
}
