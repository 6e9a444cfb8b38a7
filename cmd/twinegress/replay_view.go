package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/pipeline/replay"
)

// replayView shows where a replay is, beside its result: on standard error. On
// a terminal that is one line, redrawn; elsewhere a line every plainEvery.
type replayView struct {
	out     io.Writer
	width   func() int // nil where out is no terminal
	started time.Time

	mu   sync.Mutex // of what is written: the log shares the terminal
	line string
	last time.Time
}

const plainEvery = 5 * time.Second

func newReplayView(out io.Writer) *replayView {
	v := &replayView{out: out, started: time.Now()}
	if file, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd())) {
		v.width = func() int {
			if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
				return width
			}
			return 80
		}
	}
	return v
}

// logger is a log that goes above the bar, for a person, or where there is
// none, the log that `run` has.
func (v *replayView) logger(level string) (*zap.Logger, error) {
	if v.width == nil {
		return app.NewLogger(level)
	}
	at, err := app.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	return demoLogger(zapcore.AddSync(v), at), nil
}

// Write is the log's.
func (v *replayView) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := io.WriteString(v.out, "\r"+escClearLine+string(p)+v.line)
	return len(p), err
}

func (v *replayView) show(p replay.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if v.width != nil {
		v.line = barLine(p, now.Sub(v.started), v.width()-1) // the last column would wrap
		_, _ = io.WriteString(v.out, "\r"+escClearLine+v.line)
		return
	}
	if now.Sub(v.last) >= plainEvery {
		v.last = now
		fmt.Fprintln(v.out, plainLine(p, now.Sub(v.started)))
	}
}

// end leaves the bar where it is, as the last that was seen.
func (v *replayView) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.line != "" {
		_, _ = io.WriteString(v.out, "\n")
		v.line = ""
	}
}

func plainLine(p replay.Progress, took time.Duration) string {
	line := fmt.Sprintf("%d%% %s of %s letters", percent(p), grouped(p.Done), grouped(p.Total))
	if rate := float64(p.Done) / max(took.Seconds(), 0.001); p.Done > 0 {
		line += fmt.Sprintf(", %s/s", rounded(rate))
		if left := p.Total - p.Done; left > 0 {
			line += ", " + clockOf(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
		}
	}
	if len(p.Waits) > 0 {
		line += ", throttled: " + strings.Join(p.Waits, ", ")
	}
	return line
}

// barLine is the plain line behind a bar, as far as there is room.
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

func percent(p replay.Progress) int64 {
	if p.Total == 0 {
		return 100
	}
	return 100 * p.Done / p.Total
}
