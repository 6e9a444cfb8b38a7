package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"

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
	sinks   [2]Sink
	current Key
	closed  bool

	users    sync.WaitGroup // sends in flight; Add under mu, and not once closed
	replaced chan struct{}  // closed once the endpoint has another way; see Sender.Update
}

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

// Send is Sink's, over both keys. A probe starts with the primary again.
func (f *failover) Send(ctx context.Context, events []*event.Event, probe bool) (int, error) {
	if probe {
		f.mu.Lock()
		f.current = Primary
		f.mu.Unlock()
	}
	key := f.key()
	n, err := f.sendWith(ctx, key, events)
	switch {
	case !isUnauthorized(err):
		return n, err
	case f.endpoint.SecondaryConnectionString == "":
		return n, &Error{Kind: Unauthorized, Err: fmt.Errorf("primary key: %w (and there is no secondary)", err)}
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
	sink, err := f.use(key)
	if err != nil {
		return 0, err
	}
	defer f.users.Done()
	return sink.Send(ctx, events)
}

func isUnauthorized(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Unauthorized
}

func bothRefused(refused [2]error) error {
	return &Error{Kind: Unauthorized, Err: fmt.Errorf("both keys are refused: primary: %w; secondary: %w", refused[Primary], refused[Secondary])}
}

// use gives the sink of a key, opened if need be. The caller must call
// users.Done when its send is over.
func (f *failover) use(key Key) (Sink, error) {
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
		f.sinks[key] = sink
	}
	f.users.Add(1)
	return f.sinks[key], nil
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
	var errs []error
	for _, sink := range f.sinks {
		if sink != nil {
			errs = append(errs, sink.Close(ctx))
		}
	}
	return errors.Join(errs...)
}
