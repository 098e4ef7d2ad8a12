package plant

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	firmwareconfig "luquan/firmware-config"
)

// runSim runs s until it has described its buses, and returns that.
func runSim(t *testing.T, s Sim, look func(text string)) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := s.Run(ctx, w)
		w.Close()
		done <- err
	}()
	var text bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			return <-done // it ended by itself
		}
		if bytes.HasSuffix(text.Bytes(), []byte("\n")) {
			break
		}
	}
	look(text.String())
	cancel()
	go io.Copy(io.Discard, r)
	return <-done
}

func TestSimTellsWhereItsBusesAre(t *testing.T) {
	dir := t.TempDir()
	err := runSim(t, Sim{Site: "sewage-works", Options: Options{Dir: dir}}, func(text string) {
		for _, want := range []string{"sewage-west  西区污水处理厂 / West sewage works", filepath.Join(dir, "levels"), "4800 baud, parity none", "tcp 127.0.0.1:", "unit 2"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not told:\n%s", want, text)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
	err = runSim(t, Sim{Site: "computing-centre", JSON: true, Options: Options{Dir: dir}}, func(text string) {
		var told struct {
			Site  string
			Buses []Bus
		}
		if err := json.Unmarshal([]byte(text), &told); err != nil || told.Site != "compute-north" || len(told.Buses) != 5 || len(told.Buses[0].Devices) != 3 {
			t.Errorf("%v: %s", err, text)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSimRefusesWithOneSentence(t *testing.T) {
	script := filepath.Join(t.TempDir(), "faults.yaml")
	if err := os.WriteFile(script, []byte("faults:\n  - {device: nobody, do: silence}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var folders []string // all of them, in order
	entries, err := fs.ReadDir(firmwareconfig.FS, "sites")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			folders = append(folders, e.Name())
		}
	}
	for _, tt := range []struct {
		sim  Sim
		want string
	}{
		{Sim{Site: "atlantis"}, `there is no site "atlantis"; the sites are ` + strings.Join(folders, ", ")},
		{Sim{Site: "heating-plant", Script: script}, `fault silence nobody: site heating-east has no device "nobody"`},
		{Sim{Site: "heating-plant", Script: script + "x"}, script + "x: there is no such file; check the path"},
	} {
		err := runSim(t, tt.sim, func(text string) { t.Errorf("it ran: %s", text) })
		if err == nil || err.Error() != tt.want {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}
