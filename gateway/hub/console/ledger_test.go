package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"luquan/gateway/hub/ledger"
)

func TestLedgerAsks(t *testing.T) {
	var got LedgerQuery
	b := newBench(t, func(o *Options) {
		o.Ledger = func(_ context.Context, q LedgerQuery) ([]ledger.Row, error) {
			got = q
			if q.Site == "big" {
				return nil, ledger.ErrTooLong
			}
			return nil, nil
		}
	})
	from, to := time.Date(2026, 1, 5, 14, 0, 0, 0, time.UTC), time.Date(2026, 1, 5, 15, 0, 0, 0, time.UTC)
	span := "&from=2026-01-05T14:00:00Z&to=2026-01-05T15:00:00Z"
	for path, want := range map[string]LedgerQuery{
		"site=a":                           {Site: "a", ByGateway: true, ByEpoch: true},
		"site=a&by=site" + span:            {Site: "a", From: from, To: to},
		"gateway=g&by=gateway,hour" + span: {Gateway: "g", From: from, To: to, ByGateway: true, ByHour: true},
		"by=site,hour&verify=1" + span:     {From: from, To: to, ByHour: true, Verify: true},
	} {
		if list := decode[[]ledger.Row](t, b.get(t, "/api/v1/ledger?"+path)); list == nil || len(list) != 0 {
			t.Errorf("%s: %v, want an empty list", path, list)
		}
		got.From, got.To = got.From.UTC(), got.To.UTC()
		if want.From.IsZero() {
			want.From, want.To = want.From.UTC(), want.To.UTC()
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: asked %+v, want %+v", path, got, want)
		}
	}
	b.get(t, "/api/v1/ledger?by=hour").Body.Close()
	if d := got.To.Sub(got.From); d != 24*time.Hour {
		t.Errorf("by the hour without a span: %s", d)
	}
	if r := b.get(t, "/api/v1/ledger?site=big"); r.StatusCode != 400 {
		t.Errorf("an answer that is too long: %s", r.Status)
	}
}

func TestImportAnswers(t *testing.T) {
	b := newBench(t, func(o *Options) {
		o.Import = func(_ context.Context, topic string, payload []byte) (any, error) {
			switch topic {
			case "bad":
				return nil, no{errors.New("a site of another hub")}
			case "away":
				return nil, errors.New("the store is away")
			}
			return map[string]int{"records": len(payload)}, nil
		}
	})
	for _, c := range []struct {
		topic, kind, body string
		status            int
		want              string
	}{
		{"t", "application/octet-stream", "abc", 200, `{"records":3}`},
		{"t", "text/plain", "abc", 415, "Content-Type"},
		{"bad", "application/octet-stream", "abc", 400, "another hub"},
		{"away", "application/octet-stream", "abc", 503, "the store is away"},
		{"t", "application/octet-stream", strings.Repeat("x", 1<<20+1), 413, "at most 1 MiB"},
	} {
		resp, err := http.Post(b.server.URL+"/api/v1/import?topic="+c.topic, c.kind, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s of %d bytes: %s %s, want %d with %q", c.topic, c.kind, len(c.body), resp.Status, body, c.status, c.want)
		}
	}
}

type no struct{ error }

func (no) Refused() {}
