package console

import (
	"fmt"
	"net/http"
	"time"

	"luquan/gateway/hub/health"
	"luquan/gateway/telemetry"
)

// maxCauses bounds the causes of one answer: a screen shows the gravest.
const maxCauses = 200

// Component is one part of the hub.
type Component struct {
	Name   string          `json:"name"`
	Label  telemetry.Label `json:"label,omitzero"`
	State  string          `json:"state"` // ok, warn, fail
	Since  time.Time       `json:"since,omitzero"`
	Detail telemetry.Label `json:"detail,omitzero"`
}

// healthInfo is the answer without a point.
type healthInfo struct {
	State      string      `json:"state"`
	Now        time.Time   `json:"now"`
	Components []Component `json:"components"`
	*silences
}

// silences tells which nodes of the chain are broken.
type silences struct {
	Silent  int           `json:"silent"`  // points without a value
	Waiting int           `json:"waiting"` // those of them whose board or device has only just come
	Causes  []health.Node `json:"causes"`  // the highest first, then what silences most
	More    int           `json:"more,omitempty"`
}

// pointHealth is the answer for one point: its chain, the sensor first, and
// the one cause of its silence.
type pointHealth struct {
	Point string        `json:"point"`
	State health.State  `json:"state"`
	Now   time.Time     `json:"now"`
	Cause *health.Node  `json:"cause"`
	Chain []health.Node `json:"chain"`
}

// health answers 200 whatever the state: /readyz is for machines that ask
// with a status.
func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "site", "point")
	if err != nil {
		return err
	}
	if point, given := p["point"]; given {
		return s.pointHealth(w, p, point)
	}
	if s.opt.Health == nil {
		return absent("health")
	}
	info := healthInfo{State: "ok", Now: time.Now().UTC(), Components: s.opt.Health()}
	if info.Components == nil {
		info.Components = []Component{}
	}
	worse := func(state string) {
		if state == "fail" || state == "warn" && info.State == "ok" {
			info.State = state
		}
	}
	for _, c := range info.Components {
		worse(c.State)
	}
	if s.opt.Chain != nil {
		if info.silences = siteSilences(s.opt.Chain(), p["site"]); len(info.Causes) > 0 {
			worse("warn")
		}
	}
	writeJSON(w, http.StatusOK, info)
	return nil
}

// siteSilences tells what is broken of a site, and of the hub; "" is all.
func siteSilences(r *health.Report, site string) *silences {
	out := &silences{Silent: r.Silent, Waiting: r.Waiting, Causes: []health.Node{}}
	if site != "" {
		out.Silent, out.Waiting = r.SilentOf(site)
	}
	for _, n := range r.Causes() {
		if site != "" && n.Site != "" && n.Site != site {
			continue
		}
		if len(out.Causes) == maxCauses {
			out.More++
			continue
		}
		out.Causes = append(out.Causes, n)
	}
	return out
}

func (s *server) pointHealth(w http.ResponseWriter, p map[string]string, point string) error {
	if len(p) > 1 {
		return refuse(http.StatusBadRequest, "site and point are given together", "a point names its site: leave site out")
	}
	if s.opt.Chain == nil {
		return absent("health")
	}
	r := s.opt.Chain()
	chain, known := r.Chain(point)
	if !known {
		return refuse(http.StatusNotFound, fmt.Sprintf("there is no point %q", point), "/api/v1/points lists them")
	}
	info := pointHealth{Point: point, State: health.OK, Now: r.At.UTC(), Chain: chain}
	if cause, found := r.Cause(point); found {
		info.Cause, info.State = &cause, health.Broken
	} else if chain[0].State == health.Unknown {
		info.State = health.Unknown
	}
	writeJSON(w, http.StatusOK, info)
	return nil
}
