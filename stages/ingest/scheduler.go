package ingest

import (
	"context"
	"slices"
	"sync"
	"time"

	"twinegress/internal/event"
)

// scheduler decides which chunk is dispatched next, and in which lane. Between
// polling and dispatching lies its round-robin queue: chunks of one partition
// leave in the order in which they came, and partitions alternate. A fetch
// brings thousands of records of one partition in a row, more so the better
// they are compressed: dispatched like that, they would fill the one lane that
// the partition has at an endpoint, and all other lanes would be idle.
type scheduler struct {
	mu      sync.Mutex // also guards the partitions' queues and lane assignments
	waiting []*partition
	lanes   laneAssigner
	changed chan struct{} // has a token when next may find a chunk
}

func newScheduler() *scheduler {
	return &scheduler{lanes: make(laneAssigner), changed: make(chan struct{}, 1)}
}

// assign returns the lanes of added partitions, which it sorts.
func (s *scheduler) assign(added []topicPartition, owned map[topicPartition]*partition) []*assignment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes.assign(added, owned)
}

// rebalance evens out the lanes' loads after the owned partitions changed.
func (s *scheduler) rebalance(owned map[topicPartition]*partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes.rebalance(owned, time.Now()) {
		time.AfterFunc(moveTimeout, s.wake) // partitions that couldn't move go on as they are
	}
}

// push queues a chunk of a partition. wake makes it known.
func (s *scheduler) push(p *partition, c *event.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.queued) == 0 {
		s.waiting = append(s.waiting, p)
	}
	p.queued = append(p.queued, c)
}

// wake makes next look again.
func (s *scheduler) wake() { signal(s.changed) }

// next blocks until there is a chunk to dispatch, and returns nil when ctx
// ends. What is queued then stays: it is never dispatched, and so its offsets
// are not committed.
func (s *scheduler) next(ctx context.Context) (*partition, *event.Chunk) {
	for ctx.Err() == nil {
		if p, c := s.pop(); c != nil {
			return p, c
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
		}
	}
	return nil, nil
}

// pop returns the first chunk of the first waiting partition that is ready,
// with its lane set; nil if there is none.
func (s *scheduler) pop() (*partition, *event.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range len(s.waiting) {
		p := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		if !p.lane.ready() || p.heldBack.Load() > 0 {
			s.waiting = append(s.waiting, p)
			continue
		}
		c := p.queued[0]
		c.Lane = p.lane.lane
		p.queued[0] = nil
		if p.queued = p.queued[1:]; len(p.queued) > 0 {
			s.waiting = append(s.waiting, p)
		} else {
			p.queued = nil
		}
		return p, c
	}
	return nil, nil
}

// laneOf returns the lane of a partition of which something is in flight.
func (s *scheduler) laneOf(p *partition) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.lane.lane
}

// busy reports whether chunks wait to be dispatched that aren't held back.
func (s *scheduler) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.waiting, func(p *partition) bool { return p.heldBack.Load() == 0 })
}

// signal leaves a token in a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
