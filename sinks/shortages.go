package sinks

import (
	"sync/atomic"
	"time"
)

const (
	// shortageWait is how long a batch waits that could not be sent for a shortage.
	// It is long enough for others to give something back.
	shortageWait = time.Second
	// shortageEvery is how often the log says so, for all endpoints together.
	shortageEvery = 10 * time.Second
)

// Shortages are when this process had no descriptor left for a connection. No
// endpoint is to blame for that: what fails meanwhile is kept and sent again, for as
// long as it lasts. Which sends it failed can't be told from their errors (the AMQP
// SDKs keep causes as text, and text may be a peer's), so all that fail while
// connections can't be made are excused. For an endpoint that fails for another
// cause as well, that puts its back-off off.
type Shortages struct {
	count func() uint64
	said  atomic.Int64 // when, in nanoseconds since the epoch
}

// NewShortages returns shortages. count returns how many connections could not be
// made so far.
func NewShortages(count func() uint64) *Shortages { return &Shortages{count: count} }

// sum returns the count. That of nil, which nobody counts, is 0.
func (s *Shortages) sum() uint64 {
	if s == nil {
		return 0
	}
	return s.count()
}

// say reports whether the log is to say so now.
func (s *Shortages) say(now time.Time) bool {
	said := s.said.Load()
	return now.UnixNano()-said >= int64(shortageEvery) && s.said.CompareAndSwap(said, now.UnixNano())
}
