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
// since a service hangs, shall not hold up those behind it that can be sent.
const moveTimeout = 2 * time.Second

// lanes says which lane the chunks of a partition take at every endpoint. By
// the partition's number alone it would not do: of 64 partitions a copy may be
// given those that all leave the same remainder, and would use one lane of
// eight. Nor would the lane that a partition was given first: a copy that was
// alone with the 64 would be left with any eight of them, on three lanes, as
// others come to share the load.
//
// It outlives ownerships: what is left of an earlier one in a lane must not be
// overtaken by what is read again.
type lanes map[partition]*place

// place is where a partition is. All but the counts is guarded by Source.mu.
type place struct {
	lane, next int // the same, but while it is to move
	until      time.Time

	handed atomic.Int64 // chunks that the dispatcher has and that aren't resolved, in all ownerships
	awaits atomic.Bool  // there to be none of these
}

// assign gives a lane to each partition that has none: one that the fewest of
// the owned partitions have, its number's own if it is among those.
func (l lanes) assign(added []partition, owned map[partition]*tracker) {
	sort(added)
	taken := l.taken(owned)
	for _, p := range added {
		at := l[p]
		if at == nil {
			lane := taken.least(int(p.number) % event.Lanes)
			at = &place{lane: lane, next: lane}
			l[p] = at
		}
		taken[at.next]++
	}
}

// spread lets partitions move to where there is more room, until no lane has
// two more than another.
func (l lanes) spread(owned map[partition]*tracker, now time.Time) (moves bool) {
	all := make([]partition, 0, len(owned))
	for p := range owned {
		all = append(all, p)
	}
	sort(all)
	taken := l.taken(owned)
	for _, p := range all {
		at := l[p]
		to := taken.least(at.next)
		if taken[at.next] < taken[to]+2 {
			continue
		}
		taken[at.next]--
		taken[to]++
		at.next, at.until = to, now.Add(moveTimeout)
		moves = true
	}
	return moves
}

func sort(all []partition) {
	slices.SortFunc(all, func(a, b partition) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.topic, b.topic))
	})
}

// taken is how many partitions have each lane.
type taken [event.Lanes]int

func (l lanes) taken(owned map[partition]*tracker) (t taken) {
	for p := range owned {
		t[l[p].next]++
	}
	return t
}

// least is the lane that the fewest have: the one asked for, or the next one
// of those behind it.
func (t *taken) least(from int) int {
	lane := from
	for i := range t {
		if other := (from + i) % len(t); t[other] < t[lane] {
			lane = other
		}
	}
	return lane
}

// open tells whether the next chunk may be handed out. A partition that is to
// move does so when nothing of it is left in its lane, where it could be
// overtaken; it stays if that takes too long. Until then it waits, and is woken
// by whoever resolves the last chunk.
func (p *place) open() bool {
	if p.next == p.lane {
		return true
	}
	p.awaits.Store(true) // before it looks: who resolves the last one looks after that
	switch {
	case p.handed.Load() == 0:
		p.lane = p.next
	case !time.Now().Before(p.until):
		p.next = p.lane
	default:
		return false
	}
	p.awaits.Store(false)
	return true
}

// resolved takes a chunk off, and reports whether that is waited for.
func (p *place) resolved() (wake bool) {
	return p.handed.Add(-1) == 0 && p.awaits.Swap(false)
}
