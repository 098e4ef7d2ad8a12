package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"luquan/gateway/hub"
	"luquan/gateway/hub/console"
	"luquan/gateway/hub/ledger"
)

func ledgerCommand() *cobra.Command {
	var config, from, to, by string
	var asJSON bool
	var q console.LedgerQuery
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "What boards sent: expected, stored, quarantined, lost and why, missing, twice",
		Long: `Tells, for a site and a span of time, how many records its boards are known to
have drawn and what became of each: stored, in quarantine, declared lost and why,
missing, come twice. docs/ledger.md says what each word means.

The running hub answers; where none runs, the books in state.dir do, which are
not changed. Exit status 0: answered, whatever the answer; 1: not answered, or
with --verify ledger and history differ.`,
		Example: `  hubd ledger --site heating-east --from "2026-01-05 14:00" --to "2026-01-05 15:00"
  hubd ledger --site heating-east --from 2026-01-05 --to 2026-01-06 --by hour --verify`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := hub.Load(config)
			if err != nil {
				return err
			}
			now := time.Now()
			if q.From, err = moment("from", from, now); err != nil {
				return err
			}
			if q.To, err = moment("to", to, now); err != nil {
				return err
			}
			if err := setBy(&q, by); err != nil {
				return err
			}
			if !q.From.IsZero() || !q.To.IsZero() || q.ByHour || q.Verify {
				if q.To.IsZero() {
					q.To = now
				}
				if q.From.IsZero() {
					q.From = q.To.Add(-24 * time.Hour)
				}
				if !q.From.Before(q.To) {
					return errors.New("--from is not before --to")
				}
			}
			rows, source, err := readLedger(cmd.Context(), cfg, q, by)
			if err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), rows); err != nil {
					return err
				}
			} else if err := printLedger(cmd.OutOrStdout(), q, rows, source); err != nil {
				return err
			}
			if only, twice := differences(rows); only+twice > 0 {
				return fmt.Errorf("ledger and history differ in %d records, and %d stand twice in the history", only, twice)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "/etc/luquan/hub.yaml", "the hub's configuration")
	f.StringVar(&q.Site, "site", "", "only this site")
	f.StringVar(&q.Gateway, "gateway", "", "only boards of this name")
	f.StringVar(&from, "from", "", `from this time on: "2026-01-05 14:00", 2026-01-05, 14:00 (today), RFC 3339`)
	f.StringVar(&to, "to", "", "and before this time (default: now)")
	f.StringVar(&by, "by", "gateway", "a row of each: site, gateway, epoch, hour, or several with commas")
	f.BoolVar(&q.Verify, "verify", false, "compare with the history, record by record (at most 31 days)")
	f.BoolVar(&asJSON, "json", false, "print the rows as JSON")
	return cmd
}

// moment reads a time as people write it, in this machine's zone; "" is none.
func moment(flag, v string, now time.Time) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse("15:04", v); err == nil {
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, now.Location()), nil
	}
	return time.Time{}, fmt.Errorf(`--%s %q is not a time; write for example "2026-01-05 14:00", 2026-01-05 or 14:00`, flag, v)
}

func setBy(q *console.LedgerQuery, by string) error {
	for _, k := range strings.Split(by, ",") {
		switch k {
		case "site":
		case "gateway":
			q.ByGateway = true
		case "epoch":
			q.ByGateway, q.ByEpoch = true, true
		case "hour":
			q.ByHour = true
		default:
			return fmt.Errorf("--by %q is not made of site, gateway, epoch, hour; for example --by gateway,hour", by)
		}
	}
	return nil
}

// readLedger asks the running hub, or the books where none runs.
func readLedger(ctx context.Context, cfg hub.Config, q console.LedgerQuery, by string) (rows []ledger.Row, source string, err error) {
	v := url.Values{"by": {by}}
	for k, s := range map[string]string{"site": q.Site, "gateway": q.Gateway} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if !q.From.IsZero() {
		v.Set("from", q.From.Format(time.RFC3339Nano))
		v.Set("to", q.To.Format(time.RFC3339Nano))
	}
	if q.Verify {
		v.Set("verify", "1")
	}
	err = ask(ctx, cfg.Console.Listen, "GET", "/api/v1/ledger", v, nil, &rows)
	if !errors.Is(err, errNoHub) {
		return rows, "the running hub", err
	}
	rows, err = hub.ReadLedger(ctx, cfg, q)
	return rows, "the books in " + cfg.State.Dir + "; no hub answers on " + cfg.Console.Listen, err
}

func differences(rows []ledger.Row) (only, twice uint64) {
	for _, r := range rows {
		if v := r.Verified; v != nil {
			only, twice = only+v.OnlyLedger+v.OnlyStore, twice+v.Twice
		}
	}
	return only, twice
}

const clock = "2006-01-02 15:04"

func printLedger(out io.Writer, q console.LedgerQuery, rows []ledger.Row, source string) error {
	what := "the whole book"
	if !q.From.IsZero() {
		what = fmt.Sprintf("%s to %s", q.From.Format(clock), q.To.Format(clock+" -0700"))
	}
	if q.Site != "" {
		what = "site " + q.Site + ", " + what
	}
	fmt.Fprintf(out, "%s; by %s\n\n", what, source)
	if len(rows) == 0 {
		fmt.Fprintln(out, "nothing is known of it: no board of that name has sent anything, or none at that time")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var head, end string
	if q.ByHour {
		head += "HOUR\t"
	}
	head += "SITE\t"
	if q.ByGateway {
		head += "GATEWAY\t"
	}
	if q.ByEpoch {
		head += "EPOCH\t"
	}
	if q.Verify {
		end = "IN HISTORY\tDIFFER\t"
	}
	fmt.Fprintln(w, head+"EXPECTED\tSTORED\tQUARANTINED\tLOST\tCLEARED\tWAITING\tMISSING\tTWICE\tCOMPLETE\t"+end)
	var total ledger.Row
	total.Verified = &ledger.Verified{}
	reasons := map[string]uint64{}
	for i := range rows {
		r := &rows[i]
		var lead string
		if q.ByHour {
			lead += r.From.In(q.From.Location()).Format(clock) + "\t"
		}
		lead += r.Site + "\t"
		if q.ByGateway {
			lead += r.Gateway + "\t"
		}
		if q.ByEpoch {
			lead += fmt.Sprintf("%d\t", r.Epoch)
		}
		fmt.Fprintln(w, lead+figures(r, q.Verify))
		total.Expected += r.Expected
		total.Stored += r.Stored
		total.Quarantined += r.Quarantined
		total.Lost += r.Lost
		total.Cleared += r.Cleared
		total.Waiting += r.Waiting
		total.Missing += r.Missing
		total.Duplicates += r.Duplicates
		total.Approximate += r.Approximate
		if v := r.Verified; v != nil {
			total.Verified.Store += v.Store
			total.Verified.OnlyLedger += v.OnlyLedger
			total.Verified.OnlyStore += v.OnlyStore
			total.Verified.Twice += v.Twice
			total.Verified.Differences = append(total.Verified.Differences, v.Differences...)
		}
		for _, x := range r.Reasons {
			reasons[x.Reason] += x.Count
		}
		if !r.KnownTo.IsZero() && (total.KnownTo.IsZero() || r.KnownTo.Before(total.KnownTo)) {
			total.KnownTo = r.KnownTo
		}
	}
	if len(rows) > 1 {
		fmt.Fprintln(w, "total"+strings.Repeat("\t", strings.Count(head, "\t"))+figures(&total, q.Verify))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printNotes(out, q, &total, reasons)
	return nil
}

// figures is the numbers of one row. 100 % is said only when nothing is
// missing or lost.
func figures(r *ledger.Row, verify bool) string {
	complete := "-"
	if r.Expected > 0 {
		held := r.Expected - r.Missing - r.Lost
		complete = fmt.Sprintf("%.1f %%", float64(held*1000/r.Expected)/10)
	}
	s := fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t", r.Expected, r.Stored, r.Quarantined, r.Lost, r.Cleared, r.Waiting, r.Missing, r.Duplicates, complete)
	if verify && r.Verified != nil {
		s += fmt.Sprintf("%d\t%d\t", r.Verified.Store, r.Verified.OnlyLedger+r.Verified.OnlyStore+r.Verified.Twice)
	}
	return s
}

func printNotes(out io.Writer, q console.LedgerQuery, total *ledger.Row, reasons map[string]uint64) {
	var notes []string
	for _, r := range sorted(reasons) {
		notes = append(notes, fmt.Sprintf("lost: %d by their board's word: %s", reasons[r], r))
	}
	if total.Approximate > 0 {
		notes = append(notes, fmt.Sprintf("%d of them have no time stamp here and are placed by their neighbours; some may belong just outside", total.Approximate))
	}
	if !total.KnownTo.IsZero() {
		notes = append(notes, fmt.Sprintf("known only to %s: what a board has drawn since, it has not told yet", total.KnownTo.In(q.From.Location()).Format(clock+":05")))
	}
	if q.Verify {
		v := total.Verified
		if v.OnlyLedger+v.OnlyStore+v.Twice == 0 {
			notes = append(notes, fmt.Sprintf("checked: the history holds the same %d records, each once", v.Store))
		}
		if v.Twice > 0 {
			notes = append(notes, fmt.Sprintf("checked: %d rows of the history repeat a record", v.Twice))
		}
		for _, d := range v.Differences {
			where := "only in the history"
			if d.In == "ledger" {
				where = "only in the ledger"
			}
			notes = append(notes, fmt.Sprintf("%s: %s, epoch %d, seq %d to %d", where, d.Gateway, d.Epoch, d.First, d.Last))
		}
	}
	if len(notes) > 0 {
		fmt.Fprintln(out, "\n"+strings.Join(notes, "\n"))
	}
}
