package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"luquan/gateway/hub"
	"luquan/gateway/hub/console"
	"luquan/gateway/hub/ingest"
)

// chosen are the flags by which each quarantine command chooses lines.
type chosen struct {
	config            string
	site, gateway, id string
	all, asJSON       bool
}

func (c *chosen) flags(cmd *cobra.Command, all bool) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&c.config, "config", "/etc/luquan/hub.yaml", "the hub's configuration")
	f.StringVar(&c.site, "site", "", "only of this site")
	f.StringVar(&c.gateway, "gateway", "", "only of boards of this name")
	f.StringVar(&c.id, "id", "", "only this one: site/gateway/epoch/seq, as ls prints it")
	f.BoolVar(&c.asJSON, "json", false, "answer in JSON")
	if all {
		f.BoolVar(&c.all, "all", false, "all of them")
	}
	return cmd
}

func (c *chosen) query() url.Values {
	v := url.Values{}
	for k, s := range map[string]string{"site": c.site, "gateway": c.gateway, "id": c.id} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if c.all {
		v.Set("all", "1")
	}
	return v
}

func quarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Lines that the history does not take: list them, try them again, drop them",
		Long: `A line that breaks the contract, or that the history will never take, holds nothing
else up: it is kept in state.dir with the reason, and counts as quarantined in the
ledger. Mend the cause (a field that changed its type, a retention that is too
short, an older hub that cannot read a newer board), then try it again.`,
	}
	cmd.AddCommand(quarantineList(), quarantineRetry(), quarantineDrop())
	return cmd
}

// inQuarantine is the API's list.
type inQuarantine struct {
	Total   int                       `json:"total"`
	Entries []console.QuarantineEntry `json:"entries"`
}

func quarantineList() *cobra.Command {
	var c chosen
	var limit int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the newest lines in quarantine, with their reasons",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 10_000 {
				return fmt.Errorf("--limit %d is not between 1 and 10000", limit)
			}
			cfg, err := hub.Load(c.config)
			if err != nil {
				return err
			}
			v := c.query()
			v.Set("limit", strconv.Itoa(limit))
			var out inQuarantine
			err = ask(cmd.Context(), cfg.Console.Listen, "GET", "/api/v1/quarantine", v, nil, &out)
			if errors.Is(err, errNoHub) {
				out.Entries, out.Total, err = hub.ReadQuarantine(cfg, console.QuarantineFilter{Site: c.site, Gateway: c.gateway, ID: c.id}, limit)
			}
			if err != nil {
				return err
			}
			if c.asJSON {
				return printJSON(cmd.OutOrStdout(), out)
			}
			return out.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return c.flags(cmd, false)
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// lineShown is how much of a line the table shows.
const lineShown = 100

func (q inQuarantine) print(out io.Writer) error {
	if q.Total == 0 {
		_, err := fmt.Fprintln(out, "nothing is in quarantine")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SINCE\tID\tREASON\tLINE")
	for _, e := range q.Entries {
		line := e.Line
		if line == "" {
			line = strconv.Quote(string(e.Raw))
		}
		if len(line) > lineShown {
			cut := lineShown
			for !utf8.RuneStart(line[cut]) {
				cut--
			}
			line = line[:cut] + "..."
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Time.Local().Format(clock+":05"), e.ID, e.Reason, line)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d of %d, the newest first\n", len(q.Entries), q.Total)
	return err
}

func quarantineRetry() *cobra.Command {
	var c chosen
	cmd := &cobra.Command{
		Use:     "retry",
		Short:   "Offer lines to the history again, after their cause was mended",
		Long:    "The running hub offers the chosen lines to the history again. What it takes leaves the\nquarantine and counts as stored. Trying again repeats nothing.",
		Example: "  hubd quarantine retry --site heating-east",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out ingest.Retried
			if err := c.tell(cmd, "retry", &out); err != nil {
				return err
			}
			if c.asJSON {
				return printJSON(cmd.OutOrStdout(), out)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tried %d, stored %d, refused again %d\n", out.Tried, out.Stored, out.Left)
			for _, why := range slices.Sorted(maps.Keys(out.Reasons)) {
				fmt.Fprintf(cmd.OutOrStdout(), "  %d: %s\n", out.Reasons[why], why)
			}
			return nil
		},
	}
	return c.flags(cmd, true)
}

func quarantineDrop() *cobra.Command {
	var c chosen
	cmd := &cobra.Command{
		Use:     "drop",
		Short:   "Throw lines away for good",
		Long:    "The running hub throws the chosen lines away. The ledger goes on counting them as\nquarantined; what they said is gone.",
		Example: "  hubd quarantine drop --id heating-east/boiler-house-1/4837201/1204",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Dropped int `json:"dropped"`
			}
			if err := c.tell(cmd, "drop", &out); err != nil {
				return err
			}
			if c.asJSON {
				return printJSON(cmd.OutOrStdout(), out)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "dropped %d\n", out.Dropped)
			return nil
		},
	}
	return c.flags(cmd, true)
}

// tell lets the running hub do what changes the quarantine.
func (c *chosen) tell(cmd *cobra.Command, verb string, out any) error {
	if c.site == "" && c.gateway == "" && c.id == "" && !c.all {
		return errors.New("nothing is chosen; give --site, --gateway or --id, or --all")
	}
	cfg, err := hub.Load(c.config)
	if err != nil {
		return err
	}
	err = ask(cmd.Context(), cfg.Console.Listen, "POST", "/api/v1/quarantine/"+verb, c.query(), nil, out)
	if errors.Is(err, errNoHub) {
		return fmt.Errorf("no hub answers on %s, and only a running one may change the quarantine in %s; start it first",
			cfg.Console.Listen, filepath.Join(cfg.State.Dir, "quarantine"))
	}
	return err
}
