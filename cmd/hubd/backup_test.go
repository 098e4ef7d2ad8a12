package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luquan/gateway/hub/backup"
)

// TestBackupDrill: a hub is backed up while it runs, its disk is lost, and a
// hub that starts from the backup knows the same.
func TestBackupDrill(t *testing.T) {
	began := time.Now().Add(-2 * time.Hour).Truncate(time.Hour)
	card, records := deadBoard(t, began)
	config := centre(t, "")
	if _, err := run(t, "backup", filepath.Join(t.TempDir(), "b"), "--config", config); err == nil || !strings.Contains(err.Error(), "the hub has never run") {
		t.Errorf("before it ever ran: %v", err)
	}
	_, stop := start(t, config)
	if out, err := run(t, "import", card, "--config", config); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	account := func(config string) string {
		t.Helper()
		out, err := run(t, "ledger", "--config", config, "--site", "east", "--from", began.Format(time.RFC3339), "--to", began.Add(2*time.Hour).Format(time.RFC3339),
			"--by", "gateway,epoch,hour", "--verify", "--json")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	before := account(config)

	dir := filepath.Join(t.TempDir(), "backup")
	out, err := run(t, "backup", dir, "--config", config)
	if err != nil || !strings.Contains(out, "state/ledger.sqlite") || !strings.Contains(out, "history/history.db") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log("\n" + out)
	if _, err := run(t, "restore", dir, "--config", config); err == nil || !strings.Contains(err.Error(), "is in use by another process") {
		t.Errorf("restored under a running hub: %v", err)
	}
	stop()
	if _, err := run(t, "restore", dir, "--config", config); err == nil || !strings.Contains(err.Error(), "move it away first") {
		t.Errorf("restored over what is there: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(filepath.Dir(config), "state")); err != nil { // the disk is lost
		t.Fatal(err)
	}
	var m backup.Manifest
	out, err = run(t, "restore", dir, "--config", config, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &m)
	}
	if err != nil || m.Hub != "here" || len(m.Files) < 3 {
		t.Fatalf("%v\n%s", err, out)
	}
	_, stop = start(t, config)
	defer stop()
	if after := account(config); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if out, err := run(t, "import", card, "--config", config); err != nil || !strings.Contains(out, fmt.Sprint(records)) {
		t.Errorf("%v\n%s", err, out)
	}
	if after := account(config); after != before {
		t.Errorf("the card, imported once more, changed the book:\n%s", after)
	}
}
