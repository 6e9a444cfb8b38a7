package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/pipeline"
	"twinegress/server/api"
)

func (c *apiFlags) logCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "log ID",
		Short: "Show the last changes of an endpoint's state, and its failures",
		Long: "Shows what happened to an endpoint on the copy that is asked, since that was started: the last hundred\n" +
			"changes of its state and failures, the newest last. What repeats is one line.",
		Example:           "  twinegress endpoints log building-7",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := c.doForOne(cmd.Context(), args[0], call{method: http.MethodGet, path: "/log"})
			if err != nil {
				return err
			}
			return show(cmd, reply, output, printLog)
		},
	}
	outputFlag(cmd, &output, "table")
	return cmd
}

func printLog(w io.Writer, log api.Log) error {
	if len(log.Entries) == 0 {
		_, err := fmt.Fprintln(w, "nothing has happened since this copy was started")
		return err
	}
	t := term.NewTable(w)
	t.Row("SINCE", "LAST", "WHAT", "TIMES", "LASTED", "EVENTS", "TEXT")
	for _, e := range log.Entries {
		t.Row(e.At.Local().Format("2006-01-02 15:04:05Z07:00"), lastOf(e), whatOf(e), timesOf(e), lastedOf(e), eventsOf(e), e.Text)
	}
	return t.Flush()
}

// lastOf returns when it last was, if that is not when it began.
func lastOf(e pipeline.LogEntry) string {
	switch {
	case e.Ongoing:
		return "now"
	case e.LastAt.Sub(e.At) < time.Second:
		return ""
	case e.LastAt.Sub(e.At) < 24*time.Hour:
		return e.LastAt.Local().Format(time.TimeOnly)
	}
	return e.LastAt.Local().Format(time.DateTime)
}

func whatOf(e pipeline.LogEntry) string {
	if e.Reason == "" || e.Reason == e.What {
		return e.What
	}
	return e.What + ": " + e.Reason
}

// Numbers that say nothing are left out.

func timesOf(e pipeline.LogEntry) string {
	if e.Times == 1 {
		return ""
	}
	return strconv.Itoa(e.Times)
}

func eventsOf(e pipeline.LogEntry) string {
	if e.Events == 0 {
		return ""
	}
	return strconv.FormatUint(e.Events, 10)
}

func lastedOf(e pipeline.LogEntry) string {
	lasted := time.Duration(e.Seconds * float64(time.Second))
	switch {
	case lasted == 0:
		return ""
	case lasted < 10*time.Second:
		return lasted.Round(10 * time.Millisecond).String()
	}
	return lasted.Round(time.Second).String()
}
