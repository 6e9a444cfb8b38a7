package sinks

import (
	"sync"
	"time"

	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

// State is an endpoint's state, in the words of the status.
type State string

// The states of an endpoint.
const (
	StateProvisioning State = "provisioning" // no connection has worked yet
	StateReady        State = "ready"
	StateDegraded     State = "degraded" // a part backs off; or one event after the other is refused
	StateThrottled    State = "throttled"
	StateBackingOff   State = "backing_off"
	StateProbing      State = "probing"
	StateStopped      State = "stopped"
	StateDeleting     State = "deleting"
)

// States are all of them, for the metric that has a series for each.
var States = []State{StateProvisioning, StateReady, StateDegraded, StateThrottled, StateBackingOff, StateProbing, StateStopped, StateDeleting}

// lifecycle is what an endpoint's state depends on besides the breaker and the
// lanes that wait for a throttling service.
type lifecycle uint8

const (
	provisioning lifecycle = iota
	connected
	deleting
	stopped
)

// ledger has one endpoint's counts and state. Both sides of the equation of
// Counts change together, under its one mutex, and a snapshot is of one moment.
//
//	             success                 told to wait
//	provisioning ───────▶ ready ◀─────────────────────▶ throttled
//	     │                │   ▲          wait over          │
//	     │        failure │   │ success                     │ told to wait
//	     │ failure        │   │                             │ past the limit,
//	     │                │   probing ── failure, stop ──┐  │ failure
//	     │                │   ▲                          │  │
//	     │                ▼   │ wait over                │  │
//	     └─────────────▶ backing_off ◀───────────────────┴──┘
//
//	Told to wait: from provisioning as well, and back
//	Degraded: in place of ready and throttled, while only a part of the service
//	backs off: from the part's failure to its success; in place of ready, while
//	the service refuses one event after the other
//	Update: from any of the above ──▶ provisioning, if the connection changes
//	Retry:  from backing_off, probing, degraded ──▶ provisioning
//	Remove: from any of the above ──▶ deleting ── drained ──▶ stopped
//	Close:  from any of the above ── drained ──▶ stopped
type ledger struct {
	backoff backoff // its locks are taken under mu, never the other way round

	mu         sync.Mutex
	counts     Counts
	lifecycle  lifecycle
	throttled  int // lanes that wait as the service told them to
	lastErr    string
	lastReason event.Reason // of the last back-off
}

// routed counts events as pending.
func (l *ledger) routed(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Routed += uint64(n)
	l.counts.Pending += n
}

// sent measures one send, and its size unless it ended before it had one.
func (l *ledger) sent(n int, began time.Time, err *Error) {
	took := time.Since(began)
	if err == nil || err.isRejection() && n > 0 {
		l.backoff.answered(began)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Sends.Observe(took)
	if n > 0 {
		l.counts.BatchEvents[batchBucket(n)]++
		l.counts.SentEvents += uint64(n)
	}
}

func (l *ledger) delivered(events []*event.Event) {
	now := time.Now().UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Delivered += uint64(len(events))
	l.counts.Pending -= len(events)
	for _, ev := range events {
		l.counts.Latency.Observe(time.Duration(now-ev.Record.Timestamp) * time.Millisecond)
	}
}

// dropped returns the detail to be kept of the drop: that of a back-off is what
// the endpoint backs off for.
func (l *ledger) dropped(events []*event.Event, reason event.Reason, detail string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Dropped[reason] += uint64(len(events))
	for _, ev := range events {
		l.counts.DroppedTypes[ev.Type][reason]++
	}
	l.counts.Pending -= len(events)
	if reason == event.Backoff {
		if cause, ok := l.backoff.cause(events[0].Chunk.Partition); ok {
			return cause
		}
		return l.lastErr
	}
	return detail
}

// recordSuccess records that the service answered over conn, and reports
// whether the endpoint, or the part, became ready by that.
func (l *ledger) recordSuccess(p permit, conn *connection) (ready bool) {
	ready = l.backoff.success(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	// Under the lock: backOff stores the error only once the breaker is open,
	// so this can't erase why another lane began to back off meanwhile.
	if state, _ := l.backoff.breaker.State(); state == breaker.Closed {
		l.lastErr = "" // it works now; a lane that still waits says so again
	}
	if l.lifecycle == provisioning && !conn.isReplaced() {
		l.lifecycle = connected
		return true
	}
	return ready
}

// backOff records a failed batch. It returns until when the endpoint backs off,
// or the part if there is one, and whether it is this failure that made it.
func (l *ledger) backOff(p permit, e *Error) (part *part, until time.Time, opened bool) {
	part, until, opened = l.backoff.failure(p, e)
	if opened && part == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lastErr, l.lastReason = e.Error(), e.Reason
	}
	return part, until, opened
}

// throttle records that a lane begins to wait, and reports whether no other
// one does. resume must be called when the wait is over.
func (l *ledger) throttle(e *Error) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastErr = e.Error()
	l.throttled++
	return l.throttled == 1
}

func (l *ledger) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.throttled--
}

// restart closes the breaker and forgets what was wrong: the endpoint was
// changed, or somebody says that it works again.
func (l *ledger) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastErr = ""
	if l.lifecycle == connected {
		l.lifecycle = provisioning
	}
	l.backoff.reset()
}

func (l *ledger) enter(next lifecycle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lifecycle = next
}

func (l *ledger) snapshot() (Counts, Health) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts, l.healthLocked()
}

func (l *ledger) health() Health {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.healthLocked()
}

func (l *ledger) healthLocked() Health {
	h, all := l.backoff.health() // not from before the counts: what was dropped has its back-off
	if all {
		h.Reason, h.LastError = l.lastReason.String(), l.lastErr
	}
	switch {
	case l.lifecycle == deleting:
		h.State = StateDeleting
	case l.lifecycle == stopped:
		h.State = StateStopped
	case h.State != "":
	case l.throttled > 0:
		h.State, h.LastError = StateThrottled, l.lastErr
	case l.lifecycle == provisioning:
		h.State, h.LastError = StateProvisioning, l.lastErr
	default:
		h.State = StateReady // whatever was wrong, nothing is now
	}
	return h
}
