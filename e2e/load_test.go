//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// load produces events at a steady rate, to each partition in turn, and knows
// what the brokers have stored. Each event's id is its place in Kafka, in the
// form of a message id.
type load struct {
	w      *world
	rate   float64 // events a second, over all partitions
	client *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu         sync.Mutex
	idle       *sync.Cond
	partitions int
	paused     bool
	made       map[int32]int64           // events given to the client
	stored     map[int32][]time.Duration // when they were stored, on the ledger's clock, by offset
	unanswered int
	err        error
}

// padding makes an event about 500 bytes long. Each event has another part of
// it, which compresses as little as readings do.
var padding = func() string {
	b := make([]byte, 1<<16)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = "0123456789abcdef ,:.-"[random.IntN(21)]
	}
	return string(b)
}()

func (w *world) load(partitions int, rate float64) *load {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.DefaultProduceTopic(w.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond),
		kgo.MetadataMinAge(200*time.Millisecond), kgo.MetadataMaxAge(time.Second), kgo.UnknownTopicRetries(-1))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		w: w, rate: rate, client: client, cancel: cancel, done: make(chan struct{}), partitions: partitions,
		made: make(map[int32]int64), stored: make(map[int32][]time.Duration),
	}
	l.idle = sync.NewCond(&l.mu)
	go l.run(ctx)
	w.t.Cleanup(l.stop)
	return l
}

func (l *load) run(ctx context.Context) {
	defer close(l.done)
	const pace = 10 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	due, turn, last := 0.0, 0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due = min(due+l.rate*now.Sub(last).Seconds(), l.rate/5) // what was held up is not made up for at once
			last = now
		}
		for ; due >= 1; due-- {
			if !l.produce(ctx, turn) {
				break
			}
			turn++
		}
	}
}

// produce gives one event to the client; false while the load is paused.
func (l *load) produce(ctx context.Context, turn int) bool {
	l.mu.Lock()
	if l.paused {
		l.mu.Unlock()
		return false
	}
	p := int32(turn % l.partitions)
	offset := l.made[p]
	l.made[p]++
	l.unanswered++
	l.mu.Unlock()
	l.client.Produce(ctx, &kgo.Record{Partition: p, Value: event(p, offset)}, func(r *kgo.Record, err error) {
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
			l.stored[p] = append(l.stored[p], l.w.ledger.now())
		}
		l.idle.Broadcast()
	})
	return true
}

func event(p int32, offset int64) []byte {
	at := int(offset*7919+int64(p)*131) % (len(padding) - 330)
	return fmt.Appendf(nil, `{"id":"load/%d/%d","subject":"sensor","eventType":"SensorChange","eventTime":"2026-01-02T03:04:05Z",`+
		`"dataVersion":"1.0","data":{"Value":"%d","Padding":"%s"}}`, p, offset, offset, padding[at:at+330])
}

// grow makes the load go to one more partition, once the client knows of it.
func (l *load) grow() {
	l.w.t.Helper()
	l.mu.Lock()
	p := int32(l.partitions)
	l.mu.Unlock()
	eventually(l.w.t, "the added partition can be written to", func() bool {
		return l.client.ProduceSync(l.w.ctx(), &kgo.Record{Partition: p, Value: event(p, 0)}).FirstErr() == nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made[p], l.stored[p] = 1, append(l.stored[p], l.w.ledger.now())
	l.partitions++
}

// pause stops producing and waits until all is stored.
func (l *load) pause() {
	l.w.t.Helper()
	stuck := time.AfterFunc(2*patience, func() {
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
		l.w.t.Fatalf("the load: %v", l.err)
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

// slowest gives how long an event that was stored since a moment waited at
// worst until it arrived.
func (l *load) slowest(entity string, since time.Duration) (worst time.Duration, of int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, times := range l.stored {
		for offset, at := range times {
			if at < since {
				continue
			}
			if arrived, ok := l.w.ledger.firstArrival(entity, p, int64(offset)); ok && arrived-at > worst {
				worst, of = arrived-at, p
			}
		}
	}
	return worst, of
}
