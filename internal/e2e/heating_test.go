package e2e

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"luquan/internal/plant"
)

// TestHeatingPlant runs the heating plant for 30 s through a real mosquitto
// into a real InfluxDB, with the broker killed for 10 s on the way. What a
// Flux query returns must be, device by device, each poll that the plant says
// it served, once; no sequence number of a board may be missing; and the alarm
// of a failing boiler must reach the webhook.
func TestHeatingPlant(t *testing.T) {
	mqtt, mosquitto := startMosquitto(t)
	db := startInflux(t)
	l := startLine(t, "heating-plant", lineOptions{broker: mqtt, influx: &db, serial: true})

	began := time.Now()
	at := func(d time.Duration) { time.Sleep(time.Until(began.Add(d))) } // the plant runs in real time
	if _, err := l.plant.Fault(plant.Fault{At: 3 * time.Second, For: 22 * time.Second, Do: "set", Quantity: "supply_temp", Value: 55}); err != nil {
		t.Fatal(err)
	}
	at(8 * time.Second)
	eventually(t, 5*time.Second, "the alarm reaches the webhook", func() bool { return l.pages.count("heating-supply-temp-low", "raised") == 1 })
	at(10 * time.Second)
	mosquitto.kill()
	at(20 * time.Second)
	mosquitto.start()
	at(30 * time.Second)
	var speak []func()
	for _, b := range l.plant.Buses() { // what is on its way is served whole, nothing new is
		clear, err := l.plant.Fault(plant.Fault{Bus: b.Name, Do: "silence"})
		if err != nil {
			t.Fatal(err)
		}
		speak = append(speak, clear)
	}

	served := map[string]int64{}
	total := 0
	for _, b := range l.plant.Buses() {
		for _, d := range b.Devices {
			served[d.Name] = int64(l.plant.Served(d.Name)[0])
			total += int(served[d.Name])
		}
	}
	if total < 50 {
		t.Fatalf("only %d polls were served in 30 s: %v", total, served)
	}
	var rows []fluxRow
	eventually(t, 60*time.Second, fmt.Sprintf("all %d polls that were served are in InfluxDB", total), func() bool {
		rows = db.flux(t, `|> filter(fn: (r) => r._field == "epoch" or r._field == "seq" or r._field == "poll_serial")
			|> pivot(rowKey: ["_time", "device"], columnKey: ["_field"], valueColumn: "_value")
			|> filter(fn: (r) => exists r.poll_serial)`)
		return len(rows) >= total
	})
	identity, serials := map[string]bool{}, map[string]map[int64]bool{}
	for _, r := range rows {
		id := r["epoch"] + "/" + r["seq"]
		if identity[id] {
			t.Errorf("(epoch, seq) %s stands twice", id)
		}
		identity[id] = true
		n, err := strconv.ParseInt(r["poll_serial"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d := r["device"]
		if serials[d] == nil {
			serials[d] = map[int64]bool{}
		}
		if serials[d][n] {
			t.Errorf("%s: poll %d stands twice", d, n)
		}
		serials[d][n] = true
	}
	for d, n := range served {
		for i := int64(1); i <= n; i++ {
			if !serials[d][i] {
				t.Errorf("%s: poll %d of %d was served and is not in InfluxDB", d, i, n)
			}
		}
		if len(serials[d]) != int(n) {
			t.Errorf("%s: %d polls in InfluxDB, %d served", d, len(serials[d]), n)
		}
	}
	t.Logf("%d polls served, %d (epoch, seq) in InfluxDB, %v", total, len(identity), served)

	for _, f := range speak { // silence clears nothing: only good values do, and a silent device is asked every 30 s
		f()
	}
	eventually(t, 60*time.Second, "the end of the alarm reaches the webhook", func() bool { return l.pages.count("heating-supply-temp-low", "cleared") == 1 })
	l.gateways.stop(t)
	l.gateways = nil
	checkNoHoles(t, l, db)
	if n := l.pages.count("heating-supply-temp-low", "raised"); n != 1 {
		t.Errorf("the alarm was paged %d times", n)
	}
	if n := l.plant.WriteAttempts(); n != 0 {
		t.Errorf("%d requests would have written to the plant", n)
	}
}

// checkNoHoles compares, epoch by epoch, every seq in InfluxDB of whatever
// measurement with the ledger's account.
func checkNoHoles(t *testing.T, l *line, db influx) {
	t.Helper()
	type account struct {
		Epoch                                           uint64
		First, Last, Stored, Quarantined, Lost, Missing uint64
	}
	var book []account
	seqs := map[string]map[uint64]bool{}
	eventually(t, 30*time.Second, "the ledger has no holes", func() bool {
		l.get("/ledger", &book)
		for _, a := range book {
			if a.Missing != 0 || a.Stored != a.Last {
				return false
			}
		}
		return len(book) > 0
	})
	rows := db.flux(t, `|> filter(fn: (r) => r._field == "epoch" or r._field == "seq")
		|> pivot(rowKey: ["_time", "_measurement", "device"], columnKey: ["_field"], valueColumn: "_value")`)
	for _, r := range rows {
		if seqs[r["epoch"]] == nil {
			seqs[r["epoch"]] = map[uint64]bool{}
		}
		n, err := strconv.ParseUint(r["seq"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seqs[r["epoch"]][n] = true
	}
	for _, a := range book {
		have := slices.Sorted(maps.Keys(seqs[strconv.FormatUint(a.Epoch, 10)]))
		if uint64(len(have)) != a.Last || len(have) > 0 && have[len(have)-1] != a.Last || a.Lost != 0 || a.Quarantined != 0 {
			t.Errorf("epoch %d: the ledger says %+v, InfluxDB holds %d seqs", a.Epoch, a, len(have))
		}
	}
}

// fluxRow is one row of an annotated CSV answer, by column.
type fluxRow map[string]string

// flux runs a query over the last hour of the bucket.
func (db influx) flux(t *testing.T, pipe string) []fluxRow {
	t.Helper()
	q := fmt.Sprintf("from(bucket: %q) |> range(start: -1h) %s |> group()", db.bucket, pipe)
	req, err := http.NewRequest(http.MethodPost, db.url+"/api/v2/query?"+url.Values{"org": {""}}.Encode(), strings.NewReader(q))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.flux")
	req.Header.Set("Accept", "application/csv")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("flux: %s: %s %v", resp.Status, body, err)
	}
	var rows []fluxRow
	for table := range strings.SplitSeq(strings.ReplaceAll(string(body), "\r\n", "\n"), "\n\n") {
		r := csv.NewReader(strings.NewReader(strings.TrimSpace(table)))
		r.Comment = '#'
		r.FieldsPerRecord = -1
		records, err := r.ReadAll()
		if err != nil {
			t.Fatalf("flux: %v in %q", err, table)
		}
		for _, rec := range records[min(1, len(records)):] {
			row := fluxRow{}
			for i, name := range records[0] {
				if i < len(rec) {
					row[name] = rec[i]
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}
