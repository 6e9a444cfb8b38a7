package term

import (
	"strings"
	"unicode/utf8"
)

// Style is the escape sequence of a text that stands out; "" is plain.
type Style string

// Text returns a piece of a line in that style.
func (s Style) Text(text string) Span { return Span{s, text} }

// Styles are those of a screen.
type Styles struct{ Bold, Faint, Good, Warn, Bad Style }

// NewStyles returns styles that are all empty without colour.
func NewStyles(colour bool) Styles {
	if !colour {
		return Styles{}
	}
	return Styles{Bold: "\x1b[1m", Faint: "\x1b[2m", Good: "\x1b[32m", Warn: "\x1b[33m", Bad: "\x1b[31m"}
}

// Span is a piece of a line in one style, Line a line of a frame.
type (
	Span struct {
		style Style
		text  string
	}
	Line []Span
)

// cut returns the line in at most width columns. Text is ours, or an error's on
// one line: a character is a column.
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

// printable keeps an error's line breaks and escapes from the terminal.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// Wrap returns a long text as two lines. The first has at most width
// characters; what is too much for the second is cut with it.
func (s Style) Wrap(text string, width int) []Line {
	runes := []rune(text)
	if len(runes) <= width {
		return []Line{{s.Text(text)}}
	}
	return []Line{{s.Text(string(runes[:width]))}, {s.Text("    " + strings.TrimSpace(string(runes[width:])))}}
}
