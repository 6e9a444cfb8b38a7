package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// failover sends with the key that worked last and, when it is refused, sends
// the same batch with the other at once. The two sinks are opened when they
// are first needed.
type failover struct {
	endpoint endpoints.Endpoint
	open     Open

	mu      sync.Mutex
	sinks   [2]Sink
	current Key
	closed  bool

	users sync.WaitGroup // sends in flight; Add under mu, and not once closed
}

func newFailover(endpoint endpoints.Endpoint, open Open) *failover {
	return &failover{endpoint: endpoint, open: open}
}

// errClosed: the endpoint was changed while the batch was on its way here.
var errClosed = errors.New("the endpoint's connection was replaced")

// Send is Sink's, over both keys. A probe starts with the primary again.
func (f *failover) Send(ctx context.Context, events []*event.Event, probe bool) (n int, err error) {
	if probe {
		f.mu.Lock()
		f.current = Primary
		f.mu.Unlock()
	}
	var refused [2]error
	for {
		sink, key, err := f.use()
		if err != nil {
			return 0, err
		}
		if refused[key] != nil {
			// Another lane switched back meanwhile: this batch has tried both.
			f.users.Done()
			return 0, bothRefused(refused)
		}
		n, err := sink.Send(ctx, events)
		f.users.Done()
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Unauthorized {
			return n, err
		}
		refused[key] = err
		if f.endpoint.SecondaryConnectionString == "" {
			return n, &Error{Kind: Unauthorized, Err: fmt.Errorf("primary key: %w (and there is no secondary)", err)}
		}
		if refused[1-key] != nil {
			return n, bothRefused(refused)
		}
		f.switchFrom(key)
	}
}

func bothRefused(refused [2]error) error {
	return &Error{Kind: Unauthorized, Err: fmt.Errorf("both keys are refused: primary: %w; secondary: %w", refused[Primary], refused[Secondary])}
}

// use gives the sink of the current key, opened if need be. The caller must
// call users.Done when its send is over.
func (f *failover) use() (Sink, Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := f.current
	if f.closed {
		return nil, key, errClosed
	}
	if f.sinks[key] == nil {
		sink, err := f.open(f.endpoint, key)
		if err != nil {
			return nil, key, fmt.Errorf("%s key: %w", key, err)
		}
		f.sinks[key] = sink
	}
	f.users.Add(1)
	return f.sinks[key], key, nil
}

// switchFrom changes to the other key, unless another lane has done so already.
func (f *failover) switchFrom(key Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current == key {
		f.current = 1 - key
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
