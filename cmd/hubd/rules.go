package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"luquan/gateway/alarm"
	"luquan/internal/conffile"
)

func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "Work with rule files"}
	cmd.AddCommand(&cobra.Command{
		Use:   "check FILE...",
		Short: "Validate rule files; exit 1 with every mistake at file:line:col",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			set, err := readRules(files)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d rules in %d files are sound\n", len(set.Rules()), len(files))
			return nil
		},
	}, &cobra.Command{
		Use:   "test FILE...",
		Short: "Run the tests that stand in rule files; exit 1 when one fails",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			set, err := readRules(files)
			if err != nil {
				return err
			}
			return reportTests(cmd, set.RunTests())
		},
	})
	return cmd
}

// readRules reads all the files before it answers, so that one reading tells
// every mistake.
func readRules(files []string) (*alarm.RuleSet, error) {
	var sets []*alarm.RuleSet
	var errs []error
	for _, f := range files {
		data, err := conffile.Read(f)
		if err == nil {
			var set *alarm.RuleSet
			if set, err = alarm.ParseFile(f, data); err == nil {
				sets = append(sets, set)
			}
		}
		errs = append(errs, err)
	}
	if err := conffile.Join(errs...); err != nil {
		return nil, err
	}
	return alarm.Merge(sets...)
}

func reportTests(cmd *cobra.Command, results []alarm.TestResult) error {
	failed := 0
	for _, r := range results {
		if len(r.Failures) == 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "ok    %s\n", r.Name)
			continue
		}
		failed++
		fmt.Fprintf(cmd.OutOrStdout(), "FAIL  %s\n", r.Name)
		for _, f := range r.Failures {
			fmt.Fprintf(cmd.OutOrStdout(), "      %s\n", f)
		}
	}
	switch {
	case len(results) == 0:
		return errors.New("the files hold no tests; write some under the key tests")
	case failed > 0:
		return fmt.Errorf("%d of %d tests failed", failed, len(results))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%d tests passed\n", len(results))
	return nil
}
