package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

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

func (v *screenView) logger(errOut io.Writer, level zapcore.Level) *zap.Logger {
	v.errOut = errOut
	return term.NewLogger(&v.log, level)
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
	lines := []term.Line{
		{s.Bold.Text("twinegress demo"), plain.Text("  up " + term.Clock(f.uptime) + "   Ctrl-C ends it with a report")},
		{
			plain.Text("in "), s.Bold.Text(term.Rate(f.rateIn) + "/s"),
			plain.Text(", " + term.Grouped(f.produced) + " so far   lag " + term.Grouped(f.lag) +
				"   delivered " + term.Grouped(f.delivered())),
		},
		nil,
	}
	for i, text := range f.story {
		style := plain
		if i < 2 {
			style = s.Bold
		}
		lines = append(lines, style.Wrap(text, width)...)
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
			lines = append(lines, s.Warn.Wrap(l, width)...)
		}
	}
	if f.notice != "" {
		lines = append(lines, nil, term.Line{s.Bold.Text(f.notice)})
	}
	return lines
}

// column is a column of the table. Its width is fixed, so that no column moves.
type column struct {
	title string
	width int // negative: left-aligned
	wide  bool
	cell  func(*row) string
	style func(term.Styles, *row) term.Style
}

var columns = []column{
	{title: "ENDPOINT", width: -16, cell: func(r *row) string { return r.name }},
	{title: "TYPE", width: -10, wide: true, cell: func(r *row) string { return r.typ }},
	{
		title: "STATE", width: -12, cell: func(r *row) string { return string(r.state) },
		style: func(s term.Styles, r *row) term.Style { return styleOf(s, r.state) },
	},
	{title: "EVENTS/S", width: 8, cell: func(r *row) string { return term.Rate(r.rate) }},
	{title: "DELIVERED", width: 11, cell: func(r *row) string { return term.Grouped(r.delivered) }},
	{
		title: "DROPPED", width: 8, cell: func(r *row) string { return term.Grouped(r.dropped) },
		style: func(s term.Styles, r *row) term.Style {
			if r.dropped > 0 {
				return s.Warn
			}
			return ""
		},
	},
	{title: "PENDING", width: 7, cell: func(r *row) string { return term.Grouped(r.pending) }},
	{title: "P50", width: 5, cell: func(r *row) string { return r.p50 }},
	{title: "P99", width: 5, cell: func(r *row) string { return r.p99 }},
}

// table returns a line per endpoint, followed by its remarks.
func (v *screenView) table(f *frame, width int) []term.Line {
	columns := fitting(width)
	head := make(term.Line, 0, len(columns))
	for _, c := range columns {
		head = append(head, v.styles.Faint.Text(c.pad(c.title)))
	}
	lines := []term.Line{head}
	for i := range f.rows {
		r := &f.rows[i]
		line := make(term.Line, 0, len(columns))
		for _, c := range columns {
			style := term.Style("")
			if c.style != nil {
				style = c.style(v.styles, r)
			}
			line = append(line, style.Text(c.pad(c.cell(r))))
		}
		lines = append(lines, line)
		for _, what := range r.remarks() {
			lines = append(lines, v.styles.Warn.Wrap("  "+what, width)...)
		}
	}
	return lines
}

// fitting returns the columns that fit into a width.
func fitting(width int) []column {
	all := 0
	for _, c := range columns {
		all += max(c.width, -c.width) + 1
	}
	if all-1 <= width {
		return columns
	}
	var narrow []column
	for _, c := range columns {
		if !c.wide {
			narrow = append(narrow, c)
		}
	}
	return narrow
}

func (c column) pad(cell string) string { return fmt.Sprintf("%*s ", c.width, cell) }

// remarks returns the facts that have no column.
func (r *row) remarks() (lines []string) {
	var parts []string
	if left := time.Until(r.until); left > 0 && r.state == sinks.StateBackingOff {
		parts = append(parts, "next try in "+left.Round(time.Second).String())
	}
	if r.reasons != "" {
		parts = append(parts, "dropped: "+r.reasons)
	}
	if r.secondary {
		parts = append(parts, "uses its secondary key")
	}
	if r.holdsBack {
		parts = append(parts, "holds the others back")
	}
	if len(parts) > 0 {
		lines = append(lines, strings.Join(parts, "; "))
	}
	if r.lastError != "" && r.state != sinks.StateReady {
		lines = append(lines, r.lastError)
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
