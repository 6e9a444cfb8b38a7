package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
	"twinegress/pipeline/letters"
)

// detailWidth is how much of a detail is in a list, in characters.
const detailWidth = 60

func printLetters(w io.Writer, output string, list letters.List) error {
	if output == "json" {
		return term.PrintJSON(w, list)
	}
	if len(list.Letters) == 0 {
		fmt.Fprintln(w, "no dead letters")
	} else {
		table := term.NewTable(w)
		table.Row("STORED", "LETTER", "REASON", "ENDPOINT", "TARGET", "EVENT", "BYTES", "DETAIL")
		for _, l := range list.Letters {
			table.Row(l.StoredAt.Format(time.RFC3339), fmt.Sprintf("%d/%d", l.Partition, l.Offset), l.Reason,
				cmp.Or(l.Name, l.ID, "-"), cmp.Or(l.Target, "-"), eventOf(l.Source), term.Grouped(l.Bytes), untrusted.Short(l.Detail, detailWidth))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if list.More {
		fmt.Fprintln(w, "there may be older ones: --limit, --until")
	}
	return printSeen(w, list.Seen)
}

// eventOf is where an event came from, as its message id.
func eventOf(s letters.Source) string {
	id := fmt.Sprintf("%s/%d/%d", s.Topic, s.Partition, s.Offset)
	if s.Index != nil {
		id += "/" + strconv.Itoa(int(*s.Index))
	}
	return id
}

func printCount(w io.Writer, output string, c letters.Count) error {
	if output == "json" {
		return term.PrintJSON(w, c)
	}
	if c.Letters == 0 {
		fmt.Fprintln(w, "no dead letters")
		return printSeen(w, c.Seen)
	}
	table := term.NewTable(w)
	table.Row("LETTERS", "REASON", "ENDPOINT", "TARGET", "OLDEST", "NEWEST", "BYTES")
	var bytes int64
	for _, g := range c.Groups {
		bytes += g.Bytes
		table.Row(term.Grouped(g.Letters), g.Reason, cmp.Or(g.Name, g.ID, "-"), cmp.Or(g.Target, "-"),
			g.Oldest.Format(time.RFC3339), g.Newest.Format(time.RFC3339), term.Grouped(g.Bytes))
	}
	if c.Other > 0 {
		table.Row(term.Grouped(c.Other), "other", "-", "-", "", "", "")
	}
	table.Row(term.Grouped(c.Letters), "in all", "", "", "", "", term.Grouped(bytes))
	if err := table.Flush(); err != nil {
		return err
	}
	return printSeen(w, c.Seen)
}

// printSeen says what is not in the answer.
func printSeen(w io.Writer, s letters.Seen) error {
	var b strings.Builder
	if s.Foreign > 0 {
		fmt.Fprintf(&b, "%s records are no dead letters of twinegress\n", term.Grouped(s.Foreign))
	}
	if s.Unreadable > 0 {
		fmt.Fprintf(&b, "%s offsets are in batches that take more memory than ingest.limits.batchBytes, and are not read\n", term.Grouped(s.Unreadable))
	}
	if s.Cut != "" {
		fmt.Fprintf(&b, "%s\n", s.Cut)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printLetter(w io.Writer, l *letters.Whole) error {
	table := term.NewTable(w)
	row := func(name, value string) {
		if value != "" {
			table.Row(name, value)
		}
	}
	row("letter", fmt.Sprintf("%d/%d", l.Partition, l.Offset))
	row("set aside", l.Time)
	row("stored", l.StoredAt.Format(time.RFC3339Nano))
	row("reason", l.Reason)
	row("detail", l.Detail)
	row("endpoint", l.ID)
	row("name", l.Name)
	row("target", l.Target)
	row("event", eventOf(l.Source))
	row("elements", l.Elements)
	if l.Cut != "" {
		row("cut", "not all there: "+l.Cut)
	}
	row("key", l.Key)
	for _, h := range l.Headers {
		row("header "+h.Name, h.Value)
	}
	row("bytes", term.Grouped(l.Bytes))
	if err := table.Flush(); err != nil {
		return err
	}
	value := "(no value)"
	switch {
	case l.Value != nil:
		value = indented(*l.Value)
	case l.ValueBase64 != "":
		value = string(l.Raw) // what is no UTF-8 is escaped on its way out
	}
	_, err := io.WriteString(w, "\n"+value+"\n")
	return err
}
