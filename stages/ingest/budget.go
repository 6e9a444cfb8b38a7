package ingest

import (
	"context"
	"sync/atomic"
	"time"
)

// budget bounds the bytes in flight: of all chunks that are read and not
// settled. Polling waits while it is spent.
type budget struct {
	limit int64
	bytes atomic.Int64
	grown atomic.Int64  // of bytes, what decoding and dead letters have added
	spent atomic.Bool   // polling waits
	room  chan struct{} // has a token when bytes fell while polling waits
	large atomic.Bool   // Run waits: too much is added
	// shrunk has a token when grown fell while Run waits.
	shrunk chan struct{}

	// stalled are partitions whose bytes are left out of account, so that others
	// are read on. The polling goroutine's.
	stalled []*partition
	// heldBack are partitions of which nothing more is decoded, and what decoding
	// has added to what was is left out of account. Run's.
	heldBack []*partition
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, room: make(chan struct{}, 1), shrunk: make(chan struct{}, 1)}
}

// wait blocks until there is room to poll; it returns false when ctx ends first.
// After each stallTimeout it calls stall, which may make room.
func (b *budget) wait(ctx context.Context, stall func()) bool {
	if b.hasRoom() {
		return ctx.Err() == nil
	}
	defer b.spent.Store(false)
	tick := time.NewTicker(stallTimeout)
	defer tick.Stop()
	for {
		b.spent.Store(true) // before bytes are read: release reads it after its change
		if b.hasRoom() {
			return ctx.Err() == nil
		}
		select {
		case <-b.room:
		case <-tick.C:
			stall()
		case <-ctx.Done():
			return false
		}
	}
}

// hasRoom reports whether fewer bytes than the limit are in flight, whatever one
// chunk has: one that is larger than the limit passes alone.
func (b *budget) hasRoom() bool { return b.left() > 0 }

// left returns how many bytes may still be read. While a partition is stalled the
// others have half of the limit, so that both together stay within one and a half.
func (b *budget) left() int64 {
	stalled := b.ofStalled()
	if stalled == 0 {
		return b.limit - b.bytes.Load()
	}
	return b.limit/2 - (b.bytes.Load() - stalled)
}

func (b *budget) acquire(bytes int64) { b.bytes.Add(bytes) }

// grow counts what decoding has added. It is not known before: an element of an
// array can have two bytes.
func (b *budget) grow(bytes int64) {
	b.bytes.Add(bytes)
	b.grown.Add(bytes)
}

// release returns bytes of a chunk, and how many of them decoding had added.
func (b *budget) release(bytes, grown int64) {
	b.bytes.Add(-bytes)
	if grown > 0 {
		b.grown.Add(-grown)
		if b.large.Load() {
			signal(b.shrunk)
		}
	}
	if b.spent.Load() {
		signal(b.room)
	}
}

// admit blocks until decoding another chunk leaves the bytes in flight near the
// limit: what was read before they were known may grow to many times its size. After
// stallTimeout without an outcome it calls holdBack, which may make room. It returns
// when ctx ends.
func (b *budget) admit(ctx context.Context, holdBack func()) {
	if b.grown.Load() <= b.limit/2 {
		return
	}
	defer b.large.Store(false)
	timer := time.NewTimer(stallTimeout)
	defer timer.Stop()
	for {
		b.large.Store(true) // before grown is read: release reads it after its change
		if b.grown.Load()-b.ofHeldBack() <= b.limit/2 {
			return
		}
		select {
		case <-b.shrunk:
		case <-timer.C:
			holdBack()
		case <-ctx.Done():
			return
		}
		timer.Reset(stallTimeout)
	}
}
