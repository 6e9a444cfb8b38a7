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
	// MaxInFlight is how many bytes of chunks an endpoint's lanes may keep in
	// flight before it counts as what holds the others back: half of all that may
	// be in flight. 0 is no bound.
	MaxInFlight int64
	// KeepDropped makes dead letters also of what is dropped for no fault of
	// its own: the endpoint backs off, is full or was removed.
	KeepDropped bool
	// Pauses, if set, are the times in which nobody could have sent.
	Pauses *Pauses
	// Outages, if set, put what befalls several endpoints of a host into one line.
	Outages *Outages
	// Shortages, if set, are when no connection could be made.
	Shortages *Shortages
	// Behind, if set, lets endpoints leave the shared reading.
	Behind *Behind
	// History, if set, bounds what the logs of all endpoints take.
	History *HistoryBytes
}

// Sender is an endpoint's running half. It owns the queue with its goroutines
// and the connections, and gives every event that it takes exactly one outcome,
// unless it is stopped first.
type Sender struct {
	options   Options
	open      Open
	log       *zap.Logger
	named     atomic.Pointer[zap.Logger] // log with the endpoint as it is called now
	queue     queue
	ledger    ledger
	outcomes  outcomes
	positions positions
	sends     openSends

	mu       sync.Mutex // taken before the ledger's
	endpoint endpoints.Endpoint
	host     string // the endpoint's
	heldBack bool   // ever
	current  *connection
	// dropsOverflow is the endpoint's: Enqueue takes no lock for it.
	dropsOverflow atomic.Bool
	holdsBack     bool // HoldBack's caller's
}

// NewSender makes an endpoint's sender. Nothing runs or connects until the
// first event comes.
func NewSender(endpoint endpoints.Endpoint, options Options, open Open, deadLetters DeadLetters, log *zap.Logger) *Sender {
	// Lazily: most of thousands of endpoints have nothing to say for long.
	s := &Sender{options: options, open: open, log: log, endpoint: endpoint}
	s.named.Store(log.WithLazy(endpoint.LogName()))
	s.positions.init(s, options.Behind)
	s.queue.init(options, s.positions.screen(bisect(s.send, &s.outcomes)))
	s.ledger.init(time.Now(), options.History, func() *breaker.Breaker {
		return breaker.New(options.BackoffInitial, options.BackoffMax, rand.Float64)
	})
	o := &s.outcomes
	o.keepDropped, o.ledger, o.queue, o.deadLetters, o.say = options.KeepDropped, &s.ledger, &s.queue, deadLetters, s.say
	o.positions = &s.positions
	o.recipient.Store(NewRecipient(endpoint))
	s.dropsOverflow.Store(endpoint.Overflow == endpoints.OverflowDrop)
	s.current = s.connect(endpoint)
	s.positions.follow(&endpoint)
	return s
}

func (s *Sender) connect(endpoint endpoints.Endpoint) *connection {
	s.host = endpoint.Host()
	conn := newConnection(endpoint, s.open, &s.ledger, &s.named)
	conn.outages = s.options.Outages
	d := &delivery{
		conn: conn, options: &s.options, ledger: &s.ledger, sends: &s.sends, log: &s.named,
		catchesUp: s.positions.catchUp.Load,
	}
	conn.send = d.compose()
	return conn
}

// say writes what befell the endpoint, by itself or with others of its host.
func (s *Sender) say(r report) {
	s.mu.Lock()
	r.host, r.endpoint, r.path, r.log = s.host, s.endpoint.ID, s.endpoint.Path, s.named.Load()
	s.mu.Unlock()
	s.options.Outages.say(r)
}

func (s *Sender) connection() *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Endpoint returns the endpoint as it is now.
func (s *Sender) Endpoint() endpoints.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoint
}

// Enqueue moves a run, events of c in order, into its lane and holds the chunk
// for it. It keeps nothing of run itself. While the endpoint, or the part of it
// that c's events go to, backs off the run is dropped at once; while its lane is
// full Enqueue blocks, or drops the run if the endpoint says so (overflow: drop). If ctx ends first, Enqueue returns its
// cause: the run stays pending, and the chunk unsettled. Only the dispatcher
// may call it.
func (s *Sender) Enqueue(ctx context.Context, c *event.Chunk, run []*event.Event) error {
	if s.positions.tracked.Load() {
		return s.enqueueTracked(ctx, c, run)
	}
	c.Hold(len(run))
	now := time.Now()
	s.ledger.routed(len(run), now)
	wait := !s.dropsOverflow.Load()
	switch {
	case s.ledger.backoff.blocked(c.Partition, now):
		// What is kept is kept in order: behind what the lane has still to drop.
		// If a lane that hangs in a send (a probe) is full, order is not kept: no
		// other endpoint may have to wait for this one.
		if !s.options.KeepDropped || !s.queue.pushBehind(c, run, now) {
			s.outcomes.drop(run, event.Backoff, "")
		}
	case s.queue.push(ctx, c, run, now, wait):
	case wait:
		return context.Cause(ctx)
	default:
		s.outcomes.drop(run, event.Overflow, "the endpoint's queue was full")
	}
	return nil
}

// send is that of the connection of this moment.
func (s *Sender) send(ctx context.Context, batch []*event.Event) (int, *Error) {
	return s.connection().send(ctx, batch)
}

// Update changes the endpoint under the sender: queued events and counts stay.
// If the change concerns the connection, a back-off ends and what is sent from
// now on uses a new one. The function that is returned then, otherwise nil,
// closes the old one once the sends that still use it have returned.
func (s *Sender) Update(endpoint endpoints.Endpoint) (closeOld func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, before := s.current, s.endpoint
	s.endpoint = endpoint
	s.named.Store(s.log.WithLazy(endpoint.LogName()))
	s.outcomes.recipient.Store(NewRecipient(endpoint))
	s.dropsOverflow.Store(endpoint.Overflow == endpoints.OverflowDrop)
	s.positions.follow(&endpoint)
	if !endpoints.Diff(before, endpoint).Reconnect {
		return nil
	}
	s.options.Outages.gone(before.Host(), before.ID)
	s.current = s.connect(endpoint)
	// All under the lock: a lane that gets the new connection finds the breaker
	// closed, and one whose send on the old one fails finds it replaced.
	close(old.replaced)
	s.ledger.restart(WhatChanged)
	s.positions.wake()
	return old.close
}

// Retry ends a back-off now, because somebody says that what it was for is
// repaired: the next events go out at once, over new connections and with the
// primary key first. If that fails, the wait begins with the shortest again.
func (s *Sender) Retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ledger.backoff.any() && !s.current.primaryRefused.Load() {
		return
	}
	s.current.renew()
	s.current.primaryRefused.Store(false)
	s.ledger.restart(WhatRetried)
	s.positions.wake()
}

// Remove drains the sender of a deleted endpoint: what isn't delivered when
// ctx ends is dropped. The dispatcher must not use it any more.
func (s *Sender) Remove(ctx context.Context) error {
	s.ledger.enter(deleting)
	s.queue.close(ctx)
	s.ledger.enter(stopped)
	s.positions.close()
	s.queue.rest(func(events []*event.Event) {
		s.outcomes.drop(events, event.Removed, "the endpoint was removed")
	})
	s.ledger.forget()
	s.outcomes.taps.end(TapDeleted)
	e := s.Endpoint()
	s.options.Outages.gone(e.Host(), e.ID)
	return s.connection().close(ctx)
}

// Close drains the sender of a process that stops: what isn't delivered when
// ctx ends stays unsettled, and so comes again after the restart. The
// dispatcher must not use it any more.
func (s *Sender) Close(ctx context.Context) error {
	s.queue.close(ctx)
	s.ledger.enter(stopped)
	s.outcomes.taps.end(TapStopped)
	return s.connection().close(ctx)
}

// Left is how many events without an outcome an endpoint is left with.
type Left struct {
	Endpoint endpoints.Endpoint
	Events   int
}

// CloseAll drains the senders of a process that stops, side by side and within
// ctx, and returns those that are left with events without an outcome.
func CloseAll(ctx context.Context, senders []*Sender) (pending []Left, err error) {
	errs := make([]error, len(senders))
	var closing sync.WaitGroup
	for i, s := range senders {
		closing.Go(func() { errs[i] = s.Close(ctx) })
	}
	closing.Wait()
	for _, s := range senders {
		if snap := s.Snapshot(); snap.Counts.Pending > 0 {
			pending = append(pending, Left{snap.Endpoint, snap.Counts.Pending})
		}
	}
	return pending, errors.Join(errs...)
}

// Snapshot returns the sender's counts, all of the same moment, and its health.
func (s *Sender) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	counts, windows, health := s.ledger.snapshot(now)
	return Snapshot{Endpoint: s.endpoint, Host: s.host, Counts: counts, Windows: windows, Health: s.complete(health, now)}
}

// Log returns the last changes of the endpoint's state and its failures, the newest
// last.
func (s *Sender) Log() []Entry { return s.ledger.log() }

// Health returns the sender's health alone, at next to no cost.
func (s *Sender) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete(s.ledger.health(), time.Now())
}

// waitsLong is for how long an event waits at an endpoint that is not slow.
// At full speed lanes are full, too: there it waits less than waitsSome.
const (
	waitsLong = 5 * time.Second
	waitsSome = 2 * time.Second
)

// HoldBack returns for how long the oldest event waits, if others wait for the
// endpoint; else 0. full is whether polling waits for what is in flight. It notes in
// the endpoint's log when that began and ended, and what else shows only with time:
// that all is refused. Only one goroutine may call it.
func (s *Sender) HoldBack(full bool, now time.Time) (waits time.Duration) {
	s.outcomes.checkRefused(now)
	if waits = s.queue.oldest(now); !s.holdsFor(waits) && (waits < waitsSome || !s.queue.blocking.Load() && !(full && s.queue.overShare())) {
		waits = 0
	}
	if holds := waits > 0; holds != s.holdsBack {
		s.holdsBack = holds
		s.ledger.holdsBack(holds, now)
	}
	return waits
}

// holdsFor reports whether others wait for an endpoint whose oldest event waits for so
// long. One that leaves when its lane is full is late, and nobody waits for it.
func (s *Sender) holdsFor(waits time.Duration) bool {
	return waits >= waitsLong && !s.positions.catchUp.Load()
}

func (s *Sender) complete(h Health, now time.Time) Health {
	h.Key = s.current.key()
	h.OldestPending = s.queue.oldest(now)
	h.OverShare = s.queue.overShare()
	if s.queue.blocking.Load() || s.holdsFor(h.OldestPending) {
		h.SetHoldsBack()
	}
	// Before that is so, too: alerts take the share of time from a series' first point.
	s.heldBack = s.heldBack || h.HoldsBack || h.OverShare || h.OldestPending > time.Second
	h.Past.HeldBack = s.heldBack
	s.positions.report(&h)
	return h
}
