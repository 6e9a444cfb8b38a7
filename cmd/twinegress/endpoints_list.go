package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/fleetview"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

// listing is the options of `endpoints list`.
type listing struct {
	types, eventTypes []string
	output, sort      string
	wide, watch       bool
}

func (c *apiFlags) listCommand() *cobra.Command {
	l := listing{sort: fleetview.Sorts[0]}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List endpoints and how they are doing, the worst first",
		Long: "Lists the endpoints with their state and counts over all copies. DELIV/S is of the last minute, with --watch of the\n" +
			"last seconds; a dash is what is not known. An endpoint without a name is shown by the beginning of its id. As JSON,\n" +
			"the list is the Management API's.",
		Example: "  twinegress endpoints list --sort dropped\n" +
			"  twinegress endpoints list --types EventHub,ServiceBus --output json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := knownSort(l.sort); err != nil {
				return err
			}
			if l.watch && (l.wide || l.output == "json" || len(l.query()) > 0) {
				return usageError{errors.New("--watch shows all endpoints, as a table that fits a terminal: it goes with --sort only")}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			switch {
			case l.output == "json":
				r, err := client.do(cmd.Context(), call{method: http.MethodGet, path: l.query()})
				if err != nil {
					return err
				}
				return show(cmd, r, "json", func(io.Writer, any) error { return nil })
			case l.watch:
				return client.watchList(cmd, l.sort)
			default:
				return l.print(cmd, client)
			}
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&l.types, "types", nil, "only endpoints of these types")
	f.StringSliceVar(&l.eventTypes, "event-types", nil, "only endpoints that take one of these event types")
	f.BoolVar(&l.wide, "wide", false, "also id, type, host, path, event types and the last error")
	f.BoolVar(&l.watch, "watch", false, "list again and again, until q or Ctrl-C")
	completeFrom(cmd, "types", words(endpoints.Types()))
	completeFrom(cmd, "event-types", endpoints.EventTypes())
	sortFlag(cmd, &l.sort)
	outputFlag(cmd, &l.output, "table")
	return cmd
}

// query returns the API's query for the endpoints that are asked for; "" is all.
func (l *listing) query() string {
	query := url.Values{}
	for name, values := range map[string][]string{"types": l.types, "eventTypes": l.eventTypes} {
		if len(values) > 0 {
			query.Set(name, strings.Join(values, ","))
		}
	}
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

// print writes the list once: of what is stored, with what the fleet says of it.
func (l *listing) print(cmd *cobra.Command, client *apiClient) error {
	r, err := client.do(cmd.Context(), call{method: http.MethodGet, path: l.query()})
	if err != nil {
		return err
	}
	var stored []api.Endpoint
	if err := r.decode(&stored); err != nil {
		return err
	}
	f, _, err := client.fleet(cmd.Context())
	if err != nil {
		return err
	}
	running := make(map[string]*fleetview.Endpoint, len(f.Endpoints))
	for i := range f.Endpoints {
		running[f.Endpoints[i].ID] = &f.Endpoints[i]
	}
	all := make([]fleetview.Endpoint, len(stored))
	for i, e := range stored {
		if one := running[e.ID]; one != nil {
			all[i] = *one
		} else { // it was created a moment ago
			all[i] = fleetview.Endpoint{State: strings.ToLower(e.Status)}
		}
		all[i].ID, all[i].Name, all[i].Type, all[i].Path, all[i].EventTypes = e.ID, e.Name, string(e.Type), e.Path, e.EventTypes
	}
	f.Endpoints = all
	if f.Notice != "" { // beside the list, which may go into a pipe
		fmt.Fprintln(cmd.ErrOrStderr(), "Note:", untrusted.Text(f.Notice))
	}
	out := cmd.OutOrStdout()
	return fleetview.PrintList(out, f, l.sort, widthOf(out), l.wide)
}

// widthOf returns the width of a terminal; 0 of what is none.
func widthOf(out io.Writer) int {
	screen := term.Open(out)
	if screen == nil {
		return 0
	}
	width, _ := screen.Bounds()
	return width
}

// watchList shows the list until it is ended.
func (a *apiClient) watchList(cmd *cobra.Command, sort string) error {
	out := cmd.OutOrStdout()
	if screen := term.Open(out); screen != nil {
		return a.onScreen(cmd, screen, sort, func(f *fleetview.Frame, width, height int) []term.Line {
			return f.Lines(styles(), width, height)
		})
	}
	return a.watch(cmd.Context(), live{sort: sort, closed: closed(out), show: func(f *fleetview.Frame) {
		fmt.Fprintln(out, time.Now().Format(time.RFC3339))
		for _, line := range f.Lines(term.Styles{}, 0, 1<<20) {
			fmt.Fprintln(out, line.Plain())
		}
	}})
}

func knownSort(by string) error {
	if !slices.Contains(fleetview.Sorts, by) {
		return usageError{fmt.Errorf("--sort %s: must be one of %s", by, strings.Join(fleetview.Sorts, ", "))}
	}
	return nil
}
