package fleetview

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
)

// Sorts are the orders of the endpoints, the first is the default: the worst state
// first.
var Sorts = []string{"state", "name", "rate", "dropped", "pending"}

// NextSort returns the order that comes after another one.
func NextSort(by string) string { return Sorts[(slices.Index(Sorts, by)+1)%len(Sorts)] }

// Row is an endpoint, with what it does in a second.
type Row struct {
	*Endpoint

	rate *float64 // delivered; nil: not known
}

// Rows returns a row for each endpoint, sorted by one of Sorts. Rates are of the last
// minute, or of the time since the first copy was started if that is less.
func Rows(f *Fleet, by string) []Row {
	rows := make([]Row, len(f.Endpoints))
	seconds := 60.0
	if up := f.up().Seconds(); up > 0 && up < seconds {
		seconds = up
	}
	for i := range f.Endpoints {
		rows[i] = Row{Endpoint: &f.Endpoints[i]}
		if minute, ok := rows[i].Windows["1m"]; ok {
			rate := float64(minute.Delivered) / seconds
			rows[i].rate = &rate
		}
	}
	sortRows(rows, by)
	return rows
}

func sortRows(rows []Row, by string) {
	type key struct {
		first, second float64
		name          string
		row           Row
	}
	keys := make([]key, len(rows))
	for i, r := range rows {
		k := key{name: strings.ToLower(r.ShownName()), row: r}
		switch by {
		case "state":
			k.first, k.second = float64(r.rank()), -r.concern()
		case "rate":
			if r.rate != nil {
				k.first = -*r.rate
			}
		case "dropped":
			k.first, k.second = -float64(r.Windows["15m"].Dropped), -float64(r.dropped())
		case "pending":
			k.first = -float64(r.Pending)
		}
		keys[i] = k
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.second, b.second), strings.Compare(a.name, b.name), strings.Compare(a.row.ID, b.row.ID))
	})
	for i := range keys {
		rows[i] = keys[i].row
	}
}

// concern orders endpoints of the same state: those about which there is something to
// say come first.
func (r Row) concern() (weight float64) {
	for i, yes := range []bool{r.Windows["15m"].Dropped > 0, r.Key == "secondary", r.HoldsBack, r.Reason != ""} {
		if yes {
			weight += float64(int(1) << i)
		}
	}
	return weight
}

// columns of an endpoint's row, but for its name, which takes what they leave.
var columns = []term.Column{
	{Title: "STATE", Width: -12},
	{Title: "SINCE", Width: 5},
	{Title: "DELIV/S", Width: 7},
	{Title: "DROP 1M", Width: 7},
	{Title: "DROP 15M", Width: 8},
	{Title: "PENDING", Width: 7},
	{Title: "KEY", Width: -9},
}

// backlogColumn is there while one of the endpoints is behind.
var backlogColumn = term.Column{Title: "BACKLOG", Width: 7}

// minName is the width of the name's column at least.
const minName = 8

// Table formats endpoints in rows of the same columns.
type Table struct {
	columns []term.Column
	styles  term.Styles
	now     time.Time
	backlog bool
}

// NewTable returns a table for these rows. width is the terminal's; 0 is no terminal,
// where no name is cut.
func NewTable(rows []Row, width int, styles term.Styles, now time.Time) Table {
	name, of, backlog := minName, columns, false
	for _, r := range rows {
		backlog = backlog || r.BehindSince != nil
		name = max(name, utf8.RuneCountInString(untrusted.Escape(r.ShownName())))
	}
	if backlog {
		of = slices.Insert(slices.Clone(columns), len(columns)-1, backlogColumn)
	}
	if width > 0 {
		for _, c := range of {
			width -= 1 + max(c.Width, -c.Width)
		}
		name = min(name, max(minName, width))
	}
	return Table{slices.Concat([]term.Column{{Title: "NAME", Width: -name}}, of), styles, now, backlog}
}

// Head returns the line of titles.
func (t Table) Head() term.Line {
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.Title
	}
	return term.Cells(t.columns, titles, func(int) term.Style { return t.styles.Faint })
}

// Line returns the line of a row.
func (t Table) Line(r Row) term.Line {
	cells := []string{
		untrusted.Escape(r.ShownName()), untrusted.Escape(r.State), r.since(t.now), rate(r.rate),
		r.window("1m"), r.window("15m"), term.Short(r.Pending), cmp.Or(untrusted.Escape(r.Key), "-"),
	}
	if t.backlog {
		cells = slices.Insert(cells, len(cells)-1, r.backlog())
	}
	return term.Cells(t.columns, cells, func(i int) term.Style {
		switch {
		case i == 1:
			return t.style(r.State)
		case i == 4 && r.Windows["1m"].Dropped > 0, i == 5 && r.Windows["15m"].Dropped > 0, i == len(cells)-1 && r.Key == "secondary", t.backlog && i == len(cells)-2 && r.FallsBehind:
			return t.styles.Warn
		}
		return ""
	})
}

func (t Table) style(state string) term.Style {
	switch rank(state) {
	case rank("ready"):
		return t.styles.Good
	case rank("backing_off"), rank("probing"):
		return t.styles.Bad
	}
	return t.styles.Warn
}

// window formats what was dropped in a window.
func (r Row) window(name string) string {
	if w, ok := r.Windows[name]; ok {
		return term.Short(w.Dropped)
	}
	return "-"
}

// backlog formats by how many offsets the endpoint is behind.
func (r Row) backlog() string {
	if r.BehindSince == nil {
		return "-"
	}
	return term.Short(r.Backlog)
}

// behind says how far the endpoint is behind, and what becomes of that.
func (r Row) behind(now time.Time) string {
	if r.BehindSince == nil {
		return ""
	}
	offsets := term.Grouped(r.Backlog) + " offsets"
	if r.Backlog == 1 {
		offsets = "1 offset"
	}
	switch {
	case r.State != "behind" && r.State != "ready" && r.State != "throttled":
		text := offsets + " behind, kept in Kafka"
		if r.BacklogOldestAt != nil {
			text += ", the oldest for " + term.Ago(now.Sub(*r.BacklogOldestAt))
		}
		return text
	case r.FallsBehind:
		return offsets + " behind, and it does not catch up"
	case r.CaughtUpAt != nil:
		return "catching up: " + offsets + ", about " + term.Ago(r.CaughtUpAt.Sub(now)) + " left"
	case r.CatchUpPerSecond != nil:
		return offsets + " behind, not becoming less at present"
	}
	return "catching up: " + offsets + ", how long it takes is not known yet"
}

func rate(perSecond *float64) string {
	if perSecond == nil {
		return "-"
	}
	if *perSecond >= 10_000 {
		return term.Short(uint64(*perSecond))
	}
	return term.Rate(*perSecond)
}

// since formats for how long the endpoint is as it is: a back-off lasts over all the
// tries in it.
func (r Row) since(now time.Time) string {
	if r.FailingSince != nil && (r.State == "backing_off" || r.State == "probing") {
		return since(*r.FailingSince, now)
	}
	return since(r.StateSince, now)
}

// since formats for how long something is so.
func since(at, now time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return term.Ago(now.Sub(at))
}

// remarks returns the remarks of a row that no trouble has in it.
func (f *Fleet) remarks(r Row) []string {
	return slices.DeleteFunc(r.Remarks(f.At), f.said)
}

// Remarks returns what a row has no column for.
func (r Row) Remarks(now time.Time) (lines []string) {
	var parts []string
	onSecondary := r.Key == "secondary" && r.rank() > rank("probing")
	if r.Reason != "" && !strings.Contains(r.LastError, r.Reason) && !(onSecondary && r.State == "ready") {
		parts = append(parts, r.Reason)
	}
	if r.BackOffUntil != nil && r.State != "stopped" {
		if left := r.BackOffUntil.Sub(now); left > 0 {
			parts = append(parts, "next try in "+term.Ago(left))
		}
	}
	if n := len(r.States); n > 1 {
		all := 0
		for _, of := range r.States {
			all += of
		}
		parts = append(parts, "so on "+strconv.Itoa(r.States[r.State])+" of "+strconv.Itoa(all)+" copies")
	}
	if onSecondary {
		parts = append(parts, "uses its secondary key")
	}
	if r.HoldsBack {
		parts = append(parts, "holds the others back")
	}
	if r.OldestPending >= 5 {
		parts = append(parts, "its oldest event waits for "+term.Ago(time.Duration(r.OldestPending*float64(time.Second))))
	}
	if text := r.behind(now); text != "" {
		parts = append(parts, text)
	}
	if len(parts) > 0 {
		lines = append(lines, strings.Join(parts, "; "))
	}
	// The error of an endpoint that works, or is paused, is of before; and nothing has failed that is slow.
	works := r.State == "ready" || r.State == "behind" || r.State == "stopped"
	if r.LastError != "" && (!works || r.Reason != "") && r.Reason != "slow" {
		lines = append(lines, r.LastError)
	}
	for i := range lines {
		lines[i] = untrusted.Escape(lines[i])
	}
	return lines
}
