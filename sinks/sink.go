// Package sinks delivers events to the endpoints that they were routed to.
//
//	Fanout.Enqueue ─▶ Sender.Enqueue ─▶ queue ─▶ delivery ─▶ Sink
//	                                                │
//	                                             outcomes ─▶ ledger, Settle
//
// A Sender is an endpoint's running half, in three parts. The queue is its
// lanes: ordered sub-queues with one send in flight, so that a Kafka partition,
// which always takes the same lane, stays in order. The delivery is what is
// done about each reason for which a send fails; what backs off then, the whole or
// a part, is the backoff's to say. The ledger has the counts and the state. The sinks proper, in the packages below this one, only map a batch
// to their service's SDK and return one of a few typed errors.
package sinks

import (
	"context"
	"fmt"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
)

// Sink sends to one endpoint with one of its keys. Several lanes use it at a time.
type Sink interface {
	// Send puts events on the service as one batch of the service's own kind:
	// as many of them, from the front, as fit in one, which is at least one. It
	// returns how many that were. Without an error they are all stored; with one
	// none is, as far as can be known. An error that is no *Error means
	// unreachable. Send keeps nothing of the events.
	Send(ctx context.Context, events []*event.Event) (n int, err error)

	// Close closes the connection, within ctx.
	Close(ctx context.Context) error
}

// Checker is a Sink that can be tried without sending an event.
type Checker interface {
	// Check does what a Send does before the events leave: it connects, with the
	// key, to the endpoint's own entity. Its errors are those of Send.
	Check(ctx context.Context) error
}

// Key is which of an endpoint's two keys a sink uses.
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

// ConnectionString returns the endpoint's for this key; for Event Grid the key itself.
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
	// Reason is one of five, and decides what the sender does:
	//
	//	event.Unreachable   may work later: tried again, then a back-off
	//	event.Unauthorized  this key is refused: the other one is tried at once
	//	event.Throttled     the service asks to wait: the batch is kept
	//	event.Rejected      the service works, but does not take these events
	//	event.TooLarge      rejected for the size of the batch or of its only event
	Reason event.Reason
	Wait   time.Duration // with event.Throttled: how long the service asks to wait
	// Lost means that the sink's connection can't be used any more, whatever the
	// Reason: the next Send must be a new sink's.
	Lost bool
	// Parts is set where Err may be of only a part of the service, with
	// event.Unreachable: how many parts it has. The part in question takes the
	// events of all Kafka partitions that are the same modulo Parts.
	Parts int
	// Cause is in a word what is wrong, finer than Reason, and the same for all
	// endpoints of a service that fail alike; "" is not known.
	Cause string
	// Err has the service's words. Above the connection it is a text: see opened.
	Err error

	since time.Time // with event.Unreachable: when the trouble of the batch began
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Reason, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ofPart reports whether the failure may be that of one of several parts.
func (e *Error) ofPart() bool { return e.Reason == event.Unreachable && e.Parts > 1 }

// isRejection reports whether events are to blame, and not the endpoint.
func (e *Error) isRejection() bool {
	return e != nil && (e.Reason == event.Rejected || e.Reason == event.TooLarge)
}

func (e *Error) isUnauthorized() bool { return e != nil && e.Reason == event.Unauthorized }

func (e *Error) isLost() bool { return e != nil && e.Lost }

// DeadLetters stores events that are set aside.
type DeadLetters interface {
	// Put takes over one count of the event's chunk and settles it once the dead
	// letter is stored. It tries for as long as that takes: until the event is
	// stored its chunk's offsets are not committed. to is nil for an event that was
	// set aside before it was routed.
	Put(ev *event.Event, reason event.Reason, detail string, to *Recipient)
}

// Recipient is the endpoint that a dead letter is for, as the letter names it. It is
// made once for all letters: a host has to be parsed.
type Recipient struct {
	ID     string
	Name   string // "" if it has none
	Target string // type, host and path
}

// maxTarget bounds a letter's Name and Target, in characters: the usual ones have 80.
const maxTarget = 300

// NewRecipient returns an endpoint as a letter names it.
func NewRecipient(e endpoints.Endpoint) *Recipient {
	target := string(e.Type) + " " + e.Host()
	if e.Type.AMQP() { // elsewhere the path is the host
		target += "/" + e.Path
	}
	return &Recipient{ID: e.ID, Name: untrusted.Short(e.Name, maxTarget), Target: untrusted.Short(target, maxTarget)}
}
