package influx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"

	"luquan/gateway/hub/history"
	"luquan/gateway/telemetry"
)

// maxAnswer bounds what is read of a query's answer: 10,000 buckets take 2 MB.
const maxAnswer = 64 << 20

// Query implements history.Store.
func (s *Store) Query(ctx context.Context, q history.Query) ([]history.Bucket, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	_, _, point := q.Names()
	class, err := s.class(ctx, q.Kind, point)
	if err != nil {
		return nil, err
	}
	answers, err := s.influxQL(ctx, statements(q, s.cfg.Bucket, class))
	if err != nil {
		return nil, err
	}
	buckets := map[int64]*history.Bucket{}
	at := func(ns int64) *history.Bucket {
		b := buckets[ns]
		if b == nil {
			b = &history.Bucket{Start: time.Unix(0, ns).UTC()}
			buckets[ns] = b
		}
		return b
	}
	for _, a := range answers {
		for _, row := range a.rows() {
			ns, ok := row.integer("time")
			if !ok {
				return nil, errors.New("influx: query: a row of the answer has no time")
			}
			if n, _ := row.integer("n"); n > 0 {
				b := at(ns)
				b.Count = int(n)
				b.Min, b.Mean, b.Max, b.Last = row.float("min"), row.float("mean"), row.float("max"), row.float("last")
				b.Text, _ = row["last"].(string)
			}
			if worst, ok := row.integer("worst"); ok && worst > 0 {
				at(ns).Worst = telemetry.Quality(worst)
			}
		}
	}
	out := make([]history.Bucket, 0, len(buckets))
	for _, b := range buckets {
		out = append(out, *b)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Start.Before(out[j].Start) })
	return out, nil
}

// statements returns the InfluxQL of q. Names have been checked; they are
// quoted all the same.
func statements(q history.Query, bucket string, class telemetry.Class) string {
	site, device, point := q.Names()
	from := ident(q.Kind)
	if _, rp, ok := strings.Cut(bucket, "/"); ok {
		from = ident(rp) + "." + from
	}
	width := q.Width().Nanoseconds()
	where := fmt.Sprintf("FROM %s WHERE site=%s AND device=%s AND time>=%d AND time<%d GROUP BY time(%dns,%dns) fill(none)",
		from, literal(site), literal(device), q.From.UnixNano(), q.To.UnixNano(), width, q.From.UnixNano()%width)
	f := ident(point)
	values := fmt.Sprintf("SELECT count(%s) AS n, last(%s) AS last", f, f)
	if class != telemetry.String {
		values += fmt.Sprintf(", min(%s) AS min, mean(%s) AS mean, max(%s) AS max", f, f, f)
	}
	return values + " " + where + "; SELECT max(" + ident(point+"_q") + ") AS worst " + where
}

func ident(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func literal(s string) string {
	return `'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(s) + `'`
}

// class asks once what type a field has. A field not yet there is taken for a
// float and asked for again.
func (s *Store) class(ctx context.Context, kind, point string) (telemetry.Class, error) {
	key := field{kind, point}
	s.mu.Lock()
	class := s.classes[key]
	s.mu.Unlock()
	if class != 0 {
		return class, nil
	}
	answers, err := s.influxQL(ctx, "SHOW FIELD KEYS FROM "+ident(kind))
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		for _, row := range a.rows() {
			if row["fieldKey"] != point {
				continue
			}
			switch row["fieldType"] {
			case "string":
				class = telemetry.String
			case "integer":
				class = telemetry.Int
			default:
				class = telemetry.Float
			}
		}
	}
	if class == 0 {
		return telemetry.Float, nil
	}
	s.mu.Lock()
	s.classes[key] = class
	s.mu.Unlock()
	return class, nil
}

// answer is what /query gives for one statement.
type answer struct {
	Series []struct {
		Columns []string `json:"columns"`
		Values  [][]any  `json:"values"`
		Partial bool     `json:"partial"` // InfluxDB says it here when max-row-limit cut the answer
	} `json:"series"`
	Error string `json:"error"`
}

// partial reports that the answer was cut short.
func (a answer) partial() bool {
	for _, s := range a.Series {
		if s.Partial {
			return true
		}
	}
	return false
}

type row map[string]any

func (a answer) rows() []row {
	var out []row
	for _, s := range a.Series {
		for _, v := range s.Values {
			r := row{}
			for i, c := range s.Columns {
				if i < len(v) {
					r[c] = v[i]
				}
			}
			out = append(out, r)
		}
	}
	return out
}

func (r row) integer(col string) (int64, bool) {
	n, ok := r[col].(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	if err != nil {
		return 0, false
	}
	return i, true
}

func (r row) float(col string) float64 {
	n, ok := r[col].(json.Number)
	if !ok {
		return 0
	}
	f, _ := n.Float64()
	return f
}

func (s *Store) influxQL(ctx context.Context, q string) ([]answer, error) {
	db, _, _ := strings.Cut(s.cfg.Bucket, "/")
	form := url.Values{"db": {db}, "q": {q}, "epoch": {"ns"}}
	svc := s.client.HTTPService()
	var out struct {
		Results []answer `json:"results"`
		Error   string   `json:"error"`
	}
	err := svc.DoPostRequest(ctx, svc.ServerURL()+"query", strings.NewReader(form.Encode()),
		func(req *http.Request) {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Accept", "application/json")
		},
		func(resp *http.Response) error {
			defer resp.Body.Close()
			d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
			d.UseNumber()
			return d.Decode(&out)
		})
	if err != nil {
		return nil, queryError(err)
	}
	if out.Error != "" {
		return nil, fmt.Errorf("influx: query: %s", out.Error)
	}
	for _, a := range out.Results {
		if a.Error != "" {
			return nil, fmt.Errorf("influx: query: %s", a.Error)
		}
	}
	return out.Results, nil
}

func queryError(he *influxhttp.Error) error {
	if he.StatusCode == 0 {
		return fmt.Errorf("influx: query: %w", he)
	}
	return fmt.Errorf("influx: query: answered %d: %s", he.StatusCode, message(he))
}
