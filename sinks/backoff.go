package sinks

import (
	"sync"
	"time"

	"twinegress/sinks/breaker"
)

// backoff decides what of an endpoint backs off: the whole, or one or more parts by
// themselves. See parts for which of them it is.
type backoff struct {
	breaker    *breaker.Breaker // of all that doesn't back off by itself
	newBreaker func() *breaker.Breaker

	mu    sync.Mutex // taken under the ledger's, and before the breakers'
	parts parts
}

func (b *backoff) init(newBreaker func() *breaker.Breaker) {
	b.breaker, b.newBreaker = newBreaker(), newBreaker
}

// permit is a breaker's for one batch.
type permit struct {
	breaker.Permit
	partition int32 // of Kafka, that the batch begins with
	part      *part // whose breaker gave it; nil: the endpoint's did
	early     bool  // before the endpoint's wait is over
}

// probe is what the batch is to find out, if it is one.
func (p permit) probe() probe {
	switch {
	case !p.Probe:
		return noProbe
	case p.part != nil:
		return probePart
	default:
		return probeAll
	}
}

// blocked reports whether events of a Kafka partition would be dropped now. While
// the endpoint works it takes no lock.
func (b *backoff) blocked(partition int32, now time.Time) bool {
	if part := b.parts.of(partition); part != nil {
		return part.breaker.Blocked(now)
	}
	return b.breaker.Blocked(now) && !b.isFresh(partition)
}

// isFresh reports whether a Kafka partition is to be tried though the endpoint
// backs off.
func (b *backoff) isFresh(partition int32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	state, _ := b.breaker.State() // while a probe is out, its lane may be full for long
	return state == breaker.BackingOff && b.parts.isFresh(partition)
}

// acquire returns a permit to send one batch that begins with a Kafka partition,
// or why there is none. Its result must be reported once, with success, failure or
// cancel.
func (b *backoff) acquire(partition int32, now time.Time) (permit, *Error) {
	from, refusal := b.breaker, errBackingOff
	part := b.parts.of(partition)
	if part != nil {
		from, refusal = part.breaker, part.refusal
	}
	p, ok := from.Acquire(now)
	early := !ok && part == nil && b.isFresh(partition)
	if early {
		p, ok = from.AcquireEarly()
	}
	if !ok {
		return permit{}, refusal
	}
	return permit{p, partition, part, early}, nil
}

// cancel says that a batch has no result.
func (b *backoff) cancel(p permit) {
	if p.part != nil {
		p.part.breaker.Cancel(p.Permit)
		return
	}
	b.breaker.Cancel(p.Permit)
}

// answered says that the service answered a try that was begun then.
func (b *backoff) answered(began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if began.After(b.parts.answered) {
		b.parts.answered = began
	}
}

// success says that the service answered a batch, and returns whether that ended
// the back-off of the endpoint or the part.
func (b *backoff) success(p permit) (ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parts.acquit(p.partition)
	if p.part == nil {
		return b.breaker.Success(p.Permit)
	}
	if !p.part.breaker.Success(p.Permit) || !b.parts.remove(p.part) {
		return false
	}
	if state, _ := b.breaker.State(); state != breaker.Closed {
		b.breaker.Reset() // it is the endpoint that answered
	}
	return true
}

// failure says that the service did not take a batch. It returns until when the
// endpoint backs off, or the part if it is a part's failure, and whether it is this
// failure that made it.
func (b *backoff) failure(p permit, e *Error) (part *part, until time.Time, opened bool) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	part = p.part
	switch {
	case part != nil:
		if b.parts.of(p.partition) != part {
			return part, until, false // by now it is the whole's, or to be tried again
		}
	case e.ofPart() && !p.Probe && b.breaker.Stands(p.Permit):
		if part = b.parts.of(p.partition); part != nil {
			return part, until, false // another lane's failure made it back off
		}
		if part = b.parts.add(p.partition, e, b.newBreaker()); part != nil {
			p.Permit, _ = part.breaker.Acquire(now)
		}
	}
	if part != nil {
		if until, opened = part.breaker.Failure(p.Permit, now, e.Wait); opened {
			part.lastErr, part.lastReason = e.Error(), e.Reason
		}
		return part, until, opened
	}
	if p.early && e.ofPart() {
		b.breaker.Cancel(p.Permit) // the wait goes on as it was
	} else if until, opened = b.breaker.Failure(p.Permit, now, e.Wait); opened {
		b.parts.all = false
	}
	// Else another lane's failure made the endpoint back off, or it works again.
	if state, _ := b.breaker.State(); e.ofPart() && state != breaker.Closed && (opened || b.parts.all) {
		b.parts.join(p.partition, e)
	}
	return nil, until, opened
}

// reset ends all back-offs, and forgets what they were for.
func (b *backoff) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breaker.Reset()
	b.parts.reset()
}

// any reports whether anything of the endpoint backs off.
func (b *backoff) any() bool {
	state, _ := b.breaker.State()
	return state != breaker.Closed || b.parts.apart.Load() != nil
}

// cause returns what a Kafka partition backs off for, if it does so by itself.
func (b *backoff) cause(partition int32) (lastErr string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	part := b.parts.of(partition)
	if part == nil {
		return "", false
	}
	return part.lastErr, true
}

// health returns what there is to say about what backs off. The state is none if
// nothing does; if all of the endpoint does, why is for the ledger to say.
func (b *backoff) health() (h Health, all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parts.report(&h)
	switch state, until := b.breaker.State(); state {
	case breaker.BackingOff:
		h.State, h.BackOffUntil, all = StateBackingOff, until, true
	case breaker.Probing:
		h.State, h.BackOffUntil, all = StateProbing, until, true
	case breaker.Closed:
	}
	return h, all
}
