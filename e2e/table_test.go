//go:build integration

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"twinegress/e2e/env"
)

// result is what a round came to, at all receivers together.
type result struct {
	env.Summary
	events      int64 // stored in the round
	inFlight    int   // at most so many were stored and not committed
	dropped     int
	ahead, back int
	recovery    time.Duration // the longest that an event waited from being stored to its first arrival
}

func (r result) String() string {
	return fmt.Sprintf("%d events, %d lost, %d reordered, %d repeats (an event at most %d times; %d in flight at most), recovery %.1f s",
		r.events, r.Lost+r.dropped, r.Reordered, r.Repeats, r.Most, r.inFlight, r.recovery.Seconds())
}

// table adds rounds up by fault.
type table struct {
	seed    uint64
	begun   time.Time
	rows    map[string]*row
	rounds  int
	outcome result
}

type row struct {
	rounds int
	result
}

func newTable(seed uint64) *table {
	return &table{seed: seed, begun: time.Now(), rows: make(map[string]*row)}
}

func (t *table) add(f fault, r result) {
	if t.rows[f.name] == nil {
		t.rows[f.name] = new(row)
	}
	t.rounds++
	t.rows[f.name].rounds++
	for _, sum := range []*result{&t.rows[f.name].result, &t.outcome} {
		sum.Summary.Add(r.Summary)
		sum.events += r.events
		sum.dropped += r.dropped
		sum.ahead += r.ahead
		sum.back += r.back
		sum.inFlight = max(sum.inFlight, r.inFlight)
		sum.recovery = max(sum.recovery, r.recovery)
	}
}

func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| Fault | Rounds | Events | Lost | Reordered | Repeats | Uncommitted at most | Commits ahead | Worst recovery |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	line := func(name string, rounds int, r result) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d | %.1f s |\n",
			name, rounds, r.events, r.Lost+r.dropped, r.Reordered, r.Repeats, r.inFlight, r.ahead+r.back, r.recovery.Seconds())
	}
	for _, f := range faults {
		if row := t.rows[f.name]; row != nil {
			line(f.name, row.rounds, row.result)
		}
	}
	line("**all**", t.rounds, t.outcome)
	return b.String()
}

const (
	tableBegins = "<!-- table: make kill-matrix -->"
	tableEnds   = "<!-- end of the table -->"
)

// write puts the table into a document, between its marks.
func (t *table) write(tb testing.TB, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	before, rest, found := strings.Cut(string(b), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !found || !ends {
		tb.Fatalf("%s has no place for the table: %s … %s", file, tableBegins, tableEnds)
	}
	text := fmt.Sprintf("%s%s\n\n%s\n%d rounds in %d minutes, on %s; a broker was unreachable for %v; `-seed=%d`.\n\n%s%s",
		before, tableBegins, t, t.rounds, int(time.Since(t.begun).Minutes()), t.begun.UTC().Format(time.DateOnly), *matrixOutage, t.seed, tableEnds, after)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // a document
		tb.Fatal(err)
	}
}
