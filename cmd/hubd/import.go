package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"luquan/gateway/hub"
	"luquan/gateway/hub/ingest"
	"luquan/internal/daemon"
)

func importCommand() *cobra.Command {
	var config string
	var dry, asJSON bool
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Store the buffer of a dead board's card",
		Long: `Reads the buffer directory of a board that will not send it itself (buffer.dir of
its gateway.yaml, with the folder time beside the segments), for example from its
card in a reader, and stores every record the hub does not have yet, with the
stamp the board would have given it. Nothing in DIR is changed. What is imported is history:
it is not judged, and nobody is paged. Importing twice changes nothing.

The running hub stores it; where none runs, this command does.`,
		Example: "  hubd import /media/card/var/lib/luquan/buffer",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := hub.Load(config)
			if err != nil {
				return err
			}
			c, err := openCard(args[0])
			if err != nil {
				return err
			}
			s := store{cfg: cfg, dry: dry, listen: cfg.Console.Listen}
			report, err := importCard(cmd.Context(), c, s.send, progress(cmd.ErrOrStderr(), asJSON))
			err = errors.Join(err, s.close())
			report.Dry, report.By = dry, s.by()
			if asJSON {
				err = errors.Join(err, printJSON(cmd.OutOrStdout(), report))
			} else {
				report.print(cmd.OutOrStdout())
			}
			if err != nil {
				return fmt.Errorf("%w; what was stored until then stays, import it again to go on", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/luquan/hub.yaml", "the hub's configuration")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "read everything, store nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// store is where payloads go: to the running hub, or into its books and
// history where none runs.
type store struct {
	cfg    hub.Config
	listen string
	dry    bool

	running bool
	own     *hub.Importer
}

func (s *store) by() string {
	switch {
	case s.dry:
		return "nobody: dry run"
	case s.own != nil:
		return "this command, in " + s.cfg.State.Dir
	}
	return "the hub at " + s.listen
}

const (
	patience   = 2 * time.Minute // for a hub whose history does not take anything
	retryAfter = 2 * time.Second
)

// send stores a payload and says what became of it. It is tried again while
// the hub restarts or its history is away.
func (s *store) send(ctx context.Context, topic string, payload []byte, records int) (out ingest.Imported, err error) {
	if s.dry {
		return ingest.Imported{Records: records}, nil
	}
	for until := time.Now().Add(patience); ; {
		out, err = s.once(ctx, topic, payload)
		var no *refused
		if err == nil || ctx.Err() != nil || time.Now().After(until) || errors.As(err, &no) && no.status < 500 {
			return out, err
		}
		if !s.running && s.own == nil {
			return out, err // never worked
		}
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(retryAfter):
		}
	}
}

func (s *store) once(ctx context.Context, topic string, payload []byte) (out ingest.Imported, err error) {
	if s.own != nil {
		return s.own.Import(ctx, topic, payload)
	}
	err = ask(ctx, s.listen, "POST", "/api/v1/import", url.Values{"topic": {topic}}, payload, &out)
	if !errors.Is(err, errNoHub) {
		s.running = s.running || err == nil
		return out, err
	}
	if s.running {
		return out, fmt.Errorf("the hub at %s has stopped", s.listen)
	}
	if s.own, err = hub.OpenImporter(s.cfg, daemon.Logger(io.Discard)); err != nil {
		return out, err
	}
	return s.own.Import(ctx, topic, payload)
}

func (s *store) close() error {
	if s.own == nil {
		return nil
	}
	return s.own.Close()
}

// progress tells, on a long import, every other second how far it is.
func progress(w io.Writer, silent bool) func(read uint64, of uint64) {
	last := time.Now()
	return func(read, of uint64) {
		if silent || time.Since(last) < 2*time.Second {
			return
		}
		last = time.Now()
		fmt.Fprintf(w, "%d of about %d records\n", read, of)
	}
}

// importReport is what an import did.
type importReport struct {
	Dir         string        `json:"dir"`
	By          string        `json:"stored_by"`
	Dry         bool          `json:"dry_run"`
	Read        uint64        `json:"read"`        // records on the card
	New         uint64        `json:"new"`         // stored now
	Known       uint64        `json:"known"`       // stored before
	Quarantined uint64        `json:"quarantined"` // to quarantine now
	Unreadable  uint64        `json:"unreadable"`  // whole on the card, and no record of ours
	Untimed     uint64        `json:"untimed"`     // whose time nobody can tell; not stored
	Damaged     uint64        `json:"damaged"`     // lost on the card
	Epochs      []epochReport `json:"epochs"`
	Findings    []string      `json:"findings"` // what is damaged on the card
}

type epochReport struct {
	Site    string    `json:"site"`
	Gateway string    `json:"gateway"`
	Epoch   uint64    `json:"epoch"`
	Boot    string    `json:"boot"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"`
	Read    uint64    `json:"read"`
	New     uint64    `json:"new"`
	From    time.Time `json:"from,omitzero"` // stamps
	To      time.Time `json:"to,omitzero"`
}

func (r *importReport) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SITE\tGATEWAY\tEPOCH\tSEQ\tREAD\tNEW\tFROM\tTO")
	for _, e := range r.Epochs {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d to %d\t%d\t%d\t%s\t%s\n", e.Site, e.Gateway, e.Epoch, e.First, e.Last, e.Read, e.New,
			e.From.Local().Format(clock+":05"), e.To.Local().Format(clock+":05"))
	}
	_ = w.Flush() // the writer below tells
	fmt.Fprintf(out, "\n%d records read from %s: %d new, %d the hub had, %d to quarantine, %d damaged on the card", r.Read, r.Dir, r.New, r.Known, r.Quarantined, r.Damaged)
	if r.Unreadable > 0 {
		fmt.Fprintf(out, ", %d of a form this program does not know", r.Unreadable)
	}
	if r.Untimed > 0 {
		fmt.Fprintf(out, ", %d whose time nobody can tell", r.Untimed)
	}
	fmt.Fprintf(out, "\nstored by %s\n", r.By)
	for _, f := range r.Findings {
		fmt.Fprintln(out, f)
	}
}

// sorted returns the keys of a map in order.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
