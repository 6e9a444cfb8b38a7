// Package servicebus sends events to an Azure Service Bus topic.
package servicebus

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/azamqp"
	"twinegress/sinks/entra"
)

// busyWait is what the Service Bus documentation advises when the service
// throttles without saying for how long.
const busyWait = 10 * time.Second

// Sink is a sinks.Sink for one topic and key, or identity.
type Sink struct {
	endpoint    endpoints.Endpoint
	client      *azservicebus.Client
	connections *azamqp.Connections
	identity    *entra.Identity // nil: keys

	// connecting is held while the SDK may connect. Two sends that find no link
	// would each make one, and the SDK would forget the first: it and the
	// goroutine that renews its token would stay for good (v1.11.0, Get of
	// AMQPLinksImpl).
	connecting chan struct{}
	sender     *azservicebus.Sender
}

// New makes the sink. roots are further root certificates, or nil; identity is
// for an endpoint without keys.
func New(endpoint endpoints.Endpoint, key sinks.Key, roots *x509.CertPool, identity *entra.Identity) (sinks.Sink, error) {
	s := &Sink{endpoint: endpoint, connecting: make(chan struct{}, 1)}
	connection := key.ConnectionString(endpoint)
	options := &azservicebus.ClientOptions{
		ApplicationID: "twinegress",
		NewWebSocketConn: func(ctx context.Context, _ azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			return s.connections.Dial(ctx)
		},
		// The tries are the sender's. One quick inner retry is what rebuilds
		// a lost connection; with none the client would never recover.
		RetryOptions: azservicebus.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond},
	}
	var to endpoints.ConnectionString
	var err error
	if endpoint.Authentication == endpoints.AuthenticationIdentity {
		if to, err = endpoints.ParseNamespace(connection); err != nil {
			return nil, err
		}
		s.identity = identity
		s.client, err = azservicebus.NewClient(to.Host, identity, options)
	} else {
		if to, err = endpoints.ParseConnectionString(connection); err != nil {
			return nil, err
		}
		s.client, err = azservicebus.NewClientFromConnectionString(connection, options)
	}
	if err != nil {
		return nil, err
	}
	s.connections = azamqp.NewConnections(to, roots)
	return s, nil
}

// Send puts a leading part of events in one batch as large as the link takes.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if s.identity != nil {
		if err := s.identity.Check(ctx, entra.ServiceBus); err != nil {
			return 0, err
		}
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

// newBatch gives the one sender of all lanes, connected, and a batch of its
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

// Check opens the link to send on, which takes the right to send.
func (s *Sink) Check(ctx context.Context) error {
	if s.identity != nil {
		if err := s.identity.Check(ctx, entra.ServiceBus); err != nil {
			return err
		}
	}
	if _, _, err := s.newBatch(ctx); err != nil {
		return classify(err)
	}
	return nil
}

// Close closes the connection, and with it the sender.
func (s *Sink) Close(ctx context.Context) error { return s.client.Close(ctx) }

func classify(err error) *sinks.Error {
	if e, ok := errors.AsType[*azservicebus.Error](err); ok && e.Code == azservicebus.CodeUnauthorizedAccess {
		return &sinks.Error{Kind: sinks.Unauthorized, Err: err}
	}
	return azamqp.Classify(err, busyWait)
}
