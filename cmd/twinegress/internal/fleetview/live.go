package fleetview

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
)

// span is the time over which rates are measured: long enough for the copies' words,
// which come every few seconds, to be smooth.
const span = 6 * time.Second

// History holds the reports of the last span, for rates.
type History struct{ reports []*Fleet }

// Add adds a report. Where the copies differ whose counts are summed, what was before is
// forgotten: a difference of the sums would be no rate.
func (h *History) Add(f *Fleet) {
	if n := len(h.reports); n > 0 && !slices.Equal(h.reports[n-1].live(), f.live()) {
		h.reports = nil
	}
	for len(h.reports) > 1 && f.At.Sub(h.reports[1].At) >= span {
		h.reports = slices.Delete(h.reports, 0, 1)
	}
	h.reports = append(h.reports, f)
}

// Frame is what is shown at one time.
type Frame struct {
	Fleet  *Fleet
	Server string
	Sort   string
	Now    time.Time
	Failed error     // of the last request; nil if there was an answer
	Since  time.Time // since when there is none

	rows      []Row
	in        *float64 // events a second; nil: not known
	out, lost *float64
}

// Frame returns the last report as a frame, with rates since the oldest one.
func (h *History) Frame(sort string) *Frame {
	now := h.reports[len(h.reports)-1]
	f := &Frame{Fleet: now, Sort: sort, rows: Rows(now, "name")}
	then := h.reports[0]
	seconds := now.At.Sub(then.At).Seconds()
	for i := range f.rows {
		f.rows[i].rate = nil // of the last minute
	}
	if seconds > 0 {
		old := make(map[string]*Endpoint, len(then.Endpoints))
		for i := range then.Endpoints {
			old[then.Endpoints[i].ID] = &then.Endpoints[i]
		}
		for i := range f.rows {
			if before := old[f.rows[i].ID]; before != nil {
				f.rows[i].rate = perSecond(before.Delivered, f.rows[i].Delivered, seconds)
			}
		}
		was, is := then.sums(), now.sums()
		f.in = perSecond(then.Ingest.Events, now.Ingest.Events, seconds)
		f.out = perSecond(was.delivered, is.delivered, seconds)
		f.lost = perSecond(was.dropped, is.dropped, seconds)
	}
	sortRows(f.rows, sort)
	return f
}

// perSecond returns a rate, nil if the count was begun anew meanwhile.
func perSecond(was, is uint64, seconds float64) *float64 {
	if is < was {
		return nil
	}
	r := float64(is-was) / seconds
	return &r
}

// Screen returns the lines of a frame for a terminal of that size.
func (f *Frame) Screen(s term.Styles, width, height int) []term.Line {
	plain := term.Style("")
	lines := []term.Line{
		{
			s.Bold.Text("twinegress top"), plain.Text("  " + f.Now.Local().Format("15:04:05 MST")),
			s.Faint.Text("   s: sorted by " + f.Sort + "  q: end   " + f.Server),
		},
		{plain.Text(f.copies() + "   in "), s.Bold.Text(rate(f.in) + "/s"), plain.Text(f.totals())},
	}
	if !f.Fleet.Well() && len(f.Fleet.Troubles) == 0 {
		lines = append(lines, s.Warn.Wrap(f.Fleet.Verdict(), width, 2)...)
	}
	if f.Failed != nil {
		lines = append(lines, s.Bad.Wrap(f.old(), width, 3)...)
	}
	if f.Fleet.Notice != "" && !f.Fleet.said(f.Fleet.Notice) {
		lines = append(lines, s.Warn.Wrap(untrusted.Text(f.Fleet.Notice), width, 3)...)
	}
	lines = append(lines, nil)
	const most = 6
	for i := range f.Fleet.Troubles {
		if i == most {
			lines = append(lines, term.Line{s.Warn.Text(fmt.Sprintf("and %d more: twinegress status", len(f.Fleet.Troubles)-most))})
			break
		}
		lines = append(lines, f.trouble(&f.Fleet.Troubles[i], s, width)...)
	}
	if len(f.Fleet.Troubles) > 0 {
		lines = append(lines, nil)
	}
	return append(lines, f.table(s, width, height-len(lines)-1)...)
}

// few is how many troubles are shown in full, with what to do; where there are more, the
// screen is for which they are.
const few = 2

func (f *Frame) trouble(t *Trouble, s term.Styles, width int) []term.Line {
	style := s.Warn
	if t.Severity == critical {
		style = s.Bad
	}
	text := t.text()
	if about := f.Fleet.about(t); about != "" {
		text += " — " + about
	}
	if len(f.Fleet.Troubles) > few {
		return style.Wrap("! "+text, width, 2)
	}
	lines := style.Wrap("! "+text, width, 4)
	if t.Action == "" {
		return lines
	}
	return append(lines, s.Bold.Wrap("  To do: "+untrusted.Text(t.Action), width, 2)...)
}

// Lines returns the table of a frame, and above it what is wrong with it.
func (f *Frame) Lines(s term.Styles, width, height int) (lines []term.Line) {
	if f.Failed != nil {
		lines = append(s.Bad.Wrap(f.old(), width, 3), nil)
	}
	return append(lines, f.table(s, width, height-len(lines))...)
}

// table returns the rows that fit into so many lines.
func (f *Frame) table(s term.Styles, width, height int) []term.Line {
	if len(f.rows) == 0 {
		return []term.Line{{term.Style("").Text(f.Fleet.none())}}
	}
	t := NewTable(f.rows[:min(len(f.rows), max(height, 1))], width, s, f.Fleet.At)
	lines := []term.Line{t.Head()}
	for i, r := range f.rows {
		block := []term.Line{t.Line(r)}
		for _, remark := range f.Fleet.remarks(r) {
			block = append(block, s.Warn.Wrap("  "+remark, width, 2)...)
		}
		if left := len(f.rows) - i; len(lines)+len(block) >= height && (left > 1 || len(lines)+len(block) > height) {
			return append(lines, term.Line{s.Faint.Text(fmt.Sprintf("and %s more", term.Grouped(left)))})
		}
		lines = append(lines, block...)
	}
	return lines
}

// old says that what is shown is old.
func (f *Frame) old() string {
	return fmt.Sprintf("NO ANSWER for %s, what is below is of %s: %s", term.Ago(f.Now.Sub(f.Since)), clock(f.Fleet.At), untrusted.Text(f.Failed.Error()))
}

// copies counts the copies.
func (f *Frame) copies() string {
	silent, unready := 0, 0
	for i := range f.Fleet.Copies {
		switch f.Fleet.Copies[i].readiness() {
		case "SILENT":
			silent++
		case "NO":
			unready++
		}
	}
	text := term.Count(len(f.Fleet.Copies), "copy", "copies")
	if silent > 0 {
		text += fmt.Sprintf(", %d silent", silent)
	}
	if unready > 0 {
		text += fmt.Sprintf(", %d not ready", unready)
	}
	return text
}

func (f *Frame) totals() string {
	return fmt.Sprintf(", delivered %s/s, dropped %s/s, pending %s, lag %s",
		rate(f.out), rate(f.lost), term.Grouped(f.Fleet.sums().pending), lag(f.Fleet.Ingest.Lag))
}

// Text returns a frame as one line, for where there is no terminal.
func (f *Frame) Text() string {
	parts := []string{f.Now.Local().Format(time.RFC3339) + " " + f.copies() + ", in " + rate(f.in) + "/s" + f.totals()}
	if f.Failed != nil {
		parts = []string{f.Now.Local().Format(time.RFC3339) + " " + f.old()}
	}
	if !f.Fleet.Well() {
		parts = append(parts, f.Fleet.Verdict())
	}
	const most = 5
	for i := range f.Fleet.Troubles {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more troubles", len(f.Fleet.Troubles)-most))
			break
		}
		parts = append(parts, f.Fleet.Troubles[i].text())
	}
	return strings.Join(parts, " | ")
}
