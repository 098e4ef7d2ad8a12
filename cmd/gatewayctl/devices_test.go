package main

import (
	"os"
	"strings"
	"testing"

	"luquan/gateway/edge"
)

// TestDevicesDoc: docs/devices.md is what the profiles say.
func TestDevicesDoc(t *testing.T) {
	const file = "../../docs/devices.md"
	stdout, stderr, status := run(t, "profile list --markdown")
	if status != 0 {
		t.Fatalf("exit status %d, %s", status, stderr)
	}
	if *update {
		if err := os.WriteFile(file, []byte(stdout), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != stdout {
		t.Errorf("%s is not what the profiles say; write it anew: go test ./cmd/gatewayctl -run TestDevicesDoc -update", file)
	}
}

// TestDevicesDocIsWhole: every model, each of its points with both labels, and
// all that is unproven stand in it.
func TestDevicesDocIsWhole(t *testing.T) {
	doc, _, _ := run(t, "profile list --markdown")
	lib, err := edge.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	models, err := filter{}.models(lib)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(doc, "\n## ")[1:] {
		id, text, _ := strings.Cut(s, "\n")
		sections[id] = text
	}
	for _, m := range models {
		text := sections[m.ID]
		for _, u := range m.Unproven {
			if !strings.Contains(text, line(u)) {
				t.Errorf("%s: unproven %s is not told", m.ID, u)
			}
		}
		for _, p := range m.Points {
			if !strings.Contains(text, "| "+p.Name+" | "+cell(p.Zh)+" | "+cell(p.En)+" | "+p.Unit+" | ") {
				t.Errorf("%s: point %s is not in the table", m.ID, p.Name)
			}
		}
		if !strings.Contains(text, line(m.Source)) || !strings.Contains(text, m.Confidence) {
			t.Errorf("%s: its source is not told", m.ID)
		}
	}
	for id, row := range map[string]string{
		"kamstrup-multical-603": "| flow | 瞬时流量 V1 | Flow V1 | L/s | holding 0 f32, by the parameters |",
		"pzem-016":              "| u_l1 | A 相电压 | Voltage L1-N | V | input 0 u16 |",
	} {
		if !strings.Contains(sections[id], row) {
			t.Errorf("%s has not the row %s", id, row)
		}
	}
	for _, row := range strings.Split(doc, "\n") {
		if strings.HasPrefix(row, "| ") && strings.Count(strings.ReplaceAll(row, `\\|`, ""), "|") < 4 {
			t.Errorf("a broken row: %s", row)
		}
	}
}
