package sinks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"twinegress/internal/event"
)

const (
	// laneBatches bounds a lane's queue, in full batches of events …
	laneBatches = 4
	// … and in bytes. A run of a chunk is let in whole, so a lane may stand one chunk above.
	laneBytes = 8 << 20
	// batchBytes ends the lingering: about what a service takes in one batch.
	// The limit itself is the sink's, which knows its link's.
	batchBytes = 1 << 20
)

// lane is an endpoint's ordered sub-queue with one send in flight. One
// goroutine pushes (the dispatcher), one takes (the lane's own).
//
// The queue is two slices and two signals rather than a channel: a channel
// operation per event would cost more than the rest of its way through here.
type lane struct {
	sender *Sender

	mu    sync.Mutex
	queue []*event.Event
	bytes int // of queue and work
	count int // of queue and work
	// What the events keep in flight is more than their own bytes: a chunk
	// whole, with all events of other endpoints, for the sake of one.
	holds     map[*event.Chunk]int // its events here that have no outcome
	heldBytes int64
	since     time.Time // when queue was last empty

	wake  chan struct{} // something to take, or enough for a batch
	space chan struct{} // room to push

	started bool // the dispatcher's

	// The lane's goroutine's own:
	work   []*event.Event // taken from queue, not sent yet
	others []*event.Event // gather's own
}

func newLane(s *Sender) *lane {
	return &lane{sender: s, holds: make(map[*event.Chunk]int), wake: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is one already
	}
}

func (l *lane) full() bool {
	return l.count >= laneBatches*l.sender.options.MaxEvents || l.bytes >= laneBytes
}

// aboveShare reports whether the lane would keep more than its share of what
// may be in flight; one chunk it may, of whatever size. An endpoint that takes
// a tenth of the events would never fill its lane: its events keep ten times
// their own bytes, and polling stops before that.
func (l *lane) aboveShare(c *event.Chunk) bool {
	most := l.sender.options.MaxHeld / event.Lanes
	return most > 0 && l.heldBytes > 0 && l.heldBytes+c.Bytes() > most
}

func (l *lane) enough() bool {
	return l.count >= l.sender.options.MaxEvents || l.bytes >= batchBytes
}

// idle reports that every event that was pushed has its outcome.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count == 0
}

// push appends a run of one chunk's events. While the lane is full it waits for
// room: that is the back-pressure that in the end stops polling. It reports false, and
// has pushed nothing, if ctx ended; or, if wait is false, at once, also where
// the lane would keep too much in flight.
func (l *lane) push(ctx context.Context, run []*event.Event, wait bool, holdsBack *atomic.Bool) bool {
	c, bytes := run[0].Chunk, bytesOf(run)
	l.mu.Lock()
	for l.full() || !wait && l.aboveShare(c) {
		l.mu.Unlock()
		if !wait {
			return false
		}
		holdsBack.Store(true)
		select {
		case <-l.space:
		case <-ctx.Done():
			holdsBack.Store(false)
			return false
		}
		l.mu.Lock()
	}
	holdsBack.Store(false)
	wasEmpty, wasEnough := l.count == 0, l.enough()
	if len(l.queue) == 0 {
		l.since = time.Now()
	}
	l.queue = append(l.queue, run...)
	l.count += len(run)
	l.bytes += bytes
	l.holds[c] = len(run)
	l.heldBytes += c.Bytes()
	l.sender.held.Add(c.Bytes())
	wake := wasEmpty || !wasEnough && l.enough()
	l.mu.Unlock()
	if wake {
		signal(l.wake)
	}
	return true
}

// run takes, batches and sends until the sender is closed and the queue empty,
// or ctx ends.
func (l *lane) run(ctx context.Context) {
	linger := time.NewTimer(0)
	defer linger.Stop()
	for {
		leftOver := len(l.work) > 0
		for !l.take() {
			select {
			case <-l.wake:
			case <-l.sender.draining:
				if !l.take() {
					return
				}
			case <-ctx.Done():
				return
			}
		}
		if !leftOver { // what the batch before left over has waited long enough
			l.linger(ctx, linger)
		}
		l.gather()
		batch := l.work[:min(len(l.work), l.sender.options.MaxEvents)]
		bytes := bytesOf(batch) // before the events are settled and may be gone
		done := l.sender.deliver(ctx, batch)
		l.shift(done, bytes-bytesOf(batch[done:]))
		if ctx.Err() != nil {
			return // stopped: what has no outcome stays where it is
		}
	}
}

// linger gives a batch that isn't full time to fill, counted from when its
// first event came.
func (l *lane) linger(ctx context.Context, timer *time.Timer) {
	l.mu.Lock()
	wait := time.Until(l.since.Add(l.sender.options.Linger))
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
		case <-l.sender.draining:
		case <-ctx.Done():
		}
		break
	}
	l.take()
}

// take moves what is queued behind what is at work, and reports whether there
// is anything to send.
func (l *lane) take() bool {
	l.mu.Lock()
	l.work = append(l.work, l.queue...)
	clear(l.queue)
	l.queue = l.queue[:0]
	l.mu.Unlock()
	return len(l.work) > 0
}

// gather brings forward, up to a batch, what the work has of the partition that
// its first event is of. Partitions that share a lane come in turns, and a send
// to Event Hubs is for one partition of the hub: it would end with the turn,
// after a few events where they come at a rate. The order of each partition
// stays, and the oldest event is always in the next send.
func (l *lane) gather() {
	front := 0
	i := 0
	for ; i < len(l.work) && front < l.sender.options.MaxEvents; i++ {
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

// letGo notes that n events of a chunk have their outcome, if it was pushed here.
func (l *lane) letGo(c *event.Chunk, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left, ok := l.holds[c]
	switch {
	case !ok:
	case left > n:
		l.holds[c] = left - n
	default:
		delete(l.holds, c)
		l.heldBytes -= c.Bytes()
		l.sender.held.Add(-c.Bytes())
	}
}

// shift drops the first n events of the work, which have their outcome.
func (l *lane) shift(n, bytes int) {
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
