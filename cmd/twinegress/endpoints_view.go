package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
)

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
		text += ", until " + clockTime(until)
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
		{"recovery", string(e.Recovery)},
		{"enabled", enabledText(e)},
		{"started at", positionText(e.StartAt)},
		{"last seek", seekText(e)},
		{"changed", clockTime(e.LastUpdated)},
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

// enabledText returns "" for an endpoint of a server that doesn't know the field.
func enabledText(e api.Endpoint) string {
	if e.Enabled == nil {
		return ""
	}
	return strconv.FormatBool(*e.Enabled)
}

// seekText returns where the last seek led to, and when it was ordered.
func seekText(e api.Endpoint) string {
	if e.SeekTo == "" {
		return ""
	}
	if at, err := time.Parse(time.RFC3339Nano, e.SeekAt); err != nil || at.Unix() == 0 { // it follows from startAt in the file
		return "to " + positionText(e.SeekTo)
	}
	return "to " + positionText(e.SeekTo) + ", ordered " + positionText(e.SeekAt)
}

// positionText formats where an endpoint starts or is sought to: a word, or a time.
func positionText(s string) string {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return clockTime(at)
}

// clockTime formats a time of day with its zone, and with its date if that is not
// today.
func clockTime(at time.Time) string {
	at = at.Local()
	if now := time.Now(); at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05 MST")
	}
	return at.Format("2006-01-02 15:04:05 MST")
}

// nameOf names an endpoint for a person.
func nameOf(e api.Endpoint) string {
	if e.Name == "" {
		return untrusted.Text(fmt.Sprintf("%s (%s %s)", e.ID, e.Type, e.Path))
	}
	return untrusted.Text(fmt.Sprintf("%s (%s, %s %s)", e.Name, e.ID, e.Type, e.Path))
}

// nameInBody names an endpoint that was created from a body.
func nameInBody(body []byte, id string) string {
	e := api.Endpoint{}
	_ = json.Unmarshal(body, &e) // the server has read it
	e.ID = id
	return nameOf(e)
}

// updated describes what an update has changed. Of the keys, which come masked, only
// the tag tells that they did.
func updated(before, after api.Endpoint, was, is string) string {
	fields := endpoints.Diff(endpoints.Endpoint(before.Document), endpoints.Endpoint(after.Document)).Fields
	switch keysToo := configured(was) != configured(is); {
	case len(fields) > 0:
		return "updated " + nameOf(after) + ": " + strings.Join(fields, ", ")
	case keysToo:
		return "updated " + nameOf(after) + ": its keys"
	}
	return "nothing to change: " + nameOf(after) + " was so already"
}

// configured is the part of an ETag that changes with the configuration only.
func configured(tag string) string {
	before, _, _ := strings.Cut(strings.Trim(tag, `"`), ".")
	return before
}

// retried describes what a retry has done. Whether there was a back-off to end is
// for each copy to know.
func retried(before api.Endpoint) string {
	text := "a back-off of " + nameOf(before) + " ends now, on every copy that is in one"
	if before.Properties["key"] != "" {
		text += ", and the primary key is tried again"
	}
	return text + "; on the copy that was asked its status was " + untrusted.Text(before.Status)
}
