package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/untrusted"
	"twinegress/pipeline/replay"
)

// replayView writes a replay's progress to standard error. On a terminal that is
// one line, redrawn; elsewhere a line every plainInterval.
type replayView struct {
	out           io.Writer
	bar           *term.StatusLine // nil where out is no terminal
	started, last time.Time
}

const plainInterval = 5 * time.Second

func newReplayView(out io.Writer) *replayView {
	v := &replayView{out: out, started: time.Now()}
	if t := term.Open(out); t != nil {
		v.bar = &term.StatusLine{Terminal: t}
	}
	return v
}

// logger returns a log that is written above the bar, or where there is none as
// that of `run`.
func (v *replayView) logger(o app.LogOptions) (*zap.Logger, error) {
	if v.bar == nil || o.Format == "json" {
		return app.NewLogger(o, v.out)
	}
	return o.LoggerTo(v.bar)
}

// show must be called from one goroutine.
func (v *replayView) show(p replay.Progress) {
	now := time.Now()
	if v.bar != nil {
		width, _ := v.bar.Bounds()
		v.bar.Show(barLine(p, now.Sub(v.started), width-1)) // the last column would wrap
		return
	}
	if now.Sub(v.last) >= plainInterval {
		v.last = now
		fmt.Fprintln(v.out, plainLine(p, now.Sub(v.started)))
	}
}

// end leaves the last state of the bar on the terminal.
func (v *replayView) end() {
	if v.bar != nil {
		v.bar.End()
	}
}

func plainLine(p replay.Progress, took time.Duration) string {
	percent := int64(100)
	if p.Total > 0 {
		percent = 100 * p.Done / p.Total
	}
	line := fmt.Sprintf("%d%% %s of %s letters", percent, term.Grouped(p.Done), term.Grouped(p.Total))
	if rate := float64(p.Done) / max(took.Seconds(), 0.001); p.Done > 0 {
		line += fmt.Sprintf(", %s/s", term.Rate(rate))
		if left := p.Total - p.Done; left > 0 {
			line += ", " + term.Clock(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
		}
	}
	if len(p.Waits) > 0 {
		line += ", throttled: " + untrusted.Escape(strings.Join(p.Waits, ", "))
	}
	return line
}

// barLine returns a bar and the plain line, or the plain line where a bar does
// not fit.
func barLine(p replay.Progress, took time.Duration, width int) string {
	text := []rune(plainLine(p, took))
	cells := min(width-len(text)-3, 40)
	if cells < 10 {
		return string(text[:min(len(text), max(width, 0))])
	}
	full := cells
	if p.Total > 0 {
		full = int(int64(cells) * p.Done / p.Total)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", cells-full) + "] " + string(text)
}
