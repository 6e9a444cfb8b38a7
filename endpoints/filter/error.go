package filter

import (
	"fmt"
	"strings"
	"unicode"
)

// Error says what is wrong with a filter, and where.
type Error struct {
	Column  int // in characters, from 1
	Message string
	source  string
}

// Error is one line.
func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Message) }

// caretContext is how many characters Caret shows on each side.
const caretContext = 60

// Caret is the filter with a mark below the column, on two lines.
func (e *Error) Caret() string {
	line := []rune(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return ' ' // one line, and a tab would move the mark
		}
		return r
	}, e.source))
	at := min(e.Column-1, len(line))
	from, to := max(at-caretContext, 0), min(at+caretContext, len(line))
	return string(line[from:to]) + "\n" + strings.Repeat(" ", at-from) + "^"
}
