package main

import (
	"errors"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/fleetview"
	"twinegress/cmd/twinegress/internal/term"
)

func statusCommand() *cobra.Command {
	var c apiFlags
	var output string
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how all copies and endpoints are doing: troubles first",
		Long: "Asks one copy for what it knows of all of them: what is wrong and what to do, the copies, the endpoints, the worst\n" +
			"first, and whether routed = delivered + dropped + deferred + pending.\n\n" +
			"Exit 0 if the status could be shown, whatever it is. With --check, exit 1 if there is any trouble, an endpoint or a\n" +
			"copy that is not well.",
		Example: "  twinegress status --server https://twinegress:8080 --token-file token\n" +
			"  twinegress status --check --output json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			f, raw, err := client.fleet(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case output != "json":
				err = fleetview.Print(cmd.OutOrStdout(), f, widthOf(cmd.OutOrStdout()))
			case raw != nil:
				err = term.PrintJSON(cmd.OutOrStdout(), raw)
			default:
				err = term.PrintJSON(cmd.OutOrStdout(), f)
			}
			if err == nil && check && !f.Well() {
				err = errors.New(f.Verdict())
			}
			return err
		},
	}
	c.add(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check", false, "exit 1 unless all is well")
	outputFlag(cmd, &output, "table")
	return cmd
}
