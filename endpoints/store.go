package endpoints

import "context"

// Store is where the endpoints are kept. A set that it delivers is valid,
// canonical and the receiver's own, to keep and to change.
type Store interface {
	// Load reads the set as it is now.
	Load() ([]Endpoint, error)
	// Watch delivers the whole set after every change of it, beginning with
	// any change since the last Load, until ctx ends; then it returns nil.
	// apply is called from one goroutine, one call at a time; changes that
	// happen meanwhile are delivered as one. An error is one that keeps the
	// store from watching at all: a bad change isn't.
	//
	// One Watch at a time.
	Watch(ctx context.Context, apply func([]Endpoint)) error
}

var (
	_ Store = (*FileStore)(nil)
	_ Store = (*MemoryStore)(nil)
)
