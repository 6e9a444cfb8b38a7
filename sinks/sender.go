package sinks

import (
	"context"
	"errors"
	"fmt"
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
	// MaxHeld is how many bytes of chunks an endpoint's lanes may keep in flight
	// before it counts as what holds the others back: half of all that may be in
	// flight. 0 is no bound.
	MaxHeld int64
	// KeepDropped makes dead letters also of what is dropped for no fault of
	// its own: the endpoint backs off, is full or was removed.
	KeepDropped bool
	// Pauses, if set, tells of the times in which nobody could have sent.
	Pauses *Pauses
}

const (
	// retryDelay comes before the second try of a batch, and doubles from there.
	retryDelay = 100 * time.Millisecond
	// minThrottle is the least that a throttled batch waits: a service may say
	// "0 seconds", or a moment that is past, and must not be asked in a tight loop.
	minThrottle = time.Second
	// refusedInARow is how many events a service refuses, one by one and none
	// taken between, before that looks like the endpoint's fault.
	refusedInARow = 100
)

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

	lanes     [event.Lanes]*lane // the dispatcher's, until close; nil until its first event
	running   sync.WaitGroup
	ctx       context.Context // of the lanes and their sends; see Close
	cancel    context.CancelFunc
	draining  chan struct{}
	holdsBack atomic.Bool
	held      atomic.Int64 // bytes of the chunks with events that wait here
	throttled atomic.Int32 // lanes that wait as a service told them to
	refused   atomic.Int32 // events set aside since the last delivery

	mu       sync.Mutex
	endpoint endpoints.Endpoint
	link     *failover
	counts   Counts
	life     life
	lastErr  string
	removed  bool

	lastReason event.Reason // of the last back-off
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
	// Lazily: most of thousands of endpoints have nothing to say for long.
	log = log.WithLazy(zap.String("endpoint", endpoint.ID),
		zap.String("type", string(endpoint.Type)), zap.String("path", endpoint.Path))
	s := &Sender{
		id:          endpoint.ID,
		options:     options,
		open:        open,
		deadLetters: deadLetters,
		log:         log,
		breaker:     breaker.New(options.BackoffInitial, options.BackoffMax, rand.Float64),
		draining:    make(chan struct{}),
		endpoint:    endpoint,
		link:        newFailover(endpoint, open, log),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Endpoint is the endpoint as it is now.
func (s *Sender) Endpoint() endpoints.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoint
}

// Enqueue moves a run, events of c in order, into its lane and holds the chunk
// for it. It keeps nothing of run itself. While the endpoint backs off the run
// is dropped at once; while its lane is full Enqueue blocks, unless the
// endpoint gives its events up instead. If ctx ends first, Enqueue returns its
// cause and the run is not taken. Only the dispatcher may call it.
func (s *Sender) Enqueue(ctx context.Context, c *event.Chunk, run []*event.Event) error {
	c.Hold(len(run))
	s.mu.Lock()
	s.counts.Routed += uint64(len(run))
	s.counts.Pending += len(run)
	wait := s.endpoint.Overflow != endpoints.OverflowDrop
	s.mu.Unlock()

	l := s.lane(c.Lane)
	if s.breaker.Blocked(time.Now()) {
		// What is kept is kept in order: behind what the lane has still to drop.
		// A lane that hangs in a send (a probe) fills up meanwhile, and then
		// order gives way: no other endpoint may have to wait for this one.
		if !s.options.KeepDropped || l.idle() || !l.push(ctx, run, false, &s.holdsBack) {
			s.drop(run, event.Backoff, "")
		}
		return nil
	}
	if !l.started {
		l.started = true
		s.running.Go(func() { l.run(s.ctx) })
	}
	if l.push(ctx, run, wait, &s.holdsBack) {
		return nil
	}
	if !wait {
		s.drop(run, event.Overflow, "the endpoint's queue was full")
		return nil
	}
	return context.Cause(ctx) // the run stays pending, and the chunk unsettled
}

// lane gives the lane of that number: made for its first event, since most of thousands of
// endpoints see few partitions, or nothing for long.
func (s *Sender) lane(number int) *lane {
	l := &s.lanes[number]
	if *l == nil {
		*l = newLane(s)
	}
	return *l
}

// deliver gives the events of a batch their outcome, and tells how many, from
// the front, have one: at least one, unless the sender is stopped before that.
// What does not fit in one batch of the service's is left for the next, which
// may be a fuller one by then.
//
// A batch that is refused for what is in it is halved until the bad event is
// alone. What is known to hold it is remembered from send to send, so that k
// bad events among n cost O(k log n) sends, and the others arrive, in order.
func (s *Sender) deliver(ctx context.Context, all []*event.Event) (done int) {
	suspects := 0 // among the first so many of the batch is a bad event
	for batch := all; len(batch) > 0; {
		permit, ok := s.breaker.Acquire(time.Now())
		if !ok {
			s.drop(batch, event.Backoff, "")
			return len(all)
		}
		part := batch
		if suspects > 0 {
			part = batch[:(suspects+1)/2]
		}
		link := s.currentLink()
		n, err := s.send(ctx, link, permit, part)
		switch {
		case err == nil:
			s.healthy(permit, link)
			s.delivered(batch[:n])
			batch = batch[n:]
			if suspects = max(suspects-n, 0); suspects == 0 {
				return len(all) - len(batch)
			}
		case ctx.Err() != nil:
			s.breaker.Cancel(permit)
			return len(all) - len(batch)
		case link.isReplaced():
			// The endpoint was changed under the batch, which goes the new way.
			s.breaker.Cancel(permit)
			suspects = 0
		case err.Reason == event.Rejected || err.Reason == event.TooLarge:
			s.healthy(permit, link) // the service works, only an event is bad
			if n > 1 {
				suspects = n
				continue
			}
			s.setAside(batch[0], err.Reason, err.Err.Error())
			batch = batch[1:]
			suspects = 0
		default:
			s.backOff(permit, err)
			s.drop(batch, err.Reason, err.Err.Error())
			return len(all)
		}
	}
	return len(all)
}

// send puts a leading part of the batch on the service and tells how long it
// was. While the service throttles it waits, up to ThrottleLimit in all.
func (s *Sender) send(ctx context.Context, link *failover, permit breaker.Permit, batch []*event.Event) (int, *Error) {
	var waited time.Duration
	for {
		paused := s.options.Pauses.Sum()
		n, err := s.try(ctx, link, permit, batch)
		if err == nil {
			return n, nil
		}
		e := classified(err)
		wait := max(e.Wait, minThrottle)
		switch {
		case ctx.Err() != nil || link.isReplaced():
			return 0, e
		case e.Reason == event.Unreachable && s.options.Pauses.Sum() > paused:
			s.log.Info("the process was held up while it sent; what was not sent for that is sent again",
				zap.Duration("for", s.options.Pauses.Sum()-paused), zap.Error(e.Err))
		case e.Reason == event.Throttled && waited+wait <= s.options.ThrottleLimit:
			waited += wait
			s.throttle(ctx, link, e, wait)
		case (e.Reason == event.Rejected || e.Reason == event.TooLarge) && n < 1:
			// Refused before any event was looked at: no event is to blame.
			return 0, &Error{Reason: event.Unreachable, Err: e.Err}
		default:
			return n, e
		}
	}
}

// try sends, up to Attempts times within Timeout while the service can't be
// reached. The batch and its order stay the same, so a try whose
// acknowledgement was lost repeats message ids that the reader knows.
func (s *Sender) try(ctx context.Context, link *failover, permit breaker.Permit, batch []*event.Event) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	delay := retryDelay
	var before error // of the try before
	for attempt := 1; ; attempt++ {
		start := time.Now()
		n, err = link.Send(ctx, batch, permit.Probe && attempt == 1)
		s.observe(n, time.Since(start))
		if err != nil && before != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			// The time was up amid this try, which says nothing; the one before does.
			err = &Error{Reason: event.Unreachable, Err: fmt.Errorf("%w, after %w", classified(err).Err, classified(before).Err)}
		}
		before = err
		if err == nil || classified(err).Reason != event.Unreachable || attempt >= s.options.Attempts {
			return n, err
		}
		select {
		case <-time.After(delay):
			delay *= 2
		case <-link.replaced:
			return n, err
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

// throttle waits as long as the service asked, unless the endpoint is changed.
func (s *Sender) throttle(ctx context.Context, link *failover, e *Error, wait time.Duration) {
	s.mu.Lock()
	s.lastErr = e.Error()
	first := s.throttled.Add(1) == 1 // under the lock: a snapshot sees both
	s.mu.Unlock()
	defer s.throttled.Add(-1)
	if first {
		s.log.Warn("the service throttles: waiting as told, events are kept", zap.Duration("wait", wait), zap.Error(e.Err))
	}
	select {
	case <-time.After(wait):
	case <-link.replaced:
	case <-ctx.Done():
	}
}

// healthy notes that the service answered.
func (s *Sender) healthy(permit breaker.Permit, link *failover) {
	closed := s.breaker.Success(permit)
	s.mu.Lock()
	first := s.life == provisioning && s.link == link
	if first {
		s.life = connected
	}
	// Under the lock: backOff says why only once the breaker is open, so this
	// can't wipe out the reason of a back-off that another lane began meanwhile.
	if open, _ := s.breaker.State(); open == breaker.Closed {
		s.lastErr = "" // it works now; a lane that still waits says so again
	}
	s.mu.Unlock()
	if first || closed {
		s.log.Info("endpoint ready")
	}
}

// backOff opens the breaker.
func (s *Sender) backOff(permit breaker.Permit, e *Error) {
	retryAt, opened := s.breaker.Failure(permit, time.Now(), e.Wait)
	if !opened {
		return // another lane's failure did, or the endpoint works again
	}
	s.mu.Lock()
	s.lastErr, s.lastReason = e.Error(), e.Reason
	s.mu.Unlock()
	s.log.Warn("endpoint backs off: its events are dropped until it is tried again",
		zap.Stringer("reason", e.Reason), zap.Time("until", retryAt), zap.Error(e.Err))
}
