package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"luquan/gateway/wire"
)

// TestQuarantine lets a real InfluxDB refuse lines whose field had another
// type before, mends it, and tries them again.
func TestQuarantine(t *testing.T) {
	db := influxd(t)
	ask := func(query string) {
		t.Helper()
		resp, err := http.PostForm(db+"/query", url.Values{"q": {query}, "db": {"d"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", query, resp.Status)
		}
	}
	write := func(line string) {
		t.Helper()
		resp, err := http.Post(db+"/write?db=d", "text/plain", strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%s: %s", line, resp.Status)
		}
	}
	const at = 1763850000000000000 // every record within one minute of it: one shard
	write(fmt.Sprintf(`pump,site=east,gateway=board-1,device=p1 speed="fast" %d`, int64(at)))

	config := centre(t, fmt.Sprintf("influx: {url: %q, bucket: d/autogen}\n", db))
	if out, err := run(t, "quarantine", "ls", "--config", config); err != nil || !strings.Contains(out, "nothing is in quarantine") {
		t.Errorf("before the hub ever ran: %v\n%s", err, out)
	}
	h, stop := start(t, config)
	line := func(kind string, seq int) []byte {
		return fmt.Appendf(nil, "%s,site=east,gateway=board-1,device=p1 speed=%d.5,status=0i,group=0i,epoch=9i,seq=%di %d", kind, seq, seq, int64(at)+int64(seq)*1e9)
	}
	lines := [][]byte{line("pump", 1), line("meter", 2), line("pump", 3), line("meter", 4)}
	payload, err := wire.Encode(wire.Header{Epoch: 9, First: 1, Count: 4, Lane: wire.Backfill, Session: "s", Sent: at, Boot: "b", Cfg: "9f86d081"}, lines, false)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post("http://"+h.ConsoleAddr()+"/api/v1/import?topic=luquan/v1/east/board-1/backfill", "application/octet-stream", bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	out, err := run(t, "quarantine", "ls", "--config", config)
	if err != nil || !strings.Contains(out, "east/board-1/9/3") || !strings.Contains(out, "field type conflict") || !strings.Contains(out, "2 of 2") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Log("\n" + out)
	if out, err := run(t, "quarantine", "retry", "--config", config, "--all"); err != nil || !strings.Contains(out, "tried 2, stored 0, refused again 2") || !strings.Contains(out, "  2: ") {
		t.Errorf("while it is not mended: %v\n%s", err, out)
	}
	ask(`DROP MEASUREMENT "pump"`)
	if out, err := run(t, "quarantine", "retry", "--config", config, "--id", "east/board-1/9/1"); err != nil || !strings.Contains(out, "tried 1, stored 1, refused again 0") {
		t.Errorf("one of them: %v\n%s", err, out)
	}
	var list inQuarantine
	out, err = run(t, "quarantine", "ls", "--config", config, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil || list.Total != 1 || list.Entries[0].Seq != 3 || !strings.HasPrefix(list.Entries[0].Line, "pump,site=east") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = run(t, "ledger", "--config", config, "--site", "east", "--from", "2025-11-22T22:19:00Z", "--to", "2025-11-22T22:21:00Z", "--verify")
	if err != nil {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out, "3            1") {
		t.Errorf("the ledger does not say 3 stored and 1 quarantined:\n%s", out)
	}
	if out, err := run(t, "quarantine", "drop", "--config", config, "--site", "east", "--gateway", "board-1", "--json"); err != nil || !strings.Contains(out, `"dropped": 1`) {
		t.Errorf("drop: %v\n%s", err, out)
	}
	if out, err := run(t, "quarantine", "retry", "--config", config, "--all"); err != nil || !strings.Contains(out, "tried 0") {
		t.Errorf("then: %v\n%s", err, out)
	}
	stop()

	for _, c := range []struct{ args, want string }{
		{"retry", "nothing is chosen"},
		{"drop", "nothing is chosen"},
		{"drop --all", "start it first"},
		{"ls --limit 0", "--limit 0 is not between"},
	} {
		_, err := run(t, append([]string{"quarantine"}, append(strings.Fields(c.args), "--config", config)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
