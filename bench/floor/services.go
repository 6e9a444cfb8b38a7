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

func open(ctx context.Context, e Endpoint, caFile string) (opened, error) {
	switch e.Type {
	case "EventHub":
		return openHub(ctx, e)
	case "ServiceBus":
		return openTopic(ctx, e)
	case "EventGrid":
		return openGrid(e, caFile)
	case Discard:
		return discard{}, nil
	}
	return nil, fmt.Errorf("type %q is unknown", e.Type)
}

type discard struct{}

func (discard) batch(int32) batch                        { return discard{} }
func (discard) add(context.Context, *item) (bool, error) { return false, nil }
func (discard) send(context.Context) error               { return nil }
func (discard) close(context.Context) error              { return nil }

// hub is an event hub. Kafka partition p goes to hub partition p mod n.
type hub struct {
	client     *azeventhubs.ProducerClient
	partitions []string
}

func openHub(ctx context.Context, e Endpoint) (*hub, error) {
	client, err := azeventhubs.NewProducerClientFromConnectionString(e.ConnectionString, "", nil)
	if err != nil {
		return nil, err
	}
	properties, err := client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	return &hub{client, properties.PartitionIDs}, nil
}

func (h *hub) batch(partition int32) batch {
	return &hubBatch{hub: h, partition: &h.partitions[int(partition)%len(h.partitions)]}
}

func (h *hub) close(ctx context.Context) error { return h.client.Close(ctx) }

type hubBatch struct {
	*hub
	partition *string
	current   *azeventhubs.EventDataBatch
	messages  messages
}

func (b *hubBatch) add(ctx context.Context, it *item) (full bool, err error) {
	first := b.current == nil
	if first {
		if b.current, err = b.client.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: b.partition}); err != nil {
			return false, err
		}
	}
	m := b.messages.next(first)
	m.set(it)
	err = b.current.AddEventData(&azeventhubs.EventData{
		Body: it.record.Value, ContentType: &m.contentType, MessageID: &m.id, Properties: m.properties,
	}, nil)
	if !first && errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
		return true, nil
	}
	return false, err
}

func (b *hubBatch) send(ctx context.Context) error {
	err := b.client.SendEventDataBatch(ctx, b.current, nil)
	b.current = nil
	return err
}

// topic is a Service Bus topic; all workers share its sender.
type topic struct {
	client *azservicebus.Client
	sender *azservicebus.Sender
}

func openTopic(ctx context.Context, e Endpoint) (*topic, error) {
	client, err := azservicebus.NewClientFromConnectionString(e.ConnectionString, nil)
	if err != nil {
		return nil, err
	}
	sender, err := client.NewSender(e.Path, nil)
	if err == nil {
		// Connects once. Otherwise all workers would connect at the same time.
		_, err = sender.NewMessageBatch(ctx, nil)
	}
	if err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	return &topic{client, sender}, nil
}

func (t *topic) batch(int32) batch               { return &topicBatch{topic: t} }
func (t *topic) close(ctx context.Context) error { return t.client.Close(ctx) }

type topicBatch struct {
	*topic
	current  *azservicebus.MessageBatch
	messages messages
}

func (b *topicBatch) add(ctx context.Context, it *item) (full bool, err error) {
	first := b.current == nil
	if first {
		if b.current, err = b.sender.NewMessageBatch(ctx, nil); err != nil {
			return false, err
		}
	}
	m := b.messages.next(first)
	m.set(it)
	err = b.current.AddMessage(&azservicebus.Message{
		Body: it.record.Value, ContentType: &m.contentType, MessageID: &m.id, ApplicationProperties: m.properties,
	}, nil)
	if !first && errors.Is(err, azservicebus.ErrMessageTooLarge) {
		return true, nil
	}
	return false, err
}

func (b *topicBatch) send(ctx context.Context) error {
	err := b.sender.SendMessageBatch(ctx, b.current, nil)
	b.current = nil
	return err
}

// grid is an Event Grid topic.
type grid struct {
	url, key string
	client   *http.Client
}

// gridBytes is Event Grid's limit for one request.
const gridBytes = 1 << 20

func openGrid(e Endpoint, caFile string) (*grid, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = transport.MaxIdleConns
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return &grid{
		url: "https://" + e.Path + "/api/events?api-version=2018-01-01", key: e.ConnectionString,
		client: &http.Client{Transport: transport},
	}, nil
}

func (g *grid) batch(int32) batch { return &gridBatch{grid: g, body: make([]byte, 0, gridBytes)} }

func (g *grid) close(context.Context) error {
	g.client.CloseIdleConnections()
	return nil
}

type gridBatch struct {
	*grid
	body []byte
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
