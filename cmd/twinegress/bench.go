package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"twinegress/bench"
)

func benchCommand() *cobra.Command {
	o := bench.Options{Version: version}
	var output string
	cmd := &cobra.Command{
		Use:     "bench [SCENARIO…]",
		Short:   "Measure what an event costs, against a hand-written loop",
		Long:    "Scenarios:\n" + listScenarios(),
		Example: "  twinegress bench eventhubs\n  twinegress bench --pairs 3 --output json discard mixed",
		RunE: func(cmd *cobra.Command, names []string) error {
			scenarios, err := bench.Select(names)
			if err != nil {
				return usageError{fmt.Errorf("%w (see twinegress bench --help)", err)}
			}
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			o.Progress = func(what string) { fmt.Fprintln(cmd.ErrOrStderr(), what) }
			report, err := bench.Run(cmd.Context(), scenarios, o)
			if report == nil {
				return err
			}
			if output == "json" {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), report))
			}
			report.WriteTable(cmd.OutOrStdout())
			return err
		},
	}
	outputFlag(cmd, &output)
	f := cmd.Flags()
	f.IntVar(&o.Pairs, "pairs", 5, "how often the two sides of a scenario take turns")
	f.IntVar(&o.Events, "events", 0, "events a run (default each scenario's own number)")
	f.BoolVar(&o.Pin, "pin", true, "give the measured process a core of its own, where there are two")
	return cmd
}

func listScenarios() string {
	var b strings.Builder
	for _, s := range bench.Scenarios {
		fmt.Fprintf(&b, "  %-12s%s\n", s.Name, s.About)
	}
	return b.String()
}
