package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/telemetry"
	"luquan/gateway/wire"
)

// filled makes a buffer of two epochs: ten readings in each, the first six of
// the first freed. The second is left open, as a running gatewayd has it.
func filled(t *testing.T) (dir string, first, second uint64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "buffer")
	fill := func() *buffer.Queue {
		q, err := buffer.Open(buffer.Options{Dir: dir, Max: 8 << 20, Label: "boot=6b1e cfg=9f86d081"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			p, err := wire.Store(telemetry.Sample{Kind: "heat_meter", Device: "heat-meter-1", Time: time.Unix(1763850000+int64(i), 0), Readings: []telemetry.Reading{
				{Point: "flow_temp", Value: telemetry.FloatValue(84.5)}}}, "heating-east", "boiler-house-1", telemetry.ClockTrusted, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := q.Append(buffer.Reading, p); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := fill()
	first = q.Epoch()
	if err := q.Free(first, 6, nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = fill()
	t.Cleanup(func() { _ = q.Close() })
	return dir, first, q.Epoch()
}

func TestQueueList(t *testing.T) {
	dir, first, second := filled(t)
	out, errOut, status := run(t, "queue ls --dir "+dir)
	if status != 0 || errOut != "" {
		t.Fatalf("status %d: %s", status, errOut)
	}
	fits(t, "stdout", out, []string{
		`EPOCH +HELD +FIRST +LAST +FREED TO +BEGUN +ENDED +SIZE +LABEL`,
		fmt.Sprintf(`%d +4 +7 +10 +6 +20[0-9T:-]+Z +clean stop +0\.12 MiB +boot=6b1e cfg=9f86d081`, first),
		fmt.Sprintf(`%d +10 +1 +10 +0 +20[0-9T:-]+Z +running or power cut +0\.12 MiB +boot=6b1e cfg=9f86d081`, second),
		`.*/buffer: 14 records held; 0\.[0-9]+ MiB, files: 2 with records, \d spare, 0 set aside; what the hub has was last noted 20[0-9T:-]+Z`,
	})
	out, _, _ = run(t, "queue ls --json --dir "+dir)
	var l listing
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err)
	}
	if l.Held != 14 || len(l.Epochs) != 2 || l.Epochs[0].Freed != 6 || l.Epochs[0].First != 7 || !l.Epochs[1].Newest || l.Cursor == nil {
		t.Errorf("%+v", l)
	}
}

func TestQueueDump(t *testing.T) {
	dir, first, second := filled(t)
	out, errOut, status := run(t, "queue dump --dir "+dir)
	if status != 0 || errOut != "" {
		t.Fatalf("status %d: %s", status, errOut)
	}
	var want []string
	for _, e := range []struct{ epoch, from uint64 }{{first, 7}, {second, 1}} {
		for n := e.from; n <= 10; n++ {
			want = append(want, fmt.Sprintf(`heat_meter,site=heating-east,gateway=boiler-house-1,device=heat-meter-1 flow_temp=84\.5,status=0i,group=0i,epoch=%di,seq=%di %d`,
				e.epoch, n, (1763850000+n-1)*1e9))
		}
	}
	fits(t, "stdout", out, want)
	for args, n := range map[string]int{
		fmt.Sprintf("--epoch %d", first):                  4,
		fmt.Sprintf("--epoch %d --all", first):            10,
		fmt.Sprintf("--epoch %d --from 3 --to 5", second): 3,
		"--all --json": 20,
	} {
		out, _, status := run(t, "queue dump --dir "+dir+" "+args)
		if got := strings.Count(out, "\n"); status != 0 || got != n {
			t.Errorf("%s: status %d, %d lines, want %d", args, status, got, n)
		}
	}
	out, _, _ = run(t, fmt.Sprintf("queue dump --json --dir %s --epoch %d --to 7", dir, first))
	var d dumped
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	if d.Epoch != first || d.Seq != 7 || d.Kind != "reading" || d.Time.Unix() != 1763850006 || d.Freed || !strings.Contains(d.Line, "seq=7i") {
		t.Errorf("%+v", d)
	}
}

func TestQueueCheck(t *testing.T) {
	dir, first, _ := filled(t)
	out, _, status := run(t, "queue check --dir "+dir)
	if status != 0 {
		t.Errorf("status %d", status)
	}
	fits(t, "stdout", out, []string{`.* is sound: every checksum fits, no record is missing`})

	// One flipped bit in the body of the first epoch's eighth record.
	name := filepath.Join(dir, "seg-000001.q")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := -1
	for n, from := 0, 0; n < 8; n++ {
		i := strings.Index(string(b[from:]), "heat_meter,site")
		at = from + i
		from = at + 1
	}
	b[at] ^= 1
	if err := os.WriteFile(name, b, 0o640); err != nil {
		t.Fatal(err)
	}
	out, errOut, status := run(t, "queue check --dir "+dir)
	if status != 1 {
		t.Errorf("status %d", status)
	}
	fits(t, "stdout", out, []string{fmt.Sprintf(`LOST  seg-000001\.q byte \d+ to \d+, epoch %d seq 8 to 8: damaged: these records are lost, .*`, first)})
	fits(t, "stderr", errOut, []string{`gatewayctl queue check: .*/buffer: 1 damaged places lose records, 1 of them by number; keep the card, .*`})
	out, _, _ = run(t, "queue check --json --dir "+dir)
	var found []finding
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) != 1 || found[0].First != 8 || !found[0].Loses {
		t.Errorf("%v %+v", err, found)
	}
	if out, _, _ := run(t, "queue dump --dir "+dir); strings.Count(out, "\n") != 13 || strings.Contains(out, fmt.Sprintf("epoch=%di,seq=8i", first)) {
		t.Errorf("dump of a damaged buffer:\n%s", out)
	}
}

func TestQueueRefuses(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(empty, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, _, _ := filled(t)
	for line, want := range map[string]string{
		"queue ls --dir " + empty + "/none": `gatewayctl queue ls: there is no directory ".*"; name buffer\.dir of gateway\.yaml with --dir`,
		"queue ls --dir " + empty:           `gatewayctl queue ls: ".*" holds no segment \(seg-\.\.\.\.q\): it is not a buffer's directory, .*`,
		"queue check --dir " + file:         `gatewayctl queue check: ".*" is a file; name the directory that holds it with --dir`,
		"queue dump --epoch 5 --dir " + dir: `gatewayctl queue dump: .* holds no epoch 5; .gatewayctl queue ls --dir .*. lists them`,
	} {
		out, errOut, status := run(t, line)
		if status != 1 || out != "" {
			t.Errorf("%s: status %d, stdout %q", line, status, out)
		}
		fits(t, "stderr", errOut, []string{want})
	}
	if _, errOut, status := run(t, "queue lst"); status != 2 || !strings.Contains(errOut, `did you mean`) {
		t.Errorf("status %d: %s", status, errOut)
	}
}
