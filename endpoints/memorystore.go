package endpoints

import (
	"context"
	"time"
)

// MemoryStore keeps the set in memory only: for store: memory, the demo and tests.
// It is safe for concurrent use.
type MemoryStore struct {
	opts Options
	live Live
}

var _ Store = (*MemoryStore)(nil)

// NewMemoryStore returns a store that holds eps. An error is ValidationErrors.
func NewMemoryStore(eps []Endpoint, o Options) (*MemoryStore, error) {
	set, err := Prepare(eps, o)
	if err != nil {
		return nil, err
	}
	Stamp(set, nil, time.Now())
	s := &MemoryStore{opts: o}
	s.live.Put(set)
	return s, nil
}

// Load returns the set: see Store.
func (s *MemoryStore) Load(context.Context) ([]Endpoint, error) {
	set, _, _ := s.live.Take()
	return set, nil
}

// Current returns the set in force: see Store.
func (s *MemoryStore) Current() []Endpoint { return s.live.Current() }

// Watch delivers the set after every change: see Store.
func (s *MemoryStore) Watch(ctx context.Context, apply func([]Endpoint)) error {
	s.live.Follow(ctx, apply)
	return nil
}

// Change edits the set: see Store.
func (s *MemoryStore) Change(ctx context.Context, edit func([]Endpoint) ([]Endpoint, error)) ([]Endpoint, error) {
	release, err := s.live.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	before := s.live.Current()
	after, err := edit(Clone(before))
	if err != nil {
		return nil, err
	}
	next, err := Revise(before, after, s.opts, time.Now())
	if err != nil {
		return nil, err
	}
	s.live.Put(next)
	return next, nil
}
