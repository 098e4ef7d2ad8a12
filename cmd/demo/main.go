// Command demo is the whole line in one process on loopback: simulated
// plants, their gateways and a hub. It prints the console's address.
package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"luquan/internal/daemon"
	"luquan/internal/plant"
)

func main() { os.Exit(daemon.Main(command(), os.Args[1:])) }

func command() *cobra.Command {
	d := demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Simulated plants, their gateways and a hub in one process; prints the console's address",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out, d.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.DurationVar(&d.length, "for", 0, "stop by itself after this long, for example 40s; 0 runs until Ctrl-C")
	f.StringVar(&d.listen, "listen", "127.0.0.1:0", "loopback address of the console; port 0 takes a free one")
	f.StringVar(&d.dir, "dir", "", "keep the buffers and the history in this folder; default: a temporary one, removed at the end")
	f.Uint64Var(&d.seed, "seed", 1, "seed of the simulated physics")
	f.StringSliceVar(&d.names, "site", nil, "only these sites, with commas between: "+strings.Join(plant.Sites(), ", ")+"; default: all")
	f.BoolVar(&d.day, "day", false, "let each site's day of incidents happen, each at its time of the day, instead of one fault at 15 s")
	f.Float64Var(&d.speed, "speed", 1, "how many times faster the plants' time goes with --day (1 to 1000); alarm delays stay as they are")
	f.BoolVar(&d.verbose, "verbose", false, "show the log of every part")
	return cmd
}
