package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"twinegress/bench"
	"twinegress/cmd/twinegress/internal/term"
)

func benchCommand() *cobra.Command {
	o := bench.Options{Version: version}
	var output, svg, benchfmt string
	cmd := &cobra.Command{
		Use:   "bench [SCENARIO…]",
		Short: "Measure what an event costs, against a hand-written loop",
		Long: "Measures `run` between an embedded broker and emulated services, each a process of its own, and in turn with it\n" +
			"the floor: the simplest loop that does the same work. docs/benchmark.md says what the figures mean.\n\n" +
			"Scenarios, by default " + strings.Join(bench.Default, ", ") + ":\n\n" + listScenarios(),
		Example: "  twinegress bench\n" +
			"  twinegress bench eventhubs mixed --pairs 10 --svg bench.svg\n" +
			"  twinegress bench all --output json --benchfmt new.txt > new.json",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			all := append(make([]string, 0, 1+len(bench.Scenarios)), bench.All)
			for _, s := range bench.Scenarios {
				all = append(all, s.Name+"\t"+s.About)
			}
			return all, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			scenarios, err := bench.Select(names)
			if err != nil {
				return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
			}
			if err := bench.Check(o); err != nil {
				return usageError{err}
			}
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			o.Progress = func(what string) { fmt.Fprintln(cmd.ErrOrStderr(), what) }
			if output == "text" {
				o.Started = func(h *bench.Header) { h.WriteTable(out) }
				o.Done = func(r *bench.Result) { r.WriteTable(out) }
			}
			if o.Profiles != "" { // before minutes of measuring, not after
				if err := os.MkdirAll(o.Profiles, 0o755); err != nil {
					return fmt.Errorf("--profiles: %w", err)
				}
			}
			report, err := bench.Run(cmd.Context(), scenarios, o)
			if report == nil {
				return err
			}
			if output == "json" {
				err = errors.Join(err, term.PrintJSON(out, report))
			}
			return errors.Join(err, writeFile("--svg", svg, report.WriteSVG), writeFile("--benchfmt", benchfmt, report.WriteBenchfmt))
		},
	}
	outputFlag(cmd, &output, "text")
	f := cmd.Flags()
	f.IntVar(&o.Pairs, "pairs", 5, "how often the two sides of a scenario take turns")
	f.IntVar(&o.Events, "events", 0, "events of a run (default each scenario's own number)")
	f.StringVar(&o.Payload, "payload", "", "instead of each scenario's own: "+strings.Join(bench.Payloads, ", "))
	f.StringVar(&o.Compression, "compression", "", "of the topic, instead of each scenario's own: none, lz4, zstd")
	f.BoolVar(&o.Pin, "pin", true, "give the measured process a core of its own, where there are two")
	f.StringVar(&svg, "svg", "", "write a chart to this file")
	f.StringVar(&benchfmt, "benchfmt", "", "write each run in Go's benchmark format to this file, for benchstat")
	completeFrom(cmd, "payload", bench.Payloads)
	completeFrom(cmd, "compression", []string{"none", "lz4", "zstd"})
	f.StringVar(&o.Profiles, "profiles", "", "write a CPU profile of each side, taken in a run of its own, to this directory")
	return cmd
}

func writeFile(flag, name string, write func(io.Writer)) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	write(f)
	return f.Close()
}

func listScenarios() string {
	var b strings.Builder
	for _, s := range bench.Scenarios {
		fmt.Fprintf(&b, "  %-17s%s\n", s.Name, s.About)
	}
	fmt.Fprintf(&b, "  %-17s%s", bench.All, "all of them but soak, in about 15 minutes")
	return b.String()
}
