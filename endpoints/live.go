package endpoints

import (
	"context"
	"sync"
)

// Live holds the set that a store has in force, whether it was delivered, and the
// lock of writers: the part that all stores have in common. The zero value holds
// no endpoints.
type Live struct {
	mu      sync.Mutex
	set     []Endpoint
	pending bool          // neither Take nor Follow delivered the set yet
	changed chan struct{} // closed and replaced by every Put
	writer  chan struct{} // a semaphore, of size 1
}

// Acquire blocks until the caller is the only writer, or ctx ends. A mutex would
// not end with ctx.
func (l *Live) Acquire(ctx context.Context) (release func(), err error) {
	l.mu.Lock()
	if l.writer == nil {
		l.writer = make(chan struct{}, 1)
	}
	l.mu.Unlock()
	select {
	case l.writer <- struct{}{}:
		return func() { <-l.writer }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Put puts a set in force. It must not be changed afterwards.
func (l *Live) Put(set []Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set, l.pending = set, true
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Current returns the set in force.
func (l *Live) Current() []Endpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set
}

// Take returns the set in force and marks it as delivered. pending reports whether
// it wasn't before; next is closed when there is another set.
func (l *Live) Take() (set []Endpoint, pending bool, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	pending = l.pending
	l.pending = false
	return l.set, pending, l.changed
}

// Follow delivers every set that wasn't delivered yet, until ctx ends: see
// Store.Watch.
func (l *Live) Follow(ctx context.Context, apply func([]Endpoint)) {
	for ctx.Err() == nil {
		set, pending, next := l.Take()
		if pending {
			apply(set)
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}
