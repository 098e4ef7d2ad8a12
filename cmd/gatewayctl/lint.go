package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/edge"
	"luquan/internal/conffile"
)

// lintReport is what lint found, as --json tells it.
type lintReport struct {
	Errors   int               `json:"errors"`
	Warnings int               `json:"warnings"`
	Notes    int               `json:"notes"`
	Findings []profile.Finding `json:"findings"`
}

func profileLintCommand() *cobra.Command {
	var asJSON, strict bool
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Check profiles of your own before they are used",
		Long: `Check profile files: everything that would keep one from being loaded, with
every value of every parameter, and the mistakes that are usual. Each finding
stands at file:line:col with what to do. The names, classes and units of points
are compared with those of the built-in models. docs/profiles.md has the keys,
docs/add-a-device.md the way to a first profile.

Exit status 1 with an error; with --strict also with a warning. Notes are worth
a look and change no exit status.`,
		Args: some("name the files, for example my-meter.yaml"),
		RunE: func(cmd *cobra.Command, files []string) error {
			lib, err := edge.Profiles()
			if err != nil {
				return err
			}
			r := lint(lib, files)
			show := r.print
			if asJSON {
				show = func(w io.Writer) error { return printJSON(w, r) }
			}
			return errors.Join(show(cmd.OutOrStdout()), r.verdict(strict))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	cmd.Flags().BoolVar(&strict, "strict", false, "take warnings for errors")
	return cmd
}

// some accepts one argument or more; otherwise what says what they should be.
func some(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New(what)
		}
		return nil
	}
}

func lint(lib *profile.Library, files []string) lintReport {
	r := lintReport{Findings: []profile.Finding{}}
	first := map[string]string{} // file of an id
	for _, file := range files {
		id := filepath.Base(file)
		if other, twice := first[id]; twice {
			r.add(profile.Finding{File: file, Level: profile.LevelError, Msg: fmt.Sprintf("%s is a profile of the same id; give one of them the name of its model and variant", other)})
			continue
		}
		first[id] = file
		data, err := conffile.Read(file)
		var e *conffile.Error
		switch {
		case errors.As(err, &e):
			r.add(profile.Finding{File: file, Level: profile.LevelError, Msg: e.Msg})
		case err != nil:
			r.add(profile.Finding{File: file, Level: profile.LevelError, Msg: err.Error()})
		default:
			for _, f := range lib.Lint(filepath.ToSlash(file), data) {
				r.add(f)
			}
		}
	}
	return r
}

func (r *lintReport) add(f profile.Finding) {
	r.Findings = append(r.Findings, f)
	switch f.Level {
	case profile.LevelError:
		r.Errors++
	case profile.LevelWarning:
		r.Warnings++
	default:
		r.Notes++
	}
}

func (r lintReport) print(w io.Writer) error {
	for _, f := range r.Findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	if r.Errors+r.Warnings > 0 {
		return nil
	}
	_, err := fmt.Fprintln(w, "nothing is wrong")
	return err
}

// verdict says why the exit status is not 0.
func (r lintReport) verdict(strict bool) error {
	switch {
	case r.Errors > 0:
		return fmt.Errorf("%s, %s", counted(r.Errors, "error"), counted(r.Warnings, "warning"))
	case strict && r.Warnings > 0:
		return fmt.Errorf("%s, and --strict allows none", counted(r.Warnings, "warning"))
	}
	return nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
