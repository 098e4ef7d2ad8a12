package e2e

import (
	"bufio"
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demo is the built demo as a process, as a newcomer runs it.
type demo struct {
	cmd  *exec.Cmd
	api  string // http://host:port/api/v1
	out  *lockedBuffer
	exit chan error
}

var consoleLine = regexp.MustCompile(`console: (http://\S+)`)

func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", bin, "luquan/cmd/demo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d := &demo{cmd: exec.Command(bin, args...), out: &lockedBuffer{}, exit: make(chan error, 1)}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Stderr = d.out
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			d.out.Write(append(lines.Bytes(), '\n'))
			if m := consoleLine.FindSubmatch(lines.Bytes()); m != nil {
				found <- string(m[1])
			}
		}
		d.exit <- d.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it has ended long ago, or the test failed
		if t.Failed() {
			t.Logf("the demo said:\n%s", d.out)
		}
	})
	select {
	case url := <-found:
		d.api = url + "/api/v1"
	case err := <-d.exit:
		t.Fatalf("the demo ended before it told its address: %v\n%s", err, d.out)
	case <-time.After(30 * time.Second):
		t.Fatal("the demo told no address within 30 s")
	}
	return d
}

// TestDemo is what a first user sees in 40 seconds.
func TestDemo(t *testing.T) {
	d := startDemo(t, "--for", "40s")
	resp, err := http.Get(strings.TrimSuffix(d.api, "/api/v1") + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("/healthz: %s", resp.Status)
	}
	var points []apiPoint
	eventually(t, 15*time.Second, "over 400 points of six sites have good values", func() bool {
		if err := getJSON(d.api+"/points", &points); err != nil {
			t.Fatal(err)
		}
		sites, good := map[string]bool{}, 0
		for _, p := range points {
			sites[p.Site] = true
			if p.Quality == "good" && p.Value != nil {
				good++
			}
		}
		return len(sites) == 6 && good > 400 && good == len(points)
	})
	const point = "heating-east/heat-meter-1/flow_temp"
	samples := func() (n int) {
		var h struct{ Buckets []struct{ Count int } }
		if err := getJSON(d.api+"/history?buckets=10&point="+url.QueryEscape(point), &h); err != nil {
			t.Fatal(err)
		}
		for _, b := range h.Buckets {
			n += b.Count
		}
		return n
	}
	before := samples()
	eventually(t, 10*time.Second, "history grows", func() bool { return samples() >= before+2 })
	if n := streamDeltas(t, d.api+"/live?match="+url.QueryEscape(point), 3); n < 3 {
		t.Errorf("%d deltas of a point that moves every two seconds", n)
	}
	type entry struct{ Rule, State string }
	alarms := func(state string) int {
		var list []entry
		if err := getJSON(d.api+"/alarms?state=all", &list); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, a := range list {
			if a.Rule == "heating-supply-temp-low" && a.State == state {
				n++
			}
		}
		return n
	}
	eventually(t, 25*time.Second, "the alarm rises", func() bool { return alarms("unacknowledged") == 1 })
	eventually(t, 25*time.Second, "the alarm clears", func() bool { return alarms("returned_unacknowledged") == 1 })
	select {
	case err := <-d.exit:
		if err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	case <-time.After(45 * time.Second):
		t.Error("the demo did not stop by itself")
	}
	for _, want := range []string{"报警 raised", "消除 cleared"} {
		if !strings.Contains(d.out.String(), want) {
			t.Errorf("nobody was paged: %q is missing", want)
		}
	}
}

// streamDeltas counts delta events after the snapshot, up to n or 15 s.
func streamDeltas(t *testing.T, url string, n int) (deltas int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	snapshot := false
	for lines := bufio.NewScanner(resp.Body); deltas < n && lines.Scan(); {
		switch lines.Text() {
		case "event: snapshot":
			snapshot = true
		case "event: delta":
			if !snapshot {
				t.Fatal("a delta before the snapshot")
			}
			deltas++
		}
	}
	return deltas
}

func TestDemoEndsAtOnce(t *testing.T) {
	d := startDemo(t)
	eventually(t, 10*time.Second, "it runs", func() bool {
		var points []apiPoint
		return getJSON(d.api+"/points", &points) == nil && len(points) > 60
	})
	began := time.Now()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-d.exit:
		if err != nil {
			t.Errorf("the demo ended with %v", err)
		}
		t.Logf("it ended %v after Ctrl-C", time.Since(began).Round(time.Millisecond))
		if took := time.Since(began); took > 2*time.Second { // the bound, seen by the user as patience
			t.Errorf("it took %v", took)
		}
	case <-time.After(10 * time.Second):
		t.Error("it did not end within 10 s of Ctrl-C")
	}
}
