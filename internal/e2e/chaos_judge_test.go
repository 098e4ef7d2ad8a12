package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
