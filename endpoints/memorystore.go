package endpoints

import (
	"context"
	"time"
)

// MemoryStore keeps the set in memory only: for the demo, and for tests of
// whoever takes a Store. It is safe for use by several goroutines.
type MemoryStore struct {
	opts Options
	live Live
	turn turn
}

// NewMemoryStore returns a store that holds eps, or what is wrong with them.
func NewMemoryStore(eps []Endpoint, o Options) (*MemoryStore, error) {
	s := &MemoryStore{opts: o, turn: newTurn()}
	if err := s.Set(eps); err != nil {
		return nil, err
	}
	return s, nil
}

// Set replaces the whole set, or reports what is wrong and leaves it alone.
// Ids are given as Prepare does, unlike in Change.
func (s *MemoryStore) Set(eps []Endpoint) error {
	set, err := Prepare(eps, s.opts)
	if err != nil {
		return err
	}
	s.turn <- struct{}{}
	defer s.turn.giveBack()
	stamp(set, s.live.Current(), time.Now())
	s.live.Put(set)
	return nil
}

// Load returns the set.
func (s *MemoryStore) Load(context.Context) ([]Endpoint, error) {
	set, _, _ := s.live.Take()
	return set, nil
}

// Current is the set in force: see Store.
func (s *MemoryStore) Current() []Endpoint { return s.live.Current() }

// Watch delivers the set after every change: see Store.
func (s *MemoryStore) Watch(ctx context.Context, apply func([]Endpoint)) error {
	s.live.Follow(ctx, apply)
	return nil
}

// Change edits the set: see Store.
func (s *MemoryStore) Change(ctx context.Context, edit func([]Endpoint) ([]Endpoint, error)) ([]Endpoint, error) {
	if err := s.turn.take(ctx); err != nil {
		return nil, err
	}
	defer s.turn.giveBack()
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

// turn lets one at a time write. Unlike a mutex, one can stop waiting for it.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) giveBack() { <-t }
