package sinks

import (
	"math/rand/v2"
	"slices"
	"testing"

	"twinegress/internal/event"
)

// A Fanout that is reused for chunks of any table groups as a map would, and
// allocates nothing once it has grown.
func TestFanout(t *testing.T) {
	events := make([]event.Event, 50)
	senders := make([]Sender, 1000)
	var f Fanout
	fill := func(targets [][]Target) {
		f.Reset()
		for i := range events {
			f.Add(&events[i], targets[i])
		}
		f.Group()
	}
	for range 30 {
		table := make([]Target, 1+rand.IntN(len(senders)))
		for slot, s := range rand.Perm(len(senders))[:len(table)] {
			table[slot] = Target{&senders[s], int32(slot)}
		}
		targets := make([][]Target, len(events))
		want := make(map[*Sender][]*event.Event)
		var order []*Sender // of their first events
		for i := range events {
			if i > 0 && rand.IntN(2) == 0 {
				targets[i] = targets[i-1] // as without filters
				for _, target := range targets[i] {
					want[target.Sender] = append(want[target.Sender], &events[i])
				}
				continue
			}
			for _, slot := range rand.Perm(len(table))[:rand.IntN(len(table)+1)] {
				target := table[slot]
				targets[i] = append(targets[i], target)
				if want[target.Sender] == nil {
					order = append(order, target.Sender)
				}
				want[target.Sender] = append(want[target.Sender], &events[i])
			}
		}
		fill(targets)
		if len(f.runs) != len(order) {
			t.Fatalf("%d runs, want %d", len(f.runs), len(order))
		}
		for i, r := range f.runs {
			if r.Sender != order[i] || !slices.Equal(r.events, want[r.Sender]) {
				t.Fatalf("run %d of %d has %d events, want %d of another sender", i, len(order), len(r.events), len(want[order[i]]))
			}
		}
		if allocs := testing.AllocsPerRun(1, func() { fill(targets) }); allocs != 0 {
			t.Fatalf("%v allocations for a chunk that is filled again", allocs)
		}
	}
}
