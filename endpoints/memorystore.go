package endpoints

import (
	"context"
	"sync"
	"time"
)

// MemoryStore keeps the set in memory only: for the demo, and for tests of
// whoever takes a Store. It is safe for use by several goroutines.
type MemoryStore struct {
	opts Options

	mu      sync.Mutex
	set     []Endpoint
	changed chan struct{} // closed, and replaced, with every change
	pending bool          // a change that neither Load nor Watch handed out
}

// NewMemoryStore returns a store that holds eps, or what is wrong with them.
func NewMemoryStore(eps []Endpoint, o Options) (*MemoryStore, error) {
	s := &MemoryStore{opts: o, changed: make(chan struct{})}
	if err := s.Set(eps); err != nil {
		return nil, err
	}
	return s, nil
}

// Set replaces the whole set, or reports what is wrong and leaves it alone.
func (s *MemoryStore) Set(eps []Endpoint) error {
	set, err := Prepare(eps, s.opts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stamp(set, s.set, time.Now())
	s.set, s.pending = set, true
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Load returns the set.
func (s *MemoryStore) Load() ([]Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = false
	return Clone(s.set), nil
}

// Watch delivers the set after every Set: see Store.
func (s *MemoryStore) Watch(ctx context.Context, apply func([]Endpoint)) error {
	for {
		s.mu.Lock()
		changed, pending, set := s.changed, s.pending, Clone(s.set)
		s.pending = false
		s.mu.Unlock()
		if pending {
			apply(set)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// stamp gives every endpoint of next its LastUpdated: that of its equal in
// prev, or now.
func stamp(next, prev []Endpoint, now time.Time) {
	was := make(map[string]Endpoint, len(prev))
	for _, e := range prev {
		was[e.ID] = e
	}
	for i, e := range next {
		if old, ok := was[e.ID]; ok && old.Equal(e) {
			next[i].LastUpdated = old.LastUpdated
		} else {
			next[i].LastUpdated = now.UTC()
		}
	}
}
