package console

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Quarantine is what became of lines that no store takes.
type Quarantine interface {
	// Find returns the newest that f chooses, at most limit, newest first, and
	// how many there are.
	Find(f QuarantineFilter, limit int) (list []QuarantineEntry, total int, err error)
	// Retry offers them to the store again and tells what became of them.
	Retry(ctx context.Context, f QuarantineFilter) (any, error)
	// Drop removes them and says how many they were.
	Drop(f QuarantineFilter) (int, error)
}

// QuarantineFilter chooses among lines in quarantine; what is empty does not
// matter.
type QuarantineFilter struct{ Site, Gateway, ID string }

// QuarantineEntry is one line in quarantine.
type QuarantineEntry struct {
	ID      string    `json:"id"`   // site/gateway/epoch/seq
	Time    time.Time `json:"time"` // when it was put there
	Site    string    `json:"site"`
	Gateway string    `json:"gateway"`
	Epoch   uint64    `json:"epoch"`
	Seq     uint64    `json:"seq"`
	Reason  string    `json:"reason"`
	Line    string    `json:"line,omitempty"` // as it came
	Raw     []byte    `json:"raw,omitempty"`  // in place of Line when that is not UTF-8
}

func quarantineFilter(r *http.Request, more ...string) (QuarantineFilter, map[string]string, error) {
	p, err := params(r, append([]string{"site", "gateway", "id"}, more...)...)
	return QuarantineFilter{Site: p["site"], Gateway: p["gateway"], ID: p["id"]}, p, err
}

func (s *server) quarantine(w http.ResponseWriter, r *http.Request) error {
	f, p, err := quarantineFilter(r, "limit")
	if err != nil {
		return err
	}
	n, err := number(p, "limit", 100, 1, 10_000)
	if err != nil {
		return err
	}
	if s.opt.Quarantine == nil {
		return absent("quarantine")
	}
	list, total, err := s.opt.Quarantine.Find(f, n)
	if err != nil {
		return fmt.Errorf("read quarantine: %w", err)
	}
	if list == nil {
		list = []QuarantineEntry{}
	}
	writeJSON(w, http.StatusOK, struct {
		Total   int               `json:"total"`
		Entries []QuarantineEntry `json:"entries"`
	}{total, list})
	return nil
}

// release is the filter of a request that changes the quarantine: it must say
// what it means.
func (s *server) release(r *http.Request) (QuarantineFilter, error) {
	f, p, err := quarantineFilter(r, "all")
	switch {
	case err != nil:
		return f, err
	case s.opt.Quarantine == nil:
		return f, absent("quarantine")
	case f == (QuarantineFilter{}) && p["all"] != "1":
		return f, refuse(http.StatusBadRequest, "nothing is chosen", "give site, gateway or id; all=1 means everything")
	case f != (QuarantineFilter{}) && p["all"] != "":
		return f, refuse(http.StatusBadRequest, "all is given beside site, gateway or id", "leave one of them out")
	}
	return f, nil
}

func (s *server) retryQuarantine(w http.ResponseWriter, r *http.Request) error {
	f, err := s.release(r)
	if err != nil {
		return err
	}
	out, err := s.opt.Quarantine.Retry(r.Context(), f)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (s *server) dropQuarantine(w http.ResponseWriter, r *http.Request) error {
	f, err := s.release(r)
	if err != nil {
		return err
	}
	n, err := s.opt.Quarantine.Drop(f)
	if err != nil {
		return err
	}
	s.log.Warn("lines in quarantine were dropped", "site", f.Site, "gateway", f.Gateway, "id", f.ID, "lines", n)
	writeJSON(w, http.StatusOK, map[string]int{"dropped": n})
	return nil
}
