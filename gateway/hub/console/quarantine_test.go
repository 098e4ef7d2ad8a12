package console

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// bin is a quarantine that notes what it is told to do.
type bin struct{ did []string }

func (b *bin) Find(f QuarantineFilter, limit int) ([]QuarantineEntry, int, error) {
	b.did = append(b.did, fmt.Sprintf("find %v %d", f, limit))
	return []QuarantineEntry{{ID: "s/g/9/4", Site: "s", Gateway: "g", Epoch: 9, Seq: 4, Reason: "why", Line: "x"}}, 7, nil
}

func (b *bin) Retry(_ context.Context, f QuarantineFilter) (any, error) {
	b.did = append(b.did, fmt.Sprintf("retry %v", f))
	return map[string]int{"tried": 3}, nil
}

func (b *bin) Drop(f QuarantineFilter) (int, error) {
	b.did = append(b.did, fmt.Sprintf("drop %v", f))
	return 3, nil
}

func TestQuarantine(t *testing.T) {
	q := &bin{}
	b := newBench(t, func(o *Options) { o.Quarantine = q })
	for _, step := range []struct {
		method, path string
		status       int
		did          string
		says         string
	}{
		{"GET", "/api/v1/quarantine", 200, "find {  } 100", `"total":7`},
		{"GET", "/api/v1/quarantine?site=s&gateway=g&limit=5", 200, "find {s g } 5", `"id":"s/g/9/4"`},
		{"GET", "/api/v1/quarantine?all=1", 400, "", "no parameter"},
		{"GET", "/api/v1/quarantine?limit=0", 400, "", "limit"},
		{"POST", "/api/v1/quarantine/retry", 400, "", "nothing is chosen"},
		{"POST", "/api/v1/quarantine/drop", 400, "", "all=1 means everything"},
		{"POST", "/api/v1/quarantine/drop?site=s&all=1", 400, "", "leave one of them out"},
		{"GET", "/api/v1/quarantine/drop?all=1", 405, "", "POST"},
		{"POST", "/api/v1/quarantine/retry?all=1", 200, "retry {  }", `"tried":3`},
		{"POST", "/api/v1/quarantine/retry?id=s%2Fg%2F9%2F4", 200, "retry {  s/g/9/4}", `"tried":3`},
		{"POST", "/api/v1/quarantine/drop?gateway=g", 200, "drop { g }", `"dropped":3`},
	} {
		q.did = nil
		req, err := http.NewRequestWithContext(t.Context(), step.method, b.server.URL+step.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != step.status || strings.Join(q.did, ", ") != step.did || !strings.Contains(string(body), step.says) {
			t.Errorf("%s %s: %d, did %q, said %s", step.method, step.path, resp.StatusCode, q.did, body)
		}
	}
	none := newBench(t, nil)
	if resp := none.get(t, "/api/v1/quarantine"); resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("a hub without one answers %d", resp.StatusCode)
	}
}
