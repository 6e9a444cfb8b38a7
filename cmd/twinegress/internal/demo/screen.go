package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/sinks"
)

// screenView redraws a frame in place.
type screenView struct {
	*term.Terminal
	styles term.Styles
	hints  []hint
	log    term.LogTail
	errOut io.Writer
}

func (v *screenView) logger(errOut io.Writer, o app.LogOptions) (*zap.Logger, error) {
	v.errOut = errOut
	return o.LoggerTo(&v.log)
}

func (v *screenView) period() time.Duration { return 250 * time.Millisecond }

func (v *screenView) start(hints []hint) {
	v.hints = hints
	v.Clear()
}

func (v *screenView) announce(string) {} // the next frame shows it

func (v *screenView) end() { v.log.PassOn(v.errOut) }

func (v *screenView) show(f frame) {
	width, _ := v.Bounds()
	v.Draw(v.lines(&f, width))
}

// lines returns the lines of a frame, for a width.
func (v *screenView) lines(f *frame, width int) []term.Line {
	s, plain := v.styles, term.Style("")
	var delivered uint64
	for i := range f.rows {
		delivered += f.rows[i].Counts.Delivered
	}
	lines := []term.Line{
		{s.Bold.Text("twinegress demo"), plain.Text("  up " + term.Clock(f.at) + "   Ctrl-C ends it with a report")},
		{
			plain.Text("in "), s.Bold.Text(term.Rate(f.rateIn) + "/s"),
			plain.Text(", " + term.Grouped(f.produced) + " so far   lag " + term.Grouped(f.lag) +
				"   delivered " + term.Grouped(delivered)),
		},
		nil,
	}
	for i, text := range f.story {
		style := plain
		if i < 2 {
			style = s.Bold
		}
		lines = append(lines, style.Wrap(text, width, 2)...)
	}
	if len(f.story) > 0 {
		lines = append(lines, nil)
	}
	lines = append(lines, v.table(f, width)...)
	lines = append(lines, nil)
	for _, h := range v.hints {
		what := h.what
		for part := range strings.SplitSeq(h.command, "\n") {
			lines = append(lines, term.Line{s.Faint.Text(fmt.Sprintf("%-8s ", what)), plain.Text(part)})
			what = ""
		}
	}
	if log := v.log.Lines(); len(log) > 0 {
		lines = append(lines, nil)
		for _, l := range log {
			lines = append(lines, s.Warn.Wrap(l, width, 2)...)
		}
	}
	if f.notice != "" {
		lines = append(lines, nil, term.Line{s.Bold.Text(f.notice)})
	}
	return lines
}

// columns are the table's. Their widths are fixed, so that no column moves;
// negative is left-aligned.
var columns = []term.Column{
	{Title: "ENDPOINT", Width: -16},
	{Title: "TYPE", Width: -10},
	{Title: "STATE", Width: -12},
	{Title: "EVENTS/S", Width: 8},
	{Title: "DELIVERED", Width: 11},
	{Title: "DROPPED", Width: 8},
	{Title: "PENDING", Width: 7},
	{Title: "P50", Width: 5},
	{Title: "P99", Width: 5},
}

// tableWidth is the width of all columns. TYPE is left out of a narrower terminal.
const tableWidth = 90

// table returns a line per endpoint, followed by its remarks.
func (v *screenView) table(f *frame, width int) (lines []term.Line) {
	shown := columns
	if width < tableWidth {
		shown = slices.DeleteFunc(slices.Clone(columns), func(c term.Column) bool { return c.Title == "TYPE" })
	}
	add := func(style func(title string) term.Style, cell func(i int) string) {
		cells := make([]string, len(shown))
		for i, c := range shown {
			cells[i] = cell(slices.Index(columns, c))
		}
		lines = append(lines, term.Cells(shown, cells, func(i int) term.Style { return style(shown[i].Title) }))
	}
	s := v.styles
	add(func(string) term.Style { return s.Faint }, func(i int) string { return columns[i].Title })
	for i := range f.rows {
		r := &f.rows[i]
		dropped := r.Counts.DroppedTotal()
		cells := []string{
			r.Endpoint.Name, string(r.Endpoint.Type), string(r.State), term.Rate(r.rate), term.Grouped(r.Counts.Delivered),
			term.Grouped(dropped), term.Grouped(r.Counts.Pending), r.p50, r.p99,
		}
		add(func(title string) term.Style {
			switch {
			case title == "STATE":
				return styleOf(s, r.State)
			case title == "DROPPED" && dropped > 0:
				return s.Warn
			}
			return ""
		}, func(i int) string { return cells[i] })
		for _, what := range r.remarks() {
			lines = append(lines, s.Warn.Wrap("  "+what, width, 2)...)
		}
	}
	return lines
}

// remarks returns the facts that have no column.
func (r *row) remarks() (lines []string) {
	var parts []string
	if left := time.Until(r.BackOffUntil); left > 0 && (r.State == sinks.StateBackingOff || r.State == sinks.StateDegraded) {
		parts = append(parts, "next try in "+left.Round(time.Second).String())
	}
	if n := len(r.PartitionsBackingOff); n > 0 {
		parts = append(parts, fmt.Sprintf("%d of its partitions back off", n))
	}
	if reasons := r.reasons(); reasons != "" {
		parts = append(parts, "dropped: "+reasons)
	}
	if r.usesSecondary() {
		parts = append(parts, "uses its secondary key")
	}
	if !r.BehindSince.IsZero() {
		parts = append(parts, "behind for "+time.Since(r.BehindSince).Round(time.Second).String()+", by "+term.Grouped(r.backlog())+" of Kafka's offsets")
	}
	if r.HoldsBack {
		parts = append(parts, "holds the others back")
	}
	if len(parts) > 0 {
		lines = append(lines, strings.Join(parts, "; "))
	}
	if r.LastError != "" && r.Reason != "" {
		lines = append(lines, r.LastError)
	}
	return lines
}

// styleOf returns the style of a state.
func styleOf(s term.Styles, state sinks.State) term.Style {
	switch state {
	case sinks.StateReady:
		return s.Good
	case sinks.StateBackingOff, sinks.StateProbing:
		return s.Bad
	default:
		return s.Warn
	}
}
