package sinks

import (
	"fmt"
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
	StateBehind       State = "behind"  // it works, and catches up from Kafka
	StateStopped      State = "stopped" // paused (enabled: false), or the process stops
	StateDeleting     State = "deleting"
)

// States are all of them.
var States = []State{StateProvisioning, StateReady, StateDegraded, StateThrottled, StateBackingOff, StateProbing, StateBehind, StateStopped, StateDeleting}

// ReasonSlow is the Reason of an endpoint that holds back while nothing else is wrong.
const ReasonSlow = "slow"

// What LastError begins with where an endpoint runs on its secondary key, and where the
// service refuses one event after the other.
const (
	PrimaryRefused = "the primary key is refused, the secondary is used"
	RefusesAll     = "refuses one event after the other, and takes none"
)

// lifecycle is what an endpoint's state depends on besides the breaker and the
// lanes that wait for a throttling service.
type lifecycle uint8

const (
	provisioning lifecycle = iota
	connected
	deleting
	stopped
)

// condition is how an endpoint is doing. The ledger's lock covers it.
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
type condition struct {
	lifecycle    lifecycle
	throttled    int // lanes that wait as the service told them to
	throttledFor event.Reason
	wait         *entry // of throttled
	refused      refusedRow
	refuses      bool   // refused is too long: the endpoint may be wrong
	key          *entry // while the primary is refused and the secondary works

	slow       *entry // while others wait for it
	behind     *entry // while it has left the shared reading
	paused     bool   // not enabled
	backOffErr string // of the last back-off of the whole
	backOffFor event.Reason
	off        *outage // from the first failure to the first success, over all probes
	parts      []*part // with an entry that lasts

	lastErr   string // stays after a recovery
	lastErrAt time.Time
	past      Past
	shown     State // what the endpoint was last known to be, since then
	since     time.Time
}

// outage is what a back-off, with all of its probes, has cost so far.
type outage struct {
	began  time.Time
	before [event.NumReasons]uint64 // dropped
	entry  *entry
}

// recovery is what a success ended.
type recovery struct {
	part *part // it was only this one
	off  time.Duration
	lost lost
}

func (c *condition) failed(text string, now time.Time) { c.lastErr, c.lastErrAt = text, now }

func (c *condition) acceptsAgain() { c.refused, c.refuses = refusedRow{}, false }

// note must be called after each change that the state depends on. So the time since
// when it is what it is costs nothing while it stays, and nobody has to look.
func (l *ledger) note(now time.Time) State {
	h, _ := l.backoff.health()
	state := l.stateLocked(h.State)
	if state != l.condition.shown {
		l.condition.shown, l.condition.since = state, now
		l.condition.past.Throttled = l.condition.past.Throttled || state == StateThrottled
	}
	return state
}

// stateLocked returns the state, given that of the back-off if anything is in one.
func (l *ledger) stateLocked(backoff State) State {
	c := &l.condition
	switch {
	case c.lifecycle == deleting:
		return StateDeleting
	case c.lifecycle == stopped, c.paused:
		return StateStopped
	case backoff != "":
		return backoff
	case c.throttled > 0:
		return StateThrottled
	case c.lifecycle == provisioning:
		return StateProvisioning
	case c.refuses:
		return StateDegraded
	case c.behind != nil:
		return StateBehind
	}
	return StateReady
}

// recordSuccess records that the service answered over conn. It returns nil unless
// the endpoint, or the part, became ready by that.
func (l *ledger) recordSuccess(p permit, conn *connection) *recovery {
	ended := l.backoff.success(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.condition
	first := c.lifecycle == provisioning && !conn.isReplaced()
	if !ended && !first {
		return nil
	}
	now := time.Now()
	if first {
		c.lifecycle = connected
	}
	r := &recovery{part: p.part}
	state, _ := l.backoff.breaker.State()
	switch {
	case c.off != nil && state == breaker.Closed: // or another lane's failure came meanwhile
		r.part, r.off = nil, now.Sub(c.off.began)
		for reason, n := range l.counts.Dropped {
			r.lost[reason] = n - c.off.before[reason]
		}
		c.off.entry.end(now)
		c.off = nil
	case p.part != nil:
		r.off, r.lost = now.Sub(p.part.off), p.part.lost
	case first:
		l.record(WhatReady, 0, "", now)
	}
	l.endParts(now)
	l.note(now)
	return r
}

// backOff records a failed batch. It returns until when the endpoint backs off,
// or the part if there is one, and whether it is this failure that made it.
func (l *ledger) backOff(p permit, e *Error) (part *part, until time.Time, opened bool) {
	part, until, opened = l.backoff.failure(p, e)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.condition
	switch {
	case !opened:
	case part != nil:
		text := fmt.Sprintf("%s (partition %d)", e.Error(), part.index)
		c.failed(text, now)
		if part.entry == nil {
			part.off = now
			c.parts = append(c.parts, part)
		}
		part.entry = l.begin(WhatPart, e.Reason, text, now)
	default:
		c.failed(e.Error(), now)
		c.backOffErr, c.backOffFor = c.lastErr, e.Reason
		before := c.off
		if before == nil {
			c.off = &outage{began: now, before: l.counts.Dropped}
		}
		c.off.entry = l.begin(WhatBackingOff, e.Reason, e.Err.Error(), now)
		if before != nil && before.entry != c.off.entry {
			before.entry.end(now) // it fails for something else now
		}
	}
	l.endParts(now)
	l.note(now)
	return part, until, opened
}

// endParts ends the entries of the parts that don't back off by themselves any more.
func (l *ledger) endParts(now time.Time) {
	c := &l.condition
	if len(c.parts) == 0 {
		return
	}
	set := l.backoff.parts.apart.Load()
	left := c.parts[:0]
	for _, part := range c.parts {
		if set != nil && set.parts[part.index] == part {
			left = append(left, part)
			continue
		}
		part.entry.end(now)
	}
	clear(c.parts[len(left):])
	c.parts = left
}

// probes records that a batch goes out to find out whether the endpoint works.
func (l *ledger) probes() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(time.Now())
}

// throttle records that a lane begins to wait, and reports whether no other
// one does. resume must be called when the wait is over.
func (l *ledger) throttle(e *Error) (first bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.condition
	c.failed(e.Error(), now)
	c.throttledFor = e.Reason
	c.throttled++
	if c.throttled == 1 {
		c.wait = l.begin(WhatThrottled, e.Reason, e.Err.Error(), now)
	}
	return c.throttled == 1
}

func (l *ledger) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.condition
	if c.throttled--; c.throttled == 0 {
		now := time.Now()
		c.wait.end(now)
		c.wait = nil
		l.note(now)
	}
}

// keyRefused records that the primary key is refused, and the secondary works.
func (l *ledger) keyRefused(conn *connection, refusal *Error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn.isReplaced() { // asked under the lock: restart comes after that, and takes it
		return
	}
	l.condition.failed(PrimaryRefused+": "+refusal.Err.Error(), now)
	l.condition.past.Secondary = true
	l.condition.key = l.begin(WhatKeyRefused, event.Unauthorized, l.condition.lastErr, now)
}

// keyWorks records that the primary key works again. secondary is why the other one is not used any more.
func (l *ledger) keyWorks(conn *connection, secondary *Error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn.isReplaced() {
		return
	}
	if secondary != nil {
		l.condition.failed("the secondary key is refused, the primary is used: "+secondary.Err.Error(), now)
	}
	l.condition.key.end(now)
	l.condition.key = nil
}

// holdsBack records that others begin, or cease, to wait for the endpoint.
func (l *ledger) holdsBack(holds bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !holds {
		l.condition.slow.end(now)
		l.condition.slow = nil
		return
	}
	l.condition.slow = l.begin(WhatHoldsBack, 0, "", now)
}

// restart closes the breaker and forgets what was wrong: the endpoint was
// changed, or somebody says that it works again. What it cost goes on being
// counted until it does.
func (l *ledger) restart(what string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.condition
	if c.lifecycle == connected {
		c.lifecycle = provisioning
	}
	c.acceptsAgain()
	c.key.end(now)
	c.key = nil
	l.backoff.reset()
	l.endParts(now)
	l.record(what, 0, "", now)
}

func (l *ledger) enter(next lifecycle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.condition.lifecycle = next
	what := WhatStopped
	if next == deleting {
		what = WhatDeleting
	}
	l.record(what, 0, "", time.Now())
}

func (l *ledger) healthLocked(now time.Time) Health {
	c := &l.condition
	h, all := l.backoff.health() // not from before the counts: what was dropped has its back-off
	backoff := h.State
	h.State = l.note(now)
	h.Past = c.past
	h.Since, h.LastErrorAt, h.LastDeliveredAt = c.since, c.lastErrAt, l.lastDelivered
	if backoff == "" || all {
		h.LastError = c.lastErr
	}
	if c.off != nil {
		h.FailingSince = c.off.began
	}
	switch {
	case all:
		h.Reason, h.LastError = c.backOffFor.String(), c.backOffErr
	case backoff != "": // a part's
	case h.State == StateThrottled:
		h.Reason = c.throttledFor.String()
	case h.State == StateDegraded:
		h.Reason = c.refused.reason.String()
		h.LastError, h.FailingSince = c.refused.text(), c.refused.since
	case h.State == StateReady && c.key != nil:
		h.Reason, h.FailingSince = event.Unauthorized.String(), c.key.since
		h.LastError = c.key.text // FailingSince is not in it: copies differ in that, and it is one trouble
	case h.State == StateReady && c.slow != nil:
		h.FailingSince = c.slow.since
	}
	return h
}
