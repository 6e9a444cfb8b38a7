package sinks

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// connection has the sinks of an endpoint's two keys, opened when they are first
// needed. A change of the endpoint that concerns them makes a new connection.
type connection struct {
	endpoint endpoints.Endpoint
	open     Open
	ledger   *ledger
	log      *atomic.Pointer[zap.Logger] // the sender's named
	outages  *Outages                    // nil: each line by itself

	refusal        atomic.Pointer[Error] // of the primary, until the secondary takes a batch
	primaryRefused atomic.Bool           // and it took one

	mu      sync.Mutex
	sinks   [2]*openSink // by key; nil until needed
	current Key
	closed  bool

	users    sync.WaitGroup // sends in flight; Add under mu, and only before closed
	closing  sync.WaitGroup // retired sinks that are being closed; as users
	replaced chan struct{}  // closed once the endpoint has another connection

	send guardedSend // see delivery.compose
}

// openSink is a sink with its users. A retired one takes no more sends, and is
// closed when its last send has returned.
type openSink struct {
	*opened
	users   int
	retired bool
}

// closeTimeout bounds the closing of a retired sink: its peer may be the one that
// doesn't answer.
const closeTimeout = 5 * time.Second

func newConnection(endpoint endpoints.Endpoint, open Open, ledger *ledger, log *atomic.Pointer[zap.Logger]) *connection {
	return &connection{endpoint: endpoint, open: open, ledger: ledger, log: log, replaced: make(chan struct{})}
}

// isReplaced reports whether the endpoint was changed, and has another connection.
func (c *connection) isReplaced() bool {
	select {
	case <-c.replaced:
		return true
	default:
		return false
	}
}

// wait blocks for d. It returns false at once if ctx ends or the endpoint gets
// another connection: an update ends waits, but no send in flight.
func (c *connection) wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.replaced:
	case <-ctx.Done():
	}
	return false
}

// errClosed is for a batch that comes after close: the endpoint was changed.
var errClosed = &Error{Reason: event.Unreachable, Err: text("the endpoint's connection was replaced")}

// failover is the innermost send: with the key that worked last and, if that is
// refused, at once with the other one.
func (c *connection) failover(ctx context.Context, events []*event.Event, probe probe) (int, *Error) {
	if probe == probeAll {
		c.renew()
	}
	key := c.key()
	n, err := c.sendWith(ctx, key, events, probe)
	switch {
	case !err.isUnauthorized():
		if err == nil {
			c.worked(key, nil)
		}
		return n, err
	case c.endpoint.Authentication == endpoints.AuthenticationIdentity:
		return n, err
	case c.endpoint.SecondaryConnectionString == "":
		return n, unauthorized(err.Cause, "primary key: %v (and there is no secondary)", err.Err)
	}
	// The other key itself, not whichever is current: another lane may have
	// switched, and so may a probe, but this batch tries each key once.
	if key == Primary {
		c.refusal.Store(err)
	}
	c.switchFrom(key, err)
	var refused [2]*Error
	refused[key] = err
	if n, err = c.sendWith(ctx, 1-key, events, probe); !err.isUnauthorized() {
		if err == nil {
			c.worked(1-key, refused[key])
		}
		return n, err
	}
	refused[1-key] = err
	primary, secondary := refused[Primary], refused[Secondary]
	if primary.Err.Error() == secondary.Err.Error() {
		return n, unauthorized(primary.Cause, "both keys are refused: %v", primary.Err)
	}
	return n, unauthorized(primary.Cause, "both keys are refused: primary: %v; secondary: %v", primary.Err, secondary.Err)
}

// worked tells the ledger of a key that took a batch if that is news. refused is
// why it isn't the other one.
func (c *connection) worked(key Key, refused *Error) {
	switch {
	case key == Primary:
		if c.primaryRefused.Load() && c.primaryRefused.Swap(false) {
			c.ledger.keyWorks(c, refused)
		}
	case c.refusal.Load() == nil:
	default:
		if refusal := c.refusal.Swap(nil); refusal != nil && !c.primaryRefused.Swap(true) {
			c.ledger.keyRefused(c, refusal)
		}
	}
}

func unauthorized(cause, format string, refusals ...any) *Error {
	return &Error{Reason: event.Unauthorized, Cause: cause, Err: textf(format, refusals...)}
}

func (c *connection) sendWith(ctx context.Context, key Key, events []*event.Event, probe probe) (int, *Error) {
	used, other, err := c.use(key, probe == probePart)
	if err != nil {
		return 0, err
	}
	n, err := used.send(ctx, events)
	if err == nil && probe == probePart {
		c.replace(key, other, used)
	}
	// After a time-out the next send uses a new sink: the SDKs' clients wait for a
	// peer that went silent long after it is back. The same holds for a key that
	// was refused and may be valid again some day.
	silent := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	c.release(used, silent || err.isUnauthorized() || err.isLost())
	return n, err
}

// renew makes the primary the key in use and retires all open sinks: what failed
// before a back-off must not be what fails after it. A client may keep a link
// that has ended, or what it once asked of the service.
func (c *connection) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = Primary
	if c.closed { // close closes them
		return
	}
	for _, s := range c.sinks {
		if s != nil {
			c.retire(s)
			c.closeIfUnused(s)
		}
	}
}

// use returns the sink of a key, opened if need be, or one of the caller's alone,
// and then the other one, for replace. The caller must release it when its send
// has returned.
func (c *connection) use(key Key, alone bool) (used, other *openSink, err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errClosed
	}
	used = c.sinks[key]
	if used == nil || alone {
		sink, err := openedWith(c.open, c.endpoint, key)
		if err != nil {
			return nil, nil, err
		}
		used, other = &openSink{opened: sink, retired: alone}, used
	}
	if !alone {
		c.sinks[key] = used
	}
	c.users.Add(1)
	used.users++
	return used, other, nil
}

// replace makes a sink that worked alone that of its key, instead of the one that
// was so when it was opened, and that may be what fails. Several lanes may do so
// at a time: the first one's stays.
func (c *connection) replace(key Key, old, by *openSink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sinks[key] != old {
		return
	}
	if old != nil {
		c.retire(old)
		c.closeIfUnused(old)
	}
	by.retired = false
	c.sinks[key] = by
}

func (c *connection) release(s *openSink, spent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.users--
	if spent {
		c.retire(s)
	}
	c.closeIfUnused(s)
	c.users.Done() // last: close waits for it before it waits for what is closing
}

func (c *connection) retire(s *openSink) {
	s.retired = true
	for key := range c.sinks {
		if c.sinks[key] == s {
			c.sinks[key] = nil
		}
	}
}

func (c *connection) closeIfUnused(s *openSink) {
	if !s.retired || s.users > 0 {
		return
	}
	c.closing.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := s.close(ctx); err != nil {
			c.log.Load().Debug("closing a connection that is given up", zap.Error(err))
		}
	})
}

// switchFrom makes the other key the one in use, unless another lane has done so.
func (c *connection) switchFrom(key Key, refusal *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == key {
		c.current = 1 - key
		r := refusal.of(turnOtherKey, "key refused, using the other one", zap.Stringer("refused", key), zap.Stringer("using", c.current))
		r.host, r.endpoint, r.path, r.log = c.endpoint.Host(), c.endpoint.ID, c.endpoint.Path, c.log.Load()
		c.outages.say(r)
	}
}

// key returns the key in use.
func (c *connection) key() Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// close blocks until the sends in flight, which their own time-out bounds, have
// returned, and closes both sinks.
func (c *connection) close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.users.Wait()
	c.closing.Wait()
	c.mu.Lock()
	open := c.sinks
	c.mu.Unlock()
	var errs []error
	for _, s := range open {
		if s != nil {
			errs = append(errs, s.close(ctx))
		}
	}
	return errors.Join(errs...)
}
