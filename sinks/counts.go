package sinks

import (
	"math/bits"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/metrics"
)

// Counts are per event, since the sender was made. At any moment
//
//	Routed == Delivered + sum(Dropped) + Deferred + Pending
//
// because the ledger changes both sides under one lock.
type Counts struct {
	Routed    uint64
	Delivered uint64
	Dropped   [event.NumReasons]uint64
	Deferred  uint64 // left the shared reading for later: routed anew when they are caught up on
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

// DroppedTotal returns the sum over the reasons.
func (c *Counts) DroppedTotal() (n uint64) {
	for _, d := range c.Dropped {
		n += d
	}
	return n
}

// Health is how an endpoint is doing.
type Health struct {
	State State
	Since time.Time // when it began
	Key   Key
	// Where only parts back off, these are of the one that is tried next.
	BackOffUntil time.Time // zero unless something backs off
	Reason       string    // what is wrong now, in one word; else empty
	// LastError stays after a recovery; while something is wrong it is that.
	LastError       string
	LastErrorAt     time.Time
	LastDeliveredAt time.Time
	// FailingSince is when it began to back off, over all tries since, to refuse one
	// event after the other, or to be waited for, or when the primary key was refused;
	// zero if none of that.
	FailingSince  time.Time
	OldestPending time.Duration // how long the oldest event waits for its outcome
	// PartitionsBackingOff are those of the service that back off by themselves.
	PartitionsBackingOff []int
	Past                 Past
	HoldsBack            bool // the intake, or what may be committed, waits for it
	OverShare            bool // its lanes keep half of all that may be in flight

	BehindSince  time.Time // when it left the shared reading; zero: live everywhere
	BehindReason string    // why it left, in one word
	Positions    []PositionStatus
	CaughtUp     uint64 // events that it got from its positions, since the sender was made
	Left         uint64 // times that it left the shared reading
}

// Past is what was ever so since the sender was made.
type Past struct {
	Throttled bool
	Secondary bool // it was sent to with the secondary key
	HeldBack  bool // others waited for it, or nearly
}

// UsesSecondary reports whether the primary key is refused and events arrive with the
// other one.
func (h *Health) UsesSecondary() bool {
	return h.Key == Secondary && (h.State == StateReady || h.State == StateThrottled || h.State == StateDegraded)
}

// SetHoldsBack says that others wait for the endpoint; unless it is known why, that
// it is slow.
func (h *Health) SetHoldsBack() {
	h.HoldsBack = true
	if h.Reason == "" {
		h.Reason = ReasonSlow
	}
}

// Snapshot is a sender at one moment.
type Snapshot struct {
	Endpoint endpoints.Endpoint
	Host     string
	Counts   Counts
	Windows  Windows
	Health
}
