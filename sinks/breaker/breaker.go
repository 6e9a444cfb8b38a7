// Package breaker is the state machine behind an endpoint's back-off: closed,
// backing off until a time, probing. The clock is passed in; it has no timer and
// no goroutine.
//
// No library has this shape: a wait that doubles up to a cap, a single probe,
// everything else dropped while it is open, a floor that a throttling service
// sets.
package breaker

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// State is what the breaker decides about a batch.
type State uint8

// The states of a breaker.
const (
	Closed     State = iota // batches go out
	BackingOff              // nothing goes out until the wait is over
	Probing                 // one batch is out; everything else is refused until its result
)

// jitterPart is the largest part of a wait that jitter takes off: one fifth.
// Jitter never adds, so that the cap stays a cap.
const jitterPart = 0.2

// Breaker is safe for use by several goroutines.
type Breaker struct {
	initial, max time.Duration
	jitter       func() float64 // in [0, 1)

	mu         sync.Mutex
	state      State
	generation uint64        // moves with every change of state: results of an old one are ignored
	wait       time.Duration // the next back-off, before jitter
	retryAt    time.Time

	// openUntil mirrors the state for Blocked, which is asked for every run of
	// events: 0 closed, otherwise nanoseconds since the epoch; forever while probing.
	openUntil atomic.Int64
}

const forever = math.MaxInt64

// New returns a closed breaker. Waits start at initial and double up to max.
func New(initial, max time.Duration, jitter func() float64) *Breaker {
	return &Breaker{initial: initial, max: max, jitter: jitter, wait: initial}
}

// Permit allows one batch to go out. Its result must be reported exactly once,
// with Success, Failure or Cancel.
type Permit struct {
	generation uint64
	Probe      bool // this batch is the probe
}

// Blocked reports, without a lock, whether a batch would be refused at this time.
func (b *Breaker) Blocked(now time.Time) bool {
	until := b.openUntil.Load()
	return until != 0 && now.UnixNano() < until
}

// Acquire returns a permit to send one batch, or false. The first permit after a
// wait is the probe's, and there is no other until its result is reported.
func (b *Breaker) Acquire(now time.Time) (Permit, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case Probing:
		return Permit{}, false
	case BackingOff:
		if now.Before(b.retryAt) {
			return Permit{}, false
		}
		return b.probe(), true
	}
	return Permit{generation: b.generation}, true
}

// AcquireEarly returns the probe's permit though the wait isn't over, or false if
// a probe is out or nothing waits: for a batch that may fare better than what failed.
func (b *Breaker) AcquireEarly() (Permit, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state != BackingOff {
		return Permit{}, false
	}
	return b.probe(), true
}

func (b *Breaker) probe() Permit {
	b.enter(Probing)
	b.openUntil.Store(forever)
	return Permit{generation: b.generation, Probe: true}
}

// Success reports that the service took the batch, or rejected only what is in
// it: either way the service works. It returns whether that ended a back-off.
func (b *Breaker) Success(p Permit) (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.generation != b.generation || b.state == Closed {
		return false
	}
	b.close()
	return true
}

// Failure reports that the service did not take the batch. The back-off is no
// shorter than atLeast, which is what a throttling service asked for, nor ever
// longer than the maximum. It returns until when the breaker is open, and whether
// this failure opened it.
func (b *Breaker) Failure(p Permit, now time.Time, atLeast time.Duration) (retryAt time.Time, opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.generation != b.generation {
		return b.retryAt, false
	}
	wait := time.Duration(float64(b.wait) * (1 - jitterPart*b.jitter()))
	wait = min(max(wait, atLeast), b.max)
	b.wait = min(2*b.wait, b.max)
	b.enter(BackingOff)
	b.retryAt = now.Add(wait)
	b.openUntil.Store(b.retryAt.UnixNano())
	return b.retryAt, true
}

// Cancel reports that the batch has no result, because of a stop say: it counts
// neither as success nor as failure. After a cancelled probe another may go out.
func (b *Breaker) Cancel(p Permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.generation != b.generation || b.state != Probing {
		return
	}
	b.enter(BackingOff)
	b.openUntil.Store(b.retryAt.UnixNano())
}

// Stands reports whether the state that gave the permit still holds: otherwise
// its result is ignored.
func (b *Breaker) Stands(p Permit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.generation == b.generation
}

// Reset closes the breaker in any state, because its endpoint was changed: new
// keys end a back-off at once.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close()
}

// State returns the state and, unless it is closed, the time at which the wait
// ends or ended.
func (b *Breaker) State() (State, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Closed {
		return Closed, time.Time{}
	}
	return b.state, b.retryAt
}

func (b *Breaker) close() {
	b.enter(Closed)
	b.wait = b.initial
	b.retryAt = time.Time{}
	b.openUntil.Store(0)
}

func (b *Breaker) enter(s State) {
	b.state = s
	b.generation++
}
