// Package eventhubs sends events to an Azure event hub.
package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/azamqp"
	"twinegress/sinks/entra"
)

// busyWait is how long Event Hubs asks to wait when it throttles, for a reply
// that doesn't say.
const busyWait = 4 * time.Second

// maxPartitions is more than a hub can have: 1,024 in a dedicated cluster.
const maxPartitions = 2048

// Sink is a sinks.Sink for one event hub and key, or identity.
type Sink struct {
	endpoint    endpoints.Endpoint
	client      *azeventhubs.ProducerClient
	connections *azamqp.Connections
	identity    *entra.Identity // nil: with a key
	opened      atomic.Bool     // the link to the hub as a whole, for ordering: none

	hub atomic.Pointer[hub] // nil until it has answered
	// opening is a semaphore, see startOpening; unopenedFor is why the last
	// opening failed.
	opening     chan struct{}
	unopenedFor atomic.Pointer[error]
}

// hub is what the hub said of itself, and which of the links to its partitions
// have been opened; they may have ended since.
type hub struct {
	partitions []string
	opened     []atomic.Bool
}

// Opener returns the factory of the sinks for event hubs. dialer makes
// their connections; identity is for endpoints without keys.
func Opener(dialer *outbound.Dialer, identity *entra.Identity) sinks.Open {
	return func(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
		connections, err := azamqp.NewConnections(endpoint, key, dialer)
		if err != nil {
			return nil, err
		}
		s := &Sink{endpoint: endpoint, connections: connections, opening: make(chan struct{}, 1)}
		options := &azeventhubs.ProducerClientOptions{
			ApplicationID: azamqp.ApplicationID,
			NewWebSocketConn: func(ctx context.Context, _ azeventhubs.WebSocketConnParams) (net.Conn, error) {
				return connections.Dial(ctx)
			},
			RetryOptions: azeventhubs.RetryOptions{MaxRetries: azamqp.MaxRetries, RetryDelay: azamqp.RetryDelay},
		}
		if endpoint.Authentication == endpoints.AuthenticationIdentity {
			s.identity = identity
			s.client, err = azeventhubs.NewProducerClient(connections.Host, endpoint.Path, identity, options)
		} else {
			hub := endpoint.Path
			if connections.EntityPath != "" {
				hub = "" // the SDK wants it once
			}
			s.client, err = azeventhubs.NewProducerClientFromConnectionString(key.ConnectionString(endpoint), hub, options)
		}
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

// Send sends a leading run of events, all for the same partition of the hub, in
// one batch as large as the link allows. Kafka partition p goes to hub
// partition p mod n, so that each Kafka partition is read in order.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if err := s.identity.Check(ctx, entra.EventHubs); err != nil {
		return 0, err
	}
	var options azeventhubs.EventDataBatchOptions
	opened := &s.opened
	parts := 0 // the hub itself looks after its partitions
	if s.endpoint.Ordering != endpoints.OrderingNone {
		hub, err := s.ask(ctx)
		if err != nil {
			return 0, s.unopened(ctx, err)
		}
		of := func(ev *event.Event) int { return int(ev.Chunk.Partition) % len(hub.partitions) }
		p := of(events[0])
		for i, ev := range events {
			if of(ev) != p {
				events = events[:i]
				break
			}
		}
		options.PartitionID, opened = &hub.partitions[p], &hub.opened[p]
		parts = len(hub.partitions)
	}
	batch, err := s.newBatch(ctx, &options, opened)
	if err != nil {
		return 0, ofPart(parts, s.unopened(ctx, err))
	}
	// An annotated message and not an EventData, whose properties the SDK
	// copies into a new map for each event.
	var properties azeventhubs.AMQPAnnotatedMessageProperties
	message := azeventhubs.AMQPAnnotatedMessage{
		Properties: &properties,
		Body:       azeventhubs.AMQPAnnotatedMessageBody{Data: make([][]byte, 1)},
	}
	n, err := s.connections.Fill(events, s.endpoint.Body, azeventhubs.ErrEventDataTooLarge, func(m *azamqp.Message) error {
		properties.MessageID, properties.ContentType = &m.ID, &m.ContentType
		message.ApplicationProperties, message.Body.Data[0] = m.Properties, m.Body
		return batch.AddAMQPAnnotatedMessage(&message, nil)
	})
	if err != nil {
		return n, err
	}
	err = s.connections.Watch(func() error { return s.client.SendEventDataBatch(ctx, batch, nil) })
	if err != nil {
		opened.Store(false)
		return n, ofPart(parts, s.classify(err, azamqp.Sending))
	}
	return n, nil
}

// ofPart says that an error may be of only one of the hub's partitions.
func ofPart(parts int, e *sinks.Error) *sinks.Error {
	e.Parts = parts
	return e
}

// newBatch returns a batch of the size that the link to send it on allows, which
// it opens if need be.
func (s *Sink) newBatch(ctx context.Context, options *azeventhubs.EventDataBatchOptions, opened *atomic.Bool) (*azeventhubs.EventDataBatch, error) {
	if opened.Load() {
		return s.client.NewEventDataBatch(ctx, options)
	}
	ctx, done, err := s.startOpening(ctx)
	if err != nil {
		return nil, err
	}
	batch, err := s.client.NewEventDataBatch(ctx, options)
	done(err)
	if err == nil {
		opened.Store(true)
	}
	return batch, err
}

// startOpening begins what may open a link, or ask the hub. While that goes on,
// the SDK keeps all other lanes from their links, open or not, whatever time they
// have (v2.0.2, GetLink of Links). So one lane does it at a time, and gives it up
// when three quarters of its time are over: the others have the rest of theirs to
// send, which takes much less.
func (s *Sink) startOpening(ctx context.Context) (opening context.Context, done func(error), err error) {
	select {
	case s.opening <- struct{}{}:
	case <-ctx.Done():
		if last := s.unopenedFor.Load(); last != nil {
			return nil, nil, fmt.Errorf("%w, after another's %w", ctx.Err(), *last)
		}
		return nil, nil, ctx.Err()
	}
	cancel := func() {}
	if deadline, has := ctx.Deadline(); has {
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*3/4)
	}
	return ctx, func(err error) {
		cancel()
		s.unopenedFor.Store(nil)
		if err != nil {
			s.unopenedFor.Store(&err)
		}
		<-s.opening
	}, nil
}

// unopened returns the error of what goes before a send. What was given up before
// its time is kept by the SDK, half done, and so is a connection that may have
// fallen silent.
func (s *Sink) unopened(ctx context.Context, err error) *sinks.Error {
	e := s.classify(err, azamqp.Opening)
	e.Lost = e.Lost || ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
	return e
}

// ask returns the hub's partitions, which it requests once. Events go to those
// also when the hub has more of them later, until the endpoint is changed or the
// process restarted: the order of a twin's events is worth more than the balance.
func (s *Sink) ask(ctx context.Context) (answered *hub, err error) {
	if known := s.hub.Load(); known != nil {
		return known, nil
	}
	ctx, done, err := s.startOpening(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { done(err) }()
	if known := s.hub.Load(); known != nil {
		return known, nil
	}
	properties, err := s.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return nil, err
	}
	switch n := len(properties.PartitionIDs); {
	case n == 0:
		return nil, errors.New("the hub says that it has no partitions")
	case n > maxPartitions:
		return nil, fmt.Errorf("the hub says that it has %d partitions, more than the %d that any has", n, maxPartitions)
	}
	answered = &hub{partitions: properties.PartitionIDs, opened: make([]atomic.Bool, len(properties.PartitionIDs))}
	s.hub.Store(answered)
	return answered, nil
}

// Check requests the hub's partitions and opens a link to send on, which needs
// the right to send.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.identity.Check(ctx, entra.EventHubs); err != nil {
		return err
	}
	if _, err := s.ask(ctx); err != nil {
		return s.classify(err, azamqp.Opening)
	}
	if _, err := s.client.NewEventDataBatch(ctx, nil); err != nil {
		return s.classify(err, azamqp.Opening)
	}
	return nil
}

// Close closes the connection.
func (s *Sink) Close(ctx context.Context) error { return s.connections.Close(ctx, s.client.Close) }

func (s *Sink) classify(err error, doing azamqp.Doing) *sinks.Error {
	return s.connections.Explained(classify(err), doing)
}

func classify(err error) *sinks.Error {
	if e, ok := errors.AsType[*azeventhubs.Error](err); ok && e.Code == azeventhubs.ErrorCodeUnauthorizedAccess {
		return &sinks.Error{Reason: event.Unauthorized, Err: err}
	}
	// The SDK's error of a request for the hub's properties has no exported type.
	if e, ok := errors.AsType[interface {
		error
		RPCCode() int
	}](err); ok && e.RPCCode() == http.StatusUnauthorized {
		return &sinks.Error{Reason: event.Unauthorized, Err: err}
	}
	return azamqp.Classify(err, busyWait)
}
