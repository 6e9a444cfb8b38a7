package ingest

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"twinegress/internal/event"
)

// moveTimeout is how long a partition is held back for its move to another
// lane. Longer than a full lane takes to empty itself into a service that
// answers within some hundred milliseconds; a chunk that is stuck for longer,
// since a service hangs, must not hold up those behind it that can be sent.
const moveTimeout = 2 * time.Second

// laneAssigner assigns each partition the lane that its chunks take at every
// endpoint. The partition's number alone would not do: of 64 partitions a copy
// may be assigned those that all leave the same remainder, and would use one
// lane of eight. Nor would the first assignment for good: a copy that was alone
// with the 64 would be left with any eight of them, on three lanes, as others
// come to share the load.
//
// Assignments outlive ownerships: what is left of an earlier ownership in a
// lane must not be overtaken by what is read again. The scheduler's lock guards
// them.
type laneAssigner map[topicPartition]*assignment

// assignment is the lane of a partition.
type assignment struct {
	lane, next int       // guarded by scheduler.mu; they differ while a move is due
	until      time.Time // when the move is abandoned; guarded by scheduler.mu

	inFlight atomic.Int64 // chunks that are dispatched and not settled, of all ownerships
	moving   atomic.Bool  // the scheduler waits for none to be in flight
}

// assign returns the lanes of partitions that were added, which it sorts. One
// that has none yet is assigned a lane that the fewest of the owned partitions
// have, its number's own if it is among those.
func (l laneAssigner) assign(added []topicPartition, owned map[topicPartition]*partition) []*assignment {
	sortPartitions(added)
	load := l.load(owned)
	lanes := make([]*assignment, 0, len(added))
	for _, id := range added {
		a := l[id]
		if a == nil {
			lane := load.least(int(id.number) % event.Lanes)
			a = &assignment{lane: lane, next: lane}
			l[id] = a
		}
		load[a.next]++
		lanes = append(lanes, a)
	}
	return lanes
}

// rebalance lets owned partitions move to lanes with a lower load, until no
// lane has two more than another, and reports whether some have to move.
func (l laneAssigner) rebalance(owned map[topicPartition]*partition, now time.Time) (moves bool) {
	all := make([]topicPartition, 0, len(owned))
	for id := range owned {
		all = append(all, id)
	}
	sortPartitions(all)
	load := l.load(owned)
	for _, id := range all {
		a := l[id]
		to := load.least(a.next)
		if load[a.next] < load[to]+2 {
			continue
		}
		load[a.next]--
		load[to]++
		a.next, a.until = to, now.Add(moveTimeout)
		moves = true
	}
	return moves
}

func sortPartitions(ids []topicPartition) {
	slices.SortFunc(ids, func(a, b topicPartition) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.topic, b.topic))
	})
}

// load is how many of the owned partitions have each lane.
type load [event.Lanes]int

func (l laneAssigner) load(owned map[topicPartition]*partition) (n load) {
	for id := range owned {
		n[l[id].next]++
	}
	return n
}

// least returns the lane with the lowest load: the preferred one if it is among
// those, otherwise the next one behind it.
func (n *load) least(preferred int) int {
	lane := preferred
	for i := range n {
		if other := (preferred + i) % len(n); n[other] < n[lane] {
			lane = other
		}
	}
	return lane
}

// ready reports whether the next chunk may be dispatched. A partition that has
// to move does so when nothing of it is in flight in its lane, where it could
// be overtaken; it stays if that takes too long. Until then it is not ready,
// and whoever settles its last chunk wakes the scheduler.
func (a *assignment) ready() bool {
	if a.next == a.lane {
		return true
	}
	a.moving.Store(true) // before inFlight is read: settled reads it after its change
	switch {
	case a.inFlight.Load() == 0:
		a.lane = a.next
	case !time.Now().Before(a.until):
		a.next = a.lane
	default:
		return false
	}
	a.moving.Store(false)
	return true
}

// settled counts a chunk off, and reports whether the scheduler waits for that.
func (a *assignment) settled() (wake bool) {
	return a.inFlight.Add(-1) == 0 && a.moving.Swap(false)
}
