package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

func (c *apiFlags) seekCommand() *cobra.Command {
	var to, output string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "seek ENDPOINT",
		Short: "Send an endpoint's events again from a time on, or skip its backlog",
		Long: "Sends an endpoint to another place in Kafka. It gets the events from there on, in order, up to those that come\n" +
			"now. --to is earliest (everything that Kafka still has), a time with its zone, how long ago\n" +
			"(90m, 12h), latest (its backlog is skipped), or cancel (back to where it was before the seek that is under way).",
		Example: "  twinegress endpoints seek hub --to 2026-01-31T08:00:00+01:00 --dry-run\n" +
			"  twinegress endpoints seek hub --to 90m",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usageError{errors.New("--to: is required: earliest, latest, cancel, a time, or how long ago")}
			}
			body, err := json.Marshal(api.SeekRequest{To: to})
			if err != nil {
				return err
			}
			path := "/seek"
			if dryRun {
				path += "?dryRun=true"
			}
			reply, err := c.doForOne(cmd.Context(), args[0], call{method: http.MethodPost, path: path, body: body})
			if err != nil {
				return err
			}
			return show(cmd, reply, output, printSeek)
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "earliest, latest, cancel, a time such as 2026-01-31T08:00:00Z, or how long ago, such as 90m")
	f.BoolVar(&dryRun, "dry-run", false, "say what it is about, and change nothing")
	completeFrom(cmd, "to", []string{endpoints.Earliest, endpoints.Latest, endpoints.Cancel})
	outputFlag(cmd, &output, "table")
	return cmd
}

func printSeek(w io.Writer, s api.Seek) error {
	name := nameOf(api.Endpoint{Document: endpoints.Document{ID: s.ID, Name: s.Name, Type: endpoints.Type(s.Type), Path: s.Path}})
	first := name + ": "
	if s.DryRun {
		first += "nothing has changed; a seek to " + positionText(s.SeekTo) + " would do this"
	} else {
		first += "seek to " + positionText(s.SeekTo) + " ordered at " + positionText(s.SeekAt)
	}
	lines := []string{first}
	switch {
	case s.Offsets == nil:
		lines = append(lines, "each copy takes its partitions back to where the endpoint was before the seek")
	case s.SeekTo == endpoints.Latest:
		lines = append(lines, term.Grouped(*s.Offsets)+" offsets of its backlog are skipped: it never gets their events")
	default:
		line := term.Grouped(*s.Offsets) + " offsets are read again for it"
		if s.FromAt != nil {
			line += ", the first of " + clockTime(*s.FromAt)
		}
		lines = append(lines, line)
	}
	if s.OldestAt != nil {
		lines = append(lines, "Kafka reaches back to "+clockTime(*s.OldestAt))
	}
	if s.Notice != "" {
		lines = append(lines, "note: "+s.Notice)
	}
	if !s.DryRun {
		lines = append(lines, "how far it is: twinegress status, twinegress top")
	}
	for i := range lines {
		lines[i] = untrusted.Text(lines[i])
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n  "))
	return err
}

// enableCommand sets the field enabled, without the detour over the endpoint's JSON.
func (c *apiFlags) enableCommand(enabled bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable ENDPOINT",
		Short: "Resume an endpoint that was disabled",
		Long: "Sets `enabled` to true: with `recovery: catchUp` the endpoint goes on where it was, with `drop`\n" +
			"with the events that come from then on.",
		Example: "  twinegress endpoints enable hub",
	}
	if !enabled {
		cmd.Use, cmd.Short = "disable ENDPOINT", "Pause an endpoint: nothing is sent to it until it is enabled again"
		cmd.Long = "Sets `enabled` to false: with `recovery: catchUp` the endpoint's events are read from Kafka once it is enabled\n" +
			"again, with `drop` they are dropped."
		cmd.Example = "  twinegress endpoints disable hub"
	}
	cmd.Args, cmd.ValidArgsFunction = oneEndpoint, c.completeIDs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		id, err := client.resolve(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		before, err := client.do(cmd.Context(), call{method: http.MethodGet, path: "/" + id})
		if err != nil {
			return err
		}
		var e api.Endpoint
		if err := before.decode(&e); err != nil {
			return err
		}
		if endpoints.Endpoint(e.Document).Disabled() == !enabled {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing to change: "+nameOf(e)+" was so already")
			return err
		}
		// The body as it came, with fields that this version may not know.
		var body map[string]json.RawMessage
		if err := before.decode(&body); err != nil {
			return err
		}
		body["enabled"] = json.RawMessage(strconv.FormatBool(enabled))
		changed, err := json.Marshal(body)
		if err != nil {
			return err
		}
		if _, err := client.do(cmd.Context(), call{method: http.MethodPut, path: "/" + id, body: changed, ifMatch: before.header.Get("ETag")}); err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), enabledNow(e, enabled))
		return err
	}
	return cmd
}

// enabledNow describes what follows from a pause, or its end.
func enabledNow(e api.Endpoint, enabled bool) string {
	catchesUp := e.Recovery == endpoints.RecoveryCatchUp
	switch {
	case enabled && catchesUp:
		return "enabled " + nameOf(e) + ": it goes on where it was (recovery: catchUp)"
	case enabled:
		return "enabled " + nameOf(e) + ": it gets the events that come from now on (recovery: drop)"
	case catchesUp:
		return "disabled " + nameOf(e) + ": what comes meanwhile it gets once it is enabled, as far as Kafka still has it (recovery: catchUp)"
	}
	return "disabled " + nameOf(e) + ": what comes meanwhile is dropped (recovery: drop)"
}
