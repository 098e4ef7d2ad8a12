package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// identity is a record's: of one board.
type identity struct{ epoch, seq uint64 }

// storedRow is one row in InfluxDB, or one line in quarantine.
type storedRow struct {
	identity
	measurement, device string
	time                int64
	fields              map[string]any // json.Number or string
}

func (r storedRow) uint(field string) uint64 {
	n, _ := r.fields[field].(json.Number)
	v, _ := strconv.ParseUint(n.String(), 10, 64)
	return v
}

// account is everything that has been kept.
type account struct {
	rows        []storedRow // in InfluxDB
	quarantined []storedRow
}

// account reads InfluxDB and the quarantine.
func (c *chaos) account() account {
	var a account
	for _, m := range []string{"chaos_meter", "chaos_log", "chaos_odd", "gateway_gap", "gateway_epoch", "gateway_health"} {
		a.rows = append(a.rows, c.query(m)...)
	}
	files, _ := filepath.Glob(filepath.Join(c.hubDisk.dir, "quarantine", "*.jsonl"))
	for _, f := range files {
		a.quarantined = append(a.quarantined, c.readQuarantine(f)...)
	}
	return a
}

func (c *chaos) query(measurement string) (rows []storedRow) {
	c.t.Helper()
	q := url.Values{"db": {"telemetry"}, "epoch": {"ns"}, "q": {fmt.Sprintf(
		"SELECT * FROM %s WHERE time > '1990-01-01T00:00:00Z' AND time < '2200-01-01T00:00:00Z'", measurement)}}
	var resp *http.Response
	eventually(c.t, 30*time.Second, "InfluxDB answers", func() (ok bool) {
		var err error
		resp, err = http.Get(c.db.url + "/query?" + q.Encode())
		return err == nil
	})
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("InfluxDB: %s: %.300s %v", resp.Status, body, err)
	}
	var doc struct {
		Results []struct {
			Error  string
			Series []struct {
				Columns []string
				Values  [][]any
			}
		}
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		c.t.Fatal(err)
	}
	for _, res := range doc.Results {
		if res.Error != "" {
			c.t.Fatalf("InfluxDB: %s", res.Error)
		}
		for _, s := range res.Series {
			for _, v := range s.Values {
				r := storedRow{measurement: measurement, fields: map[string]any{}}
				for i, name := range s.Columns {
					if v[i] != nil {
						r.fields[name] = v[i]
					}
				}
				r.device, _ = r.fields["device"].(string)
				r.identity = identity{r.uint("epoch"), r.uint("seq")}
				n, _ := r.fields["time"].(json.Number)
				r.time, _ = strconv.ParseInt(n.String(), 10, 64)
				if r.epoch == 0 {
					continue // the row that makes odd-one's level a text
				}
				rows = append(rows, r)
			}
		}
	}
	return rows
}

var lineField = regexp.MustCompile(`[ ,](\w+)=("[^"]*"|[-+.e\d]+)i?`)

func (c *chaos) readQuarantine(file string) (rows []storedRow) {
	c.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil { // a torn last line was never counted
			return rows
		}
		var e struct {
			Epoch, Seq   uint64
			Reason, Line string
		}
		if json.Unmarshal(line, &e) != nil {
			continue // torn by a kill, and another line after it
		}
		row := storedRow{identity: identity{e.Epoch, e.Seq}, fields: map[string]any{}}
		row.measurement, _, _ = strings.Cut(e.Line, ",")
		if _, rest, ok := strings.Cut(e.Line, "device="); ok {
			row.device, _, _ = strings.Cut(strings.ReplaceAll(rest, " ", ","), ",")
		}
		for _, m := range lineField.FindAllStringSubmatch(e.Line, -1) {
			if s, ok := strings.CutPrefix(m[2], `"`); ok {
				row.fields[m[1]] = strings.TrimSuffix(s, `"`)
			} else {
				row.fields[m[1]] = json.Number(m[2])
			}
		}
		row.time, _ = strconv.ParseInt(e.Line[strings.LastIndexByte(e.Line, ' ')+1:], 10, 64)
		rows = append(rows, row)
	}
}

// epochBook is what the ledger says of one epoch.
type epochBook struct {
	Epoch, Expected, Stored, Quarantined, Cleared, Lost, Waiting, Missing uint64
	Verified                                                              struct {
		OnlyLedger uint64 `json:"only_ledger"`
		OnlyStore  uint64 `json:"only_store"`
		Twice      uint64
	}
}

// ledger returns the whole book, epoch by epoch.
func (c *chaos) ledger() (books []epochBook, err error) {
	return books, getJSON(c.console+"/api/v1/ledger", &books)
}

// verified lets the hub compare its book with InfluxDB itself.
func (c *chaos) verified() (books []epochBook, err error) {
	now := time.Now() // stamps of a clock that was set are up to two hours away
	q := url.Values{"by": {"epoch"}, "verify": {"1"}, "from": {now.Add(-5 * time.Hour).Format(time.RFC3339)}, "to": {now.Add(3 * time.Hour).Format(time.RFC3339)}}
	return books, getJSON(c.console+"/api/v1/ledger?"+q.Encode(), &books)
}

// settle lets the plant fall silent and waits until all that was served is
// accounted for, or nothing more comes.
func (c *chaos) settle() {
	c.t.Helper()
	c.plant.quiet.Store(true)
	deadline := time.Now().Add(3 * time.Minute) // what was passed over is sent again after 60 s
	for {
		books, err := c.ledger()
		waiting := uint64(0)
		for _, b := range books {
			waiting += b.Missing + b.Waiting
		}
		if err == nil && waiting == 0 && len(c.unexplained(c.account())) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("3 min after the last fault the ledger has %d records missing or waiting (%v), or what is kept nowhere is not explained", waiting, err)
			return
		}
		time.Sleep(time.Second) // between looks at real processes
	}
}

// lost returns the (epoch, seq) that the board declared lost, without those
// that are kept nevertheless.
func (a account) lost() map[identity]bool {
	out := map[identity]bool{}
	for _, r := range slices.Concat(a.rows, a.quarantined) { // a gap that the database refuses is the board's word all the same
		if r.measurement != "gateway_gap" {
			continue
		}
		for s := r.uint("first"); s <= r.uint("last"); s++ {
			out[identity{r.uint("lost_epoch"), s}] = true
		}
	}
	for _, r := range slices.Concat(a.rows, a.quarantined) {
		delete(out, r.identity)
	}
	return out
}

// serials returns by device where each serial number is kept.
func (a account) serials() map[string]map[uint32][]storedRow {
	out := map[string]map[uint32][]storedRow{}
	for _, r := range slices.Concat(a.rows, a.quarantined) {
		if n := uint32(r.uint("serial")); n > 0 {
			if out[r.device] == nil {
				out[r.device] = map[uint32][]storedRow{}
			}
			out[r.device][n] = append(out[r.device][n], r)
		}
	}
	return out
}

// missed is a served serial number that is kept nowhere.
type missed struct {
	device string
	served
	before, after identity // of the nearest ones of the device that are kept; zero at the ends
}

// missing returns what is kept nowhere.
func (c *chaos) missing(a account) (out []missed) {
	have := a.serials()
	for device, list := range c.plant.all() {
		var before identity
		first := len(out)
		for _, s := range list {
			rows := have[device][s.serial]
			if len(rows) == 0 {
				out = append(out, missed{device: device, served: s, before: before})
				continue
			}
			before = rows[0].identity
			for ; first < len(out); first++ {
				out[first].after = before
			}
		}
	}
	return out
}

// unexplained returns what is kept nowhere and neither lost in a kill of the
// board nor declared lost: each must be one of the declared (epoch, seq) that
// lie between those of its neighbours.
func (c *chaos) unexplained(a account) (out []missed) {
	order := map[uint64]int{} // of epochs
	for i, e := range c.epochs() {
		order[e] = i + 1
	}
	place := func(id identity) identity { return identity{uint64(order[id.epoch]), id.seq} }
	end := identity{uint64(len(order)) + 1, 0}
	less := func(a, b identity) int { return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq)) }
	var declared []identity
	for id := range a.lost() {
		declared = append(declared, place(id))
	}
	slices.SortFunc(declared, less)
	for i := range c.kills {
		c.kills[i].cost, c.kills[i].age = 0, 0
	}
	hi := func(m missed) identity {
		if m.after.epoch == 0 {
			return end
		}
		return place(m.after)
	}
	// Of many intervals the one that ends first takes the first number in it.
	// Those that no kill explains take first.
	match := func(list []missed) (left []missed) {
		slices.SortStableFunc(list, func(x, y missed) int { return less(hi(x), hi(y)) })
		for _, m := range list {
			lo := place(m.before)
			i := slices.IndexFunc(declared, func(id identity) bool { return less(id, lo) > 0 })
			if i < 0 || less(declared[i], hi(m)) >= 0 {
				left = append(left, m)
				continue
			}
			declared = slices.Delete(declared, i, i+1)
		}
		return left
	}
	var must, may []missed
	for _, m := range c.missing(a) {
		if c.killOf(m.served) != nil {
			may = append(may, m)
		} else {
			must = append(must, m)
		}
	}
	out = match(must)
	for _, m := range match(may) {
		k := c.killOf(m.served)
		k.cost++
		k.age = max(k.age, k.at.Sub(m.at))
	}
	return out
}

var opened = regexp.MustCompile(`msg="buffer opened".* epoch=(\d+) `)

// epochs lists the board's epochs in order.
func (c *chaos) epochs() (list []uint64) {
	for _, m := range opened.FindAllStringSubmatch(c.board.log.String(), -1) {
		e, _ := strconv.ParseUint(m[1], 10, 64)
		list = append(list, e)
	}
	return list
}

// killOf returns the kill of the board so shortly before which a serial number
// was served that it may be gone.
func (c *chaos) killOf(s served) *boardKill {
	for i := range c.kills {
		k := &c.kills[i]
		if age := k.at.Sub(s.at); age > -k.grace && age <= chaosCommit+k.grace {
			return k
		}
	}
	return nil
}
