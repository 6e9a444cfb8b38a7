package ingest

import (
	"cmp"
	"slices"

	"twinegress/internal/event"
)

// lanes says which lane the chunks of a partition take at every endpoint. By
// the partition's number alone it would not do: of 64 partitions a copy may be
// given those that all leave the same remainder, and would use one lane of
// eight. A partition keeps its lane for as long as the process lives, also
// while it is another copy's: what is left of an earlier ownership in a lane
// must not be overtaken by what is read again.
type lanes map[partition]int

// assign gives a lane to each partition that has none: one that the fewest of
// the owned partitions have, its number's own if it is among those.
func (l lanes) assign(added []partition, owned map[partition]*tracker) {
	slices.SortFunc(added, func(a, b partition) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.topic, b.topic))
	})
	var taken [event.Lanes]int
	for p := range owned {
		taken[l[p]]++
	}
	for _, p := range added {
		lane, known := l[p]
		if !known {
			lane = int(p.number) % event.Lanes
			for i := range event.Lanes {
				if other := (int(p.number) + i) % event.Lanes; taken[other] < taken[lane] {
					lane = other
				}
			}
			l[p] = lane
		}
		taken[lane]++
	}
}
