package ingest

import (
	"time"

	"go.uber.org/zap"
)

// stallTimeout is how long polling waits for room before it looks for the one
// partition that takes it all. Longer than slow endpoints need to answer.
const stallTimeout = 5 * time.Second

// stall stops fetching the partition that takes most of the room, if the rest of
// what is read is with the endpoints. A chunk can wait for long, such as for its
// dead letter while the brokers don't take it: that is its partition's business,
// and polling is everybody's. While a lane is full that isn't it: then chunks are
// queued, and those of other partitions would be.
func (r *poller) stall() {
	p := r.partitions.largest(func(p *partition) int64 { return p.bytes.Load() })
	if p == nil || r.valve.closed() || r.scheduler.busy() || !r.budget.stall(p) {
		return
	}
	r.member.log.Warn("partition stalled: it takes most of ingest.maxInFlightBytes and has had no outcome for a while; the others are read on",
		zap.String("topic", p.topic), zap.Int32("partition", p.number), zap.Int64("bytes", p.bytes.Load()))
}

// ofStalled returns the bytes of the partitions that are stalled still.
func (b *budget) ofStalled() (bytes int64) {
	still := b.stalled[:0]
	for _, p := range b.stalled {
		if n, is := p.stalledBytes(); is {
			bytes += n
			still = append(still, p)
		}
	}
	clear(b.stalled[len(still):])
	b.stalled = still
	return bytes
}

// stall stalls a partition that has taken half of the limit or more. More than one
// at a time may be, as long as they stay below the limit together.
func (b *budget) stall(p *partition) bool {
	others := b.ofStalled()
	if bytes := p.bytes.Load(); bytes < b.limit/2 || others > 0 && others+bytes > b.limit || !p.stall() {
		return false
	}
	b.stalled = append(b.stalled, p)
	return true
}

// stall stops fetching, since the partition takes the room of others: its chunks
// don't settle, and theirs would. It reports whether the partition stalls now.
func (p *partition) stall() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := p.bytes.Load()
	if bytes == 0 || p.stalled.Load() > 0 {
		return false
	}
	p.stalled.Store(bytes) // before bytes is read again: free reads it after its change
	if p.bytes.Load() <= bytes/4 {
		p.stalled.Store(0)
		return false
	}
	if p.state == active && !p.paused {
		p.consumer.pause(p.topicPartition)
	}
	return true
}

// stalledBytes returns the bytes in flight, if the partition is stalled.
func (p *partition) stalledBytes() (bytes int64, is bool) {
	if p.stalled.Load() == 0 {
		return 0, false
	}
	return p.bytes.Load(), true
}

// unstall ends a stall: most of what was in flight then is settled.
func (p *partition) unstall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled.Swap(0) > 0 {
		p.resume()
	}
}

// resume starts fetching again, unless there is another reason not to. The caller
// holds mu.
func (p *partition) resume() {
	if p.state == active && !p.paused && p.stalled.Load() == 0 {
		p.consumer.resume(p.topicPartition)
	}
}

// holdBack does for decoding what stall does for polling: it dispatches nothing more
// of the partition to which decoding has added most.
func (r *poller) holdBack() {
	p := r.partitions.largest(func(p *partition) int64 {
		if p.heldBack.Load() > 0 {
			return 0
		}
		return p.grown.Load()
	})
	if p == nil || !r.budget.holdBack(p) {
		return
	}
	r.member.log.Warn("partition held back: what decoding and dead letters have made of its records is too much for ingest.maxInFlightBytes, and they have had no outcome for a while; the others go on",
		zap.String("topic", p.topic), zap.Int32("partition", p.number), zap.Int64("bytes", p.grown.Load()))
	r.scheduler.wake()
}

// ofHeldBack returns what decoding has added to the partitions that are held back
// still.
func (b *budget) ofHeldBack() (grown int64) {
	still := b.heldBack[:0]
	for _, p := range b.heldBack {
		if p.heldBack.Load() > 0 {
			grown += p.grown.Load()
			still = append(still, p)
		}
	}
	clear(b.heldBack[len(still):])
	b.heldBack = still
	return grown
}

// holdBack holds a partition back. More than one at a time may be, as long as they
// stay below the limit together.
func (b *budget) holdBack(p *partition) bool {
	if others := b.ofHeldBack(); others > 0 && others+p.grown.Load() > b.limit || !p.holdBack() {
		return false
	}
	b.heldBack = append(b.heldBack, p)
	return true
}

// holdBack keeps the partition's chunks queued until what decoding has added to
// others of it is mostly released.
func (p *partition) holdBack() bool {
	grown := p.grown.Load()
	if grown == 0 || p.heldBack.Load() > 0 {
		return false
	}
	p.heldBack.Store(grown) // before grown is read again: free reads it after its change
	return !p.letGo()
}

// letGo ends that, and reports whether it is over.
func (p *partition) letGo() bool {
	if p.grown.Load() > p.heldBack.Load()/4 {
		return false
	}
	p.heldBack.Store(0)
	return true
}
