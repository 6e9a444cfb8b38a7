// Package deadletter sets events aside in a Kafka topic, their bytes intact.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/event"
)

const (
	// headroom is what the dead-letter topic takes beyond the largest record
	// of the ingest topics: our headers, and the batch's own frame.
	headroom = 64 << 10
	// defaultMaxBytes is Kafka's own default of max.message.bytes.
	defaultMaxBytes = 1048588
	// maxRequestBytes is what a broker takes in one request by default
	// (socket.request.max.bytes), less room for the request's frame.
	maxRequestBytes = 100<<20 - 64<<10
	// retryDelay is the pause before a refused dead letter is tried again.
	retryDelay = time.Second
	// detailLimit keeps a codec's or a service's long text out of the headers.
	detailLimit = 1000
)

// Topic is the dead-letter topic. Its methods may be called by several goroutines.
type Topic struct {
	name   string
	client *kgo.Client
	single *kgo.Client // for letters that are larger than the topic said it takes
	one    sync.Mutex  // one letter at a time goes through single
	log    *zap.Logger

	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	retries sync.WaitGroup // Add under mu, and not once closed
	waiting atomic.Int64   // dead letters that are not stored yet
}

// Open connects, creates the topic if it is missing, and learns how large a
// record it takes. connect are the options for the brokers.
func Open(ctx context.Context, name string, ingestTopics []string, connect []kgo.Opt, log *zap.Logger) (*Topic, error) {
	maxBytes, err := prepare(ctx, name, ingestTopics, connect, log)
	if err != nil {
		return nil, err
	}
	producer := func(batchBytes int32) (*kgo.Client, error) {
		client, err := kgo.NewClient(append([]kgo.Opt{
			kgo.DefaultProduceTopic(name),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.ProducerBatchMaxBytes(batchBytes),
			kgo.ProducerLinger(0),
			kgo.RecordRetries(10), // then the promise hears of it, and says so loudly
		}, connect...)...)
		if err != nil {
			return nil, fmt.Errorf("dead-letter producer: %w", err)
		}
		return client, nil
	}
	// A batch of several letters must not be refused for a size that each of
	// them stays below, so batches keep to what the topic takes. A letter that
	// is larger is still tried, alone: the topic's limit may be raised while we run.
	client, err := producer(min(maxBytes, maxRequestBytes))
	if err != nil {
		return nil, err
	}
	single, err := producer(maxRequestBytes)
	if err != nil {
		client.Close()
		return nil, err
	}
	t := &Topic{name: name, client: client, single: single, log: log}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// prepare creates the topic if it is missing and gives its max.message.bytes.
func prepare(ctx context.Context, name string, ingestTopics []string, connect []kgo.Opt, log *zap.Logger) (int32, error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return 0, fmt.Errorf("dead-letter topic: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)

	want := int32(defaultMaxBytes)
	for _, topic := range ingestTopics {
		if n, ok := maxMessageBytes(ctx, admin, topic); ok {
			want = max(want, n)
		}
	}
	want += headroom
	value := strconv.Itoa(int(want))
	response, err := admin.CreateTopic(ctx, -1, -1, map[string]*string{"max.message.bytes": &value}, name)
	switch {
	case err == nil:
		err = response.Err
	}
	switch {
	case err == nil:
		log.Info("created the dead-letter topic", zap.String("topic", name), zap.Int32("max.message.bytes", want))
		return want, nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		if n, ok := maxMessageBytes(ctx, admin, name); ok {
			if n < want {
				log.Warn("the dead-letter topic takes smaller records than the ingest topic: a large one could not be set aside, and its partition would wait",
					zap.String("topic", name), zap.Int32("max.message.bytes", n), zap.Int32("wanted", want))
			}
			return n, nil
		}
		return want, nil
	default:
		return 0, fmt.Errorf("can't create the dead-letter topic %s (create it yourself, or allow it): %w", name, err)
	}
}

func maxMessageBytes(ctx context.Context, admin *kadm.Client, topic string) (int32, bool) {
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0, false
	}
	config, err := configs.On(topic, nil)
	if err != nil || config.Err != nil {
		return 0, false
	}
	for _, c := range config.Configs {
		if c.Key == "max.message.bytes" && c.Value != nil {
			n, err := strconv.ParseInt(*c.Value, 10, 32)
			return int32(n), err == nil
		}
	}
	return 0, false
}

// Put is sinks.DeadLetters': it takes one count of the event's chunk, and
// settles it when the letter is stored on all in-sync replicas. Until then it
// tries again and again, loudly; the event's bytes are the chunk's meanwhile.
func (t *Topic) Put(ev *event.Event, reason event.Reason, detail, endpointID string) {
	if len(detail) > detailLimit {
		detail = detail[:detailLimit] + "…"
	}
	c, r := ev.Chunk, ev.Record
	headers := []kgo.RecordHeader{
		header("reason", reason.String()),
		header("detail", detail),
		header("topic", c.Topic),
		header("partition", strconv.Itoa(int(c.Partition))),
		header("offset", strconv.FormatInt(r.Offset, 10)),
		header("time", time.Now().UTC().Format(time.RFC3339Nano)),
	}
	if ev.Index != event.NoIndex {
		headers = append(headers, header("index", strconv.Itoa(int(ev.Index))))
	}
	if endpointID != "" {
		headers = append(headers, header("endpoint", endpointID))
	}
	for _, h := range r.Headers {
		headers = append(headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	t.waiting.Add(1)
	t.produce(c, &kgo.Record{Key: r.Key, Value: ev.Body, Headers: headers})
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

func (t *Topic) produce(c *event.Chunk, record *kgo.Record) {
	t.client.TryProduce(t.ctx, record, func(record *kgo.Record, err error) {
		if err == nil {
			t.stored(c)
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.closed {
			t.retries.Go(func() { t.retry(c, record, err) })
		}
	})
}

func (t *Topic) stored(c *event.Chunk) {
	t.waiting.Add(-1)
	c.Settle(1)
}

// retry goes on with a letter that was refused, for as long as it takes.
func (t *Topic) retry(c *event.Chunk, record *kgo.Record, err error) {
	for t.ctx.Err() == nil { // a process that stops leaves the chunk unsettled: it comes again
		if !errors.Is(err, kgo.ErrMaxBuffered) {
			t.log.Error("a dead letter can't be stored: its partition waits until it can",
				zap.String("topic", t.name), zap.String("source", c.Topic), zap.Int32("partition", c.Partition), zap.Error(err))
		}
		select {
		case <-time.After(retryDelay):
		case <-t.ctx.Done():
			return
		}
		// A fresh record: the client has set fields of the old one.
		record = &kgo.Record{Key: record.Key, Value: record.Value, Headers: record.Headers}
		if !errors.Is(err, kerr.MessageTooLarge) {
			t.produce(c, record)
			return
		}
		t.one.Lock()
		err = t.single.ProduceSync(t.ctx, record).FirstErr()
		t.one.Unlock()
		if err == nil {
			t.stored(c)
			return
		}
	}
}

// Waiting is the number of dead letters that are not stored yet.
func (t *Topic) Waiting() int64 { return t.waiting.Load() }

// Close stores what it can within ctx and gives up the rest, whose offsets
// then stay uncommitted.
func (t *Topic) Close(ctx context.Context) error {
	err := t.client.Flush(ctx)
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.client.Close()
	t.retries.Wait()
	t.single.Close()
	if n := t.waiting.Load(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d dead letters were not stored; their events come again after the restart", n))
	}
	return err
}
