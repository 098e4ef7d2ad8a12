package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"luquan/gateway/edge/buffer"
	"luquan/gateway/edge/stamp"
	"luquan/gateway/wire"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look into a buffer directory: a running board's, or that of a dead board's card",
		Long: `Look into a buffer directory: that of a running gatewayd, or one on a dead board's card.

Nothing is written, locked or repaired, so it is safe beside a running gatewayd. What the
daemon has not yet written to flash (at most buffer.commit_every) is not seen, and what the
hub has taken in the last minute may still be shown as held.`,
	}
	cmd.AddCommand(queueListCommand(), queueCheckCommand(), queueDumpCommand())
	return cmd
}

// queueFlags are what the three verbs share.
type queueFlags struct {
	dir    string
	asJSON bool
}

func (f *queueFlags) add(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.Flags().StringVar(&f.dir, "dir", "/var/lib/luquan/buffer", "the buffer's directory, buffer.dir of gateway.yaml")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print for programs")
	_ = cmd.MarkFlagDirname("dir") // the flag is there
	return cmd
}

// look surveys the directory.
func (f *queueFlags) look() (*buffer.Survey, error) {
	st, err := os.Stat(f.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no directory %q; name buffer.dir of gateway.yaml with --dir", f.dir)
	case err != nil:
		return nil, err
	case !st.IsDir():
		return nil, fmt.Errorf("%q is a file; name the directory that holds it with --dir", f.dir)
	}
	s, err := buffer.Look(os.DirFS(f.dir))
	if err != nil {
		return nil, err
	}
	if len(s.Files) == 0 {
		return nil, fmt.Errorf("%q holds no segment (seg-....q): it is not a buffer's directory, or nothing was ever written to it", f.dir)
	}
	return s, nil
}

// listing is ls as --json tells it.
type listing struct {
	Dir    string         `json:"dir"`
	Cursor *time.Time     `json:"cursor"` // when what the hub has was last written; null: not readable
	Bytes  int64          `json:"bytes"`
	Files  map[string]int `json:"files"` // by state
	Held   uint64         `json:"held"`
	Epochs []listedEpoch  `json:"epochs"`
}

type listedEpoch struct {
	Epoch    uint64      `json:"epoch"`
	First    uint64      `json:"first"` // of what is held; last+1 when nothing is
	Last     uint64      `json:"last"`
	Held     uint64      `json:"held"`
	Freed    uint64      `json:"freed_upto"`
	Also     [][2]uint64 `json:"freed_also"`
	Begun    *time.Time  `json:"begun"`
	Ended    string      `json:"ended"` // of the newest epoch: as it would be if gatewayd were not running
	Newest   bool        `json:"newest"`
	Segments int         `json:"segments"`
	Bytes    int64       `json:"bytes"`
	Label    string      `json:"label"`
}

func queueListCommand() *cobra.Command {
	var f queueFlags
	return f.add(&cobra.Command{
		Use:   "ls",
		Short: "List the epochs: what is on flash, what of it the hub has",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.look()
			if err != nil {
				return err
			}
			l := listing{Dir: f.dir, Cursor: instant(s.Cursor), Files: map[string]int{}, Epochs: []listedEpoch{}}
			bytes := map[uint64]int64{}
			for _, file := range s.Files {
				l.Bytes += file.Bytes
				l.Files[file.State]++
				bytes[file.Epoch] += file.Bytes
			}
			for _, e := range s.Epochs {
				l.Held += e.Records
				l.Epochs = append(l.Epochs, listedEpoch{e.Epoch, e.First, e.Last, e.Records, e.Freed, append([][2]uint64{}, e.Also...),
					instant(e.Begun), e.Ended, e.Current, e.Segments, bytes[e.Epoch], e.Label})
			}
			if f.asJSON {
				return printJSON(cmd.OutOrStdout(), l)
			}
			return l.print(cmd.OutOrStdout())
		},
	})
}

// instant is t in UTC, nil when it is not known.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (l *listing) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "EPOCH\tHELD\tFIRST\tLAST\tFREED TO\tBEGUN\tENDED\tSIZE\tLABEL")
	for _, e := range l.Epochs {
		first, begun, ended := fmt.Sprint(e.First), "-", e.Ended
		if e.Held == 0 {
			first = "-"
		}
		if e.Begun != nil {
			begun = e.Begun.Format(time.RFC3339)
		}
		if e.Newest && e.Ended != "clean stop" {
			ended = "running or power cut"
		}
		freed := fmt.Sprint(e.Freed)
		if n := len(e.Also); n > 0 {
			freed += fmt.Sprintf(" +%d ranges", n)
		}
		fmt.Fprintf(tw, "%d\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", e.Epoch, e.Held, first, e.Last, freed, begun, ended, mebibytes(e.Bytes), e.Label)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	when := "no cursor can be read: what the hub has is not known"
	if l.Cursor != nil {
		when = "what the hub has was last noted " + l.Cursor.Format(time.RFC3339)
	}
	_, err := fmt.Fprintf(w, "%s: %d records held; %s, files: %d with records, %d spare, %d set aside; %s\n",
		l.Dir, l.Held, mebibytes(l.Bytes), l.Files["records"], l.Files["spare"], l.Files["set aside"], when)
	return err
}

func mebibytes(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }

// finding is one of check as --json tells it.
type finding struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Epoch  uint64 `json:"epoch,omitempty"` // of the records that are lost with it
	First  uint64 `json:"first,omitempty"`
	Last   uint64 `json:"last,omitempty"`
	Loses  bool   `json:"loses"`
	What   string `json:"what"`
}

func queueCheckCommand() *cobra.Command {
	var f queueFlags
	return f.add(&cobra.Command{
		Use:   "check",
		Short: "Read every byte and verify every checksum; exit 1 when records are lost",
		Long: `Read every byte and verify every checksum. Each thing that is damaged is told with its place
and what it means. Exit status 1 when records are lost with it, 0 when there is nothing or
only what a power cut leaves behind (a commit that was under way, one of two copies).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.look()
			if err != nil {
				return err
			}
			found := []finding{}
			var lost uint64
			bad := 0
			for _, g := range s.Check() {
				found = append(found, finding{g.File, g.Offset, g.Length, g.Epoch, g.First, g.Last, !g.Harmless, g.What})
				if !g.Harmless {
					bad++
				}
				if g.First > 0 {
					lost += g.Last - g.First + 1
				}
			}
			out := cmd.OutOrStdout()
			if f.asJSON {
				err = printJSON(out, found)
			} else {
				err = printFindings(out, f.dir, found)
			}
			if err == nil && bad > 0 {
				return fmt.Errorf("%s: %d damaged places lose records, %d of them by number; keep the card, the rest is sent as usual", f.dir, bad, lost)
			}
			return err
		},
	})
}

func printFindings(w io.Writer, dir string, found []finding) error {
	for _, g := range found {
		at := g.File
		if g.Length > 0 {
			at += fmt.Sprintf(" byte %d to %d", g.Offset, g.Offset+g.Length-1)
		}
		if g.First > 0 {
			at += fmt.Sprintf(", epoch %d seq %d to %d", g.Epoch, g.First, g.Last)
		}
		word := "note"
		if g.Loses {
			word = "LOST"
		}
		fmt.Fprintf(w, "%s  %s: %s\n", word, at, g.What)
	}
	if len(found) == 0 {
		_, err := fmt.Fprintf(w, "%s is sound: every checksum fits, no record is missing\n", dir)
		return err
	}
	return nil
}

// dumped is one record as dump --json tells it, one a line.
type dumped struct {
	Epoch   uint64     `json:"epoch"`
	Seq     uint64     `json:"seq"`
	Kind    string     `json:"kind"`
	Time    *time.Time `json:"time"`     // the record's stamp; while not decided, the system's clock at the poll; null: not readable
	Clock   int        `json:"clock"`    // what it rests on, as in the contract; 0 trusted
	Decided bool       `json:"decided"`  // the stamp is what was or will be published
	Written time.Time  `json:"appended"` // to within a commit, by the board's clock of then
	Freed   bool       `json:"freed"`
	Line    string     `json:"line"` // line protocol; empty when the payload is none of this version
}

func queueDumpCommand() *cobra.Command {
	var f queueFlags
	var epoch, from, to uint64
	var all bool
	cmd := f.add(&cobra.Command{
		Use:   "dump",
		Short: "Print the records that are held, as InfluxDB line protocol or as JSON",
		Long: `Print the records that the hub does not have yet, oldest first, one a line, as InfluxDB line
protocol: exactly what the board has published or would publish, but that a record whose stamp
is not decided yet is shown by the clock it was polled with. --json prints an object a line.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.look()
			if err != nil {
				return err
			}
			found := false
			known, err := stamp.Look(os.DirFS(f.dir)) // none: a board that never published
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			var line []byte
			strange := 0
			for _, e := range s.Epochs {
				if epoch != 0 && e.Epoch != epoch {
					continue
				}
				found = true
				err := s.Records(e.Epoch, from, func(r buffer.Record) error {
					if r.Seq > to {
						return errPast
					}
					if r.Freed && !all {
						return nil
					}
					var err error
					if line, err = lineOf(line[:0], r, known); err != nil {
						strange++
						line = line[:0]
					}
					if f.asJSON {
						return json.NewEncoder(out).Encode(dumpOf(r, string(line), known))
					}
					if len(line) == 0 {
						_, err = fmt.Fprintf(out, "# epoch=%d seq=%d kind=%s: a payload of %d bytes that this version cannot read\n", r.Epoch, r.Seq, r.Kind, len(r.Payload))
						return err
					}
					_, err = out.Write(append(line, '\n'))
					return err
				})
				if err != nil && !errors.Is(err, errPast) {
					return errors.Join(out.Flush(), err)
				}
			}
			if err := out.Flush(); err != nil {
				return err
			}
			if !found && epoch != 0 {
				return fmt.Errorf("%s holds no epoch %d; `gatewayctl queue ls --dir %s` lists them", f.dir, epoch, filepath.Clean(f.dir))
			}
			if strange > 0 {
				return fmt.Errorf("%d records hold a payload that this version cannot read", strange)
			}
			return nil
		},
	})
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "only this epoch; 0: all")
	cmd.Flags().Uint64Var(&from, "from", 1, "only from this sequence number on")
	cmd.Flags().Uint64Var(&to, "to", 1<<63-1, "only to this sequence number")
	cmd.Flags().BoolVar(&all, "all", false, "also those that the hub has and that are not yet overwritten")
	return cmd
}

var errPast = errors.New("past the last record asked for")

// lineOf is the record's line, by its stamp where it is decided.
func lineOf(dst []byte, r buffer.Record, known *stamp.Known) ([]byte, error) {
	_, polled, err := wire.StampOf(r.Payload)
	if err != nil {
		return dst, err
	}
	if s, ok := known.Of(r.Epoch, r.Seq, polled); ok {
		return wire.AppendLineAt(dst, r.Payload, s, r.Epoch, r.Seq)
	}
	return wire.AppendLine(dst, r.Payload, r.Epoch, r.Seq)
}

func dumpOf(r buffer.Record, line string, known *stamp.Known) dumped {
	d := dumped{Epoch: r.Epoch, Seq: r.Seq, Kind: r.Kind.String(), Written: r.Time.UTC(), Freed: r.Freed, Line: strings.TrimSuffix(line, "\n")}
	if _, s, err := wire.StampOf(r.Payload); err == nil {
		s, d.Decided = known.Of(r.Epoch, r.Seq, s)
		d.Time, d.Clock = instant(time.Unix(0, s.Time)), int(s.Clock)
	}
	return d
}
