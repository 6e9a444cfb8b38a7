package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"twinegress/e2e/env"
	"twinegress/internal/eventually"
)

// entities are the receivers that every event of a load goes to, and that never fail.
var entities = []string{"hub", "topic"}

// load produces events at a steady rate, to each partition in turn, and knows
// what the brokers have stored. Each event's id is its place in Kafka, in the
// form of a message id.
type load struct {
	h       *harness
	client  *kgo.Client
	limiter *rate.Limiter

	mu         sync.Mutex
	partitions int
	paused     bool
	made       map[int32]int64           // events handed to the client
	stored     map[int32][]time.Duration // when they were stored, on the ledger's clock, by offset
	unanswered int
	err        error
}

// load produces so many events a second, over all partitions, until the test's end.
func (h *harness) load(partitions, perSecond int) *load {
	h.T.Helper()
	client := h.NewClient(kgo.ProducerLinger(2*time.Millisecond), kgo.UnknownTopicRetries(-1))
	l := &load{
		h: h, client: client, partitions: partitions, made: make(map[int32]int64), stored: make(map[int32][]time.Duration),
		limiter: rate.NewLimiter(rate.Limit(perSecond), max(perSecond/5, 1)), // what was held up is not made up for at once
	}
	ctx := h.T.Context()
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; l.limiter.Wait(ctx) == nil; {
			if l.produce(ctx, n) {
				n++
			}
		}
	})
	h.T.Cleanup(running.Wait)
	return l
}

// produce hands one event to the client; it returns false while the load is paused.
func (l *load) produce(ctx context.Context, n int) bool {
	l.mu.Lock()
	if l.paused {
		l.mu.Unlock()
		return false
	}
	p := int32(n % l.partitions)
	offset := l.made[p]
	l.made[p]++
	l.unanswered++
	l.mu.Unlock()
	l.client.Produce(ctx, &kgo.Record{Partition: p, Value: env.Event(p, offset)}, func(r *kgo.Record, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.unanswered--
		switch {
		case err != nil:
			if !errors.Is(err, context.Canceled) {
				l.err = errors.Join(l.err, err)
			}
		case r.Offset != int64(len(l.stored[p])):
			l.err = errors.Join(l.err, fmt.Errorf("event %d/%d was stored at %d", p, len(l.stored[p]), r.Offset))
		default:
			l.stored[p] = append(l.stored[p], l.h.Ledger.Now())
		}
	})
	return true
}

// grow makes the load go to one more partition, once the client knows of it.
func (l *load) grow() {
	l.h.T.Helper()
	l.mu.Lock()
	p := int32(l.partitions)
	l.mu.Unlock()
	env.Eventually(l.h.T, "the added partition can be written to", func() bool {
		return l.client.ProduceSync(l.h.Context(), &kgo.Record{Partition: p, Value: env.Event(p, 0)}).FirstErr() == nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made[p], l.stored[p] = 1, append(l.stored[p], l.h.Ledger.Now())
	l.partitions++
}

// pause stops producing and waits until all is stored.
func (l *load) pause() {
	l.h.T.Helper()
	l.setPaused(true)
	eventually.Within(l.h.T, 2*env.Timeout, "the brokers have answered", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			l.h.T.Fatalf("the load: %v", l.err)
		}
		return l.unanswered == 0
	})
}

func (l *load) resume() { l.setPaused(false) }

func (l *load) setPaused(paused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = paused
}

// flows blocks until every event that is stored now has arrived at these entities.
func (l *load) flows(what string, at ...string) {
	l.h.T.Helper()
	ends := l.ends()
	eventually.Within(l.h.T, 2*env.Timeout, what, func() bool {
		for p, end := range ends {
			for _, e := range at {
				if l.h.Ledger.Complete(e, p) < end {
					return false
				}
			}
		}
		return true
	})
}

// ends are the partitions' ends: how many events are stored in each.
func (l *load) ends() map[int32]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends := make(map[int32]int64)
	for p := range int32(l.partitions) {
		ends[p] = int64(len(l.stored[p]))
	}
	return ends
}

// total is how many events are stored.
func (l *load) total() (n int64) {
	for _, end := range l.ends() {
		n += end
	}
	return n
}

// slowest returns how long an event that was stored since a moment waited at
// worst until it arrived.
func (l *load) slowest(entity string, since time.Duration) (worst time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, times := range l.stored {
		for offset, at := range times {
			if arrived, ok := l.h.Ledger.FirstArrival(entity, p, int64(offset)); ok && at >= since {
				worst = max(worst, arrived-at)
			}
		}
	}
	return worst
}
