// Package servicebus sends events to an Azure Service Bus topic.
package servicebus

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/azamqp"
	"twinegress/sinks/entra"
)

// busyWait is the wait that the Service Bus documentation advises, for a reply
// that throttles without saying for how long.
const busyWait = 10 * time.Second

// Sink is a sinks.Sink for one topic and key, or identity.
type Sink struct {
	endpoint    endpoints.Endpoint
	client      *azservicebus.Client
	connections *azamqp.Connections
	identity    *entra.Identity // nil: with a key
	limits      *azamqp.BatchLimits

	// connecting is a semaphore, held while the SDK may connect. Two sends that
	// find no link would each make one, and the SDK would drop the first without
	// closing it: it would leak, with the goroutine that renews its token
	// (v1.11.0, Get of AMQPLinksImpl).
	connecting chan struct{}
	sender     *azservicebus.Sender
}

// Opener returns the factory of the sinks for topics. dialer makes
// their connections; identity is for endpoints without keys.
func Opener(dialer *outbound.Dialer, identity *entra.Identity) sinks.Open {
	limits := new(azamqp.BatchLimits)
	return func(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
		connections, err := azamqp.NewConnections(endpoint, key, dialer)
		if err != nil {
			return nil, err
		}
		s := &Sink{endpoint: endpoint, connections: connections, limits: limits, connecting: make(chan struct{}, 1)}
		options := &azservicebus.ClientOptions{
			ApplicationID: azamqp.ApplicationID,
			NewWebSocketConn: func(ctx context.Context, _ azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
				return connections.Dial(ctx)
			},
			RetryOptions: azservicebus.RetryOptions{MaxRetries: azamqp.MaxRetries, RetryDelay: azamqp.RetryDelay},
		}
		if endpoint.Authentication == endpoints.AuthenticationIdentity {
			s.identity = identity
			s.client, err = azservicebus.NewClient(connections.Host, identity, options)
		} else {
			s.client, err = azservicebus.NewClientFromConnectionString(key.ConnectionString(endpoint), options)
		}
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

// maxMessage is the largest message that any topic takes. An event beyond it isn't
// encoded to be refused.
const maxMessage = 100 << 20

// Send sends a leading part of events in one batch as large as the link allows. An
// event that is too large for a batch is sent alone: a topic may take messages of
// 100 MB and batches of 1 MB.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if err := s.identity.Check(ctx, entra.ServiceBus); err != nil {
		return 0, err
	}
	sender, batch, err := s.newBatch(ctx)
	if err != nil {
		return 0, s.classify(err, azamqp.Opening)
	}
	// An annotated message and not a Message, whose properties the SDK copies
	// into a new map for each event.
	var properties azservicebus.AMQPAnnotatedMessageProperties
	message := azservicebus.AMQPAnnotatedMessage{
		Properties: &properties,
		Body:       azservicebus.AMQPAnnotatedMessageBody{Data: make([][]byte, 1)},
	}
	n, err := s.connections.Fill(events, s.endpoint.Body, azservicebus.ErrMessageTooLarge, func(m *azamqp.Message) error {
		properties.MessageID, properties.ContentType = &m.ID, &m.ContentType
		message.ApplicationProperties, message.Body.Data[0] = m.Properties, m.Body
		return batch.AddAMQPAnnotatedMessage(&message, nil)
	})
	if tooLarge, is := errors.AsType[*sinks.Error](err); is && tooLarge.Reason == event.TooLarge && message.Body.Data[0] != nil && len(events[0].Body) < maxMessage {
		return n, s.sendAlone(ctx, sender, &message, tooLarge)
	}
	if err != nil {
		return n, err
	}
	err = s.connections.Watch(func() error { return sender.SendMessageBatch(ctx, batch, nil) })
	if err == nil {
		return n, nil
	}
	failed := s.classify(err, azamqp.Sending)
	if failed.Reason == event.TooLarge && n > 1 {
		s.limits.Refused(s.endpoint, s.connections.Host, batch.NumBytes())
	}
	return n, failed
}

// sendAlone sends a message that fits no batch. How large one may be the SDK knows
// and doesn't say, so to try is to find out: beyond that, nothing is sent.
func (s *Sink) sendAlone(ctx context.Context, sender *azservicebus.Sender, m *azservicebus.AMQPAnnotatedMessage, tooLarge *sinks.Error) error {
	ended := s.connections.Ended()
	err := s.connections.Watch(func() error { return sender.SendAMQPAnnotatedMessage(ctx, m, nil) })
	if err == nil {
		return nil
	}
	if errors.Is(err, azservicebus.ErrMessageTooLarge) {
		// If it was sent, it was the service that refused it, which ends the link.
		// That something was sent meanwhile says nothing: others send, too.
		tooLarge.Lost = s.connections.Ended() != ended
		return tooLarge
	}
	return s.classify(err, azamqp.Sending)
}

// newBatch returns the one sender of all lanes, connected, and a batch of its
// link's size.
func (s *Sink) newBatch(ctx context.Context) (*azservicebus.Sender, *azservicebus.MessageBatch, error) {
	select {
	case s.connecting <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	defer func() { <-s.connecting }()
	if s.sender == nil {
		sender, err := s.client.NewSender(s.endpoint.Path, nil)
		if err != nil {
			return nil, nil, err
		}
		s.sender = sender
	}
	options := &azservicebus.MessageBatchOptions{MaxBytes: s.limits.Of(s.endpoint, s.connections.Host)}
	batch, err := s.sender.NewMessageBatch(ctx, options)
	return s.sender, batch, err
}

// Check opens the link to send on, which needs the right to send.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.identity.Check(ctx, entra.ServiceBus); err != nil {
		return err
	}
	if _, _, err := s.newBatch(ctx); err != nil {
		return s.classify(err, azamqp.Opening)
	}
	return nil
}

// Close closes the connection, and with it the sender.
func (s *Sink) Close(ctx context.Context) error { return s.connections.Close(ctx, s.client.Close) }

func (s *Sink) classify(err error, doing azamqp.Doing) *sinks.Error {
	return s.connections.Explained(classify(err), doing)
}

func classify(err error) *sinks.Error {
	if e, ok := errors.AsType[*azservicebus.Error](err); ok && e.Code == azservicebus.CodeUnauthorizedAccess {
		return &sinks.Error{Reason: event.Unauthorized, Err: err}
	}
	return azamqp.Classify(err, busyWait)
}
