//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
)

// load produces events at a steady rate, to each partition in turn, and knows
// what the brokers have stored. Each event's id is its place in Kafka, in the
// form of a message id.
type load struct {
	h      *harness
	rate   float64 // events a second, over all partitions
	client *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu         sync.Mutex
	idle       *sync.Cond
	partitions int
	paused     bool
	made       map[int32]int64           // events handed to the client
	stored     map[int32][]time.Duration // when they were stored, on the ledger's clock, by offset
	unanswered int
	err        error
}

func (h *harness) load(partitions int, rate float64) *load {
	h.T.Helper()
	client := h.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond), kgo.UnknownTopicRetries(-1))
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		h: h, rate: rate, client: client, cancel: cancel, done: make(chan struct{}), partitions: partitions,
		made: make(map[int32]int64), stored: make(map[int32][]time.Duration),
	}
	l.idle = sync.NewCond(&l.mu)
	go l.run(ctx)
	h.T.Cleanup(l.stop)
	return l
}

func (l *load) run(ctx context.Context) {
	defer close(l.done)
	const pace = 10 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	due, n, last := 0.0, 0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due = min(due+l.rate*now.Sub(last).Seconds(), l.rate/5) // what was held up is not made up for at once
			last = now
		}
		for ; due >= 1; due-- {
			if !l.produce(ctx, n) {
				break
			}
			n++
		}
	}
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
		l.idle.Broadcast()
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
	stuck := time.AfterFunc(2*env.Timeout, func() {
		l.mu.Lock()
		l.err = errors.Join(l.err, errors.New("the brokers don't answer"))
		l.idle.Broadcast()
		l.mu.Unlock()
	})
	defer stuck.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = true
	for l.unanswered > 0 && l.err == nil {
		l.idle.Wait()
	}
	if l.err != nil {
		l.h.T.Fatalf("the load: %v", l.err)
	}
}

func (l *load) resume() {
	l.mu.Lock()
	l.paused = false
	l.mu.Unlock()
}

func (l *load) stop() {
	l.cancel()
	<-l.done
	l.client.Close()
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
func (l *load) slowest(entity string, since time.Duration) (worst time.Duration, of int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, times := range l.stored {
		for offset, at := range times {
			if at < since {
				continue
			}
			if arrived, ok := l.h.Ledger.FirstArrival(entity, p, int64(offset)); ok && arrived-at > worst {
				worst, of = arrived-at, p
			}
		}
	}
	return worst, of
}
