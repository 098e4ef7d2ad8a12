package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/edge"
	"luquan/internal/conffile"
	"luquan/internal/daemon"
)

func profileCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "profile", Short: "Look up the device models that are built in, check one of your own"}
	cmd.AddCommand(profileListCommand(), profileShowCommand(), profileLintCommand(), profileFramesCommand())
	return cmd
}

// filter is which models list shows; what is empty lets all through.
type filter struct{ kind, usedAt, search string }

func profileListCommand() *cobra.Command {
	var asJSON, asMarkdown bool
	var f filter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the device models",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && asMarkdown {
				return daemon.Usage(errors.New("--json and --markdown are two forms of one list; choose one"))
			}
			lib, err := edge.Profiles()
			if err != nil {
				return err
			}
			models, err := f.models(lib)
			if err != nil {
				return err
			}
			switch w := cmd.OutOrStdout(); {
			case asMarkdown:
				return printMarkdown(w, models)
			case asJSON:
				for i := range models {
					models[i].Points = nil
				}
				return printJSON(w, models)
			case len(models) == 0:
				_, err := fmt.Fprintln(w, "no device model is like that; take a flag away or search for less: a part of a name or a label will do")
				return err
			default:
				return printModels(w, models)
			}
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print for programs")
	flags.BoolVar(&asMarkdown, "markdown", false, "print docs/devices.md")
	flags.StringVar(&f.kind, "kind", "", "only devices of this kind, for example heat_meter")
	flags.StringVar(&f.usedAt, "used-at", "", "only those used at this kind of plant, for example sewage")
	flags.StringVar(&f.search, "search", "", "only those with this text in id, vendor, model or a label, in English or Chinese")
	complete(cmd, "kind", func(m model) []string { return []string{m.Kind} })
	complete(cmd, "used-at", func(m model) []string { return m.UsedAt })
	return cmd
}

// complete offers the words of all models for a flag in the shell.
func complete(cmd *cobra.Command, flag string, words func(model) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return offer(words), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic("BUG: " + err.Error()) // the flag is not there
	}
}

func offer(words func(model) []string) (out []string) {
	lib, err := edge.Profiles()
	if err != nil {
		return nil
	}
	models, err := filter{}.models(lib)
	if err != nil {
		return nil
	}
	for _, m := range models {
		for _, w := range words(m) {
			if !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// models returns the models that the filter lets through, with all points of
// all their forms.
func (f filter) models(lib *profile.Library) ([]model, error) {
	models := []model{}
	var kinds, plants []string
	for _, id := range lib.Names() {
		m := modelOf(lib, lib.Forms(id), nil)
		kinds, plants = append(kinds, m.Kind), append(plants, m.UsedAt...)
		if (f.kind == "" || f.kind == m.Kind) && (f.usedAt == "" || slices.Contains(m.UsedAt, f.usedAt)) && m.has(f.search) {
			models = append(models, m)
		}
	}
	for _, c := range []struct {
		flag, word string
		known      []string
	}{{"kind", f.kind, kinds}, {"used-at", f.usedAt, plants}} {
		if c.word != "" && !slices.Contains(c.known, c.word) {
			slices.Sort(c.known)
			if near := conffile.Nearest(c.word, c.known); near != "" {
				return nil, fmt.Errorf("no model has --%s %q; did you mean %q?", c.flag, c.word, near)
			}
			return nil, fmt.Errorf("no model has --%s %q; there are %s", c.flag, c.word, strings.Join(slices.Compact(c.known), ", "))
		}
	}
	return models, nil
}

func profileShowCommand() *cobra.Command {
	var asJSON bool
	var params map[string]string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a device model: its source, what is unproven, its points",
		Args:  one("name one device model; `gatewayctl profile list` shows them"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return offer(func(m model) []string { return []string{m.ID} }), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			lib, err := edge.Profiles()
			if err != nil {
				return err
			}
			m, err := lookup(lib, args[0], params)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m)
			}
			return m.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	cmd.Flags().StringToStringVar(&params, "param", nil, "a parameter of the profile, for example probe=ph")
	return cmd
}

// printModels lists the models, a line each.
func printModels(w io.Writer, models []model) error {
	rows := [][]string{{"ID", "KIND", "POINTS", "CONFIDENCE", "UNPROVEN", "中文", "MODEL"}}
	for _, m := range models {
		unproven := "-"
		if n := len(m.Unproven); n > 0 {
			unproven = fmt.Sprint(n)
		}
		rows = append(rows, []string{m.ID, m.Kind, fmt.Sprint(m.Count), m.Confidence, unproven, m.Zh, m.name()})
	}
	return printTable(w, rows)
}
