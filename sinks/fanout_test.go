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
	var f Fanout
	fill := func(slots [][]Slot) {
		f.Reset()
		for i := range events {
			f.Add(&events[i], slots[i])
		}
		f.Group()
	}
	for range 30 {
		senders := 1 + rand.IntN(1000)
		slots := make([][]Slot, len(events))
		want := make(map[Slot][]*event.Event)
		var order []Slot // of their first events
		for i := range events {
			if i > 0 && rand.IntN(2) == 0 {
				slots[i] = slots[i-1] // as without filters
			} else {
				for _, n := range rand.Perm(senders)[:rand.IntN(senders+1)] {
					slots[i] = append(slots[i], Slot(n))
				}
			}
			for _, slot := range slots[i] {
				if want[slot] == nil {
					order = append(order, slot)
				}
				want[slot] = append(want[slot], &events[i])
			}
		}
		fill(slots)
		if len(f.runs) != len(order) {
			t.Fatalf("%d runs, want %d", len(f.runs), len(order))
		}
		for i, r := range f.runs {
			if r.slot != order[i] || !slices.Equal(r.events, want[r.slot]) {
				t.Fatalf("run %d has %d events for sender %d, want %d for %d", i, len(r.events), r.slot, len(want[order[i]]), order[i])
			}
		}
		if allocs := testing.AllocsPerRun(10, func() { fill(slots) }); allocs != 0 {
			t.Fatalf("%v allocations for a chunk that is filled again", allocs)
		}
	}
}
