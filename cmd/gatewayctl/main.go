// Command gatewayctl is the technician's tool on a board: it checks a
// configuration before the daemon is started with it, shows which device
// models are built in, and what a buffer holds. Every verb has its own file.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"luquan/internal/daemon"
)

func main() { os.Exit(daemon.Main(command(), os.Args[1:])) }

func command() *cobra.Command {
	root := &cobra.Command{Use: "gatewayctl", Short: "The technician's tool: check a configuration, look up device models, look into a buffer"}
	root.AddCommand(checkCommand())
	root.AddCommand(profileCommand())
	root.AddCommand(queueCommand())
	return root
}

// one accepts exactly one argument; otherwise what says what it should be.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return errors.New(what)
		}
		return nil
	}
}

// printJSON writes v as people and programs both read it.
func printJSON(w io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write as JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", data)
	return err
}
