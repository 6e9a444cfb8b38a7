package endpoints

import (
	"context"
	"sync"
)

// Live is the set that a store has in force, whether it was handed out, and who
// may change it: the part that all stores have in common. The zero value holds no
// endpoints.
type Live struct {
	mu      sync.Mutex
	set     []Endpoint
	pending bool          // a set that neither Take nor Follow handed out
	changed chan struct{} // closed, and replaced, with every Put
	writer  chan struct{} // holds an element while someone writes
}

// Acquire blocks until the caller is the only one who writes, or ctx ends. Unlike
// with a mutex, one can stop waiting.
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

// Put puts a set in force. From here on nobody may change it.
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

// Take is Current and marks the set as handed out. next is closed when there
// is another one; fresh says whether this one was handed out before.
func (l *Live) Take() (set []Endpoint, fresh bool, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	fresh = l.pending
	l.pending = false
	return l.set, fresh, l.changed
}

// Follow hands out every set that wasn't yet, until ctx ends: see Store.Watch.
func (l *Live) Follow(ctx context.Context, apply func([]Endpoint)) {
	for ctx.Err() == nil {
		set, fresh, next := l.Take()
		if fresh {
			apply(set)
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}
