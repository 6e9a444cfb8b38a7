package ingest

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// valveInterval is how often it is said again that nothing is read.
const valveInterval = 10 * time.Minute

// valve stops polling and dispatching while nobody takes events: see Source.Hold.
type valve struct {
	mu     sync.Mutex
	opened chan struct{} // closed when the valve opens; nil while it is open
}

func (v *valve) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.opened == nil {
		v.opened = make(chan struct{})
	}
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.opened != nil {
		close(v.opened)
		v.opened = nil
	}
}

func (v *valve) state() (opened chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.opened
}

func (v *valve) closed() bool { return v.state() != nil }

// wait blocks while the valve is closed; it returns false when ctx ends first.
func (v *valve) wait(ctx context.Context) bool {
	for opened := v.state(); opened != nil; opened = v.state() {
		select {
		case <-opened:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// waitLoudly is wait for the poller, which says that it waits: at once, and then
// rarely, since a new installation may wait for days.
func (v *valve) waitLoudly(ctx context.Context, log *zap.Logger) bool {
	opened := v.state()
	if opened == nil {
		return ctx.Err() == nil
	}
	begun := time.Now()
	tick := time.NewTicker(valveInterval)
	defer tick.Stop()
	for ; opened != nil; opened = v.state() {
		log.Warn("there is no endpoint, so nothing is read: events wait in Kafka until there is one (ingest.waitForEndpoints)",
			zap.Duration("for", time.Since(begun).Round(time.Second)))
		select {
		case <-opened:
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	log.Info("there is an endpoint: reading goes on", zap.Duration("waited", time.Since(begun).Round(time.Millisecond)))
	return ctx.Err() == nil
}

// Hold stops reading: nothing more is polled, and nothing that was read is
// emitted, so that its offsets stay uncommitted. What was emitted before is not
// affected, nor is the membership of the group. emit may refuse a chunk while the
// source is held, see Run.
func (s *Source) Hold() {
	if s.valve.closed() {
		return
	}
	s.valve.close()
	s.poller.gate.betweenPolls(func() {}) // ends the poll that waits for records
}

// Release ends Hold.
func (s *Source) Release() { s.valve.open() }
