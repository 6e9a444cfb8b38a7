// Package eventhubs sends events to an Azure event hub.
package eventhubs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
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

// Sink is a sinks.Sink for one event hub and key, or identity.
type Sink struct {
	endpoint    endpoints.Endpoint
	client      *azeventhubs.ProducerClient
	connections *azamqp.Connections
	identity    *entra.Identity // nil: with a key

	mu         sync.Mutex
	partitions []string // of the hub; requested once
}

// Opener returns the factory of the sinks for event hubs. dialer makes
// their connections; identity is for endpoints without keys.
func Opener(dialer *outbound.Dialer, identity *entra.Identity) sinks.Open {
	return func(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
		connections, err := azamqp.NewConnections(endpoint, key, dialer)
		if err != nil {
			return nil, err
		}
		s := &Sink{endpoint: endpoint, connections: connections}
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
	if s.endpoint.Ordering != endpoints.OrderingNone {
		partitions, err := s.hubPartitions(ctx)
		if err != nil {
			return 0, classify(err)
		}
		of := func(ev *event.Event) int { return int(ev.Chunk.Partition) % len(partitions) }
		p := of(events[0])
		for i, ev := range events {
			if of(ev) != p {
				events = events[:i]
				break
			}
		}
		options.PartitionID = &partitions[p]
	}
	batch, err := s.client.NewEventDataBatch(ctx, &options)
	if err != nil {
		return 0, classify(err)
	}
	// An annotated message and not an EventData, whose properties the SDK
	// copies into a new map for each event.
	var properties azeventhubs.AMQPAnnotatedMessageProperties
	message := azeventhubs.AMQPAnnotatedMessage{
		Properties: &properties,
		Body:       azeventhubs.AMQPAnnotatedMessageBody{Data: make([][]byte, 1)},
	}
	n, err := azamqp.Fill(events, s.endpoint.Body, azeventhubs.ErrEventDataTooLarge, func(m *azamqp.Message) error {
		properties.MessageID, properties.ContentType = &m.ID, &m.ContentType
		message.ApplicationProperties, message.Body.Data[0] = m.Properties, m.Body
		return batch.AddAMQPAnnotatedMessage(&message, nil)
	})
	if err != nil {
		return n, err
	}
	err = s.connections.Watch(func() error { return s.client.SendEventDataBatch(ctx, batch, nil) })
	if err != nil {
		return n, classify(err)
	}
	return n, nil
}

// hubPartitions returns the hub's partitions, which it requests once. Events go
// to those also when the hub has more of them later, until the endpoint is
// changed or the process restarted: the order of a twin's events is worth more
// than the balance.
func (s *Sink) hubPartitions(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partitions == nil {
		properties, err := s.client.GetEventHubProperties(ctx, nil)
		if err != nil {
			return nil, err
		}
		if len(properties.PartitionIDs) == 0 {
			return nil, errors.New("the hub says that it has no partitions")
		}
		s.partitions = properties.PartitionIDs
	}
	return s.partitions, nil
}

// Check requests the hub's partitions and opens a link to send on, which needs
// the right to send.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.identity.Check(ctx, entra.EventHubs); err != nil {
		return err
	}
	if _, err := s.hubPartitions(ctx); err != nil {
		return classify(err)
	}
	if _, err := s.client.NewEventDataBatch(ctx, nil); err != nil {
		return classify(err)
	}
	return nil
}

// Close closes the connection.
func (s *Sink) Close(ctx context.Context) error { return s.connections.Close(ctx, s.client.Close) }

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
