package daemon

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestExitStatus(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		args   []string
		err    error
		status int
		stderr string
	}{
		{"done", t.Context(), []string{"run"}, nil, 0, ""},
		{"failed", t.Context(), []string{"run"}, errors.New("port 1883 is taken"), 1, "x run: port 1883 is taken\n"},
		{"wrong flag", t.Context(), []string{"run", "--nope"}, nil, 2, "unknown flag: --nope"},
		{"wrong verb", t.Context(), []string{"rnu"}, nil, 2, `unknown command "rnu"`},
		{"wrong verb inside a group", t.Context(), []string{"rules", "chekc"}, nil, 2, "x rules: unknown command \"chekc\"; did you mean \"check\"?\n"},
		{"no verb inside a group", t.Context(), []string{"rules"}, nil, 2, "x rules: say what to do: check\nsee x rules --help\n"},
		{"no verb", t.Context(), nil, nil, 2, "x: say what to do: "},
		{"a group's wrong flag", t.Context(), []string{"rules", "--nope"}, nil, 2, "unknown flag: --nope"},
		{"several lines", t.Context(), []string{"run"}, errors.New("f:1:2: a\nf:3:4: b"), 1, "x run: f:1:2: a\nx run: f:3:4: b\n"},
		{"stray argument", t.Context(), []string{"run", "a"}, nil, 2, "see x run --help"},
		{"told to stop", cancelled, []string{"run"}, context.Canceled, 0, ""},
		{"cancelled by itself", t.Context(), []string{"run"}, context.Canceled, 1, "context canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			root := &cobra.Command{Use: "x"}
			root.AddCommand(&cobra.Command{Use: "run", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return tt.err }})
			rules := &cobra.Command{Use: "rules"}
			rules.AddCommand(&cobra.Command{Use: "check", Run: func(*cobra.Command, []string) {}})
			root.AddCommand(rules)
			root.SetErr(&stderr)
			if tt.args == nil {
				tt.args = []string{} // nil would mean those of the test's own process
			}
			if got := Execute(tt.ctx, root, tt.args); got != tt.status {
				t.Errorf("status %d, want %d", got, tt.status)
			}
			if !strings.Contains(stderr.String(), tt.stderr) || (tt.stderr == "" && stderr.Len() > 0) {
				t.Errorf("stderr %q, want %q in it", stderr.String(), tt.stderr)
			}
		})
	}
}

func TestReadyTellsSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
}
