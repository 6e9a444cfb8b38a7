package sinks

import (
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// Brief is a Snapshot without histograms and counts by event type: what a walk over
// ten thousand endpoints every few seconds can afford. At any moment
// Routed == Delivered + sum(Dropped) + Deferred + Pending.
type Brief struct {
	Endpoint  endpoints.Endpoint
	Host      string
	Routed    uint64
	Delivered uint64
	Dropped   [event.NumReasons]uint64
	Deferred  uint64
	Pending   int
	Windows   Windows
	Health
}

// Brief sets b to the sender at this moment.
func (s *Sender) Brief(b *Brief, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.Endpoint, b.Host = s.endpoint, s.host
	var health Health
	func() {
		l := &s.ledger
		l.mu.Lock()
		defer l.mu.Unlock()
		c := &l.counts
		b.Routed, b.Delivered, b.Dropped, b.Deferred, b.Pending = c.Routed, c.Delivered, c.Dropped, c.Deferred, c.Pending
		b.Windows, health = l.windows.of(now.Sub(l.made), c), l.healthLocked(now)
	}()
	b.Health = s.complete(health, now)
}
