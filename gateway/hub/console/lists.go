package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"luquan/gateway/alarm"
	"luquan/gateway/hub/history"
	"luquan/gateway/telemetry"
)

// tally counts alarms of one priority.
type tally struct {
	Active         int `json:"active"`         // the condition holds
	Unacknowledged int `json:"unacknowledged"` // nobody has seen it yet
}

type siteInfo struct {
	Name     string           `json:"name"`
	Label    label            `json:"label"`
	Key      []string         `json:"key"` // full names
	Devices  int              `json:"devices"`
	Points   int              `json:"points"`
	Good     int              `json:"good"` // points with a good value not older than two periods
	Gateways *boards          `json:"gateways,omitempty"`
	Alarms   map[string]tally `json:"alarms"`
}

type boards struct {
	Total  int `json:"total"`
	Online int `json:"online"`
}

func (s *server) sites(w http.ResponseWriter, r *http.Request) error {
	if _, err := params(r); err != nil {
		return err
	}
	byName, devices := map[string]*siteInfo{}, map[string]bool{}
	var order []string
	site := func(name string) *siteInfo {
		i := byName[name]
		if i == nil {
			i = &siteInfo{Name: name, Key: []string{}, Alarms: map[string]tally{}}
			byName[name] = i
			order = append(order, name)
		}
		return i
	}
	for _, c := range s.opt.Sites {
		i := site(c.Name)
		i.Label = c.Label
		for _, k := range c.Key {
			i.Key = append(i.Key, c.Name+"/"+k)
		}
	}
	configured := len(order)
	entries, _ := s.opt.Feed.Snapshot("")
	now := time.Now()
	for n := range entries {
		e := &entries[n]
		i := site(e.Site)
		i.Points++
		if e.Quality == telemetry.Good && !e.Value.IsZero() && !e.Unconfirmed && !e.Stale(now) {
			i.Good++
		}
		if d := e.Site + "/" + e.Device; !devices[d] {
			devices[d] = true
			i.Devices++
		}
	}
	if s.opt.Gateways != nil {
		for _, g := range s.opt.Gateways() {
			i := site(g.Site)
			if i.Gateways == nil {
				i.Gateways = &boards{}
			}
			i.Gateways.Total++
			if g.Online {
				i.Gateways.Online++
			}
		}
	}
	if s.opt.Alarms != nil {
		list := s.opt.Alarms.Alarms()
		for _, a := range list {
			if a.State == alarm.Suppressed {
				continue
			}
			name, _, _ := a.Parts()
			i := site(name)
			t := i.Alarms[string(a.Priority)]
			if a.State != alarm.ReturnedUnacknowledged {
				t.Active++
			}
			if a.State != alarm.Acknowledged {
				t.Unacknowledged++
			}
			i.Alarms[string(a.Priority)] = t
		}
	}
	sort.Strings(order[configured:])
	out := make([]*siteInfo, len(order))
	for n, name := range order {
		out[n] = byName[name]
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (s *server) gateways(w http.ResponseWriter, r *http.Request) error {
	if _, err := params(r); err != nil {
		return err
	}
	if s.opt.Gateways == nil {
		return absent("list of gateways")
	}
	type gateway struct {
		Gateway
		Late float64 `json:"late"` // seconds
	}
	list := s.opt.Gateways()
	out := make([]gateway, len(list))
	for i, g := range list {
		g.Since, g.Last = g.Since.UTC(), g.Last.UTC()
		out[i] = gateway{g, g.Late.Seconds()}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	writeJSON(w, http.StatusOK, out)
	return nil
}

// states are what ?state= takes: one state, or active for what holds.
var states = map[string]func(alarm.State) bool{
	"":       func(s alarm.State) bool { return s != alarm.Suppressed },
	"active": func(s alarm.State) bool { return s == alarm.Unacknowledged || s == alarm.Acknowledged },
	"open":   func(s alarm.State) bool { return s == alarm.Unacknowledged || s == alarm.ReturnedUnacknowledged },
	"all":    func(alarm.State) bool { return true },
}

func (s *server) alarms(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "state")
	if err != nil {
		return err
	}
	if s.opt.Alarms == nil {
		return absent("alarms")
	}
	want := p["state"]
	keep, ok := states[want]
	if !ok {
		switch st := alarm.State(want); st {
		case alarm.Suppressed, alarm.Unacknowledged, alarm.Acknowledged, alarm.ReturnedUnacknowledged:
			keep = func(s alarm.State) bool { return s == st }
		default:
			return refuse(http.StatusBadRequest, fmt.Sprintf("state=%q is not known", want),
				"one of active, open, all, unacknowledged, acknowledged, returned_unacknowledged, suppressed")
		}
	}
	tag := fmt.Sprintf(`"%s-%d"`, s.instance, s.opt.Alarms.Version())
	list := s.opt.Alarms.Alarms() // after the version: at worst the tag is too old
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	list = slices.DeleteFunc(slices.Clone(list), func(a alarm.Alarm) bool { return !keep(a.State) })
	slices.SortStableFunc(list, func(a, b alarm.Alarm) int { return b.Start.Compare(a.Start) })
	if list == nil {
		list = []alarm.Alarm{}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (s *server) ack(w http.ResponseWriter, r *http.Request) error {
	if _, err := params(r); err != nil {
		return err
	}
	if s.opt.Alarms == nil {
		return absent("alarms")
	}
	id := r.PathValue("id")
	if len(id) > 400 {
		return refuse(http.StatusBadRequest, "the alarm's id is too long", "take it from /api/v1/alarms")
	}
	err := s.opt.Alarms.Ack(r.Context(), id, operator)
	switch {
	case errors.Is(err, alarm.ErrUnknown):
		return refuse(http.StatusNotFound, fmt.Sprintf("alarm %q: %v", id, alarm.ErrUnknown), "read /api/v1/alarms again; escape the id in the URL")
	case errors.Is(err, alarm.ErrSuppressed):
		return refuse(http.StatusConflict, fmt.Sprintf("alarm %q: %v", id, alarm.ErrSuppressed), "wait until it is announced")
	case err != nil:
		return fmt.Errorf("acknowledge alarm %q: %w", id, err)
	}
	s.log.Info("alarm acknowledged", "alarm", id, "who", operator)
	list := s.opt.Alarms.Alarms()
	answer := struct {
		ID    string       `json:"id"`
		Alarm *alarm.Alarm `json:"alarm,omitempty"` // absent when it has returned and left the list
	}{ID: id}
	for i := range list {
		if list[i].ID == id {
			answer.Alarm = &list[i]
		}
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func (s *server) history(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "point", "from", "to", "buckets")
	if err != nil {
		return err
	}
	if s.opt.History == nil {
		return absent("history")
	}
	from, to, err := period(p, time.Hour)
	if err != nil {
		return err
	}
	n, err := number(p, "buckets", 300, 1, maxBuckets)
	if err != nil {
		return err
	}
	name := p["point"]
	if name == "" || strings.Contains(name, "*") || len(name) > maxGlob {
		return refuse(http.StatusBadRequest, "point is missing or is not one full name", "write point=site/device/point")
	}
	e, ok := s.opt.Feed.Get(name)
	if !ok {
		return refuse(http.StatusNotFound, fmt.Sprintf("no point is named %q", name), "see /api/v1/points")
	}
	q := history.Query{Point: name, Kind: e.Kind, From: from, To: to, Buckets: n}
	if err := q.Check(); err != nil {
		return refuse(http.StatusBadRequest, err.Error(), "see docs/contract.md")
	}
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	list, err := s.opt.History.Query(ctx, q)
	if err != nil {
		return fmt.Errorf("read history of %s: %w", name, err)
	}
	type bucket struct {
		Start time.Time `json:"start"`
		Min   *float64  `json:"min,omitempty"`
		Mean  *float64  `json:"mean,omitempty"`
		Max   *float64  `json:"max,omitempty"`
		Last  any       `json:"last,omitempty"`
		Count int       `json:"count"`
		Worst string    `json:"worst"`
		Code  uint8     `json:"code"`
	}
	out := make([]bucket, len(list))
	for i := range list {
		b := &list[i]
		out[i] = bucket{Start: b.Start.UTC(), Count: b.Count, Worst: b.Worst.String(), Code: uint8(b.Worst)}
		if b.Count == 0 {
			continue
		}
		if e.Class == telemetry.String {
			out[i].Last = b.Text
			continue
		}
		out[i].Min, out[i].Mean, out[i].Max, out[i].Last = &b.Min, &b.Mean, &b.Max, b.Last
	}
	writeJSON(w, http.StatusOK, struct {
		Point   string    `json:"point"`
		Unit    string    `json:"unit"`
		From    time.Time `json:"from"`
		To      time.Time `json:"to"`
		Width   float64   `json:"width"` // seconds of one bucket
		Buckets []bucket  `json:"buckets"`
	}{name, e.Unit, from.UTC(), to.UTC(), q.Width().Seconds(), out})
	return nil
}

func (s *server) journal(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "from", "to", "limit")
	if err != nil {
		return err
	}
	if s.opt.Journal == nil {
		return absent("journal")
	}
	from, to, err := period(p, 24*time.Hour)
	if err != nil {
		return err
	}
	n, err := number(p, "limit", 500, 1, 5000)
	if err != nil {
		return err
	}
	list, err := s.opt.Journal(r.Context(), JournalQuery{From: from, To: to, Limit: n})
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if list == nil {
		list = []JournalEntry{}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}
