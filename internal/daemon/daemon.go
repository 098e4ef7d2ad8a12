// Package daemon is what every command of Luquan shares: signals become the
// end of a context, errors become a sentence on stderr and an exit status, and
// systemd is told when the service is ready. It is the only package that
// knows signals and systemd.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// The exit statuses of every command.
const (
	ExitDone   = 0 // what was asked is done
	ExitFailed = 1 // refused or failed; stderr says why
	ExitUsage  = 2 // the command line was wrong
)

// usageError marks a wrong command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// Usage marks err as a wrong command line: exit status 2 and a hint to --help.
func Usage(err error) error { return usageError{err} }

// Main runs a command to its end and returns the exit status. The command's
// context ends at SIGINT or SIGTERM; a second signal ends the process at once,
// as a technician who presses Ctrl-C twice expects.
func Main(root *cobra.Command, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal has its default effect
	return Execute(ctx, root, args)
}

// Execute is Main without signals, for tests.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = Version()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	wrapArgs(root)
	wrapGroups(root)
	cmd, err := root.ExecuteContextC(ctx)
	var ue usageError
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return ExitDone
	case errors.As(err, &ue) || strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag"):
		fmt.Fprintf(root.ErrOrStderr(), "%s: %s\nsee %s --help\n", cmd.CommandPath(), err, cmd.CommandPath())
		return ExitUsage
	}
	for line := range strings.Lines(err.Error()) { // a mistake a line, and each line is a message of its own in the journal
		fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), strings.TrimRight(line, "\n"))
	}
	return ExitFailed
}

// wrapGroups makes a command that only holds others refuse to run: one that
// showed its help and returned 0 would hide a mistyped verb from a script.
func wrapGroups(c *cobra.Command) {
	for _, sub := range c.Commands() {
		wrapGroups(sub)
	}
	if !c.HasSubCommands() || c.Runnable() {
		return
	}
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(c *cobra.Command, args []string) error {
		var verbs []string
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "completion" {
				verbs = append(verbs, sub.Name())
			}
		}
		known := strings.Join(verbs, ", ")
		if len(args) == 0 {
			return Usage(fmt.Errorf("say what to do: %s", known))
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return Usage(fmt.Errorf("unknown command %q; did you mean %q?", args[0], near[0]))
		}
		return Usage(fmt.Errorf("unknown command %q; known: %s", args[0], known))
	}
}

// wrapArgs marks the errors of every command's argument check as wrong usage.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return Usage(err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// Version returns the version that was built in: the module's version, or the
// revision of the checkout, or "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// Logger returns the logger of a daemon: text for people on a terminal, JSON
// under systemd, which keeps the fields.
func Logger(w io.Writer) *slog.Logger { return logger(w, slog.LevelInfo) }

// DebugLogger is Logger for who looks for a fault: it also tells what goes on
// when all is well, each commit to flash among it.
func DebugLogger(w io.Writer) *slog.Logger { return logger(w, slog.LevelDebug) }

func logger(w io.Writer, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Ready tells systemd that the service does its work, and keeps its watchdog
// fed until ctx ends. Without systemd it does nothing.
func Ready(ctx context.Context) error {
	if err := notify("READY=1"); err != nil {
		return err
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return nil
	}
	go func() {
		tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				_ = notify("STOPPING=1") // systemd notices the end by itself
				return
			case <-tick.C:
				_ = notify("WATCHDOG=1") // a lost beat restarts us, as it should
			}
		}
	}()
	return nil
}

// notify sends one state to systemd's socket, sd_notify(3).
func notify(state string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if addr[0] == '@' {
		addr = "\x00" + addr[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd %s: %w", state, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd %s: %w", state, err)
	}
	return nil
}
