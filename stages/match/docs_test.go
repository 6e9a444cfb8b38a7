package match

import (
	"os"
	"regexp"
	"strings"
	"testing"

	stdjson "encoding/json"
)

// Each example in docs/filters.md has the result that the page names.
func TestDocumentedFilters(t *testing.T) {
	b, err := os.ReadFile("../../docs/filters.md")
	if err != nil {
		t.Fatal(err)
	}
	_, examples, _ := strings.Cut(string(b), "\n## Examples\n")
	body := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(examples)
	ev := decoded(t, body[1])
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (passes|does not)").FindAllStringSubmatch(examples, -1)
	if len(rows) < 10 {
		t.Fatalf("only %d examples were found", len(rows))
	}
	for _, row := range rows {
		if got := passes(t, parse(t, row[1]), ev); got != (row[2] == "passes") {
			t.Errorf("%s: passes is %v", row[1], got)
		}
	}
	// The endpoint at the top.
	var endpoint struct{ Filter string }
	top := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(string(b))
	if err := stdjson.Unmarshal([]byte(top[1]), &endpoint); err != nil {
		t.Fatal(err)
	}
	if !passes(t, parse(t, endpoint.Filter), ev) {
		t.Errorf("%s: does not pass", endpoint.Filter)
	}
}
