package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/server/api"
)

func printEndpoints(w io.Writer, list []api.Endpoint) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no endpoints")
		return err
	}
	named := slices.ContainsFunc(list, func(e api.Endpoint) bool { return e.Name != "" })
	t := term.NewTable(w)
	row := func(id, name string, others ...string) {
		cells := []string{id}
		if named {
			cells = append(cells, name)
		}
		t.Row(append(cells, others...)...)
	}
	row("ID", "NAME", "TYPE", "PATH", "EVENT TYPES", "STATUS")
	for _, e := range list {
		row(e.ID, e.Name, string(e.Type), e.Path, strings.Join(e.EventTypes, ","), statusText(e))
	}
	return t.Flush()
}

// statusText returns the status, with the reason and the end of a back-off.
func statusText(e api.Endpoint) string {
	text := e.Status
	if state := e.Properties["state"]; state != "" {
		text += " (" + state + ")"
	}
	if reason := e.Properties["reason"]; reason != "" {
		text += ": " + reason
	}
	if until, err := time.Parse(time.RFC3339, e.Properties["backOffUntil"]); err == nil {
		text += ", until " + until.Local().Format(time.TimeOnly)
	}
	return text
}

func printEndpoint(w io.Writer, e api.Endpoint, etag string) error {
	t := term.NewTable(w)
	for _, line := range []struct{ name, value string }{
		{"id", e.ID},
		{"name", e.Name},
		{"type", string(e.Type)},
		{"path", e.Path},
		{"event types", strings.Join(e.EventTypes, ", ")},
		{"filter", e.Filter},
		{"connection string", e.ConnectionString},
		{"secondary", e.SecondaryConnectionString},
		{"authentication", string(e.Authentication)},
		{"body", string(e.Body)},
		{"ordering", string(e.Ordering)},
		{"overflow", string(e.Overflow)},
		{"changed", e.LastUpdated.Local().Format(time.RFC3339)},
		{"status", statusText(e)},
		{"last error", e.Properties["lastError"]},
		{"etag", strings.Trim(etag, `"`)},
	} {
		if line.value != "" {
			t.Row(line.name, line.value)
		}
	}
	return t.Flush()
}
