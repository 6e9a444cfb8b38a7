package emulator_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/goleak"

	"twinegress/internal/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs an emulator with a hub "hub", a topic "topic" and an Event Grid topic
// "grid", recording everything.
func start(t testing.TB, change ...func(*emulator.Config)) *emulator.Emulator {
	t.Helper()
	cfg := emulator.Config{
		StatsListen:     "127.0.0.1:0",
		Hubs:            []emulator.Hub{{Name: "hub"}},
		Topics:          []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
		Record:          10000,
		TrackIDs:        true,
	}
	for _, fn := range change {
		fn(&cfg)
	}
	e, err := emulator.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// within bounds a test's network calls.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// sender sends with either SDK.
type sender interface {
	// send sends bodies as one batch; partition "" lets the service choose.
	send(ctx context.Context, partition string, bodies ...string) error
}

type hubSender struct{ c *azeventhubs.ProducerClient }

func hub(t testing.TB, connectionString, name string) hubSender {
	t.Helper()
	c, err := azeventhubs.NewProducerClientFromConnectionString(connectionString, name, &azeventhubs.ProducerClientOptions{
		RetryOptions: azeventhubs.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = c.Close(ctx) // faults keep some from closing in order
	})
	return hubSender{c}
}

func (s hubSender) send(ctx context.Context, partition string, bodies ...string) error {
	opts := &azeventhubs.EventDataBatchOptions{}
	if partition != "" {
		opts.PartitionID = &partition
	}
	b, err := s.c.NewEventDataBatch(ctx, opts)
	if err != nil {
		return err
	}
	for i, body := range bodies {
		id, ct := fmt.Sprintf("id-%s-%d", body[:min(len(body), 20)], i), "application/json"
		err := b.AddEventData(&azeventhubs.EventData{
			Body: []byte(body), MessageID: &id, ContentType: &ct,
			Properties: map[string]any{"Type": "SensorChange", "Number": int64(i)},
		}, nil)
		if err != nil {
			return err
		}
	}
	return s.c.SendEventDataBatch(ctx, b, nil)
}

type topicSender struct{ s *azservicebus.Sender }

func topic(t testing.TB, connectionString, name string) topicSender {
	t.Helper()
	c, err := azservicebus.NewClientFromConnectionString(connectionString, &azservicebus.ClientOptions{
		RetryOptions: azservicebus.RetryOptions{MaxRetries: 1, RetryDelay: time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewSender(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = c.Close(ctx)
	})
	return topicSender{s}
}

func (s topicSender) send(ctx context.Context, _ string, bodies ...string) error {
	b, err := s.s.NewMessageBatch(ctx, nil)
	if err != nil {
		return err
	}
	for i, body := range bodies {
		id, ct := fmt.Sprintf("id-%s-%d", body[:min(len(body), 20)], i), "application/json"
		err := b.AddMessage(&azservicebus.Message{
			Body: []byte(body), MessageID: &id, ContentType: &ct,
			ApplicationProperties: map[string]any{"Type": "SensorChange", "Number": int64(i)},
		}, nil)
		if err != nil {
			return err
		}
	}
	return s.s.SendMessageBatch(ctx, b, nil)
}

// both runs a test with each SDK against its kind of entity.
func both(t *testing.T, fn func(t *testing.T, e *emulator.Emulator, entity string, s sender), change ...func(*emulator.Config)) {
	t.Helper()
	for _, entity := range []string{"hub", "topic"} {
		t.Run(entity, func(t *testing.T) {
			t.Parallel()
			e := start(t, change...)
			fn(t, e, entity, connect(t, entity, e.ConnectionString(emulator.Primary)))
		})
	}
}
