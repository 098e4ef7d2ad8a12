// Command hubd is the centre's daemon: it receives what the boards send,
// stores it, judges it by rules, pages people and shows the console.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"luquan/gateway/hub"
	"luquan/internal/daemon"
)

func main() { os.Exit(daemon.Main(command(), os.Args[1:])) }

func command() *cobra.Command {
	root := &cobra.Command{Use: "hubd", Short: "The centre's daemon: ingest, history, alarms, console"}
	root.AddCommand(runCommand())
	root.AddCommand(rulesCommand(), ledgerCommand(), importCommand(), quarantineCommand(), backupCommand(), restoreCommand())
	return root
}

func runCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the hub until it is told to stop",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := hub.Load(config)
			if err != nil {
				return err
			}
			h, err := hub.New(cmd.Context(), cfg, hub.Options{Logger: daemon.Logger(cmd.ErrOrStderr()), Version: daemon.Version()})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "console: http://%s\n", h.ConsoleAddr())
			if err := daemon.Ready(cmd.Context()); err != nil {
				return err
			}
			return h.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/luquan/hub.yaml", "the hub's configuration")
	return cmd
}
