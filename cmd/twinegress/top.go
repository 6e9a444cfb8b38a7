package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/fleetview"
	"twinegress/cmd/twinegress/internal/term"
)

func topCommand() *cobra.Command {
	var c apiFlags
	sort := fleetview.Sorts[0]
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch all copies and endpoints live, the worst first",
		Long: "Asks one copy every second for what it knows of all of them, and shows what is wrong and what goes through in a\n" +
			"second. If no answer comes, what was known is shown on, and how old it is. q or Ctrl-C ends it; s sorts by another\n" +
			"column. Where standard output is no terminal, it writes a line for each answer.",
		Example: "  twinegress top --server https://twinegress:8080 --token-file token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := knownSort(sort); err != nil {
				return err
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			if screen := term.Open(cmd.OutOrStdout()); screen != nil {
				return client.onScreen(cmd, screen, sort, func(f *fleetview.Frame, width, height int) []term.Line {
					return f.Screen(styles(), width, height)
				})
			}
			out := cmd.OutOrStdout()
			return client.watch(cmd.Context(), live{sort: sort, closed: closed(out), show: func(f *fleetview.Frame) {
				fmt.Fprintln(out, f.Text())
			}})
		},
	}
	c.add(cmd.Flags())
	sortFlag(cmd, &sort)
	return cmd
}

// onScreen shows frames on a terminal until they are ended.
func (a *apiClient) onScreen(cmd *cobra.Command, screen *term.Terminal, sort string, lines func(f *fleetview.Frame, width, height int) []term.Line) error {
	// The first answer is awaited before anything is changed on the terminal.
	begun := false
	keys, restore := typed(cmd.InOrStdin())
	defer restore()
	return a.watch(cmd.Context(), live{sort: sort, keys: keys, redraw: true, show: func(f *fleetview.Frame) {
		if !begun {
			begun = true
			screen.Clear()
		}
		width, height := screen.Bounds()
		screen.Draw(lines(f, width, height-1)) // the last line is the cursor's
	}})
}

// closed returns a function that reports whether nobody reads an output any more.
func closed(out any) func() bool {
	if o, ok := out.(*term.Output); ok {
		return o.Closed
	}
	return func() bool { return false }
}

func sortFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "sort", *to, "the order: state (the worst first), name, rate, dropped (in 15 minutes) or pending")
	completeFrom(cmd, "sort", fleetview.Sorts)
}
