package term

import (
	"fmt"
	"strings"
)

// Column is a column of fixed width, so that no column moves when a screen is redrawn.
type Column struct {
	Title string
	Width int // negative is left-aligned
}

// Cells returns a line with a cell a column. A text that is too long is cut where it is
// left-aligned; a number never is.
func Cells(columns []Column, cells []string, style func(i int) Style) Line {
	line := make(Line, len(columns))
	for i, c := range columns {
		text := cells[i]
		if c.Width < 0 {
			text = Cut(text, -c.Width)
		}
		line[i] = style(i).Text(fmt.Sprintf("%*s ", c.Width, text))
	}
	return line
}

// Cut cuts a text to width characters, and shows that it did.
func Cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width || width < 1 {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// Plain returns the line without styles, and without space at its end.
func (l Line) Plain() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return strings.TrimRight(b.String(), " ")
}
