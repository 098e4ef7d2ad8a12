// Command plantsim runs the simulated devices of a site on the buses its file
// names: Modbus TCP endpoints, and pseudo-terminals for serial lines.
package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"luquan/internal/daemon"
	"luquan/internal/plant"
)

func main() { os.Exit(daemon.Main(command(), os.Args[1:])) }

func command() *cobra.Command {
	sim := plant.Sim{}
	cmd := &cobra.Command{
		Use:   "plantsim --site heating-plant",
		Short: "Simulated Modbus devices of a site, over TCP and pseudo-terminals paced like serial lines",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sim.Speed == 0 { // which Options takes for its default
				return errors.New("the plant's time cannot go 0 times as fast; choose 1 to 1000")
			}
			sim.Logger = daemon.Logger(cmd.ErrOrStderr())
			return sim.Run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&sim.Site, "site", "heating-plant", "a site: "+strings.Join(plant.Sites(), ", "))
	f.StringVar(&sim.Dir, "dir", "", "where each serial line's pseudo-terminal gets the name of its bus; default: luquan/<site> in the temporary directory")
	f.StringVar(&sim.Script, "faults", "", "a fault script; its times count from the start")
	f.BoolVar(&sim.Day, "day", false, "let the incidents of the site's day happen, each at its time, and tell them")
	f.Float64Var(&sim.Speed, "speed", 1, "how many times faster the plant's time goes (1 to 1000)")
	f.StringVar(&sim.Listen, "listen", "127.0.0.1", "address of the TCP buses, without port")
	f.IntVar(&sim.PortBase, "port-base", plant.SitePorts, "port of the first TCP bus, the others follow; 0 takes free ports, -1 those of the site's file")
	f.BoolVar(&sim.Frozen, "freeze", false, "hold every value still")
	f.Uint64Var(&sim.Seed, "seed", 1, "seed of the physics")
	f.BoolVar(&sim.JSON, "json", false, "print the buses as JSON")
	return cmd
}
