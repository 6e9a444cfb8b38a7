package e2e

import (
	"fmt"
	"slices"
	"strconv"

	"twinegress/e2e/env"
)

// fleet is some copies of one group.
type fleet struct {
	h          *harness
	partitions int // of the ingest topic
	copies     []*replica
}

// grow starts copies up to so many, and blocks until all are ready.
func (f *fleet) grow(copies int, settings func(name string) env.Settings) {
	f.h.T.Helper()
	for i := len(f.copies); i < copies; i++ {
		name := "copy-" + strconv.Itoa(i)
		r := f.h.replica(name, settings(name))
		r.start()
		f.copies = append(f.copies, r)
	}
	for _, r := range f.copies {
		r.awaitReady()
	}
}

// awaitShares blocks until the copies have all partitions between them, each
// one once, and everyone has some; evenly: none has two more than another.
func (f *fleet) awaitShares(evenly bool) {
	f.h.T.Helper()
	env.Eventually(f.h.T, fmt.Sprintf("%d copies share %d partitions", len(f.copies), f.partitions), func() bool {
		var each []int
		n := 0
		for _, r := range f.copies {
			has := len(r.status().Ingest.Partitions)
			each = append(each, has)
			n += has
		}
		least, most := slices.Min(each), slices.Max(each)
		return n == f.partitions && len(f.owners()) == f.partitions && least > 0 && (!evenly || most-least <= 1)
	})
}

// owners returns which copy has a partition.
func (f *fleet) owners() map[int32]string {
	owners := make(map[int32]string)
	for _, r := range f.copies {
		for _, p := range r.status().Ingest.Partitions {
			owners[p] = r.name
		}
	}
	return owners
}

// cpu is the processor time that the copies have taken, in seconds.
func (f *fleet) cpu() (sum float64) {
	for _, r := range f.copies {
		sum += r.cpu()
	}
	return sum
}
