package term

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Style is an escape sequence; "" is plain.
type Style string

// Text returns text in that style.
func (s Style) Text(text string) Span { return Span{s, text} }

// Styles are the styles of a screen.
type Styles struct{ Bold, Faint, Good, Warn, Bad Style }

// NewStyles returns the styles; without colour, all are plain.
func NewStyles(colour bool) Styles {
	if !colour {
		return Styles{}
	}
	return Styles{Bold: "\x1b[1m", Faint: "\x1b[2m", Good: "\x1b[32m", Warn: "\x1b[33m", Bad: "\x1b[31m"}
}

// Span is a piece of text in one style.
type Span struct {
	style Style
	text  string
}

// Line is a line of a frame.
type Line []Span

// cut returns the line, cut to width columns. It counts a character as a column:
// texts are ours, or errors.
func (l Line) cut(width int) string {
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
		b.WriteString(string(s.style) + text + "\x1b[0m")
	}
	return b.String()
}

// printable replaces what could steer the terminal, which an error or a name may
// have in it, by one column each.
func printable(r rune) rune {
	switch {
	case unicode.IsPrint(r):
		return r
	case unicode.IsSpace(r):
		return ' '
	}
	return utf8.RuneError
}

// Wrap breaks a long text into at most so many lines, between words if there are any.
// What doesn't fit even so ends in an ellipsis.
func (s Style) Wrap(text string, width, lines int) (wrapped []Line) {
	const indent = "    "
	rest := []rune(text)
	first := ""
	if width <= 2*len(indent) {
		lines = 1
	}
	for len(rest) > width && len(wrapped) < lines-1 {
		end := width
		for i := width; i > width/2; i-- {
			if rest[i] == ' ' {
				end = i
				break
			}
		}
		wrapped = append(wrapped, Line{s.Text(first + string(rest[:end]))})
		rest = []rune(strings.TrimSpace(string(rest[end:])))
		if first == "" {
			first, width = indent, width-len(indent)
		}
	}
	if len(rest) > width {
		rest = append(rest[:max(width-1, 0)], '…')
	}
	return append(wrapped, Line{s.Text(first + string(rest))})
}
