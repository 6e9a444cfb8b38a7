// Package term is the output of commands: JSON, short numbers and times, tables,
// logs for a person, and on a terminal a screen or one line that is redrawn in
// place. It does not depend on what is shown.
package term

import (
	"io"
	"os"
	"strings"
	"sync"

	xterm "golang.org/x/term"

	"twinegress/internal/untrusted"
)

// Terminal is an output whose content can be replaced.
type Terminal struct {
	Out  io.Writer
	Size func() (width, height int, err error)
}

// Open returns out as a Terminal, or nil if it is none. Where out is an Output, the
// terminal is what is behind it: a Terminal's own sequences must reach it.
func Open(out io.Writer) *Terminal {
	if o, ok := out.(*Output); ok {
		out = o.w
	}
	file, ok := out.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !xterm.IsTerminal(int(file.Fd())) {
		return nil
	}
	return &Terminal{Out: out, Size: func() (int, int, error) { return xterm.GetSize(int(file.Fd())) }}
}

// Bounds returns the terminal's present size, or 80 by 24 if it is unknown.
func (t *Terminal) Bounds() (width, height int) {
	width, height, err := t.Size()
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// Escape sequences. Synchronized output makes a terminal show whole frames only;
// terminals without it ignore the sequence.
const (
	escHome      = "\x1b[H"
	escClearLine = "\x1b[K"
	escClearRest = "\x1b[J"
	escSyncBegin = "\x1b[?2026h"
	escSyncEnd   = "\x1b[?2026l"
)

// Clear scrolls the terminal's content into its scroll-back, where it stays
// readable.
func (t *Terminal) Clear() {
	_, height := t.Bounds()
	_, _ = io.WriteString(t.Out, strings.Repeat("\n", height))
}

// Draw replaces the screen by as many of the lines as fit. It does not use the
// alternate screen, hide the cursor or read the keyboard: there is nothing to
// restore, and a crash can't leave the terminal in a bad state. Each frame starts
// at the top left and erases the rest of the one before, so the traces of a
// resize, an echoed key or a stray line last for one frame.
func (t *Terminal) Draw(lines []Line) {
	width, height := t.Bounds()
	if most := height - 1; len(lines) > most { // one line is the cursor's
		lines = lines[:max(most, 1)]
	}
	var b strings.Builder
	b.WriteString(escSyncBegin + escHome)
	for _, line := range lines {
		b.WriteString(line.cut(width) + escClearLine + "\r\n")
	}
	b.WriteString(escClearRest + escSyncEnd)
	_, _ = io.WriteString(t.Out, b.String()) // in one write; an error means that the terminal is closed
}

// StatusLine is the last line of a terminal. A log is written above it.
type StatusLine struct {
	*Terminal

	mu   sync.Mutex
	line string
}

// Show replaces the line.
func (s *StatusLine) Show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line = strings.Map(printable, line)
	s.line = line
	_, _ = io.WriteString(s.Out, "\r"+escClearLine+line)
}

// Write writes whole lines of a log above the line.
func (s *StatusLine) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := io.WriteString(s.Out, "\r"+escClearLine+untrusted.EscapeJSON(string(p))+s.line)
	return len(p), err
}

// End leaves the line on the terminal.
func (s *StatusLine) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		_, _ = io.WriteString(s.Out, "\n")
		s.line = ""
	}
}
