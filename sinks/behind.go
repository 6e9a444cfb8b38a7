package sinks

import (
	"sync"

	"twinegress/internal/event"
)

// Behind are the positions of all endpoints: who is behind, and in which partitions.
// Its reader and whoever commits ask it, and need not ask thousands of senders.
type Behind struct {
	changed chan struct{}

	mu sync.Mutex
	of map[*event.Ownership]map[*Sender]struct{}
}

// NewBehind returns one with nobody in it.
func NewBehind() *Behind {
	return &Behind{changed: make(chan struct{}, 1), of: make(map[*event.Ownership]map[*Sender]struct{})}
}

// Changed has a token when there may be something to read: somebody left or can be
// tried again, or a lane has room. The ends of back-offs are not among it, see
// Sender.RetryAt.
func (b *Behind) Changed() <-chan struct{} { return b.changed }

func (b *Behind) wake() { signal(b.changed) }

// Owned returns the ownerships in which an endpoint has a position.
func (b *Behind) Owned() []*event.Ownership {
	b.mu.Lock()
	defer b.mu.Unlock()
	owned := make([]*event.Ownership, 0, len(b.of))
	for o := range b.of {
		owned = append(owned, o)
	}
	return owned
}

// Of returns the senders that have a position there, in no order.
func (b *Behind) Of(o *event.Ownership) []*Sender {
	b.mu.Lock()
	defer b.mu.Unlock()
	senders := make([]*Sender, 0, len(b.of[o]))
	for s := range b.of[o] {
		senders = append(senders, s)
	}
	return senders
}

// End ends an ownership: the positions in it are forgotten, and nobody gets another one
// there, also if a send that hangs fails later.
func (b *Behind) End(o *event.Ownership) {
	b.mu.Lock()
	o.Ended.Store(true)
	b.mu.Unlock()
	for _, s := range b.Of(o) {
		s.forget(o)
	}
}

// add returns false if the ownership has ended.
func (b *Behind) add(o *event.Ownership, s *Sender) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o.Ended.Load() {
		return false
	}
	if b.of[o] == nil {
		b.of[o] = make(map[*Sender]struct{})
	}
	b.of[o][s] = struct{}{}
	return true
}

func (b *Behind) remove(o *event.Ownership, s *Sender) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o.Listed.Add(1)
	if delete(b.of[o], s); len(b.of[o]) == 0 {
		delete(b.of, o)
	}
}
