// Command demo is the whole line in one process on loopback: three simulated
// plants, their gateways and a hub. It prints the console's address.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"luquan/internal/daemon"
)

func main() { os.Exit(daemon.Main(command(), os.Args[1:])) }

func command() *cobra.Command {
	d := demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three simulated plants, their gateways and a hub in one process; prints the console's address",
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
	f.BoolVar(&d.verbose, "verbose", false, "show the log of every part")
	return cmd
}
