package main

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/demo"
)

func demoCommand() *cobra.Command {
	o := demo.Options{Version: version}
	var fault, output string
	names := make([]string, 0, len(demo.Scenarios))
	var scenarios strings.Builder
	for _, s := range demo.Scenarios {
		names = append(names, s.Name)
		fmt.Fprintf(&scenarios, "\n  %-16s %s", s.Name, s.About)
	}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: embedded Kafka, emulated services, generated events",
		Long: "Starts a Kafka broker, emulated Azure services and a feed of generated events inside this process, runs the\n" +
			"same pipeline between them as `run` does, and shows it live. It needs nothing and leaves nothing behind.\n\n" +
			"Ctrl-C, --events or --duration end it. Then every event that was produced gets its outcome, and a report tells\n" +
			"whether routed = delivered + dropped + deferred + pending for every endpoint, and whether the emulated services\n" +
			"counted the same. Exit 0 if so, else 1.\n\n" +
			"--fault shows one endpoint's trouble: all is well, then something befalls its service, then that is over. The\n" +
			"view tells what goes on. It takes " + demo.StoryLength.String() + ", or as long as --duration says. SCENARIO is one of\n" + scenarios.String(),
		Example: "  twinegress demo\n" +
			"  twinegress demo --rate 20000 --duration 1m\n" +
			"  twinegress demo --events 200000 --plain --output json\n" +
			"  twinegress demo --fault unauthorized",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.Float64Var(&o.Rate, "rate", demo.Rate, "events a second; 0 is as fast as possible, which is also the default with --events, but not with --fault")
	f.IntVar(&o.Events, "events", 0, "end after this many events; 0 doesn't")
	f.DurationVar(&o.Duration, "duration", 0, "end after this time; 0 doesn't")
	f.StringVar(&fault, "fault", "", "show one endpoint's trouble, `SCENARIO`: see above")
	completeFrom(cmd, "fault", names)
	f.BoolVar(&o.Plain, "plain", false, "a line a second instead of the live view, as without a terminal")
	logFlags(cmd, &o.Log, "warn")
	outputFlag(cmd, &output, "text")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case !(o.Rate >= 0) || math.IsInf(o.Rate, 1):
			return usageError{errors.New("--rate must be 0 or more")}
		case o.Events < 0:
			return usageError{errors.New("--events must be 0 or more")}
		case o.Duration < 0:
			return usageError{errors.New("--duration must be 0 or more")}
		}
		switch {
		case f.Changed("fault"):
			var err error
			if o.Scenario, err = demo.FindScenario(fault); err != nil {
				return usageError{err}
			}
			if o.Events == 0 && o.Duration == 0 {
				o.Duration = demo.StoryLength
			}
		case o.Events > 0 && !f.Changed("rate"):
			o.Rate = 0
		}
		o.JSON = output == "json"
		return demo.Run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}
