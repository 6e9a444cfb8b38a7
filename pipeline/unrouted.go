package pipeline

import (
	"slices"
	"sync"
	"time"

	"twinegress/internal/event"
)

const (
	unroutedSamples  = 5
	unroutedInterval = time.Second
)

// UnroutedEvent is an event that no endpoint takes. It has nothing of its content.
type UnroutedEvent struct {
	At        time.Time `json:"at"`
	EventType string    `json:"eventType"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Why       string    `json:"why" enum:"no endpoint takes this type,no filter takes this event"`
}

// The values of UnroutedEvent.Why.
const (
	whyType   = "no endpoint takes this type"
	whyFilter = "no filter takes this event"
)

// unroutedSample keeps the last few events that nobody takes, one a second at most:
// a glance tells what they are. Chunks whose events all have an endpoint never ask.
type unroutedSample struct {
	mu   sync.Mutex
	last []UnroutedEvent // oldest first
}

func (s *unroutedSample) add(ev *event.Event, typeTaken bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.last); n > 0 && now.Sub(s.last[n-1].At) < unroutedInterval {
		return
	}
	if len(s.last) == unroutedSamples {
		s.last = slices.Delete(s.last, 0, 1)
	}
	why := whyType
	if typeTaken {
		why = whyFilter
	}
	s.last = append(s.last, UnroutedEvent{
		At: now.UTC(), EventType: ev.Type.String(),
		Topic: ev.Chunk.Topic, Partition: ev.Chunk.Partition, Offset: ev.Record.Offset, Why: why,
	})
}

// get returns the sample, oldest first.
func (s *unroutedSample) get() []UnroutedEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]UnroutedEvent{}, s.last...)
}
