package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
	"twinegress/server/api"
	"twinegress/sinks"
)

const (
	// tapSilence is how long a tap waits for a word of the server, which says every 15
	// seconds that it is there.
	tapSilence = 45 * time.Second
	// maxTapLine is more than the server's longest line: 80 KiB of an event, escaped.
	maxTapLine = 1 << 20
	// tapWidth is how wide a line is where the output is no terminal.
	tapWidth = 200
)

func tapCommand() *cobra.Command {
	var c apiFlags
	var rate int
	var period time.Duration
	var output string
	cmd := &cobra.Command{
		Use:   "tap ENDPOINT",
		Short: "Show events of an endpoint as they are sent to it",
		Long: "Shows events of an endpoint, named by its id or its name, as they get their outcome: what is sent, how long that took\n" +
			"and, if an event is dropped, why. It is a sample of what the copy that answers sends; other copies send the rest.\n" +
			"Ctrl-C ends it. The token needs the right to see events: events: true in api.tokens, or api.oidc.eventsRole.",
		Example: "  twinegress tap hub --rate 2 --for 5m\n" +
			"  twinegress tap 568fd394-380b-46fa-925a-ebb96f658cce --output json | jq .body",
		Args:              oneEndpoint,
		ValidArgsFunction: c.completeIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case rate < 1 || rate > api.MaxTapRate:
				return usageError{fmt.Errorf("--rate %d: must be from 1 to %d", rate, api.MaxTapRate)}
			case period <= 0 || period > api.MaxTapTime:
				return usageError{fmt.Errorf("--for %v: must be more than 0 and at most %v", period, api.MaxTapTime)}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			id, err := client.resolve(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			query := url.Values{"rate": {strconv.Itoa(rate)}, "for": {period.String()}}
			v := &tapView{out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), json: output == "json", width: tapWidth}
			if screen := term.Open(v.out); screen != nil {
				if width, _, err := screen.Size(); err == nil {
					v.width = width
				}
			}
			return client.tap(cmd.Context(), "/"+id+"/tap?"+query.Encode(), v)
		},
	}
	c.add(cmd.Flags())
	cmd.Flags().IntVar(&rate, "rate", 10, "events a second that are shown at most, 1 to 100")
	cmd.Flags().DurationVar(&period, "for", time.Minute, "how long, at most 15m")
	outputFlag(cmd, &output, "text")
	return cmd
}

var errTapSilent = fmt.Errorf("the server says nothing any more, for %v", tapSilence)

// tap shows a tap's stream until it ends, or ctx does.
func (a *apiClient) tap(ctx context.Context, path string, v *tapView) error {
	live, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(tapSilence, func() { cancel(errTapSilent) })
	defer silence.Stop()
	endless := *a
	endless.http = &http.Client{Transport: a.http.Transport, CheckRedirect: a.http.CheckRedirect}
	response, err := endless.send(live, call{method: http.MethodGet, path: path})
	if err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C, before it began
		}
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxTapLine)
	name := ""
	for lines.Scan() {
		silence.Reset(tapSilence)
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			if err := v.show(name, []byte(value)); err != nil {
				return err
			}
			name = ""
		}
		if v.ended {
			return nil
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil: // Ctrl-C
		v.interrupted()
		return nil
	case context.Cause(live) != nil:
		return context.Cause(live)
	case err != nil:
		return fmt.Errorf("the server's answer can't be read on: %s", untrusted.Text(err.Error()))
	}
	return errors.New("the server's answer ended before the tap did: has that copy ended?")
}

// tapView prints a tap: its events to out, what is about the tap itself to notes.
type tapView struct {
	out, notes io.Writer
	json       bool
	width      int

	shown, skipped int
	ended          bool
}

func (v *tapView) show(name string, data []byte) error {
	var err error
	switch name {
	case "start":
		var start api.TapStart
		if err = json.Unmarshal(data, &start); err == nil {
			e := start.Endpoint
			what := strings.Join(strings.Fields(strings.Join([]string{e.Name, e.Type, e.Host, e.Path}, " ")), " ")
			_, err = fmt.Fprintf(v.notes, "%s (%s) on the copy %s, which sends its own share of the events: at most %d a second are shown, until %s; +N: so many more before it\n",
				untrusted.Text(what), untrusted.Text(e.ID), untrusted.Text(start.Copy), start.Rate, clockTime(start.Until))
		}
	case "end":
		var end api.TapEnd
		if err = json.Unmarshal(data, &end); err == nil {
			v.ended = true
			_, err = fmt.Fprintf(v.notes, "%s: %s of %s events shown, %s were above the rate, %s came too fast for this reader\n",
				untrusted.Text(end.Reason), term.Grouped(end.Shown), term.Grouped(end.Seen), term.Grouped(end.Sampled), term.Grouped(end.Slow))
		}
	case "":
		var e sinks.TapEntry
		if err = json.Unmarshal(data, &e); err == nil {
			v.shown++
			v.skipped += e.Skipped
			line := string(data)
			if !v.json {
				line = v.line(e)
			}
			_, err = fmt.Fprintln(v.out, line)
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("the server's answer can't be read: is it the Management API of twinegress? %s", untrusted.Text(err.Error()))
	}
	return nil
}

// line is an event in one line, as wide as the output.
func (v *tapView) line(e sinks.TapEntry) string {
	outcome, latency := e.Outcome, "?"
	if e.Reason != "" {
		outcome = e.Reason
	}
	if e.Latency != nil {
		latency = term.Latency(time.Duration(*e.Latency * float64(time.Second)))
	}
	if e.Sending != nil {
		outcome, latency = "in flight", term.Latency(time.Duration(*e.Sending*float64(time.Second)))
	}
	origin := fmt.Sprintf("%s/%d/%d", e.Topic, e.Partition, e.Offset)
	if e.Index != nil {
		origin += "/" + strconv.Itoa(int(*e.Index))
	}
	line := fmt.Sprintf("%s %-12s %5s %-17s %s ", e.At.Local().Format("15:04:05.000"), outcome, latency, e.EventType, origin)
	if e.Skipped > 0 {
		line += "+" + term.Grouped(e.Skipped) + " "
	}
	if e.Detail != "" {
		line += e.Detail + " "
	}
	line = untrusted.Escape(line + e.Body)
	if utf8.RuneCountInString(line) > v.width {
		line = string([]rune(line)[:max(v.width-1, 0)]) + "…"
	}
	return line
}

// interrupted says what was shown until Ctrl-C.
func (v *tapView) interrupted() {
	fmt.Fprintf(v.notes, "%s events shown, and %s were not, up to the last one\n", term.Grouped(v.shown), term.Grouped(v.skipped))
}
