// Command gatewayd is the board's daemon: it polls the devices of
// gateway.yaml, keeps every reading on flash and forwards it to the hub.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"luquan/gateway/edge"
	"luquan/internal/daemon"
)

func main() { os.Exit(daemon.Main(command(), os.Args[1:])) }

func command() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "gatewayd",
		Short: "The board's daemon: polls devices, buffers readings on flash, forwards them over MQTT",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := edge.Load(config)
			if err != nil {
				return err
			}
			gateway, err := edge.New(cfg, edge.Options{Logger: daemon.Logger(cmd.ErrOrStderr()), Version: daemon.Version()})
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
	return cmd
}
