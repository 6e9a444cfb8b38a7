package term

import (
	"slices"
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text         string
		width, lines int
		want         []string
	}{
		{"short", 10, 2, []string{"short"}},
		{"exactly 10", 10, 2, []string{"exactly 10"}},
		{"one two three four", 14, 2, []string{"one two three", "    four"}},
		{"one two three four five six", 14, 2, []string{"one two three", "    four five…"}},
		{"one two three four five six", 14, 3, []string{"one two three", "    four five", "    six"}},
		{"xxxxxxxxxxxxxxxxxxxx", 10, 3, []string{"xxxxxxxxxx", "    xxxxxx", "    xxxx"}},
		{"narrow", 3, 3, []string{"na…"}},
	} {
		var got []string
		for _, line := range Style("").Wrap(c.text, c.width, c.lines) {
			got = append(got, line.cut(1000))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q in %d:\n got %q\nwant %q", c.text, c.width, strings.Join(got, "|"), strings.Join(c.want, "|"))
		}
	}
}
