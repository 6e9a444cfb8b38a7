package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/pipeline/replay"
)

func printReplay(w io.Writer, output string, r replay.Result, set []endpoints.Endpoint) error {
	if output == "json" {
		return term.PrintJSON(w, r)
	}
	if r.Letters == 0 && r.Complete {
		_, err := fmt.Fprintln(w, "nothing to replay: there are no letters that this selection has not replayed before; --again sends those once more")
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s letters: %s delivered, %s refused again, %s skipped", term.Grouped(r.Letters),
		term.Grouped(r.Delivered), term.Grouped(r.RefusedAgain), term.Grouped(r.Skipped.Total()))
	if r.Undelivered > 0 {
		fmt.Fprintf(&b, ", %s not delivered", term.Grouped(r.Undelivered))
	}
	b.WriteByte('\n')
	for _, e := range r.Endpoints {
		fmt.Fprintf(&b, "  %s (%s): %s delivered", untrusted.Text(cmp.Or(e.Name, e.ID)), untrusted.Text(e.Target), term.Grouped(e.Delivered))
		if e.RefusedAgain > 0 {
			fmt.Fprintf(&b, ", %s refused again, the last: %s", term.Grouped(e.RefusedAgain), untrusted.Text(e.LastRefusal))
		}
		b.WriteByte('\n')
	}
	printSkipped(&b, r.Skipped, r.Earlier, set)
	_, err := io.WriteString(w, b.String())
	return err
}

func printPreview(w io.Writer, output string, p replay.Preview, set []endpoints.Endpoint) error {
	if output == "json" {
		return term.PrintJSON(w, p)
	}
	fmt.Fprintf(w, "%s letters: %s would be sent, %s skipped; nothing is sent, and nothing changes\n",
		term.Grouped(p.Letters), term.Grouped(p.Send), term.Grouped(p.Skipped.Total()))
	if len(p.Groups) > 0 {
		table := term.NewTable(w)
		table.Row("LETTERS", "REASON", "ENDPOINT", "TARGET")
		for _, g := range p.Groups {
			table.Row(term.Grouped(g.Letters), g.Reason, cmp.Or(g.Name, g.ID), g.Target)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	var b strings.Builder
	printSkipped(&b, p.Skipped, p.Earlier, set)
	_, err := io.WriteString(w, b.String())
	return err
}

func printSkipped(b *strings.Builder, skipped replay.Skipped, earlier []replay.EarlierResult, set []endpoints.Endpoint) {
	for _, s := range []struct {
		n    int64
		what string
	}{
		{skipped.NoEndpoint, "have no endpoint: input that could not be decoded or classified"},
		{skipped.OtherEndpoint, "are other endpoints'"},
		{skipped.OtherReason, "have other reasons"},
		{skipped.UnknownEndpoint, "are of endpoints that are not configured any more"},
		{skipped.Cut, "were cut when they were stored: not all of the event is there"},
		{skipped.Unrouted, "are not for their endpoint any more, by its event types or its filter"},
		{skipped.Unreadable, "are no dead letters of twinegress, or can't be read"},
		{skipped.ReplayedBefore, "are what earlier replays are done with: --again sends them once more"},
	} {
		if s.n > 0 {
			fmt.Fprintf(b, "  skipped: %s %s\n", term.Grouped(s.n), s.what)
		}
	}
	for _, e := range earlier {
		fmt.Fprintf(b, "    %s by the replay %s\n", term.Grouped(e.Letters), describeEarlier(e, set))
	}
}

// describeEarlier says which replay it was, as its flags did.
func describeEarlier(e replay.EarlierResult, set []endpoints.Endpoint) string {
	words := "of everything"
	if e.Endpoint != "" {
		words = "--endpoint " + e.Endpoint
		if i := slices.IndexFunc(set, func(known endpoints.Endpoint) bool { return known.ID == e.Endpoint && known.Name != "" }); i >= 0 {
			words = "--endpoint " + untrusted.Text(set[i].Name)
		}
	}
	if len(e.Reasons) > 0 {
		words += " --reason " + strings.Join(e.Reasons, ",")
	}
	if !e.Since.IsZero() {
		words += " --since " + e.Since.Format(time.RFC3339)
	}
	if !e.Until.IsZero() {
		words += " --until " + e.Until.Format(time.RFC3339)
	}
	if e.At.IsZero() {
		return words + ", of which it is not known when it ended"
	}
	return words + ", which ended at " + e.At.Format(time.RFC3339)
}
