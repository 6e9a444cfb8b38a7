package catchup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/sinks"
)

// service is what a sender sends to.
type service struct {
	down atomic.Bool
	mu   sync.Mutex
	seen map[int32][]int64 // offsets as they arrived first
	high map[int32]int64
}

func (s *service) Send(_ context.Context, events []*event.Event) (int, error) {
	if s.down.Load() {
		return 0, &sinks.Error{Reason: event.Unreachable, Err: errors.New("down")}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range events {
		p, at := ev.Chunk.Partition, ev.Record.Offset
		if before, is := s.high[p]; !is || at > before {
			s.seen[p], s.high[p] = append(s.seen[p], at), at
		}
	}
	return len(events), nil
}

func (s *service) Close(context.Context) error { return nil }

type noLetters struct{}

func (noLetters) Put(*event.Event, event.Reason, string, *sinks.Recipient) {}

// Real senders that fall behind while events come, each at its own time, catch up and
// join, and everything has arrived: in order, and none is left out.
func TestReaderWithSenders(t *testing.T) {
	t.Parallel()
	const partitions, n, chunk, count = 3, 20_000, 50, 4
	e := newReaderEnv(t, partitions, 64<<20, 16<<20)
	for p := range int32(partitions) {
		e.produce(p, n, 50)
		e.owned[p].Dispatched.Store(0)
	}
	behind := sinks.NewBehind()
	options := sinks.Options{
		Linger: time.Millisecond, MaxEvents: 200, BackoffInitial: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		Timeout: time.Second, Attempts: 1, ThrottleLimit: time.Minute, MaxInFlight: 32 << 20, Behind: behind,
	}
	services, senders := make([]*service, count), make([]*sinks.Sender, count)
	for i := range senders {
		services[i] = &service{seen: make(map[int32][]int64), high: make(map[int32]int64)}
		senders[i] = sinks.NewSender(endpoints.Endpoint{
			ID: fmt.Sprint(i), Type: endpoints.TypeEventHub, Path: "twins", Recovery: endpoints.RecoveryCatchUp,
			Overflow: endpoints.OverflowBlock, EventTypes: []string{endpoints.SensorChange},
		}, options, func(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return services[i], nil }, noLetters{}, zap.NewNop())
	}
	e.o.Behind = everybody{behind}
	e.o.Prepare = func(c *event.Chunk, decoded bool) (Prepared, bool) {
		if !decoded {
			decode(c)
		}
		return Prepared{Run: func(Sender) ([]*event.Event, bool) { return pointers(c), true }, Done: func() {}}, true
	}
	e.run()

	// What all endpoints read together, a chunk of each partition in turn.
	var unsettled atomic.Int64
	for from := int64(0); from < n; from += chunk {
		for i, s := range services { // each is down for a part of the time
			s.down.Store(from > int64(i)*n/10 && from < int64(i+3)*n/10)
		}
		for p := range int32(partitions) {
			o := e.owned[p]
			unsettled.Add(1)
			c := event.NewChunk(o.Topic, p, chunk, chunk*50, func(c *event.Chunk) { c.Free(); unsettled.Add(-1) })
			c.Owned, c.Lane = o, int(p)
			for at := from; at < from+chunk; at++ {
				c.Add(at, 0, 0, nil, make([]byte, 50))
			}
			decode(c)
			o.Dispatched.Store(c.Last + 1)
			for _, s := range senders {
				if err := s.Enqueue(t.Context(), c, pointers(c)); err != nil {
					t.Fatal(err)
				}
			}
			o.Handed.Store(c.Last + 1)
			c.Settle(1)
		}
	}
	eventually.Holds(t, "nobody is behind", func() bool {
		return !slices.ContainsFunc(senders, func(s *sinks.Sender) bool { return !s.Health().BehindSince.IsZero() })
	})
	for i, s := range senders {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		counts, health := s.Snapshot().Counts, s.Health()
		if dropped := counts.DroppedTotal(); dropped > 0 || counts.Pending != 0 || counts.Routed != counts.Delivered+counts.Deferred || health.Left == 0 || health.CaughtUp == 0 {
			t.Errorf("sender %d: %d routed, %d delivered, %d deferred, %d pending, %d dropped; left %d times, %d caught up", i,
				counts.Routed, counts.Delivered, counts.Deferred, counts.Pending, dropped, health.Left, health.CaughtUp)
		}
		for p := range int32(partitions) {
			if got := services[i].seen[p]; int64(len(got)) != n || got[n-1] != n-1 {
				t.Errorf("sender %d: %d events of partition %d arrived in order, want %d", i, len(got), p, n)
			}
		}
	}
	if left := unsettled.Load(); left > 0 {
		t.Errorf("%d chunks of the shared reading have no outcome", left)
	}
}

func decode(c *event.Chunk) {
	for i := range c.Records {
		c.Events = append(c.Events, event.Event{Chunk: c, Record: &c.Records[i], Index: event.NoIndex, Type: event.SensorChange, Body: c.Records[i].Value})
	}
}

func pointers(c *event.Chunk) (events []*event.Event) {
	for i := range c.Events {
		events = append(events, &c.Events[i])
	}
	return events
}

// everybody is Behind of the senders themselves.
type everybody struct{ *sinks.Behind }

// Of implements Behind.
func (e everybody) Of(o *event.Ownership) []Sender {
	senders := e.Behind.Of(o)
	of := make([]Sender, len(senders))
	for i, s := range senders {
		of[i] = s
	}
	return of
}
