//go:build integration

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"twinegress/e2e/env"
)

// result is what a round came to, at all receivers together.
type result struct {
	env.Summary
	rounds      int
	events      int64 // stored in the round
	inFlight    int   // at most so many were stored and not committed
	dropped     int
	flapping    env.Summary // at the endpoint that catches up
	deferred    int         // by it, as far as copies live that counted it
	ahead, back int
	recovery    time.Duration // the longest that an event waited from being stored to its first arrival
}

func (r result) String() string {
	return fmt.Sprintf("%d events, %d lost, %d reordered, %d repeats (an event at most %d times; %d in flight at most), recovery %.1f s; catching up: %d deferred, %d lost, %d reordered, %d repeats (an event at most %d times)",
		r.events, r.Lost+r.dropped, r.Reordered, r.Repeats, r.Most, r.inFlight, r.recovery.Seconds(),
		r.deferred, r.flapping.Lost, r.flapping.Reordered, r.flapping.Repeats, r.flapping.Most)
}

// table adds rounds up by fault.
type table struct {
	seed  uint64
	begun time.Time
	sums  map[string]result // by the fault's name, and of all
}

const allFaults = "**all**"

func (t *table) add(f fault, r result) {
	for _, name := range []string{f.name, allFaults} {
		sum := t.sums[name]
		sum.Summary.Add(r.Summary)
		sum.rounds += r.rounds
		sum.events += r.events
		sum.dropped += r.dropped
		sum.flapping.Add(r.flapping)
		sum.deferred += r.deferred
		sum.ahead += r.ahead
		sum.back += r.back
		sum.inFlight = max(sum.inFlight, r.inFlight)
		sum.recovery = max(sum.recovery, r.recovery)
		t.sums[name] = sum
	}
}

func (t *table) String() string {
	var b strings.Builder
	b.WriteString("| Fault | Rounds | Events | Lost | Reordered | Repeats | Uncommitted at most | Commits ahead | Worst recovery | Deferred | Lost behind | Reordered behind |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, f := range append(slices.Clone(faults), fault{name: allFaults}) {
		if r, ok := t.sums[f.name]; ok {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d | %.1f s | %d | %d | %d |\n",
				f.name, r.rounds, r.events, r.Lost+r.dropped, r.Reordered, r.Repeats, r.inFlight, r.ahead+r.back, r.recovery.Seconds(),
				r.deferred, r.flapping.Lost, r.flapping.Reordered)
		}
	}
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
		before, tableBegins, t, t.sums[allFaults].rounds, int(time.Since(t.begun).Minutes()), t.begun.UTC().Format(time.DateOnly), *matrixOutage, t.seed, tableEnds, after)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}
