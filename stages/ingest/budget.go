package ingest

import (
	"context"
	"sync/atomic"
)

// budget bounds the bytes in flight: of all chunks that are read and not
// settled. Polling waits while it is spent.
type budget struct {
	limit int64
	bytes atomic.Int64
	spent atomic.Bool   // wait blocks
	room  chan struct{} // has a token when bytes fell below the limit
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, room: make(chan struct{}, 1)}
}

// wait blocks until fewer bytes than the limit are in flight; it returns false
// when ctx ends first.
func (b *budget) wait(ctx context.Context) bool {
	defer b.spent.Store(false)
	for b.bytes.Load() >= b.limit {
		b.spent.Store(true)
		select {
		case <-b.room:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func (b *budget) acquire(bytes int64) { b.bytes.Add(bytes) }

func (b *budget) release(bytes int64) {
	if now := b.bytes.Add(-bytes); now < b.limit && now+bytes >= b.limit {
		signal(b.room)
	}
}
