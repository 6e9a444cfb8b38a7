// Package servicebus sends events to an Azure Service Bus topic.
package servicebus

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/azamqp"
)

// busyWait is what the Service Bus documentation advises when the service
// throttles without saying for how long.
const busyWait = 10 * time.Second

// Sink is a sinks.Sink for one topic and key.
type Sink struct {
	endpoint    endpoints.Endpoint
	client      *azservicebus.Client
	connections *azamqp.Connections

	// connecting is held while the SDK may connect. Two sends that find no link
	// would each make one, and the SDK would forget the first: it and the
	// goroutine that renews its token would stay for good (v1.11.0, Get of
	// AMQPLinksImpl).
	connecting chan struct{}
	sender     *azservicebus.Sender

	messages sync.Pool // of *azamqp.Message
}

// New makes the sink. roots are further root certificates, or nil.
func New(endpoint endpoints.Endpoint, key sinks.Key, roots *x509.CertPool) (sinks.Sink, error) {
	connection := endpoint.ConnectionString
	if key == sinks.Secondary {
		connection = endpoint.SecondaryConnectionString
	}
	parsed, err := endpoints.ParseConnectionString(connection)
	if err != nil {
		return nil, err
	}
	connections := azamqp.NewConnections(parsed, roots)
	client, err := azservicebus.NewClientFromConnectionString(connection, &azservicebus.ClientOptions{
		ApplicationID: "twinegress",
		NewWebSocketConn: func(ctx context.Context, _ azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			return connections.Dial(ctx)
		},
		// The tries are the sender's. One quick inner retry is what rebuilds
		// a lost connection; with none the client would never recover.
		RetryOptions: azservicebus.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond},
	})
	if err != nil {
		return nil, err
	}
	return &Sink{
		endpoint:    endpoint,
		client:      client,
		connections: connections,
		connecting:  make(chan struct{}, 1),
		messages:    sync.Pool{New: func() any { return new(azamqp.Message) }},
	}, nil
}

// Send puts a leading part of events in one batch as large as the link takes.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	sender, batch, err := s.newBatch(ctx)
	if err != nil {
		return 0, classify(err)
	}
	n, err := s.fill(batch, events)
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

// fill adds events until the batch is full. An error is about the n-th event.
func (s *Sink) fill(batch *azservicebus.MessageBatch, events []*event.Event) (n int, err error) {
	rest := s.messages.Get().(*azamqp.Message)
	defer s.messages.Put(rest)
	// The SDK keeps what the first message refers to until the batch is sent,
	// as the batch's own; the others it encodes at once, so that one serves all.
	m := new(azamqp.Message)
	for i, ev := range events {
		m.Set(ev, s.endpoint.Body)
		err := batch.AddMessage(&azservicebus.Message{
			Body:                  m.Body,
			ContentType:           &m.ContentType,
			MessageID:             &m.ID,
			ApplicationProperties: m.Properties,
		}, nil)
		switch {
		case err == nil:
		case i > 0:
			return i, nil // full; what is wrong with this event the next batch tells
		case errors.Is(err, azservicebus.ErrMessageTooLarge):
			return 1, &sinks.Error{Kind: sinks.TooLarge, Err: fmt.Errorf("an event of %d bytes is larger than the topic's limit: %w", len(ev.Body), err)}
		default:
			return 1, &sinks.Error{Kind: sinks.Rejected, Err: fmt.Errorf("the event can't be encoded as a message: %w", err)}
		}
		m = rest
	}
	return len(events), nil
}

// Close closes the connection, and with it the sender.
func (s *Sink) Close(ctx context.Context) error { return s.client.Close(ctx) }

func classify(err error) *sinks.Error {
	if e, ok := errors.AsType[*azservicebus.Error](err); ok && e.Code == azservicebus.CodeUnauthorizedAccess {
		return &sinks.Error{Kind: sinks.Unauthorized, Err: err}
	}
	return azamqp.Classify(err, busyWait)
}
