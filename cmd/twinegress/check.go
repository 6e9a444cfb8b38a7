package main

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
)

func checkCommand() *cobra.Command {
	var from configFlags
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration and try every connection; sends nothing",
		Long: "Reads the configuration and the endpoints as `run` does, and tries Kafka with each right that is needed there,\n" +
			"each endpoint with each of its keys, and what else there is to connect to. No event is sent and nothing is changed:\n" +
			"Event Hubs and Service Bus are connected to up to the link that events are sent on; Event Grid gets an array without\n" +
			"events. What shows only when an event is sent: whether a quota is used up, and whether an Event Grid topic takes the\n" +
			"Event Grid schema.\n\n" +
			"Exit code 1 if something failed, 2 if the configuration is wrong.",
		Example: "  twinegress check --config twinegress.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := from.load()
			if err != nil {
				return err
			}
			r := app.Check(cmd.Context(), cfg)
			if output == "json" {
				err = term.PrintJSON(cmd.OutOrStdout(), r)
			} else {
				err = printChecks(cmd.OutOrStdout(), r)
			}
			if err == nil && !r.OK {
				err = fmt.Errorf("%d of %d checks failed", r.Failed(), len(r.Checks))
			}
			return err
		},
	}
	from.add(cmd)
	outputFlag(cmd, &output, "table")
	return cmd
}

func printChecks(w io.Writer, r app.CheckReport) error {
	t := term.NewTable(w)
	t.Row("RESULT", "WHAT", "TYPE", "PATH", "KEY", "REMARK")
	for _, c := range r.Checks {
		result := "ok"
		if !c.OK {
			result = "FAILED"
		}
		t.Row(result, cmp.Or(c.Name, c.ID, c.What), c.Type, c.Path, c.Key, cmp.Or(c.Error, c.Note))
	}
	return t.Flush()
}
