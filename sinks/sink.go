// Package sinks delivers events to the endpoints that they were routed to.
//
//	Fanout.Enqueue ─▶ Sender.Enqueue ─▶ queue ─▶ delivery ─▶ Sink
//	                                                │
//	                                             outcomes ─▶ ledger, Settle
//
// A Sender is an endpoint's running half, in three parts. The queue is its
// lanes: ordered sub-queues with one send in flight, so that a Kafka partition,
// which always takes the same lane, stays in order. The delivery is what is
// done about each way in which a send fails. The ledger has the counts and the
// state. The sinks proper, in the packages below this one, only map a batch to
// their service's SDK and say in a few typed errors what became of it.
package sinks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// Sink sends to one endpoint with one of its keys. It is used by several
// lanes at a time.
type Sink interface {
	// Send puts events on the service as one batch of the service's own kind:
	// as many of them, from the front, as fit in one, which is at least one.
	// It tells how many that were. Without an error they are all stored; with
	// one none is, as far as can be known. An *Error says what to do about it,
	// any other error means unreachable. Send keeps nothing of the events.
	Send(ctx context.Context, events []*event.Event) (n int, err error)

	// Close gives up the connection, within ctx.
	Close(ctx context.Context) error
}

// Checker is a Sink that can be tried without sending an event.
type Checker interface {
	// Check goes as far as a Send does before the events leave: it connects,
	// with the key, to the very place. Its errors are those of Send.
	Check(ctx context.Context) error
}

// Key says which of an endpoint's two keys a sink uses.
type Key uint8

// The keys of an endpoint. The secondary is optional.
const (
	Primary Key = iota
	Secondary
)

func (k Key) String() string {
	if k == Secondary {
		return "secondary"
	}
	return "primary"
}

// ConnectionString is the endpoint's for this key; for Event Grid the key itself.
func (k Key) ConnectionString(e endpoints.Endpoint) string {
	if k == Secondary {
		return e.SecondaryConnectionString
	}
	return e.ConnectionString
}

// Open makes the sink for one key of an endpoint. It connects to nothing: the
// first Send does.
type Open func(endpoint endpoints.Endpoint, key Key) (Sink, error)

// Error is a failed Send, classified where the service's own errors are known.
type Error struct {
	// Reason is one of five, and says what the sender does about it:
	//
	//	event.Unreachable   may work later: tried again, then a back-off
	//	event.Unauthorized  this key is refused: the other one is tried at once
	//	event.Throttled     the service asks to wait: the batch is kept
	//	event.Rejected      the service works, but does not take these events
	//	event.TooLarge      rejected for the size of the batch or of its only event
	Reason event.Reason
	Wait   time.Duration // with event.Throttled: how long the service asks to wait
	// Lost says that the connection is of no more use, whatever the Reason: the
	// next Send has to be a new sink's.
	Lost bool
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Reason, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// isRejection reports whether events are to blame, and not the endpoint.
func (e *Error) isRejection() bool {
	return e != nil && (e.Reason == event.Rejected || e.Reason == event.TooLarge)
}

// classified returns err as an *Error: what a sink did not classify is unreachable.
func classified(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: event.Unreachable, Err: err}
}

// DeadLetters stores events that are set aside.
type DeadLetters interface {
	// Put takes one count of the event's chunk from the caller and settles it
	// once the dead letter is stored. It does not give up: until the event is
	// stored its chunk's offsets are not committed.
	Put(ev *event.Event, reason event.Reason, detail, endpointID string)
}
