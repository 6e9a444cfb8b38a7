package sinks

import (
	"context"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

// Update changes the endpoint under the sender: queued events and counts stay.
// Where the change is one of the connection, a back-off ends and what is sent
// from now on goes the new way; the function that comes back, otherwise nil,
// closes the old way once the sends that are still going it are over.
func (s *Sender) Update(endpoint endpoints.Endpoint) (closeOld func(context.Context) error) {
	s.mu.Lock()
	old, before := s.link, s.endpoint
	s.endpoint = endpoint
	// What is none of the connection's business.
	before.Name, before.EventTypes, before.Filter = endpoint.Name, endpoint.EventTypes, endpoint.Filter
	before.Overflow = endpoint.Overflow
	if before.Equal(endpoint) {
		s.mu.Unlock()
		return nil
	}
	s.link = newFailover(endpoint, s.open, s.log)
	s.lastErr = ""
	if s.life == connected {
		s.life = provisioning
	}
	// All under the lock: a lane that sees the new way finds the breaker closed.
	s.breaker.Reset()
	close(old.replaced)
	s.mu.Unlock()
	return old.close
}

// Retry ends a back-off now, because somebody says that what it was for is
// mended: the next events go out at once, over new connections and with the
// primary key first. If that fails, the wait begins with the shortest again.
func (s *Sender) Retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state, _ := s.breaker.State(); state == breaker.Closed {
		return
	}
	s.link.renew()
	s.lastErr = ""
	if s.life == connected {
		s.life = provisioning
	}
	s.breaker.Reset()
}

// Remove drains the sender of a deleted endpoint: what isn't delivered when
// ctx ends is dropped. The dispatcher must have let go of it.
func (s *Sender) Remove(ctx context.Context) error {
	s.mu.Lock()
	s.life, s.removed = deleting, true
	s.mu.Unlock()
	return s.close(ctx)
}

// Close drains the sender of a process that stops: what isn't delivered when
// ctx ends stays unsettled, and so comes again after the restart. The
// dispatcher must have let go of it.
func (s *Sender) Close(ctx context.Context) error { return s.close(ctx) }

func (s *Sender) close(ctx context.Context) error {
	close(s.draining)
	idle := make(chan struct{})
	go func() {
		s.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		s.cancel()
		<-idle
	}
	s.cancel()
	s.mu.Lock()
	removed, link := s.removed, s.link
	s.life = stopped
	s.mu.Unlock()
	if removed {
		for _, l := range s.lanes {
			if l == nil {
				continue
			}
			l.take()
			s.drop(l.work, event.Removed, "the endpoint was removed")
			l.work = nil
		}
	}
	return link.close(ctx)
}
