package floor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// opened is an endpoint that batches can be made for.
type opened struct {
	batch func(partition int32) batch
	close func(ctx context.Context) error
}

func open(ctx context.Context, e Endpoint, caFile string) (opened, error) {
	switch e.Type {
	case "EventHub":
		return openHub(ctx, e)
	case "ServiceBus":
		return openTopic(ctx, e)
	case "EventGrid":
		return openGrid(e, caFile)
	case Discard:
		return opened{func(int32) batch { return discard{} }, func(context.Context) error { return nil }}, nil
	}
	return opened{}, fmt.Errorf("type %q is unknown", e.Type)
}

type discard struct{}

func (discard) add(context.Context, *item) (bool, error) { return false, nil }
func (discard) send(context.Context) error               { return nil }

// openHub opens an event hub. Kafka partition p goes to hub partition p mod n.
func openHub(ctx context.Context, e Endpoint) (opened, error) {
	client, err := azeventhubs.NewProducerClientFromConnectionString(e.ConnectionString, "", nil)
	if err != nil {
		return opened{}, err
	}
	properties, err := client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return opened{}, errors.Join(err, client.Close(ctx))
	}
	return opened{close: client.Close, batch: func(partition int32) batch {
		id := &properties.PartitionIDs[int(partition)%len(properties.PartitionIDs)]
		return &amqpBatch[azeventhubs.EventDataBatch]{
			tooLarge: azeventhubs.ErrEventDataTooLarge,
			begin: func(ctx context.Context) (*azeventhubs.EventDataBatch, error) {
				return client.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: id})
			},
			put: func(b *azeventhubs.EventDataBatch, m *message, body []byte) error {
				return b.AddEventData(&azeventhubs.EventData{
					Body: body, ContentType: &m.contentType, MessageID: &m.id, Properties: m.properties,
				}, nil)
			},
			submit: func(ctx context.Context, b *azeventhubs.EventDataBatch) error {
				return client.SendEventDataBatch(ctx, b, nil)
			},
		}
	}}, nil
}

// openTopic opens a Service Bus topic; all workers share its sender.
func openTopic(ctx context.Context, e Endpoint) (opened, error) {
	client, err := azservicebus.NewClientFromConnectionString(e.ConnectionString, nil)
	if err != nil {
		return opened{}, err
	}
	sender, err := client.NewSender(e.Path, nil)
	if err == nil {
		// Connects once. Otherwise all workers would connect at the same time.
		_, err = sender.NewMessageBatch(ctx, nil)
	}
	if err != nil {
		return opened{}, errors.Join(err, client.Close(ctx))
	}
	return opened{close: client.Close, batch: func(int32) batch {
		return &amqpBatch[azservicebus.MessageBatch]{
			tooLarge: azservicebus.ErrMessageTooLarge,
			begin:    func(ctx context.Context) (*azservicebus.MessageBatch, error) { return sender.NewMessageBatch(ctx, nil) },
			put: func(b *azservicebus.MessageBatch, m *message, body []byte) error {
				return b.AddMessage(&azservicebus.Message{
					Body: body, ContentType: &m.contentType, MessageID: &m.id, ApplicationProperties: m.properties,
				}, nil)
			},
			submit: func(ctx context.Context, b *azservicebus.MessageBatch) error {
				return sender.SendMessageBatch(ctx, b, nil)
			},
		}
	}}, nil
}

// amqpBatch is a batch of one of the two SDKs, which do the same by other names.
type amqpBatch[B any] struct {
	begin    func(context.Context) (*B, error)
	put      func(*B, *message, []byte) error
	tooLarge error // of put
	submit   func(context.Context, *B) error

	current *B
	rest    *message // of the events after the first: see message
}

func (b *amqpBatch[B]) add(ctx context.Context, it *item) (full bool, err error) {
	first := b.current == nil
	if first {
		if b.current, err = b.begin(ctx); err != nil {
			return false, err
		}
	}
	m := b.rest
	if first || m == nil {
		m = newMessage()
	}
	if !first {
		b.rest = m
	}
	m.set(it)
	err = b.put(b.current, m, it.record.Value)
	if !first && errors.Is(err, b.tooLarge) {
		return true, nil
	}
	return false, err
}

func (b *amqpBatch[B]) send(ctx context.Context) error {
	err := b.submit(ctx, b.current)
	b.current = nil
	return err
}

// gridBytes is Event Grid's limit for one request.
const gridBytes = 1 << 20

func openGrid(e Endpoint, caFile string) (opened, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return opened{}, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = transport.MaxIdleConns
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	client := &http.Client{Transport: transport}
	return opened{
		batch: func(int32) batch {
			url := "https://" + e.Path + "/api/events?api-version=2018-01-01"
			return &gridBatch{url: url, key: e.ConnectionString, client: client, body: make([]byte, 0, gridBytes)}
		},
		close: func(context.Context) error {
			client.CloseIdleConnections()
			return nil
		},
	}, nil
}

// gridBatch is a request to an Event Grid topic.
type gridBatch struct {
	url, key string
	client   *http.Client
	body     []byte
}

var topicMember = []byte(`,"topic":"`)

func (b *gridBatch) add(_ context.Context, it *item) (full bool, err error) {
	doc := it.record.Value
	if len(b.body)+len(doc)+2 > gridBytes {
		return true, nil
	}
	if len(b.body) == 0 {
		b.body = append(b.body, '[')
	} else {
		b.body = append(b.body, ',')
	}
	// Hand-written code may assume that the producer's topic is the last member.
	if at := bytes.LastIndex(doc, topicMember); at >= 0 {
		end := at + len(topicMember)
		if quote := bytes.IndexByte(doc[end:], '"'); quote >= 0 {
			b.body = append(b.body, doc[:at]...)
			b.body = append(b.body, doc[end+quote+1:]...)
			return false, nil
		}
	}
	b.body = append(b.body, doc...)
	return false, nil
}

func (b *gridBatch) send(ctx context.Context) error {
	b.body = append(b.body, ']')
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url, bytes.NewReader(b.body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("aeg-sas-key", b.key)
	response, err := b.client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	b.body = b.body[:0]
	return nil
}
