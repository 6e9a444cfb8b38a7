package similar

import (
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	known := []string{"eventTypes", "path", "filter", "connectionString", "secondaryConnectionString", "run", ""}
	for word, want := range map[string]string{
		"eventType":                      "eventTypes",
		"EVENTTYPES":                     "eventTypes",
		"evnetTypes":                     "eventTypes",
		"conectionSting":                 "connectionString",
		"pth":                            "path",
		"rnu":                            "run",
		"":                               "",
		"x":                              "",
		"type":                           "", // half of it would have to be replaced
		"something else":                 "",
		strings.Repeat("eventTypes", 11): "",
	} {
		if got := Closest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := Closest("hub", []string{strings.Repeat("hub", 40), "hun", "hub"}); got != "hub" {
		t.Errorf("%q is not the closest", got)
	}
}

func TestDistance(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"a", ""}: 1, {"", "ab"}: 2, {"kitten", "sitting"}: 3, {"ab", "ba"}: 1, {"abcd", "acbd"}: 1,
	} {
		if got := distance(pair[0], pair[1]); got != want {
			t.Errorf("%v: %d, want %d", pair, got, want)
		}
	}
}
