package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"luquan/gateway/hub"
	"luquan/gateway/hub/backup"
	"luquan/internal/daemon"
)

func backupCommand() *cobra.Command {
	var config string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy what the hub knows into a new folder, while it runs",
		Long: `Copies ledger, journal with its alarms and pages, quarantine, what is known of the
boards, and the embedded history into DIR, which must be new or empty. The hub
may run meanwhile. With InfluxDB the history is not part of it: use influxd backup.

The configuration (hub.yaml, rules, page.yaml) is yours to keep beside it. A folder
with manifest.json is whole; one without was not finished.`,
		Example: "  hubd backup /backup/luquan-$(date +%F)",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := hub.Load(config)
			if err != nil {
				return err
			}
			m, err := hub.Backup(cmd.Context(), cfg, daemon.Version(), args[0], told(cmd.ErrOrStderr(), asJSON))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files, %.1f MB\n", args[0], len(m.Files), float64(m.Bytes())/1e6)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/luquan/hub.yaml", "the hub's configuration")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the manifest as JSON")
	return cmd
}

func restoreCommand() *cobra.Command {
	var config string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Put a backup back where the hub looks for it",
		Long: `Compares every file of the backup with its manifest and copies them to state.dir and
history.dir of hub.yaml, where nothing may be yet: move the old folders away first.
It refuses while a hub runs. Start the hub afterwards: boards send again what the
restored ledger does not have and they still hold.`,
		Example: "  hubd restore /backup/luquan-2026-01-05",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := hub.Load(config)
			if err != nil {
				return err
			}
			m, err := hub.Restore(cmd.Context(), cfg, args[0], told(cmd.ErrOrStderr(), asJSON))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored what hub %s knew at %s: %d files, %.1f MB; start the hub now\n",
				m.Hub, m.Taken.Local().Format(time.DateTime), len(m.Files), float64(m.Bytes())/1e6)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/luquan/hub.yaml", "the hub's configuration")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the manifest as JSON")
	return cmd
}

// told says each file as it is done: a history of years takes minutes.
func told(out io.Writer, quiet bool) func(backup.File) {
	return func(f backup.File) {
		if !quiet {
			fmt.Fprintf(out, "%s  %.1f MB\n", f.Name, float64(f.Bytes)/1e6)
		}
	}
}
