package ingest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luquan/gateway/hub/ledger"
	"luquan/gateway/wire"
)

// quarantined runs a rig in which the store refuses seqs 2 and 4 of 1 to 6 and
// seq 5 cannot be read.
func quarantined(t *testing.T) *rig {
	r := newRig(t, nil)
	r.reject[2], r.reject[4] = "field type conflict", "outside retention"
	r.run()
	lines := strings.Split(strings.TrimSpace(string(payload(t, 1, 6))), "\n")[1:]
	lines[4] = "meter,site=s,gateway=g x=\xff"
	var raw [][]byte
	for _, l := range lines {
		raw = append(raw, []byte(l))
	}
	r.Handle("luquan/v1/s/g/live", encode(t, 1, raw), time.Now())
	pass(time.Second)
	return r
}

func (r *rig) quarantine(f Filter) (ids []string) {
	list, total, err := r.cfg.Quarantine.Find(f, 100)
	if err != nil || total != len(list) {
		r.t.Errorf("%d of %d found: %v", len(list), total, err)
	}
	for _, e := range list {
		ids = append(ids, e.ID())
	}
	return ids
}

func (r *rig) account() string {
	rs, err := r.ledger.Account(r.t.Context(), ledger.Query{ByEpoch: true})
	if err != nil || len(rs) != 1 {
		r.t.Fatalf("%+v, %v", rs, err)
	}
	return fmt.Sprintf("stored %d quarantined %d missing %d", rs[0].Stored, rs[0].Quarantined, rs[0].Missing)
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quarantined(t)
		if got := r.account(); got != "stored 3 quarantined 3 missing 0" {
			t.Fatalf("at first: %s", got)
		}
		ctx := t.Context()

		r.set(func() { r.fail = errors.New("the store is away") })
		if out, err := r.Retry(ctx, Filter{}); err == nil || out.Stored != 0 {
			t.Errorf("with the store away: %+v, %v", out, err)
		}
		if ids := r.quarantine(Filter{}); len(ids) != 3 {
			t.Errorf("then %v are left", ids)
		}
		r.set(func() { r.fail = nil; delete(r.reject, 2) })
		out, err := r.Retry(ctx, Filter{Site: "s"})
		if err != nil || out.Tried != 3 || out.Stored != 1 || out.Left != 2 || out.Reasons["outside retention"] != 1 || len(out.Reasons) != 2 {
			t.Errorf("%+v, %v", out, err)
		}
		if ids := r.quarantine(Filter{}); !reflect.DeepEqual(ids, []string{"s/g/9/4", "s/g/9/5"}) {
			t.Errorf("left are %v", ids)
		}
		if got := r.account(); got != "stored 4 quarantined 2 missing 0" || r.stored[2] != 1 {
			t.Errorf("then: %s; seq 2 was stored %d times", got, r.stored[2])
		}
		r.send(2, 2) // the board sends it again: it is known
		pass(time.Second)
		if r.stored[2] != 1 {
			t.Errorf("seq 2 was stored %d times", r.stored[2])
		}
		if out, err := r.Retry(ctx, Filter{ID: "s/g/9/2"}); err != nil || out.Tried != 0 {
			t.Errorf("once more: %+v, %v", out, err)
		}
		r.stop()
		// The book on disk says the same.
		l, err := ledger.Open(r.path, "hub-1/boot", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r.ledger = l
		if got := r.account(); got != "stored 4 quarantined 2 missing 0" {
			t.Errorf("after a restart: %s", got)
		}
	})
}

// TestReadableAtLast: a line that this program can read, where the one before
// could not, finds its place in time.
func TestReadableAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		line := strings.Split(string(payload(t, 3, 3)), "\n")[1]
		r.ledger.Settle("s", "g", wire.Record{Epoch: 9, Seq: 3, Line: []byte(line), Err: errors.New("of a newer program")}, true)
		if err := errors.Join(r.ledger.Sync(), r.cfg.Quarantine.Add([]Entry{NewEntry(time.Now(), "s", "g", 9, 3, "of a newer program", []byte(line))})); err != nil {
			t.Fatal(err)
		}
		if out, err := r.Retry(t.Context(), Filter{}); err != nil || out.Stored != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		at := time.Unix(0, 1763850000000000000)
		rs, err := r.ledger.Account(t.Context(), ledger.Query{From: at.Add(-time.Minute), To: at.Add(time.Minute)})
		if err != nil || len(rs) != 1 || rs[0].Stored != 1 || rs[0].Quarantined != 0 {
			t.Errorf("%+v, %v", rs, err)
		}
		r.run()
		r.stop()
	})
}

func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quarantined(t)
		for _, step := range []struct {
			f    Filter
			n    int
			left []string
		}{
			{Filter{Site: "other"}, 0, []string{"s/g/9/4", "s/g/9/2", "s/g/9/5"}},
			{Filter{ID: "s/g/9/4"}, 1, []string{"s/g/9/2", "s/g/9/5"}},
			{Filter{Site: "s", Gateway: "g"}, 2, nil},
		} {
			n, err := r.cfg.Quarantine.Drop(step.f)
			if err != nil || n != step.n || !reflect.DeepEqual(r.quarantine(Filter{}), step.left) {
				t.Errorf("%+v: %d dropped, %v, left %v", step.f, n, err, r.quarantine(Filter{}))
			}
		}
		if got := r.account(); got != "stored 3 quarantined 3 missing 0" {
			t.Errorf("the ledger goes on to say what became of them: %s", got)
		}
		// The file being written was removed: the next entry begins another.
		if err := r.cfg.Quarantine.Add([]Entry{NewEntry(time.Now(), "s", "g", 9, 9, "why", []byte("x"))}); err != nil {
			t.Fatal(err)
		}
		if ids := r.quarantine(Filter{}); !reflect.DeepEqual(ids, []string{"s/g/9/9"}) {
			t.Errorf("after the next: %v", ids)
		}
		if left, _ := filepath.Glob(filepath.Join(r.cfg.Quarantine.dir, ".new-*")); len(left) != 0 {
			t.Errorf("%v is left over", left)
		}
		if _, err := os.Stat(r.cfg.Quarantine.dir); err != nil {
			t.Error(err)
		}
		r.stop()
	})
}
