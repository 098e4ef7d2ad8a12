package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/edge"
)

// model is a profile as --json tells it; show adds the points.
type model struct {
	ID         string       `json:"id"`
	Vendor     string       `json:"vendor"`
	Model      string       `json:"model"`
	Kind       string       `json:"kind"`
	Confidence string       `json:"confidence"`
	Source     string       `json:"source"`
	Unproven   []string     `json:"unproven"`
	Notes      []string     `json:"notes,omitempty"`
	Params     []modelParam `json:"params,omitempty"`
	Points     []modelPoint `json:"points,omitempty"`
}

// modelParam is a setting of the device; Shown is the one that the points
// here are of.
type modelParam struct {
	Name    string   `json:"name"`
	Shown   string   `json:"shown"`
	OneOf   []string `json:"one_of"`
	Default string   `json:"default,omitempty"` // absent: gateway.yaml must say it
}

type modelPoint struct {
	Name    string `json:"name"`
	Table   string `json:"table"`
	Address uint16 `json:"address"`
	Type    string `json:"type"`
	Unit    string `json:"unit"`
	Zh      string `json:"label_zh"`
	En      string `json:"label_en"`
}

func profileCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "profile", Short: "Look up the device models that are built in, check one of your own"}
	cmd.AddCommand(profileListCommand(), profileShowCommand(), profileLintCommand())
	return cmd
}

func profileListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the device models",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lib, err := edge.Profiles()
			if err != nil {
				return err
			}
			var models []model
			for _, id := range lib.Names() {
				m, _, err := lookup(lib, id, nil)
				if err != nil {
					return err
				}
				models = append(models, m)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), models)
			}
			return printModels(cmd.OutOrStdout(), models)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	return cmd
}

func profileShowCommand() *cobra.Command {
	var asJSON bool
	var params map[string]string
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a device model: its source, what is unproven, its points",
		Args:  one("name one device model; `gatewayctl profile list` shows them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			lib, err := edge.Profiles()
			if err != nil {
				return err
			}
			m, p, err := lookup(lib, args[0], params)
			if err != nil {
				return err
			}
			for i := range p.Points {
				m.Points = append(m.Points, pointOf(&p.Points[i]))
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

// lookup finds the profile; a parameter that is not given is shown at its
// default, or at its first value where gateway.yaml must say it.
func lookup(lib *profile.Library, id string, given map[string]string) (model, *profile.Profile, error) {
	chosen := maps.Clone(given)
	var params []modelParam
	for _, p := range lib.Params(id) {
		if _, ok := chosen[p.Name]; !ok {
			if chosen == nil {
				chosen = map[string]string{}
			}
			chosen[p.Name] = cmp.Or(p.Default, p.OneOf[0])
		}
		params = append(params, modelParam{p.Name, chosen[p.Name], p.OneOf, p.Default})
	}
	p, err := lib.Lookup(id, chosen)
	if err != nil {
		return model{}, nil, err
	}
	return model{
		ID: p.ID, Vendor: p.Vendor, Model: p.Model, Kind: p.Kind, Confidence: p.Source.Confidence, Source: p.Source.Where,
		Unproven: append([]string{}, p.Unproven...), Notes: p.Notes, Params: params,
	}, p, nil
}

func pointOf(p *profile.Point) modelPoint {
	m := modelPoint{p.Name, p.Table.String(), p.Address, p.Type.String(), p.Unit, p.Label.Zh, p.Label.En}
	if p.Type == profile.Text {
		m.Type += ":" + strconv.Itoa(int(p.Length))
	}
	return m
}

func printModels(w io.Writer, models []model) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tKIND\tCONFIDENCE\tUNPROVEN\tMODEL")
	for _, m := range models {
		unproven := "-"
		if n := len(m.Unproven); n > 0 {
			unproven = strconv.Itoa(n)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", m.ID, m.Kind, m.Confidence, unproven, m.name())
	}
	return tw.Flush()
}

// name is how people call the model.
func (m model) name() string {
	if strings.HasPrefix(m.Model, m.Vendor) {
		return m.Model
	}
	return m.Vendor + " " + m.Model
}

func (m model) print(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s, kind %s\n", m.ID, m.name(), m.Kind)
	fmt.Fprintf(w, "source (confidence %s): %s\n", m.Confidence, m.Source)
	for _, u := range m.Unproven {
		fmt.Fprintf(w, "unproven: %s\n", u)
	}
	for _, n := range m.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for _, p := range m.Params {
		must := "default " + p.Default
		if p.Default == "" {
			must = "gateway.yaml must say it"
		}
		fmt.Fprintf(w, "parameter %s: %s (shown: %s; %s)\n", p.Name, strings.Join(p.OneOf, ", "), p.Shown, must)
	}
	rows := [][]string{{"POINT", "TABLE", "ADDRESS", "TYPE", "UNIT", "中文", "ENGLISH"}}
	for _, p := range m.Points {
		rows = append(rows, []string{p.Name, p.Table, strconv.Itoa(int(p.Address)), p.Type, p.Unit, p.Zh, p.En})
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], columns(cell))
		}
	}
	fmt.Fprintln(w)
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", width[i]-columns(cell)+2))
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// columns is the width of s on a terminal, where Chinese takes two columns a
// character; text/tabwriter would count one.
func columns(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if r >= 0x2E80 && r <= 0xFFEF {
			n++
		}
	}
	return n
}
