package sinks

import (
	"math/bits"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/metrics"
	"twinegress/sinks/breaker"
)

// Counts are per event, since the sender was made. At any moment
//
//	Routed == Delivered + sum(Dropped) + Pending
//
// because each step changes both of its sides under one lock.
type Counts struct {
	Routed    uint64
	Delivered uint64
	Dropped   [event.NumReasons]uint64
	Pending   int

	// DroppedTypes is Dropped once more, by event type.
	DroppedTypes [event.NumTypes][event.NumReasons]uint64

	Latency metrics.Histogram // from Kafka's append to the delivery

	// Of each send, failed ones too:
	Sends       metrics.Histogram
	SentEvents  uint64
	BatchEvents [BatchBuckets]uint64 // by size: bucket i holds batches of up to 2^i events
}

// BatchBuckets is the number of buckets of Counts.BatchEvents.
const BatchBuckets = 17

func batchBucket(n int) int {
	if n <= 1 {
		return 0
	}
	return min(bits.Len(uint(n-1)), BatchBuckets-1)
}

// DroppedTotal sums over the reasons.
func (c *Counts) DroppedTotal() (n uint64) {
	for _, d := range c.Dropped {
		n += d
	}
	return n
}

// State is an endpoint's state, in the words of the status.
type State string

// The states of an endpoint.
const (
	StateProvisioning State = "provisioning" // nothing sent yet
	StateReady        State = "ready"
	StateThrottled    State = "throttled"
	StateBackingOff   State = "backing_off"
	StateProbing      State = "probing"
	StateStopped      State = "stopped"
	StateDeleting     State = "deleting"
)

// States are all of them, for the metric that has a series for each.
var States = []State{StateProvisioning, StateReady, StateThrottled, StateBackingOff, StateProbing, StateStopped, StateDeleting}

// Health is how an endpoint is doing.
type Health struct {
	State        State
	Key          Key
	BackOffUntil time.Time // zero unless backing off or probing
	Reason       string    // of the back-off, in one word; empty unless backing off or probing
	LastError    string
	HoldsBack    bool // its full lane is what the intake waits for
	HoldsShare   bool // what waits here keeps half of all that may be in flight
}

// Snapshot is a sender at one moment.
type Snapshot struct {
	Endpoint endpoints.Endpoint
	Counts   Counts
	Health
}

// Snapshot gives the sender's counts, all of the same moment, and its health.
func (s *Sender) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{Endpoint: s.endpoint, Counts: s.counts, Health: s.health()}
}

// Health gives the sender's health alone, at next to no cost.
func (s *Sender) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health()
}

func (s *Sender) health() Health {
	open, until := s.breaker.State() // not from before the counts: what was dropped has its back-off
	h := Health{
		Key:          s.link.key(),
		BackOffUntil: until,
		LastError:    s.lastErr,
		HoldsBack:    s.holdsBack.Load(),
		HoldsShare:   s.options.MaxHeld > 0 && s.held.Load() >= s.options.MaxHeld,
	}
	if open != breaker.Closed {
		h.Reason = s.lastReason.String()
	}
	switch {
	case s.life == deleting:
		h.State = StateDeleting
	case s.life == stopped:
		h.State = StateStopped
	case open == breaker.BackingOff:
		h.State = StateBackingOff
	case open == breaker.Probing:
		h.State = StateProbing
	case s.throttled.Load() > 0:
		h.State = StateThrottled
	case s.life == provisioning:
		h.State = StateProvisioning
	default:
		h.State = StateReady
		h.LastError = "" // a throttling that is over: nothing is wrong now
	}
	return h
}
