package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
)

// opened is a sink as all others see it: its errors are of type *Error, and their
// words are text. The words are a service's, which may repeat the key that it was
// sent, steer a terminal or be as long as it likes. Here they become fit to be
// logged, shown and stored, because here is the last place that knows the
// endpoint's secrets; whoever shows them need not think of it.
type opened struct {
	sink   Sink
	masker func() *untrusted.Masker // made when it is first needed: most sinks never fail
}

// text is what an error of a service says, masked, escaped and cut.
type text string

func (t text) Error() string { return string(t) }

// textf returns a text made of others, cut again.
func textf(format string, args ...any) text {
	return text(untrusted.Text(fmt.Sprintf(format, args...)))
}

// openedWith opens a sink.
func openedWith(open Open, endpoint endpoints.Endpoint, key Key) (*opened, *Error) {
	masker := sync.OnceValue(func() *untrusted.Masker { return untrusted.NewMasker(endpoint.Secrets()...) })
	o := &opened{masker: masker}
	var err error
	if o.sink, err = open(endpoint, key); err != nil {
		return nil, o.failed(fmt.Errorf("%s key: %w", key, err))
	}
	return o, nil
}

func (o *opened) send(ctx context.Context, events []*event.Event) (int, *Error) {
	n, err := o.sink.Send(ctx, events)
	return n, o.failed(err)
}

func (o *opened) close(ctx context.Context) error {
	if e := o.failed(o.sink.Close(ctx)); e != nil {
		return e.Err
	}
	return nil
}

// failed returns the *Error of an error, with a text. What a sink did not
// classify is unreachable.
func (o *opened) failed(err error) *Error {
	if err == nil {
		return nil
	}
	e := Error{Reason: event.Unreachable, Err: err}
	if classified, ok := errors.AsType[*Error](err); ok {
		e = *classified
	}
	e.Err = text(o.masker().Text(e.Err.Error()))
	return &e
}

// Check tries an endpoint with one of its keys, without sending an event. Its
// error is an *Error, as of a Send, and fit to be shown.
func Check(ctx context.Context, open Open, endpoint endpoints.Endpoint, key Key) error {
	o, failed := openedWith(open, endpoint, key)
	if failed != nil {
		return failed.Err
	}
	defer func() {
		// A time-out of its own: that of the check may be over.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = o.close(closing) // the check is done
	}()
	checker, ok := o.sink.(Checker)
	if !ok {
		return fmt.Errorf("BUG: a sink for %s can't be checked", endpoint.Type)
	}
	if e := o.failed(checker.Check(ctx)); e != nil {
		return e
	}
	return nil
}
