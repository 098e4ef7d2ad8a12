package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxGlob    = 200 // characters
	maxBuckets = 2000
	maxSpan    = 5 * 366 * 24 * time.Hour
)

// params returns the query's parameters, each at most once and all among names.
func params(r *http.Request, names ...string) (map[string]string, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the query is not well formed: "+err.Error(), "escape it as a URL asks")
	}
	out := map[string]string{}
	for name, values := range q {
		if !slices.Contains(names, name) {
			hint := "it takes no parameters"
			if len(names) > 0 {
				hint = "it takes " + strings.Join(names, ", ")
			}
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("%s has no parameter %q", r.URL.Path, name), hint)
		}
		if len(values) > 1 {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("parameter %q is given twice", name), "give it once")
		}
		out[name] = values[0]
	}
	return out, nil
}

// glob returns a glob over full names; "" matches everything.
func glob(p map[string]string) (string, error) {
	g := p["match"]
	if len(g) > maxGlob {
		return "", refuse(http.StatusBadRequest, fmt.Sprintf("match is %d characters long", len(g)), fmt.Sprintf("at most %d", maxGlob))
	}
	if g != "" && strings.Count(g, "/") != 2 {
		return "", refuse(http.StatusBadRequest, fmt.Sprintf("match=%q has not three levels", g), "write site/device/point; * matches inside one level: heating-east/*/*")
	}
	return g, nil
}

// instant parses a time: RFC 3339, or by default when it is not given.
func instant(p map[string]string, name string, def time.Time) (time.Time, error) {
	v, ok := p[name]
	if !ok {
		return def, nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		hint := "write RFC 3339, for example 2026-01-05T08:00:00Z"
		if strings.Contains(v, " ") {
			hint += "; a + in a URL means a space: write %2B"
		}
		return time.Time{}, refuse(http.StatusBadRequest, fmt.Sprintf("%s=%q is not a time", name, v), hint)
	}
	return t, nil
}

// period returns from and to, checked; by default the last def up to now.
func period(p map[string]string, def time.Duration) (from, to time.Time, err error) {
	if to, err = instant(p, "to", time.Now()); err != nil {
		return
	}
	if from, err = instant(p, "from", to.Add(-def)); err != nil {
		return
	}
	switch {
	case !from.Before(to):
		err = refuse(http.StatusBadRequest, "from is not before to", "swap them")
	case to.Sub(from) > maxSpan:
		err = refuse(http.StatusBadRequest, "the span is longer than five years", "ask for less")
	case from.Year() < 1970 || to.Year() > 2200:
		err = refuse(http.StatusBadRequest, "the span is not between 1970 and 2200", "check the year")
	}
	return
}

// number returns an int between lo and hi.
func number(p map[string]string, name string, def, lo, hi int) (int, error) {
	v, ok := p[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		return 0, refuse(http.StatusBadRequest, fmt.Sprintf("%s=%q is not a whole number from %d to %d", name, v, lo, hi), fmt.Sprintf("leave it out for %d", def))
	}
	return n, nil
}
