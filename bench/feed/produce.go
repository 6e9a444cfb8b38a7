package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// pace is the interval at which a feed with a rate produces events that are
	// due: too short to be visible, long against a timer's cost.
	pace = 5 * time.Millisecond
	// maxDebt bounds the events that are produced late after the broker blocked
	// the feed: more would be a burst.
	maxDebt = 100 * time.Millisecond
	// flushTime bounds the wait for the broker's replies in the end.
	flushTime = 10 * time.Second
	// burst is the number of events that a feed without a rate produces between
	// two checks of its context.
	burst = 256
)

// Options configure Produce.
type Options struct {
	Rate   float64 // events a second; 0 is as fast as possible
	Events int     // the feed ends after that many; 0: it doesn't end

	// Acked, if set, counts the events that the broker has stored, to show the
	// progress.
	Acked *atomic.Int64
	// Room, if set, is called before every few events and may block to pause the
	// feed. An error ends the feed.
	Room func(context.Context) error
}

// Counts are the results of a feed's events.
type Counts struct {
	Produced int64 // stored by the broker
	Failed   int64
}

// Connect returns a client for Produce.
func Connect(brokers ...string) (*kgo.Client, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ClientID("twinegress-feed"),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // compression would cost more than the feed itself
		kgo.ProducerLinger(2*time.Millisecond),
		kgo.UnknownTopicRetries(0), // a missing topic won't be created
	)
	if err != nil {
		return nil, fmt.Errorf("feed: kafka producer: %w", err)
	}
	return client, nil
}

// Produce produces events to a topic until ctx ends or there are enough, and then
// waits for the broker's replies. It blocks while the client's buffer is full. The
// end of ctx is no error.
func Produce(ctx context.Context, client *kgo.Client, topic string, f *Feed, o Options) (Counts, error) {
	// The end of ctx ends the generation of events; those in the client's buffer are
	// still stored, so that the counts are those of the topic.
	sending, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	stopWatching := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(flushTime, func() { abort(errors.New("the broker does not answer")) })
		context.AfterFunc(sending, func() { late.Stop() })
	})
	defer stopWatching()

	p := &production{acked: o.Acked}
	err := p.makeEvents(ctx, sending, client, topic, f, o)
	flushing, cancel := context.WithTimeout(sending, flushTime)
	defer cancel()
	if flushErr := client.Flush(flushing); flushErr != nil {
		err = errors.Join(err, fmt.Errorf("feed: waiting for the broker's answers: %w", flushErr))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first != nil {
		err = errors.Join(err, fmt.Errorf("feed: producing to %s: %w", topic, p.first))
	}
	return Counts{Produced: p.produced, Failed: p.failed}, err
}

// production counts the broker's replies.
type production struct {
	acked *atomic.Int64

	mu               sync.Mutex
	produced, failed int64
	first            error
}

func (p *production) answered(_ *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed++
		if p.first == nil {
			p.first = err
		}
		return
	}
	p.produced++
	if p.acked != nil {
		p.acked.Add(1)
	}
}

func (p *production) makeEvents(ctx, sending context.Context, client *kgo.Client, topic string, f *Feed, o Options) error {
	answered := p.answered // one closure, not one per event
	timer := time.NewTimer(0)
	defer timer.Stop()
	start, made := time.Now(), 0
	for base := 0; o.Events == 0 || made < o.Events; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if o.Room != nil {
			if err := o.Room(ctx); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("feed: %w", err)
			}
		}
		now := time.Now()
		due, next := burst, time.Duration(0)
		if o.Rate > 0 {
			if behind := now.Sub(start) - time.Duration(float64(made-base)/o.Rate*float64(time.Second)); behind > maxDebt {
				start, base = now.Add(-maxDebt), made
			}
			due = int(now.Sub(start).Seconds()*o.Rate) + 1 - (made - base)
			next = max(pace, start.Add(time.Duration(float64(made-base+due)/o.Rate*float64(time.Second))).Sub(now))
		}
		if o.Events > 0 {
			due = min(due, o.Events-made)
		}
		for range due {
			r := f.Next(now)
			client.Produce(sending, &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Headers: r.Headers}, answered)
		}
		made += max(due, 0)
		timer.Reset(next)
	}
	return nil
}
