package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// failover sends with the key that worked last and, when it is refused, sends
// the same batch with the other at once. The two sinks are opened when they
// are first needed.
type failover struct {
	endpoint endpoints.Endpoint
	open     Open
	log      *zap.Logger

	mu      sync.Mutex
	sinks   [2]*connection // by key; nil until needed
	current Key
	closed  bool

	users    sync.WaitGroup // sends in flight; Add under mu, and not once closed
	closing  sync.WaitGroup // connections that are being given up; as users
	replaced chan struct{}  // closed once the endpoint has another way; see Sender.Update
}

// connection is an open sink. One that is retired takes no more sends, and is
// closed when the last that it has is over.
type connection struct {
	sink    Sink
	users   int
	retired bool
}

// closeTimeout bounds the goodbye to a connection that is given up while the
// endpoint goes on: its peer may be the one that doesn't answer.
const closeTimeout = 5 * time.Second

func newFailover(endpoint endpoints.Endpoint, open Open, log *zap.Logger) *failover {
	return &failover{endpoint: endpoint, open: open, log: log, replaced: make(chan struct{})}
}

// isReplaced reports whether the endpoint was changed, and so has another way now.
func (f *failover) isReplaced() bool {
	select {
	case <-f.replaced:
		return true
	default:
		return false
	}
}

// errClosed: the endpoint was changed while the batch was on its way here.
var errClosed = errors.New("the endpoint's connection was replaced")

// Send is Sink's, over both keys. A probe starts afresh, with the primary.
func (f *failover) Send(ctx context.Context, events []*event.Event, probe bool) (int, error) {
	if probe {
		f.renew()
	}
	key := f.key()
	n, err := f.sendWith(ctx, key, events)
	switch {
	case !isUnauthorized(err):
		return n, err
	case f.endpoint.Authentication == endpoints.AuthenticationIdentity:
		return n, &Error{Reason: event.Unauthorized, Err: fmt.Errorf("this process's identity: %w", err)}
	case f.endpoint.SecondaryConnectionString == "":
		return n, &Error{Reason: event.Unauthorized, Err: fmt.Errorf("primary key: %w (and there is no secondary)", err)}
	}
	// The other key itself, not whichever is current: another lane may have
	// switched, and so may a probe, but this batch tries each key once.
	f.switchFrom(key, err)
	var refused [2]error
	refused[key] = err
	if n, err = f.sendWith(ctx, 1-key, events); !isUnauthorized(err) {
		return n, err
	}
	refused[1-key] = err
	return n, bothRefused(refused)
}

func (f *failover) sendWith(ctx context.Context, key Key, events []*event.Event) (int, error) {
	c, err := f.use(key)
	if err != nil {
		return 0, err
	}
	n, err := c.sink.Send(ctx, events)
	// A peer that went silent leaves the SDKs' clients waiting long after it is
	// back: after a time-out the next send gets a new connection. So it does
	// with a key that was refused and may be valid again some day.
	silent := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	f.release(c, silent || isUnauthorized(err) || isLost(err))
	return n, err
}

func isUnauthorized(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason == event.Unauthorized
}

func isLost(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Lost
}

// renew goes back to the primary, and gives up whatever connection there is:
// what failed before a back-off must not be what fails after it. A client may
// hold on to a link that has ended, or to what it once asked of the service.
func (f *failover) renew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = Primary
	if f.closed { // close gives them up
		return
	}
	for _, c := range f.sinks {
		if c != nil {
			f.retire(c)
			f.closeIfUnused(c)
		}
	}
}

func bothRefused(refused [2]error) error {
	return &Error{Reason: event.Unauthorized, Err: fmt.Errorf("both keys are refused: primary: %w; secondary: %w", refused[Primary], refused[Secondary])}
}

// use gives the connection of a key, opened if need be. The caller must
// release it when its send is over.
func (f *failover) use(key Key) (*connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	if f.sinks[key] == nil {
		sink, err := f.open(f.endpoint, key)
		if err != nil {
			return nil, fmt.Errorf("%s key: %w", key, err)
		}
		f.sinks[key] = &connection{sink: sink}
	}
	f.users.Add(1)
	f.sinks[key].users++
	return f.sinks[key], nil
}

func (f *failover) release(c *connection, spent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.users--
	if spent {
		f.retire(c)
	}
	f.closeIfUnused(c)
	f.users.Done() // last: close waits for it before it waits for what is closing
}

func (f *failover) retire(c *connection) {
	c.retired = true
	for key := range f.sinks {
		if f.sinks[key] == c {
			f.sinks[key] = nil
		}
	}
}

func (f *failover) closeIfUnused(c *connection) {
	if !c.retired || c.users > 0 {
		return
	}
	f.closing.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := c.sink.Close(ctx); err != nil {
			f.log.Debug("closing a connection that is given up", zap.Error(err))
		}
	})
}

// switchFrom changes to the other key, unless another lane has done so already.
func (f *failover) switchFrom(key Key, refusal error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current == key {
		f.current = 1 - key
		f.log.Warn("key refused, using the other one", zap.Stringer("refused", key), zap.Stringer("using", f.current), zap.Error(refusal))
	}
}

// key gives the key in use.
func (f *failover) key() Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

// close waits for the sends in flight, which their own time-out bounds, and
// closes both sinks.
func (f *failover) close(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.users.Wait()
	f.closing.Wait()
	f.mu.Lock()
	open := f.sinks
	f.mu.Unlock()
	var errs []error
	for _, c := range open {
		if c != nil {
			errs = append(errs, c.sink.Close(ctx))
		}
	}
	return errors.Join(errs...)
}
