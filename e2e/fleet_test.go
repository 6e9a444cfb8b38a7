//go:build integration

package e2e

import "time"

// fleet is some copies of one group.
type fleet struct {
	h          *harness
	partitions int // of the ingest topic
	copies     []*replica
}

// areShared reports whether the copies have all partitions between them, each
// one once, and everyone has some.
func (f *fleet) areShared() bool {
	owners := f.owners()
	n, having := 0, make(map[string]bool)
	for _, r := range f.copies {
		n += len(r.status().Ingest.Partitions)
	}
	for _, name := range owners {
		having[name] = true
	}
	return n == f.partitions && len(owners) == f.partitions && len(having) == len(f.copies)
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

// evenly reports whether no copy has more than one partition more than another.
func (f *fleet) evenly() bool {
	least, most := f.partitions, 0
	for _, r := range f.copies {
		n := len(r.status().Ingest.Partitions)
		least, most = min(least, n), max(most, n)
	}
	return most-least <= 1
}

// cpu is the processor time that the copies have taken.
func (f *fleet) cpu() (sum time.Duration) {
	for _, r := range f.copies {
		sum += r.cpu()
	}
	return sum
}
