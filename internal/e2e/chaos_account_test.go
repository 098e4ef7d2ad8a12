package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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

// judge compares what was served with what is kept, and that with the ledger.
func (c *chaos) judge(faults []*chaosFault) {
	t := c.t
	t.Helper()
	a := c.account()
	for _, m := range c.unexplained(a) {
		t.Errorf("%s: serial %d, served at %s, is kept nowhere and nobody said so (before %v, after %v)", m.device, m.serial, m.at.Format("15:04:05.000"), m.before, m.after)
	}
	c.judgeRows(a)
	c.judgeFlash(a)
	c.judgeLedger()
	steps := c.judgeClock(a)
	for _, f := range faults {
		if f.name == clockStep {
			f.effective = steps
		}
	}

	lost := a.lost()
	total, missing := c.plant.total(), len(c.missing(a))
	worst, cost, grace := time.Duration(0), 0, time.Duration(0)
	for _, k := range c.kills {
		worst, cost, grace = max(worst, k.age), cost+k.cost, max(grace, k.grace)
	}
	quarantined := 0
	for _, r := range a.quarantined {
		if r.uint("serial") > 0 {
			quarantined++
		}
	}
	t.Logf("%d serials served; %d kept, of these %d in quarantine; %d not kept: %d by %d kills of the board, the oldest %v before (commit_every %v, the machine's grace at most %v), %d declared lost, with %d records in all",
		total, total-missing, quarantined, missing, cost, len(c.kills), worst.Round(time.Millisecond), chaosCommit, grace.Round(time.Millisecond), missing-cost, len(lost))
	if n := len(c.plant.bad); n > 0 {
		t.Errorf("%d requests that a reader does not send, the first %s", n, c.plant.bad[0])
	}
}

// judgeRows: each serial number once, each (epoch, seq) once, values as served.
func (c *chaos) judgeRows(a account) {
	ids := map[identity]storedRow{}
	for _, r := range a.rows {
		if o, twice := ids[r.identity]; twice {
			c.t.Errorf("%v stands twice in InfluxDB: %s/%s at %d and %s/%s at %d", r.identity, o.measurement, o.device, o.time, r.measurement, r.device, r.time)
		}
		ids[r.identity] = r
	}
	quarantined := map[identity]bool{}
	for _, r := range a.quarantined {
		quarantined[r.identity] = true // a kill between quarantine and ledger repeats it
		if _, too := ids[r.identity]; too {
			c.t.Errorf("%v stands in InfluxDB and in quarantine", r.identity)
		}
	}
	for device, list := range a.serials() {
		for n, rows := range list {
			if len(rows) > 1 {
				same := true
				for _, r := range rows {
					same = same && r.identity == rows[0].identity && quarantined[r.identity]
				}
				if !same {
					c.t.Errorf("%s: serial %d is kept %d times: %v and %v", device, n, len(rows), rows[0].identity, rows[1].identity)
				}
			}
			for _, r := range rows {
				c.judgeValues(device, n, r)
			}
		}
	}
	count := map[string]int{}
	for d, l := range c.plant.all() {
		count[d] = len(l)
	}
	for device, list := range a.serials() {
		if top := slices.Max(slices.Collect(maps.Keys(list))); int(top) > count[device] {
			c.t.Errorf("%s: serial %d is kept and was never served (%d were)", device, top, count[device])
		}
	}
}

func (c *chaos) judgeValues(device string, n uint32, r storedRow) {
	level, _ := r.fields["level"].(json.Number)
	if v, err := level.Float64(); err != nil || v != levelOf(device, n) {
		c.t.Errorf("%s: serial %d has level %v, served was %v", device, n, r.fields["level"], levelOf(device, n))
	}
	for name, v := range r.fields {
		k, ok := strings.CutPrefix(name, "note_")
		if !ok || strings.HasSuffix(k, "_q") { // the plant fell silent within the poll
			continue
		}
		i, _ := strconv.Atoi(k)
		if v != noteOf(i, n) && v != noteOf(i, n-1) {
			c.t.Errorf("%s: serial %d has %s %.30q, served was %.30q", device, n, name, v, noteOf(i, n))
		}
	}
}

// judgeFlash: what the board said to be on flash outlived its kill.
func (c *chaos) judgeFlash(a account) {
	kept, lost := map[identity]bool{}, a.lost()
	for _, r := range slices.Concat(a.rows, a.quarantined) {
		kept[r.identity] = true
	}
	for _, k := range c.kills {
		for s := uint64(1); s <= k.upto; s++ {
			if id := (identity{k.epoch, s}); !kept[id] && !lost[id] {
				c.t.Errorf("%v was on flash when the board was killed at %s, and is gone", id, k.at.Format("15:04:05.000"))
			}
		}
	}
}

// judgeLedger compares the ledger with what is kept, epoch by epoch. The board
// goes on saying that the plant is silent: they are never read at one instant.
func (c *chaos) judgeLedger() {
	var differ []string
	for range 20 {
		if differ = c.ledgerDiffers(); len(differ) == 0 {
			return
		}
		time.Sleep(time.Second) // between looks at real processes
	}
	for _, d := range differ {
		c.t.Error(d)
	}
}

func (c *chaos) ledgerDiffers() (differ []string) {
	books, err := c.ledger()
	if err != nil {
		return []string{err.Error()}
	}
	type count struct{ stored, quarantined, lost uint64 }
	want := map[uint64]*count{}
	of := func(e uint64) *count {
		if want[e] == nil {
			want[e] = &count{}
		}
		return want[e]
	}
	a := c.account()
	for _, r := range a.rows {
		of(r.epoch).stored++
	}
	quarantined := map[identity]bool{}
	for _, r := range a.quarantined {
		if !quarantined[r.identity] {
			quarantined[r.identity] = true
			of(r.epoch).quarantined++
		}
	}
	for id := range a.lost() {
		of(id.epoch).lost++
	}
	// What the hub had written when it was killed and not yet booked, the board
	// sends again, unless it lost it: InfluxDB has then what the ledger says is
	// lost. Its own comparison must find it.
	onlyStore := map[uint64]uint64{}
	verified, err := c.verified()
	if err != nil {
		return []string{err.Error()}
	}
	for _, b := range verified {
		onlyStore[b.Epoch] = b.Verified.OnlyStore
		if b.Verified.OnlyLedger != 0 || b.Verified.Twice != 0 || b.Verified.OnlyStore > 0 && !c.hubKilled {
			differ = append(differ, fmt.Sprintf("epoch %d: the ledger finds itself different from InfluxDB: %+v", b.Epoch, b))
		}
	}
	for _, b := range books {
		w, k := of(b.Epoch), onlyStore[b.Epoch]
		delete(want, b.Epoch)
		if b.Missing != 0 || b.Waiting != 0 || b.Cleared != 0 || b.Quarantined != w.quarantined || b.Lost != w.lost+k || b.Stored+k != w.stored ||
			b.Expected != w.stored+w.quarantined+w.lost {
			differ = append(differ, fmt.Sprintf("epoch %d: the ledger says %+v, kept are %+v, %d of them not booked", b.Epoch, b, *w, k))
		}
	}
	for e, w := range want {
		differ = append(differ, fmt.Sprintf("epoch %d is not in the ledger; kept are %+v", e, *w))
	}
	return differ
}
