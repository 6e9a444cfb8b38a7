package sinks

import (
	"context"
	"sync"
	"time"

	"twinegress/internal/event"
)

const (
	// laneBatches and laneBytes bound a lane, in full batches of events and in
	// bytes. A run is pushed whole, so a lane may be one chunk above.
	laneBatches = 4
	laneBytes   = 8 << 20
	// batchBytes ends the lingering: about what a service takes in one batch. The
	// limit itself is the sink's.
	batchBytes = 1 << 20
)

// lane is an endpoint's ordered sub-queue with one send in flight. Two
// goroutines use it: the dispatcher pushes, the lane's own takes batches.
//
// It is two slices and two signals rather than a channel: a channel operation
// per event would cost more than all else that the lane does with it.
type lane struct {
	queue *queue

	mu     sync.Mutex
	pushed []*event.Event
	bytes  int // of pushed and work
	count  int // of pushed and work
	// The events keep more in flight than their own bytes: a chunk whole, with
	// all events of other endpoints, for the sake of one.
	chunks   map[*event.Chunk]waiting
	inFlight int64     // bytes of these chunks
	made     time.Time // what their times count from
	since    time.Time // when pushed was last empty

	wake  chan struct{} // there are events, or enough for a batch
	space chan struct{} // there is room to push

	// Of the lane's goroutine alone:
	work   []*event.Event // drained from pushed, without an outcome
	others []*event.Event // groupByPartition's
}

// waiting is what of a chunk has no outcome.
type waiting struct {
	events int
	bytes  int64         // of the chunk as it was then: it may grow
	since  time.Duration // after the lane was made
}

func newLane(q *queue) *lane {
	return &lane{queue: q, made: time.Now(), chunks: make(map[*event.Chunk]waiting), wake: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is one already
	}
}

func (l *lane) full() bool {
	return l.count >= laneBatches*l.queue.maxEvents || l.bytes >= laneBytes
}

// aboveShare reports whether the lane would keep more than its share of what
// may be in flight; one chunk it may, of whatever size. An endpoint that takes
// a tenth of the events would never fill its lane: its events keep ten times
// their own bytes, and polling stops before that.
func (l *lane) aboveShare(c *event.Chunk) bool {
	most := l.queue.maxInFlight / event.Lanes
	return most > 0 && l.inFlight > 0 && l.inFlight+c.Bytes() > most
}

func (l *lane) enough() bool {
	return l.count >= l.queue.maxEvents || l.bytes >= batchBytes
}

// idle reports whether every event that was pushed has its outcome.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count == 0
}

// oldest is queue.oldest for this lane. It looks at all chunks, of which a lane has
// few unless its endpoint is slow: what is asked each few seconds must not cost a run
// of events anything.
func (l *lane) oldest(now time.Time) (waits time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := now.Sub(l.made)
	for c, w := range l.chunks {
		if c.Reading == 0 { // nobody waits for what an endpoint reads by itself
			waits = max(waits, at-w.since)
		}
	}
	return waits
}

// has reports whether events of an ownership have no outcome.
func (l *lane) has(o *event.Ownership) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.chunks {
		if c.Owned == o {
			return true
		}
	}
	return false
}

// roomy reports whether the lane is at most half full.
func (l *lane) roomy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count <= laneBatches*l.queue.maxEvents/2 && l.bytes <= laneBytes/2
}

// push is queue.push for this lane.
func (l *lane) push(ctx context.Context, c *event.Chunk, run []*event.Event, now time.Time, wait bool) bool {
	for !l.tryPush(c, run, now, !wait) {
		if !wait || !l.awaitSpace(ctx) {
			return false
		}
		now = time.Now()
	}
	return true
}

// awaitSpace blocks until there may be room; it returns false when ctx ends first.
func (l *lane) awaitSpace(ctx context.Context) bool {
	l.queue.blocking.Store(true)
	defer l.queue.blocking.Store(false)
	select {
	case <-l.space:
		return true
	case <-ctx.Done():
		return false
	}
}

// tryPush appends a run, unless the lane is full; or, if inShare is set, would keep
// more than its share in flight.
func (l *lane) tryPush(c *event.Chunk, run []*event.Event, now time.Time, inShare bool) bool {
	bytes := bytesOf(run)
	l.mu.Lock()
	if l.full() || inShare && l.aboveShare(c) {
		l.mu.Unlock()
		return false
	}
	wake := l.add(c, run, bytes, now)
	l.mu.Unlock()
	if wake {
		signal(l.wake)
	}
	return true
}

// put appends a run also if the lane is full by now.
func (l *lane) put(c *event.Chunk, run []*event.Event, now time.Time) {
	bytes := bytesOf(run)
	l.mu.Lock()
	wake := l.add(c, run, bytes, now)
	l.mu.Unlock()
	if wake {
		signal(l.wake)
	}
}

// add appends a run, and reports whether the lane's goroutine has to know. The caller
// holds mu.
func (l *lane) add(c *event.Chunk, run []*event.Event, bytes int, now time.Time) (wake bool) {
	wasEmpty, wasEnough := l.count == 0, l.enough()
	if len(l.pushed) == 0 {
		l.since = now
	}
	l.pushed = append(l.pushed, run...)
	l.count += len(run)
	l.bytes += bytes
	kept := c.Bytes()
	l.chunks[c] = waiting{len(run), kept, now.Sub(l.made)}
	l.inFlight += kept
	l.queue.inFlight.Add(kept)
	return wasEmpty || !wasEnough && l.enough()
}

// run delivers batches until the queue is closed and the lane empty, or ctx ends.
func (l *lane) run(ctx context.Context) {
	linger := time.NewTimer(0)
	defer linger.Stop()
	for {
		leftOver := len(l.work) > 0
		for !l.drain() {
			select {
			case <-l.wake:
			case <-l.queue.draining:
				if !l.drain() {
					return
				}
			case <-ctx.Done():
				return
			}
		}
		if !leftOver { // what the last batch left over has waited long enough
			l.linger(ctx, linger)
		}
		l.groupByPartition()
		batch := l.work[:min(len(l.work), l.queue.maxEvents)]
		bytes := bytesOf(batch) // before the events are settled and may be others
		done := l.queue.deliver(ctx, batch)
		l.consume(done, bytes-bytesOf(batch[done:]))
		if ctx.Err() != nil {
			return // stopped: what has no outcome stays where it is
		}
	}
}

// linger waits for a batch that isn't full to fill, counted from when its
// first event came.
func (l *lane) linger(ctx context.Context, timer *time.Timer) {
	l.mu.Lock()
	wait := time.Until(l.since.Add(l.queue.linger))
	l.mu.Unlock()
	if wait <= 0 {
		return
	}
	timer.Reset(wait)
	for {
		l.mu.Lock()
		enough := l.enough()
		l.mu.Unlock()
		if enough {
			break
		}
		select {
		case <-l.wake:
			continue
		case <-timer.C:
		case <-l.queue.draining:
		case <-ctx.Done():
		}
		break
	}
	l.drain()
}

// drain moves what was pushed behind the work, and reports whether there is
// any work.
func (l *lane) drain() bool {
	l.mu.Lock()
	l.work = append(l.work, l.pushed...)
	clear(l.pushed)
	l.pushed = l.pushed[:0]
	l.mu.Unlock()
	return len(l.work) > 0
}

// groupByPartition moves forward, up to a batch, the work's events of the
// partition that its first event is of. Partitions that share a lane alternate,
// and a send to Event Hubs is for one partition of the hub: it would end where
// they change, after a few events where they come at a rate. The order of each
// partition stays, and the oldest event is always in the next send.
func (l *lane) groupByPartition() {
	front := 0
	i := 0
	for ; i < len(l.work) && front < l.queue.maxEvents; i++ {
		ev := l.work[i]
		if ev.Chunk.Partition != l.work[0].Chunk.Partition {
			l.others = append(l.others, ev)
			continue
		}
		l.work[front] = ev
		front++
	}
	copy(l.work[front:i], l.others)
	clear(l.others)
	l.others = l.others[:0]
}

func bytesOf(events []*event.Event) (bytes int) {
	for _, ev := range events {
		bytes += len(ev.Body)
	}
	return bytes
}

// release is queue.release for this lane.
func (l *lane) release(c *event.Chunk, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left, ok := l.chunks[c]
	switch {
	case !ok:
	case left.events > n:
		left.events -= n
		l.chunks[c] = left
	default:
		delete(l.chunks, c)
		l.inFlight -= left.bytes
		l.queue.inFlight.Add(-left.bytes)
	}
}

// consume removes the first n events of the work, which have their outcome.
func (l *lane) consume(n, bytes int) {
	rest := copy(l.work, l.work[n:])
	clear(l.work[rest:])
	l.work = l.work[:rest]
	l.mu.Lock()
	l.count -= n
	l.bytes -= bytes
	room := !l.full()
	l.mu.Unlock()
	if room {
		signal(l.space)
	}
}
