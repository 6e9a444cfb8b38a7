// Package similar finds the word that a mistyped one was meant to be.
package similar

import "strings"

// Closest returns the one of the known words that is most like word, without
// regard to case; "" if none is like it. A third of a word may be mistyped: more
// finds words that have nothing to do with it.
func Closest(word string, known []string) string {
	const longest = 100 // of what is looked at: the time is the square of it
	if word == "" || len(word) > longest {
		return ""
	}
	best, found := len(word)/3+1, ""
	for _, k := range known {
		if len(k) > longest {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < best {
			best, found = d, k
		}
	}
	return found
}

// distance is how many characters are to be added, left out, replaced or swapped
// with their neighbour to make b of a.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
