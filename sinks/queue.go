package sinks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"twinegress/internal/event"
)

// queue is an endpoint's lanes: it batches events and calls deliver with each
// batch. It has no counters and knows no outcome.
type queue struct {
	maxEvents   int           // of a batch
	linger      time.Duration // of a batch that is not full
	maxInFlight int64         // see Options
	// deliver returns how many events of a batch, from the front, have their
	// outcome. The others stay in front of their lane.
	deliver func(ctx context.Context, batch []*event.Event) (done int)

	lanes    [event.Lanes]atomic.Pointer[lane] // nil until the lane's first event
	running  sync.WaitGroup                    // the lanes' goroutines
	ctx      context.Context                   // of the lanes and their sends: ends when close can't wait any longer
	cancel   context.CancelFunc
	draining chan struct{} // closed by close
	inFlight atomic.Int64  // bytes of the chunks with events in the lanes
	blocking atomic.Bool   // push waits for room
}

func (q *queue) init(o Options, deliver func(context.Context, []*event.Event) int) {
	q.maxEvents, q.linger, q.maxInFlight, q.deliver = o.MaxEvents, o.Linger, o.MaxInFlight, deliver
	q.draining = make(chan struct{})
	q.ctx, q.cancel = context.WithCancel(context.Background())
}

// push appends a run of c's events to its lane. While the lane is full, push
// blocks: that is the back-pressure that in the end stops polling. It returns
// false, and has appended nothing, if ctx ends first; or, if wait is false, at
// once, also where the lane would keep more than its share in flight.
func (q *queue) push(ctx context.Context, c *event.Chunk, run []*event.Event, now time.Time, wait bool) bool {
	return q.lane(c.Lane).push(ctx, c, run, now, wait)
}

// lane returns a lane, which it makes if need be: most of thousands of endpoints see
// few partitions, or nothing for long. The dispatcher and who reads for the endpoint
// may both be the first.
func (q *queue) lane(number int) *lane {
	if l := q.lanes[number].Load(); l != nil {
		return l
	}
	l := newLane(q)
	if !q.lanes[number].CompareAndSwap(nil, l) {
		return q.lanes[number].Load()
	}
	q.running.Go(func() { l.run(q.ctx) })
	return l
}

// has reports whether events of an ownership are in a lane.
func (q *queue) has(o *event.Ownership) bool {
	for i := range q.lanes {
		if l := q.lanes[i].Load(); l != nil && l.has(o) {
			return true
		}
	}
	return false
}

// pushBehind is push without waiting, for a run that must stay behind what its
// lane still has. It returns false if the lane has nothing.
func (q *queue) pushBehind(c *event.Chunk, run []*event.Event, now time.Time) bool {
	l := q.lanes[c.Lane].Load()
	return l != nil && !l.idle() && l.push(q.ctx, c, run, now, false)
}

// release must be called for n events of a chunk that have their outcome,
// before the chunk is settled and may be another one. Events that were never
// pushed are ignored.
func (q *queue) release(c *event.Chunk, n int) {
	if l := q.lanes[c.Lane].Load(); l != nil {
		l.release(c, n)
	}
}

// overShare reports whether the lanes keep more in flight than the endpoint may.
func (q *queue) overShare() bool {
	return q.maxInFlight > 0 && q.inFlight.Load() >= q.maxInFlight
}

// oldest returns for how long the oldest event waits that has no outcome; 0 if
// there is none.
func (q *queue) oldest(now time.Time) (waits time.Duration) {
	if q.inFlight.Load() == 0 { // as at nearly all of thousands of endpoints
		return 0
	}
	for i := range q.lanes {
		if l := q.lanes[i].Load(); l != nil {
			waits = max(waits, l.oldest(now))
		}
	}
	return waits
}

// close blocks until the lanes are empty, or ctx ends and their sends have
// returned. The dispatcher must not push any more.
func (q *queue) close(ctx context.Context) {
	close(q.draining)
	idle := make(chan struct{})
	go func() {
		q.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		q.cancel()
		<-idle
	}
	q.cancel()
}

// rest calls drop with what a closed queue has left, lane by lane.
func (q *queue) rest(drop func(events []*event.Event)) {
	for i := range q.lanes {
		if l := q.lanes[i].Load(); l != nil && l.drain() {
			drop(l.work)
			l.work = nil
		}
	}
}
