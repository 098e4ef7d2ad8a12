package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"luquan/drivers/modbus"
	"luquan/gateway/edge"
	"luquan/gateway/edge/poll"
	"luquan/internal/conffile"
)

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
	// Silent and Slow say what becomes of the bus when one device, each in
	// turn, does not answer, or answers at the last moment it is allowed to.
	Silent []oddReport `json:"silent"`
	Slow   []oddReport `json:"slow"`
}

type pollReport struct {
	Device   string  `json:"device"`
	Profile  string  `json:"profile"`
	Points   int     `json:"points"`
	Requests int     `json:"requests"`
	Millis   float64 `json:"time_ms"`
	Every    string  `json:"every"`
	Reached  string  `json:"reached"` // the period it has on average: every, if that can be kept
	Percent  float64 `json:"share_percent"`
}

// oddReport is a bus with one odd device.
type oddReport struct {
	Device  string       `json:"device"`
	Millis  float64      `json:"time_ms"`       // that one poll of it holds the bus
	Polled  string       `json:"polled_every"`  // how often it is then asked
	Percent float64      `json:"share_percent"` // of the bus's time that is wanted
	Late    float64      `json:"late_ms"`       // the most by which it delays a poll of another
	Others  []lateReport `json:"others_late"`   // those that cannot keep their period
}

type lateReport struct {
	Device  string `json:"device"`
	Every   string `json:"every"`
	Reached string `json:"reached"`
}

func checkCommand() *cobra.Command {
	var asJSON bool
	var turnaround time.Duration
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Validate gateway.yaml as the daemon does, and tell how much of its time each bus needs",
		Long: `Validate gateway.yaml as the daemon does. Exit status 1 with every mistake at
file:line:col, or when a bus cannot keep the periods it is given. Print what
each bus spends its time on when every device answers, which periods it then
reaches, and the same for when one device is silent or answers at the last
moment it is allowed to. Nothing is opened, dialled or written.`,
		Args: one("name one file, for example /etc/luquan/gateway.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := check(args[0], turnaround)
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), r), err)
			}
			return errors.Join(r.print(cmd.OutOrStdout()), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	cmd.Flags().DurationVar(&turnaround, "turnaround", 0, "what a device is taken to need before it answers (0: 20ms; over TCP, with the network, 5ms)")
	return cmd
}

// check reads the file and plans its buses; the error says why it is not sound.
func check(file string, turnaround time.Duration) (report, error) {
	r := report{File: file, Errors: []mistake{}, Buses: []busReport{}}
	cfg, err := edge.Load(file)
	if err == nil {
		r.Site, r.Gateway = cfg.Site, cfg.Gateway
		err = r.plan(cfg, turnaround)
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

func (r *report) plan(cfg edge.Config, turnaround time.Duration) error {
	lib, err := edge.Profiles()
	if err != nil {
		return err
	}
	var errs []error
	for _, bus := range cfg.Buses {
		b, err := bus.Budget(lib, turnaround)
		if err != nil {
			return err
		}
		out := forecast(b)
		if b.Share > 1 {
			errs = append(errs, &conffile.Error{File: r.File, Msg: tooMuch(b)})
			out.Warning = "" // said already
		}
		r.Buses = append(r.Buses, out)
	}
	return conffile.Join(errs...)
}

// forecast says what the poller makes of the bus.
func forecast(b modbus.Budget) busReport {
	out := busReport{Name: b.Bus, Percent: percent(b.Share), Silent: []oddReport{}, Slow: []oddReport{}}
	var loads []poll.Load
	for _, l := range b.Loads {
		loads = append(loads, poll.Load{Device: l.Device, Every: l.Every, Takes: l.Poll, Slow: l.Slow, Silent: l.Silent})
	}
	usual := poll.Predict(loads)
	for i, l := range b.Loads {
		out.Polls = append(out.Polls, pollReport{
			l.Device, l.Profile, l.Points, l.Requests, millis(l.Poll), short(l.Every), reached(usual.Every[i], l.Every), percent(l.Share),
		})
	}
	// odd is the bus while the device of load i is odd.
	odd := func(i int, takes time.Duration, f poll.Forecast) oddReport {
		o := oddReport{Device: loads[i].Device, Millis: millis(takes), Polled: reached(f.Every[i], loads[i].Every), Percent: percent(f.Share), Late: millis(f.Late), Others: []lateReport{}}
		for k, l := range loads {
			if l.Device != o.Device && f.Every[k] > usual.Every[k] {
				o.Others = append(o.Others, lateReport{l.Device, short(l.Every), reached(f.Every[k], l.Every)})
			}
		}
		return o
	}
	for i, l := range loads {
		if slices.IndexFunc(loads, func(o poll.Load) bool { return o.Device == l.Device }) < i {
			continue // the device's shortest period stands for it
		}
		silent := odd(i, l.Silent, poll.PredictSilent(loads, l.Device))
		out.Silent = append(out.Silent, silent)
		out.Slow = append(out.Slow, odd(i, l.Slow, poll.PredictSlow(loads, l.Device)))
		if len(silent.Others) > 0 && out.Warning == "" {
			o := silent.Others[0]
			out.Warning = fmt.Sprintf("bus %q: whenever a silent device is asked it holds the line for %.1f s, and %s skips polls (every %s on average, not %s): "+
				"choose a longer period or a shorter timeout, or make it two buses", b.Bus, l.Silent.Seconds(), o.Device, o.Reached, o.Every)
		}
	}
	return out
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
		fmt.Fprintln(tw, "  DEVICE\tPROFILE\tPOINTS\tREQUESTS\tTIME\tEVERY\tREACHED\tSHARE")
		for _, p := range b.Polls {
			fmt.Fprintf(tw, "  %s\t%s\t%d\t%d\t%.1f ms\t%s\t%s\t%.1f %%\n", p.Device, p.Profile, p.Points, p.Requests, p.Millis, p.Every, p.Reached, p.Percent)
		}
		odd(tw, "IF SILENT", "ASKED EVERY", b.Silent)
		odd(tw, "IF SLOW", "READ EVERY", b.Slow)
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

// odd prints what becomes of a bus with one odd device, each in turn.
func odd(w io.Writer, what, every string, list []oddReport) {
	fmt.Fprintf(w, "  %s\tHOLDS THE BUS\t%s\tALL\tOTHERS WAIT\n", what, every)
	for _, o := range list {
		others := "keep their periods"
		if n := len(o.Others); n > 0 {
			others = fmt.Sprintf("%s every %s, not %s", o.Others[0].Device, o.Others[0].Reached, o.Others[0].Every)
			if n > 1 {
				others += fmt.Sprintf(", and %d more", n-1)
			}
		}
		fmt.Fprintf(w, "  %s\t%.1f ms\t%s\t%.1f %%\tup to %.0f ms, %s\n", o.Device, o.Millis, o.Polled, o.Percent, o.Late, others)
	}
}

func millis(d time.Duration) float64 { return math.Round(d.Seconds()*1e4) / 10 }

func percent(share float64) float64 { return math.Round(share*1000) / 10 }

// reached writes a period that was computed: as it was set, or to three digits.
func reached(every, set time.Duration) string {
	if every != set {
		for unit := time.Minute / 6; unit > time.Microsecond; unit /= 10 {
			if every >= 100*unit {
				every = every.Round(unit)
				break
			}
		}
	}
	return short(every)
}

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
