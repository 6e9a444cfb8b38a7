// Package term is what the commands print with: JSON, numbers and times in few
// characters, tables, a log for a person, and on a terminal a screen that is
// redrawn in place, or one line of it. It knows nothing of what is shown.
package term

import (
	"io"
	"os"
	"strings"
	"sync"

	xterm "golang.org/x/term"
)

// Terminal is an output on which what was written can be replaced.
type Terminal struct {
	Out  io.Writer
	Size func() (width, height int, err error)
}

// Open returns the terminal that out is, or nil where out is none.
func Open(out io.Writer) *Terminal {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !xterm.IsTerminal(int(file.Fd())) {
		return nil
	}
	return &Terminal{Out: out, Size: func() (int, int, error) { return xterm.GetSize(int(file.Fd())) }}
}

// Bounds is the terminal's size now: the classic one, where it has none.
func (t *Terminal) Bounds() (width, height int) {
	width, height, err := t.Size()
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

// Clear moves what the terminal shows to its scroll-back, where it can still
// be read.
func (t *Terminal) Clear() {
	_, height := t.Bounds()
	_, _ = io.WriteString(t.Out, strings.Repeat("\n", height))
}

// Draw replaces the screen by as many of the lines as fit. It neither switches
// to the alternate screen, nor hides the cursor, nor takes the keyboard: so
// nothing has to be restored, and no crash can leave the terminal in a bad
// state. Each frame starts at the top left and erases what is left of the one
// before, whatever has become of it: a resize, an echoed key or a stray line
// last for a frame.
func (t *Terminal) Draw(lines []Line) {
	width, height := t.Bounds()
	if most := height - 1; len(lines) > most { // the cursor's line stays free
		lines = lines[:max(most, 1)]
	}
	var b strings.Builder
	b.WriteString(escSyncBegin + escHome)
	for _, line := range lines {
		b.WriteString(line.cut(width) + escClearLine + "\r\n")
	}
	b.WriteString(escClearRest + escSyncEnd)
	_, _ = io.WriteString(t.Out, b.String()) // in one piece; who closed the terminal knows
}

// StatusLine is the last line of a terminal: a log is written above it.
type StatusLine struct {
	*Terminal

	mu   sync.Mutex
	line string
}

// Show replaces the line.
func (s *StatusLine) Show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = line
	_, _ = io.WriteString(s.Out, "\r"+escClearLine+line)
}

// Write writes whole lines of a log.
func (s *StatusLine) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := io.WriteString(s.Out, "\r"+escClearLine+string(p)+s.line)
	return len(p), err
}

// End leaves the line where it is.
func (s *StatusLine) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		_, _ = io.WriteString(s.Out, "\n")
		s.line = ""
	}
}
