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
	return func(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
		connections, err := azamqp.NewConnections(endpoint, key, dialer)
		if err != nil {
			return nil, err
		}
		s := &Sink{endpoint: endpoint, connections: connections, connecting: make(chan struct{}, 1)}
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

// Send sends a leading part of events in one batch as large as the link allows.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if err := s.identity.Check(ctx, entra.ServiceBus); err != nil {
		return 0, err
	}
	sender, batch, err := s.newBatch(ctx)
	if err != nil {
		return 0, classify(err)
	}
	// An annotated message and not a Message, whose properties the SDK copies
	// into a new map for each event.
	var properties azservicebus.AMQPAnnotatedMessageProperties
	message := azservicebus.AMQPAnnotatedMessage{
		Properties: &properties,
		Body:       azservicebus.AMQPAnnotatedMessageBody{Data: make([][]byte, 1)},
	}
	n, err := azamqp.Fill(events, s.endpoint.Body, azservicebus.ErrMessageTooLarge, func(m *azamqp.Message) error {
		properties.MessageID, properties.ContentType = &m.ID, &m.ContentType
		message.ApplicationProperties, message.Body.Data[0] = m.Properties, m.Body
		return batch.AddAMQPAnnotatedMessage(&message, nil)
	})
	if err != nil {
		return n, err
	}
	err = s.connections.Watch(func() error { return sender.SendMessageBatch(ctx, batch, nil) })
	if err != nil {
		return n, classify(err)
	}
	return n, nil
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
	batch, err := s.sender.NewMessageBatch(ctx, nil)
	return s.sender, batch, err
}

// Check opens the link to send on, which needs the right to send.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.identity.Check(ctx, entra.ServiceBus); err != nil {
		return err
	}
	if _, _, err := s.newBatch(ctx); err != nil {
		return classify(err)
	}
	return nil
}

// Close closes the connection, and with it the sender.
func (s *Sink) Close(ctx context.Context) error { return s.connections.Close(ctx, s.client.Close) }

func classify(err error) *sinks.Error {
	if e, ok := errors.AsType[*azservicebus.Error](err); ok && e.Code == azservicebus.CodeUnauthorizedAccess {
		return &sinks.Error{Reason: event.Unauthorized, Err: err}
	}
	return azamqp.Classify(err, busyWait)
}
