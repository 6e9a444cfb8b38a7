package sinks

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

// Options are what all senders have in common; see the configuration's keys
// batch, backoff and send.
type Options struct {
	Linger         time.Duration
	MaxEvents      int
	BackoffInitial time.Duration
	BackoffMax     time.Duration
	Timeout        time.Duration // of all tries of one batch
	Attempts       int           // tries of one batch with one key
	ThrottleLimit  time.Duration // of all waits of one batch
}

// retryDelay comes before the second try of a batch, and doubles from there.
const retryDelay = 100 * time.Millisecond

// Sender is an endpoint's running half: it owns the lanes, their goroutines
// and the connections, and gives every event that it takes exactly one
// outcome, unless it is stopped first.
type Sender struct {
	id          string
	options     Options
	open        Open
	deadLetters DeadLetters
	log         *zap.Logger
	breaker     *breaker.Breaker

	lanes     [lanesPerSender]*lane
	running   sync.WaitGroup
	ctx       context.Context // of the lanes and their sends; see Close
	cancel    context.CancelFunc
	draining  chan struct{}
	run       []*event.Event // the dispatcher's: see Stage
	holdsBack atomic.Bool
	throttled atomic.Int32 // lanes that wait as a service told them to

	mu       sync.Mutex
	endpoint endpoints.Endpoint
	link     *failover
	counts   Counts
	life     life
	lastErr  string
	removed  bool
}

// life is what a sender's state is beyond its breaker's.
type life uint8

const (
	provisioning life = iota // no connection has worked yet
	connected
	deleting
	stopped
)

// NewSender makes an endpoint's sender. Nothing runs or connects until the
// first event comes.
func NewSender(endpoint endpoints.Endpoint, options Options, open Open, deadLetters DeadLetters, log *zap.Logger) *Sender {
	s := &Sender{
		id:          endpoint.ID,
		options:     options,
		open:        open,
		deadLetters: deadLetters,
		log: log.With(zap.String("endpoint", endpoint.ID),
			zap.String("type", string(endpoint.Type)), zap.String("path", endpoint.Path)),
		breaker:  breaker.New(options.BackoffInitial, options.BackoffMax, rand.Float64),
		draining: make(chan struct{}),
		endpoint: endpoint,
		link:     newFailover(endpoint, open),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range s.lanes {
		s.lanes[i] = newLane(s)
	}
	return s
}

// Endpoint is the endpoint as it is now.
func (s *Sender) Endpoint() endpoints.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoint
}

// Stage adds an event to the run that the next Enqueue takes, and reports
// whether it is the run's first. The dispatcher stages the events of one
// chunk, in order, and then enqueues once a sender: one lock a chunk and
// endpoint, not one an event. Only the dispatcher may call it.
func (s *Sender) Stage(ev *event.Event) (first bool) {
	s.run = append(s.run, ev)
	return len(s.run) == 1
}

// Enqueue hands the staged run, events of c in order, to its lane, and holds
// the chunk for it. While the endpoint backs off the run is dropped at once;
// while its lane is full Enqueue waits, unless the endpoint gives its events
// up instead. If ctx ends first, the error says so and the run is not taken.
func (s *Sender) Enqueue(ctx context.Context, c *event.Chunk) error {
	run := s.run
	s.run = s.run[:0]
	defer clear(run)

	c.Hold(len(run))
	s.mu.Lock()
	s.counts.Routed += uint64(len(run))
	s.counts.Pending += len(run)
	wait := s.endpoint.Overflow != endpoints.OverflowDrop
	s.mu.Unlock()

	if s.breaker.Blocked(time.Now()) {
		s.drop(run, event.Backoff)
		return nil
	}
	l := s.lanes[int(c.Partition)%lanesPerSender]
	if !l.started {
		l.started = true
		s.running.Go(func() { l.run(s.ctx) })
	}
	if l.push(ctx, run, wait, &s.holdsBack) {
		return nil
	}
	if !wait {
		s.drop(run, event.Overflow)
		return nil
	}
	return context.Cause(ctx) // the run stays pending, and the chunk unsettled
}

// deliver gives every event of a batch its outcome, and tells how many have
// one: fewer than all only if the sender was stopped before that.
func (s *Sender) deliver(ctx context.Context, all []*event.Event) (done int) {
	for batch := all; len(batch) > 0; {
		permit, ok := s.breaker.Acquire(time.Now())
		if !ok {
			s.drop(batch, event.Backoff)
			return len(all)
		}
		n, err := s.send(ctx, permit, batch)
		switch {
		case err == nil:
			s.healthy(permit)
			s.delivered(batch[:n])
			batch = batch[n:]
		case ctx.Err() != nil:
			s.breaker.Cancel(permit)
			return len(all) - len(batch)
		case err.Kind == Rejected || err.Kind == TooLarge:
			// The service works, only this one event is bad.
			s.healthy(permit)
			s.setAside(batch[0], kindReasons[err.Kind], err.Err.Error())
			batch = batch[1:]
		default:
			s.backOff(permit, err)
			s.drop(batch, kindReasons[err.Kind])
			return len(all)
		}
	}
	return len(all)
}

// send puts a leading part of the batch on the service and tells how long it
// was. A Rejected or TooLarge error that comes back is about the first event
// alone: until it is, the batch is halved, so that k bad events among n cost
// O(k log n) sends and the others arrive, in order.
func (s *Sender) send(ctx context.Context, permit breaker.Permit, batch []*event.Event) (int, *Error) {
	var waited time.Duration
	for {
		n, err := s.try(ctx, permit, batch)
		if err == nil {
			return n, nil
		}
		switch e := classified(err); {
		case ctx.Err() != nil:
			return 0, e
		case (e.Kind == Rejected || e.Kind == TooLarge) && n > 1:
			batch = batch[:(n+1)/2]
		case e.Kind == Throttled && waited+e.Wait <= s.options.ThrottleLimit:
			waited += e.Wait
			s.throttle(ctx, e)
		default:
			return n, e
		}
	}
}

// try sends, up to Attempts times within Timeout while the service can't be
// reached. The batch and its order stay the same, so a try whose
// acknowledgement was lost repeats message ids that the reader knows.
func (s *Sender) try(ctx context.Context, permit breaker.Permit, batch []*event.Event) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	delay := retryDelay
	for attempt := 1; ; attempt++ {
		start := time.Now()
		link := s.currentLink()
		n, err = link.Send(ctx, batch, permit.Probe && attempt == 1)
		s.observe(batch[:n], time.Since(start))
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, errClosed) && link != s.currentLink():
			attempt-- // the endpoint was changed under the batch: not a try
			continue
		case classified(err).Kind != Unreachable || attempt >= s.options.Attempts:
			return n, err
		}
		select {
		case <-time.After(delay):
			delay *= 2
		case <-ctx.Done():
			return n, err
		}
	}
}

func (s *Sender) currentLink() *failover {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// throttle waits as long as the service asked.
func (s *Sender) throttle(ctx context.Context, e *Error) {
	if s.throttled.Add(1) == 1 {
		s.log.Warn("the service throttles: waiting as told, events are kept", zap.Duration("wait", e.Wait), zap.Error(e.Err))
	}
	defer s.throttled.Add(-1)
	s.mu.Lock()
	s.lastErr = e.Error()
	s.mu.Unlock()
	select {
	case <-time.After(e.Wait):
	case <-ctx.Done():
	}
}

// healthy notes that the service answered.
func (s *Sender) healthy(permit breaker.Permit) {
	closed := s.breaker.Success(permit)
	s.mu.Lock()
	first := s.life == provisioning
	if first {
		s.life = connected
	}
	if closed {
		s.lastErr = ""
	}
	s.mu.Unlock()
	if first || closed {
		s.log.Info("endpoint ready")
	}
}

// backOff opens the breaker.
func (s *Sender) backOff(permit breaker.Permit, e *Error) {
	retryAt, opened := s.breaker.Failure(permit, time.Now(), e.Wait)
	s.mu.Lock()
	s.lastErr = e.Error()
	s.mu.Unlock()
	if opened {
		s.log.Warn("endpoint backs off: its events are dropped until it is tried again",
			zap.Stringer("reason", kindReasons[e.Kind]), zap.Time("until", retryAt), zap.Error(e.Err))
	}
}

// delivered and drop are the two outcomes. The count comes before the settling,
// so that a chunk that is committed is counted.
func (s *Sender) delivered(events []*event.Event) {
	now := time.Now().UnixMilli()
	s.mu.Lock()
	s.counts.Delivered += uint64(len(events))
	s.counts.Pending -= len(events)
	for _, ev := range events {
		s.counts.Latency.Observe(time.Duration(now-ev.Record.Timestamp) * time.Millisecond)
	}
	s.mu.Unlock()
	settle(events)
}

func (s *Sender) drop(events []*event.Event, reason event.Reason) {
	s.mu.Lock()
	s.counts.Dropped[reason] += uint64(len(events))
	s.counts.Pending -= len(events)
	s.mu.Unlock()
	settle(events)
}

// setAside drops one event that its service does not take and keeps it as a
// dead letter, which settles it.
func (s *Sender) setAside(ev *event.Event, reason event.Reason, detail string) {
	s.mu.Lock()
	s.counts.Dropped[reason]++
	s.counts.Pending--
	s.mu.Unlock()
	s.deadLetters.Put(ev, reason, detail, s.id)
}

// settle gives up the events' counts, once a chunk: neighbours mostly share one.
func settle(events []*event.Event) {
	for i := 0; i < len(events); {
		c, j := events[i].Chunk, i+1
		for j < len(events) && events[j].Chunk == c {
			j++
		}
		c.Settle(j - i)
		i = j
	}
}

// observe measures one send.
func (s *Sender) observe(events []*event.Event, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Sends.Observe(took)
	s.counts.BatchEvents[batchBucket(len(events))]++
	s.counts.SentEvents += uint64(len(events))
}

// Update changes the endpoint under the sender: queued events and counts stay.
// Where the change is one of the connection, a back-off ends and what is sent
// from now on goes the new way; the function that comes back, otherwise nil,
// closes the old way once the sends that are still going it are over.
func (s *Sender) Update(endpoint endpoints.Endpoint) (closeOld func(context.Context) error) {
	s.mu.Lock()
	old, before := s.link, s.endpoint
	s.endpoint = endpoint
	before.Name, before.EventTypes, before.Overflow = endpoint.Name, endpoint.EventTypes, endpoint.Overflow
	if before.Equal(endpoint) {
		s.mu.Unlock()
		return nil
	}
	s.link = newFailover(endpoint, s.open)
	s.lastErr = ""
	if s.life == connected {
		s.life = provisioning
	}
	s.mu.Unlock()
	s.breaker.Reset()
	return old.close
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
			l.take()
			s.drop(l.work, event.Removed)
			l.work = nil
		}
	}
	return link.close(ctx)
}
