package fleetview

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"twinegress/cmd/twinegress/internal/term"
)

// PrintList writes a row for each endpoint, sorted by one of Sorts. width is the
// terminal's; 0 is no terminal. A wide list has all that is known of who an endpoint is.
func PrintList(w io.Writer, f *Fleet, by string, width int, wide bool) error {
	out := bufio.NewWriter(w)
	rows := Rows(f, by)
	if len(rows) == 0 {
		fmt.Fprintln(out, "no endpoints")
		return out.Flush()
	}
	t := NewTable(rows, width, term.Styles{}, f.At)
	if !wide {
		fmt.Fprintln(out, t.Head().Plain())
		for _, r := range rows {
			fmt.Fprintln(out, t.Line(r).Plain())
		}
		return out.Flush()
	}
	all := term.NewTable(out)
	all.Row("NAME", "STATE", "SINCE", "DELIV/S", "DROP 1M", "DROP 15M", "PENDING", "BACKLOG", "KEY", "ID", "TYPE", "HOST", "PATH", "EVENT TYPES", "LAST ERROR")
	for _, r := range rows {
		all.Row(r.ShownName(), r.State, r.since(f.At), rate(r.rate), r.window("1m"), r.window("15m"), term.Short(r.Pending), r.backlog(), r.Key,
			r.ID, r.Type, r.Host, r.Path, strings.Join(r.EventTypes, ","), r.LastError)
	}
	if err := all.Flush(); err != nil {
		return err
	}
	return out.Flush()
}
