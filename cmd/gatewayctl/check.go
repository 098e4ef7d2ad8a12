package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"luquan/drivers/modbus"
	"luquan/gateway/edge"
	"luquan/internal/conffile"
)

// busy is the share of a bus's time above which one silent device, whose
// answer is waited for in vain, makes the others late.
const busy = 0.7

// report is what check found, as --json tells it.
type report struct {
	File    string      `json:"file"`
	Sound   bool        `json:"sound"`
	Site    string      `json:"site,omitempty"`
	Gateway string      `json:"gateway,omitempty"`
	Errors  []mistake   `json:"errors"`
	Buses   []busReport `json:"buses"`
}

type mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Col     int    `json:"col,omitempty"`
	Message string `json:"message"`
}

type busReport struct {
	Name    string       `json:"name"`
	Percent float64      `json:"share_percent"`
	Warning string       `json:"warning,omitempty"`
	Polls   []pollReport `json:"polls"`
}

type pollReport struct {
	Device   string  `json:"device"`
	Profile  string  `json:"profile"`
	Points   int     `json:"points"`
	Requests int     `json:"requests"`
	Millis   float64 `json:"time_ms"`
	Every    string  `json:"every"`
	Percent  float64 `json:"share_percent"`
}

func checkCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Validate gateway.yaml as the daemon does, and tell how much of its time each bus needs",
		Long: `Validate gateway.yaml as the daemon does. Exit status 1 with every mistake at
file:line:col, or when a bus cannot keep the periods it is given. Otherwise
print what each bus spends its time on when every device answers. Nothing is
opened, dialled or written.`,
		Args: one("name one file, for example /etc/luquan/gateway.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := check(args[0])
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), r), err)
			}
			return errors.Join(r.print(cmd.OutOrStdout()), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	return cmd
}

// check reads the file and plans its buses; the error says why it is not sound.
func check(file string) (report, error) {
	r := report{File: file, Errors: []mistake{}, Buses: []busReport{}}
	cfg, err := edge.Load(file)
	if err == nil {
		r.Site, r.Gateway = cfg.Site, cfg.Gateway
		err = r.plan(cfg)
	}
	var list conffile.Errors
	switch {
	case errors.As(err, &list):
		for _, e := range list {
			r.Errors = append(r.Errors, mistake{e.File, e.Line, e.Col, e.Msg})
		}
	case err != nil:
		r.Errors = append(r.Errors, mistake{File: file, Message: err.Error()})
	}
	r.Sound = err == nil
	return r, err
}

func (r *report) plan(cfg edge.Config) error {
	lib, err := edge.Profiles()
	if err != nil {
		return err
	}
	var errs []error
	for _, bus := range cfg.Buses {
		b, err := bus.Budget(lib, 0)
		if err != nil {
			return err
		}
		out := busReport{Name: b.Bus, Percent: percent(b.Share)}
		for _, l := range b.Loads {
			out.Polls = append(out.Polls, pollReport{
				l.Device, l.Profile, l.Points, l.Requests,
				math.Round(l.Poll.Seconds()*1e4) / 10, short(l.Every), percent(l.Share),
			})
		}
		switch {
		case b.Share > 1:
			errs = append(errs, &conffile.Error{File: r.File, Msg: tooMuch(b)})
		case b.Share > busy:
			out.Warning = fmt.Sprintf("bus %q is busy %.0f %% of the time; one silent device will make the others late: "+
				"choose longer periods or fewer points, or make it two buses", b.Bus, 100*b.Share)
		}
		r.Buses = append(r.Buses, out)
	}
	return conffile.Join(errs...)
}

// tooMuch says that the bus cannot keep its periods, and which it could.
func tooMuch(b modbus.Budget) string {
	worst := b.Loads[0]
	for _, l := range b.Loads {
		if l.Share > worst.Share {
			worst = l
		}
	}
	// A tenth more than what is just possible would still leave no room; tell the bare limit, rounded up.
	fastest := time.Duration(math.Ceil(float64(worst.Every)*b.Share/1e8)) * 100 * time.Millisecond
	return fmt.Sprintf("bus %q cannot keep its periods: its polls take %.0f %% of the time; the fastest it can is every period %.1f times as long "+
		"(%s every %s, not %s); choose longer periods, fewer points or a faster line, or make it two buses",
		b.Bus, 100*b.Share, math.Ceil(b.Share*10)/10, worst.Device, short(fastest), short(worst.Every))
}

// print writes the report for people; the mistakes are the command's error.
func (r report) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range r.Buses {
		fmt.Fprintf(tw, "bus %s: %.1f %% of its time\n", b.Name, b.Percent)
		fmt.Fprintln(tw, "  DEVICE\tPROFILE\tPOINTS\tREQUESTS\tTIME\tEVERY\tSHARE")
		for _, p := range b.Polls {
			fmt.Fprintf(tw, "  %s\t%s\t%d\t%d\t%.1f ms\t%s\t%.1f %%\n", p.Device, p.Profile, p.Points, p.Requests, p.Millis, p.Every, p.Percent)
		}
		if b.Warning != "" {
			fmt.Fprintf(tw, "warning: %s\n", b.Warning)
		}
		fmt.Fprintln(tw)
	}
	if r.Sound {
		fmt.Fprintf(tw, "%s is sound: gateway %s of site %s\n", r.File, r.Gateway, r.Site)
	}
	return tw.Flush()
}

func percent(share float64) float64 { return math.Round(share*1000) / 10 }

// short writes a duration as the configuration does: 2m, not 2m0s.
func short(d time.Duration) string {
	s := d.String()
	if d >= time.Minute && d%time.Minute == 0 {
		s = s[:len(s)-len("0s")]
	}
	if d >= time.Hour && d%time.Hour == 0 {
		s = s[:len(s)-len("0m")]
	}
	return s
}
