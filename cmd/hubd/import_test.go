package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/edge/uplink"
	"luquan/gateway/hub"
	"luquan/gateway/hub/ledger"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs the command line and returns what it printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// deadBoard makes the buffer of a board with records of an hour ago, some with
// final stamps as earlier versions stored them, some with what the clocks
// showed; its second opening says how the first one ended.
func deadBoard(t *testing.T, began time.Time) (dir string, records int) {
	t.Helper()
	dir = t.TempDir()
	for opening := range 2 {
		label := uplink.Label(fmt.Sprintf("boot-%d", opening), "9f86d081")
		q, err := buffer.Open(buffer.Options{
			Dir: dir, Max: 8 << 20, Label: label,
			EncodeEnd: func(e buffer.EpochEnd) []byte {
				b, err := wire.StoreEpochEnd(telemetry.EpochEnd{Ended: e.Epoch, Last: e.Last, Reason: e.Reason}, "east", "board-1", began.Add(30*time.Minute), telemetry.ClockTrusted, time.Second)
				if err != nil {
					t.Error(err)
				}
				return b
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1500 {
			at := began.Add(time.Duration(opening)*30*time.Minute + time.Duration(i+1)*time.Second)
			s := telemetry.Sample{Device: "meter", Kind: "heat_meter", Time: at, Readings: []telemetry.Reading{{Point: "flow_temp", Value: telemetry.FloatValue(99.5)}}}
			b, err := wire.Store(s, "east", "board-1", telemetry.ClockTrusted, time.Minute+time.Duration(i)*time.Second)
			if err == nil && opening == 1 {
				b, err = wire.WithStamp(b, wire.Stamp{Time: at.UnixNano(), Mono: time.Minute + time.Duration(i)*time.Second, Raw: true})
			}
			if err == nil {
				_, err = q.Append(buffer.Reading, b)
			}
			if err != nil {
				t.Fatal(err)
			}
			records++
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		records += opening // the end of the first
	}
	return dir, records
}

func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// influxd starts a real InfluxDB 1.8 with a database d and returns its URL.
func influxd(t *testing.T) string {
	t.Helper()
	home, _ := os.UserHomeDir()
	bin, err := exec.LookPath("influxd")
	if err != nil {
		bin = filepath.Join(home, "go", "bin", "influxd")
		_, err = os.Stat(bin)
	}
	if err != nil && os.Getenv("LUQUAN_REAL") == "1" {
		t.Fatal("influxd is not installed: go install github.com/influxdata/influxdb/cmd/influxd@v1.8.10")
	}
	if err != nil {
		t.Skip("influxd is not installed")
	}
	dir, addr := t.TempDir(), port(t)
	conf := filepath.Join(dir, "influxd.conf")
	text := fmt.Sprintf("reporting-disabled = true\nbind-address = %q\n[meta]\ndir = %q\n[data]\ndir = %q\nwal-dir = %q\n[http]\nbind-address = %q\nlog-enabled = false\n[monitor]\nstore-enabled = false\n",
		port(t), dir+"/meta", dir+"/data", dir+"/wal", addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-config", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	defer http.DefaultClient.CloseIdleConnections()
	deadline := time.Now().Add(time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		resp, err := http.PostForm("http://"+addr+"/query", url.Values{"q": {"CREATE DATABASE d"}})
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return "http://" + addr
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("influxd does not answer: %v", err)
		}
	}
}

// centre writes the configuration of a hub with a rule that the board's
// readings break, and returns it.
func centre(t *testing.T, more string) (config string) {
	t.Helper()
	dir := t.TempDir()
	config = filepath.Join(dir, "hub.yaml")
	for name, text := range map[string]string{
		"hub.yaml": fmt.Sprintf("name: here\nmqtt: {broker: embedded, listen: %q}\nconsole: {listen: %q}\nstate: {dir: state}\nrules: [rules.yaml]\n%s", port(t), port(t), more),
		"rules.yaml": `rules:
  - id: too-hot
    points: "*/*/flow_temp"
    high: 90
    priority: critical
    message: {zh: "热", en: "hot"}
    help: {zh: "看", en: "look"}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// start runs a hub by the configuration until stop.
func start(t *testing.T, config string) (h *hub.Hub, stop func()) {
	t.Helper()
	cfg, err := hub.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	h, err = hub.New(t.Context(), cfg, hub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	return h, func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestImport(t *testing.T) {
	for _, c := range []struct {
		name            string
		running, influx bool
	}{{"a hub runs", true, false}, {"none runs", false, false}, {"InfluxDB and a hub", true, true}, {"InfluxDB alone", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			more := ""
			if c.influx {
				more = fmt.Sprintf("influx: {url: %q, bucket: d/autogen}\n", influxd(t))
			}
			running := c.running
			began := time.Now().Add(-2 * time.Hour).Truncate(time.Hour)
			dir, records := deadBoard(t, began)
			before := tree(t, dir)
			config := centre(t, more)
			if running {
				h, stop := start(t, config)
				defer stop()
				defer func() {
					resp, err := http.Get("http://" + h.ConsoleAddr() + "/api/v1/alarms?state=all")
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					var list []any
					if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list) != 0 {
						t.Errorf("an import raised alarms: %v, %v", list, err)
					}
				}()
			}
			imported := func(args ...string) (r importReport) {
				t.Helper()
				out, err := run(t, append([]string{"import", dir, "--config", config, "--json"}, args...)...)
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if err := json.Unmarshal([]byte(out), &r); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				return r
			}
			if r := imported("--dry-run"); r.Read != uint64(records) || r.New != 0 || r.Known != 0 {
				t.Fatalf("dry run: %+v", r)
			}
			r := imported()
			if r.Read != uint64(records) || r.New != r.Read || r.Known+r.Quarantined+r.Damaged+r.Unreadable+r.Untimed != 0 || len(r.Epochs) != 2 {
				t.Fatalf("first: %+v", r)
			}
			if e := r.Epochs[1]; !e.To.Equal(began.Add(30*time.Minute+1500*time.Second)) || e.Site != "east" || e.Gateway != "board-1" {
				t.Errorf("the second epoch: %+v", e)
			}
			account := func() []ledger.Row {
				t.Helper()
				out, err := run(t, "ledger", "--config", config, "--site", "east", "--from", began.Format(time.RFC3339), "--to", began.Add(2*time.Hour).Format(time.RFC3339), "--by", "gateway,hour", "--verify", "--json")
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				var rows []ledger.Row
				if err := json.Unmarshal([]byte(out), &rows); err != nil {
					t.Fatal(err)
				}
				return rows
			}
			rows := account()
			total, store := uint64(0), uint64(0)
			for _, r := range rows {
				total, store = total+r.Stored, store+r.Verified.Store
				if r.Stored != r.Expected || r.Duplicates != 0 || r.Verified.OnlyLedger+r.Verified.OnlyStore+r.Verified.Twice != 0 {
					t.Errorf("%+v %+v", r, r.Verified)
				}
			}
			if total != uint64(records) || store != total {
				t.Errorf("%d by the ledger, %d in the history, %d on the card", total, store, records)
			}
			if r := imported(); r.Read != uint64(records) || r.New != 0 || r.Known != r.Read {
				t.Fatalf("again: %+v", r)
			}
			again := account()
			if fmt.Sprint(strip(again)) != fmt.Sprint(strip(rows)) {
				t.Errorf("importing twice changed the book:\n%+v\n%+v", strip(rows), strip(again))
			}
			if tree(t, dir) != before {
				t.Error("the card was changed")
			}
			out, err := run(t, "ledger", "--config", config, "--site", "east")
			if err != nil || !strings.Contains(out, "100.0 %") || !strings.Contains(out, fmt.Sprint(records)) {
				t.Errorf("%v\n%s", err, out)
			}
			t.Log("\n" + out)
		})
	}
}

func strip(rows []ledger.Row) (out []ledger.Row) {
	for _, r := range rows {
		r.KnownTo, r.Verified = time.Time{}, nil
		out = append(out, r)
	}
	return out
}

// tree tells names and sizes and times of all files.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, p, info.Size(), info.ModTime())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLedgerRefusals(t *testing.T) {
	config := centre(t, "")
	for _, c := range []struct{ args, want string }{
		{"--by week", "not made of site, gateway, epoch, hour"},
		{"--from yesterday", "is not a time"},
		{"--from 2026-01-06 --to 2026-01-05", "--from is not before --to"},
		{"--site east", "there is none before hubd has run"},
	} {
		_, err := run(t, append([]string{"ledger", "--config", config}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	if _, err := run(t, "import", t.TempDir(), "--config", config); err == nil || !strings.Contains(err.Error(), "holds no segment of a buffer") {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestImportDamagedCard: what can be read is stored, what cannot is named and
// stays missing in the ledger.
func TestImportDamagedCard(t *testing.T) {
	began := time.Now().Add(-2 * time.Hour).Truncate(time.Hour)
	dir, records := deadBoard(t, began)
	segments, err := filepath.Glob(filepath.Join(dir, "seg-*.q"))
	if err != nil || len(segments) < 2 {
		t.Fatalf("%v, %v", segments, err)
	}
	f, err := os.OpenFile(segments[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0x5a}, 4096), 64<<10); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before, config := tree(t, dir), centre(t, "")
	out, err := run(t, "import", dir, "--config", config)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, filepath.Base(segments[0])+" at ") {
		t.Errorf("the damage is not named:\n%s", out)
	}
	var r importReport
	again, err := run(t, "import", dir, "--config", config, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(again), &r)
	}
	if err != nil || r.Damaged == 0 || r.Known != r.Read || int(r.Read+r.Damaged) != records || len(r.Findings) == 0 {
		t.Fatalf("%v: %+v of %d\n%s", err, r, records, out)
	}
	var rows []ledger.Row
	book, err := run(t, "ledger", "--config", config, "--json", "--by", "site")
	if err == nil {
		err = json.Unmarshal([]byte(book), &rows)
	}
	if err != nil || len(rows) != 1 || rows[0].Stored != r.Read || rows[0].Missing != r.Damaged {
		t.Errorf("%v: %s", err, book)
	}
	if tree(t, dir) != before {
		t.Error("the card was changed")
	}
	t.Log("\n" + out)
}
