package endpoints

import (
	"context"
	"sync"
)

// Live is the set that a store has in force, and whether it was handed out: the
// part that all stores have in common. The zero value holds no endpoints.
type Live struct {
	mu      sync.Mutex
	set     []Endpoint
	pending bool          // a set that neither Take nor Follow handed out
	changed chan struct{} // closed, and replaced, with every Put
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

// Current is the set in force.
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
