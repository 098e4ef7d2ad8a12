// Command gatewayd is the board's daemon: it polls the devices of
// gateway.yaml, keeps every reading on flash and forwards it to the hub.
package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"luquan/gateway/edge"
	"luquan/internal/daemon"
)

func main() {
	// A board has little memory and this process little to collect: a heap
	// that grows by 22 % between collections spends about 4 ms a second on them.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(22)
	}
	os.Exit(daemon.Main(command(), os.Args[1:]))
}

func command() *cobra.Command {
	var config string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "gatewayd",
		Short: "The board's daemon: polls devices, buffers readings on flash, forwards them over MQTT",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := edge.Load(config)
			if err != nil {
				return err
			}
			log := daemon.Logger(cmd.ErrOrStderr())
			if verbose {
				log = daemon.DebugLogger(cmd.ErrOrStderr())
			}
			gateway, err := edge.New(cfg, edge.Options{Logger: log, Version: daemon.Version()})
			if err != nil {
				return err
			}
			if err := daemon.Ready(cmd.Context()); err != nil {
				return err
			}
			return gateway.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/luquan/gateway.yaml", "the gateway's configuration")
	cmd.Flags().BoolVar(&verbose, "debug", false, "log also what goes on when all is well: each commit to flash, each time all points are told again")
	return cmd
}
