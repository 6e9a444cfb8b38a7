package ingest

import (
	"context"

	"twinegress/internal/event"
)

// Positions keeps, beside each partition's mark, from where endpoints that are
// behind have still to be served.
type Positions interface {
	// Assigned is called once the committed offset of an ownership is known (-1: none),
	// with what was committed beside it, on a goroutine of its own. Until it returns
	// nothing of the partition is read. It tries until ctx ends, which is the
	// ownership's end; after an error it is called again.
	Assigned(ctx context.Context, o *event.Ownership, committed int64, metadata string) error
	// Metadata returns what is to be committed beside a mark that was read before the
	// call: a list that is newer than its mark is right, the other way round events
	// would be lost. It may block: a list that doesn't fit is stored elsewhere first. On
	// an error the partition isn't committed this time. It isn't called before Assigned
	// has returned nil; it may still run when Released is called.
	Metadata(ctx context.Context, o *event.Ownership) (string, error)
	// TooLong is called when the brokers refuse metadata for its length
	// (offset.metadata.max.bytes): nothing of the partition is committed until Metadata
	// returns a shorter one. It must not block.
	TooLong(o *event.Ownership, metadata string)
	// Revoked is called when the ownership is to end in order: nothing more may be read
	// for positions in it; what is in flight may settle, and is committed. It must not
	// block.
	Revoked(o *event.Ownership)
	// Released is called once, when the ownership has ended and Assigned has returned, if
	// it was ever called. It must not block.
	Released(o *event.Ownership)
}

// TakeLane counts something as in flight of a partition, which then can't change
// lanes, and returns its lane; false: it isn't owned any more. ReturnLane counts it
// off, also after the ownership has ended. What is read for positions goes to the
// endpoints between the two: in that lane nothing of the partition overtakes it, and a
// revocation waits for it as for what all endpoints read together.
func (s *Source) TakeLane(o *event.Ownership) (lane int, ok bool) { return s.partitions.lend(o) }

// ReturnLane ends one TakeLane.
func (s *Source) ReturnLane(o *event.Ownership) { s.partitions.takeBack(o) }

// Acquire counts bytes that are read for positions as in flight. Return counts them
// off.
func (s *Source) Acquire(bytes int64) { s.budget.acquire(bytes) }

// Return counts off what Acquire counted.
func (s *Source) Return(bytes int64) { s.budget.release(bytes, 0) }

// lend makes a partition keep its lane; see Source.TakeLane.
func (s *partitionSet) lend(o *event.Ownership) (lane int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.owned[topicPartition{o.Topic, o.Partition}]
	if p == nil || p.owned != o || !p.dispatch() {
		return 0, false
	}
	l := s.lent[o]
	l.partition = p
	l.times++
	s.lent[o] = l
	return s.scheduler.laneOf(p), true
}

// takeBack ends one lend.
func (s *partitionSet) takeBack(o *event.Ownership) {
	s.mu.Lock()
	l := s.lent[o]
	if l.times == 0 {
		s.mu.Unlock()
		panic("BUG: a lane is returned that wasn't taken")
	}
	if l.times--; l.times == 0 {
		delete(s.lent, o)
	} else {
		s.lent[o] = l
	}
	s.mu.Unlock()
	l.partition.withdraw()
}

// loan is how often the lane of a partition is lent.
type loan struct {
	partition *partition
	times     int
}
