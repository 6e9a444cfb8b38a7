package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/sinks"
)

// screenView redraws a table in place. It neither switches to the alternate
// screen, nor hides the cursor, nor takes the keyboard: so nothing has to be
// restored, and no crash can leave the terminal in a bad state. Each frame
// starts at the top left and erases what is left of the one before, whatever
// has become of it: a resize, an echoed key or a stray line last for a frame.
type screenView struct {
	out    io.Writer
	size   func() (width, height int, err error)
	style  style
	hints  []hint
	log    logTail
	errOut io.Writer
}

func (v *screenView) logger(errOut io.Writer, level zapcore.Level) *zap.Logger {
	v.errOut = errOut
	return demoLogger(zapcore.AddSync(&v.log), level)
}

func (v *screenView) period() time.Duration { return 250 * time.Millisecond }

func (v *screenView) start(hints []hint) {
	v.hints = hints
	// What the terminal shows goes to its scroll-back, not away.
	_, height := v.bounds()
	_, _ = io.WriteString(v.out, strings.Repeat("\n", height))
}

func (v *screenView) tell(string) {} // a frame comes soon enough

func (v *screenView) end() { v.log.passOn(v.errOut) }

// bounds is the terminal's size now; a terminal that won't say gets the classic one.
func (v *screenView) bounds() (width, height int) {
	width, height, err := v.size()
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// Escape sequences. Synchronized output keeps a frame from being shown half
// drawn, where the terminal knows it; others ignore it.
const (
	escHome      = "\x1b[H"
	escClearLine = "\x1b[K"
	escClearRest = "\x1b[J"
	escSyncBegin = "\x1b[?2026h"
	escSyncEnd   = "\x1b[?2026l"
)

func (v *screenView) show(f demoFrame) {
	width, height := v.bounds()
	lines := v.lines(&f, width)
	if most := height - 1; len(lines) > most { // the cursor's line stays free
		lines = lines[:max(most, 1)]
	}
	var b strings.Builder
	b.WriteString(escSyncBegin + escHome)
	for _, line := range lines {
		b.WriteString(line.cut(width) + escClearLine + "\r\n")
	}
	b.WriteString(escClearRest + escSyncEnd)
	_, _ = io.WriteString(v.out, b.String()) // in one piece; who closed the terminal knows
}

// lines are the frame's, for a width.
func (v *screenView) lines(f *demoFrame, width int) []spans {
	s := v.style
	lines := []spans{
		{{s.bold, "twinegress demo"}, {"", "  up " + clockOf(f.uptime) + "   Ctrl-C ends it with a report"}},
		{{"", "in "}, {s.bold, rounded(f.rateIn) + "/s"}, {"", ", " + grouped(f.produced) + " so far   lag " + grouped(f.lag) +
			"   delivered " + grouped(f.delivered())}},
		nil,
	}
	for i, text := range f.story {
		code := ""
		if i < 2 {
			code = s.bold
		}
		lines = append(lines, wrapped(code, text, width)...)
	}
	if len(f.story) > 0 {
		lines = append(lines, nil)
	}
	lines = append(lines, v.table(f, width)...)
	lines = append(lines, nil)
	for _, h := range v.hints {
		for i, part := range strings.Split(h.command, "\n") {
			what := h.what
			if i > 0 {
				what = ""
			}
			lines = append(lines, spans{{s.faint, fmt.Sprintf("%-8s ", what)}, {"", part}})
		}
	}
	if log := v.log.tail(); len(log) > 0 {
		lines = append(lines, nil)
		for _, l := range log {
			lines = append(lines, wrapped(s.warn, l, width)...)
		}
	}
	if f.notice != "" {
		lines = append(lines, nil, spans{{s.bold, f.notice}})
	}
	return lines
}

// column is one of the table. Its width is fixed, so that nothing jumps.
type column struct {
	title string
	width int // negative: to the left
	wide  bool
	cell  func(*demoRow) string
	style func(style, *demoRow) string
}

var demoColumns = []column{
	{title: "ENDPOINT", width: -16, cell: func(r *demoRow) string { return r.name }},
	{title: "TYPE", width: -10, wide: true, cell: func(r *demoRow) string { return r.typ }},
	{
		title: "STATE", width: -12, cell: func(r *demoRow) string { return string(r.state) },
		style: func(s style, r *demoRow) string { return s.of(r.state) },
	},
	{title: "EVENTS/S", width: 8, cell: func(r *demoRow) string { return rounded(r.rate) }},
	{title: "DELIVERED", width: 11, cell: func(r *demoRow) string { return grouped(r.delivered) }},
	{
		title: "DROPPED", width: 8, cell: func(r *demoRow) string { return grouped(r.dropped) },
		style: func(s style, r *demoRow) string {
			if r.dropped > 0 {
				return s.warn
			}
			return ""
		},
	},
	{title: "PENDING", width: 7, cell: func(r *demoRow) string { return grouped(r.pending) }},
	{title: "P50", width: 5, cell: func(r *demoRow) string { return r.p50 }},
	{title: "P99", width: 5, cell: func(r *demoRow) string { return r.p99 }},
}

// table has one line an endpoint, and another where there is something to say.
func (v *screenView) table(f *demoFrame, width int) []spans {
	columns := fitting(width)
	head := make(spans, 0, len(columns))
	for _, c := range columns {
		head = append(head, span{v.style.faint, c.pad(c.title)})
	}
	lines := []spans{head}
	for i := range f.rows {
		r := &f.rows[i]
		line := make(spans, 0, len(columns))
		for _, c := range columns {
			code := ""
			if c.style != nil {
				code = c.style(v.style, r)
			}
			line = append(line, span{code, c.pad(c.cell(r))})
		}
		lines = append(lines, line)
		for _, what := range r.remarks() {
			lines = append(lines, wrapped(v.style.warn, "  "+what, width)...)
		}
	}
	return lines
}

// fitting gives the columns for a width.
func fitting(width int) []column {
	all := 0
	for _, c := range demoColumns {
		all += max(c.width, -c.width) + 1
	}
	if all-1 <= width {
		return demoColumns
	}
	var narrow []column
	for _, c := range demoColumns {
		if !c.wide {
			narrow = append(narrow, c)
		}
	}
	return narrow
}

func (c column) pad(cell string) string { return fmt.Sprintf("%*s ", c.width, cell) }

// remarks are what has no column.
func (r *demoRow) remarks() (lines []string) {
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

// wrapped gives a long text in two lines of at most width characters; what is
// still too much is cut with them.
func wrapped(style, text string, width int) []spans {
	runes := []rune(text)
	if len(runes) <= width {
		return []spans{{{style, text}}}
	}
	return []spans{{{style, string(runes[:width])}}, {{style, "    " + strings.TrimSpace(string(runes[width:]))}}}
}

// style holds the escape sequences of what stands out; all empty without colour.
type style struct{ bold, faint, good, warn, bad string }

func styles(colour bool) style {
	if !colour {
		return style{}
	}
	return style{bold: "\x1b[1m", faint: "\x1b[2m", good: "\x1b[32m", warn: "\x1b[33m", bad: "\x1b[31m"}
}

func (s style) of(state sinks.State) string {
	switch state {
	case sinks.StateReady:
		return s.good
	case sinks.StateBackingOff, sinks.StateProbing:
		return s.bad
	default:
		return s.warn
	}
}

// span is a piece of a line in one style, spans a line.
type (
	span  struct{ style, text string }
	spans []span
)

// cut gives the line in at most width columns. Text is ours, or an error's on
// one line: a character is a column.
func (l spans) cut(width int) string {
	var b strings.Builder
	for _, s := range l {
		text := strings.Map(printable, s.text)
		if n := utf8.RuneCountInString(text); n > width {
			text = string([]rune(text)[:max(width, 0)])
		}
		width -= utf8.RuneCountInString(text)
		if s.style == "" || text == "" {
			b.WriteString(text)
			continue
		}
		b.WriteString(s.style + text + "\x1b[0m")
	}
	return b.String()
}

// printable keeps an error's line breaks and escapes from the terminal.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
