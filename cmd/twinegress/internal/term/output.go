package term

import (
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"unicode/utf8"

	"twinegress/internal/untrusted"
)

// Output is where a command writes: it escapes what could steer a terminal,
// whoever said it. Everything that a command prints passes it, but for what this
// package itself draws on a Terminal. Line breaks and tabs pass: a text of several
// lines is the command's to make, and a table's to prevent.
type Output struct {
	mu     sync.Mutex
	w      io.Writer
	rest   []byte // the beginning of a character, whose end comes with the next Write
	closed bool   // nobody reads any more
}

// NewOutput returns an output over w.
func NewOutput(w io.Writer) *Output { return &Output{w: w} }

// Closed reports whether the reader of a pipe has gone: `| head` has seen enough.
func (o *Output) Closed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// Unfiltered returns what Output writes to, for bytes that are asked for as they are.
// Only what is no terminal may get them.
func (o *Output) Unfiltered() io.Writer { return o.w }

// Write writes p, escaped. It is safe for concurrent use. To a closed pipe it writes
// nothing, and that is no error: who closed it knows, and what the command does is not
// done for its output alone.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return len(p), nil
	}
	whole := slices.Concat(o.rest, p)
	end := len(whole) - cutOff(whole)
	o.rest = whole[end:]
	if _, err := io.WriteString(o.w, untrusted.EscapeJSON(string(whole[:end]))); err != nil {
		if o.closed = errors.Is(err, syscall.EPIPE); o.closed {
			return len(p), nil
		}
		return 0, err
	}
	return len(p), nil
}

// cutOff returns how many bytes at the end of p are the beginning of a character.
func cutOff(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if last := p[len(p)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}
