package sinks

import (
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
)

// delivered and drop are the two outcomes. The count comes before the settling,
// so that a chunk that is committed is counted.
func (s *Sender) delivered(events []*event.Event) {
	s.refused.Store(0)
	now := time.Now().UnixMilli()
	s.mu.Lock()
	s.counts.Delivered += uint64(len(events))
	s.counts.Pending -= len(events)
	for _, ev := range events {
		s.counts.Latency.Observe(time.Duration(now-ev.Record.Timestamp) * time.Millisecond)
	}
	s.mu.Unlock()
	s.settle(events)
}

func (s *Sender) drop(events []*event.Event, reason event.Reason, detail string) {
	s.mu.Lock()
	s.counts.Dropped[reason] += uint64(len(events))
	for _, ev := range events {
		s.counts.DroppedTypes[ev.Type][reason]++
	}
	s.counts.Pending -= len(events)
	if reason == event.Backoff {
		detail = s.lastErr // what it backs off for
	}
	s.mu.Unlock()
	if !s.options.KeepDropped {
		s.settle(events)
		return
	}
	s.letGo(events)
	for _, ev := range events {
		s.deadLetters.Put(ev, reason, detail, s.id)
	}
}

// setAside drops one event that its service does not take and keeps it as a
// dead letter, which settles it.
func (s *Sender) setAside(ev *event.Event, reason event.Reason, detail string) {
	s.mu.Lock()
	s.counts.Dropped[reason]++
	s.counts.DroppedTypes[ev.Type][reason]++
	s.counts.Pending--
	s.mu.Unlock()
	if s.refused.Add(1) == refusedInARow {
		s.log.Warn("the service refuses one event after the other and takes none: is it the endpoint's fault?",
			zap.Stringer("reason", reason), zap.String("detail", detail))
	}
	s.letGo([]*event.Event{ev})
	s.deadLetters.Put(ev, reason, detail, s.id)
}

// settle gives up the events' counts.
func (s *Sender) settle(events []*event.Event) {
	byChunk(events, func(c *event.Chunk, n int) {
		s.lanes[c.Lane].letGo(c, n) // before it may be another chunk
		c.Settle(n)
	})
}

// letGo is for events that are the dead letters' to settle.
func (s *Sender) letGo(events []*event.Event) {
	byChunk(events, func(c *event.Chunk, n int) { s.lanes[c.Lane].letGo(c, n) })
}

// byChunk tells how many events in a row are of one chunk: neighbours mostly share one.
func byChunk(events []*event.Event, of func(c *event.Chunk, n int)) {
	for i := 0; i < len(events); {
		c, j := events[i].Chunk, i+1
		for j < len(events) && events[j].Chunk == c {
			j++
		}
		of(c, j-i)
		i = j
	}
}

// observe measures one send, and its size unless it ended before it had one.
func (s *Sender) observe(events int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Sends.Observe(took)
	if events > 0 {
		s.counts.BatchEvents[batchBucket(events)]++
		s.counts.SentEvents += uint64(events)
	}
}
