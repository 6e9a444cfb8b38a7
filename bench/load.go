package bench

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/bench/feed"
	"twinegress/endpoints"
)

// Payloads of a topic.
const (
	payloadPlain = "plain" // the feed without DeviceMessages, about 530 B
	payloadMixed = "mixed" // the whole feed
)

// loaded says what is on a topic.
type loaded struct {
	Events int64
	Bytes  int64            // of values
	types  map[string]int64 // events by type
}

// deliveries is how many outcomes the events have at these endpoints.
func (l loaded) deliveries(targets []target) (n int64) {
	for _, t := range targets {
		n += l.at(t)
	}
	return n
}

func (l loaded) at(t target) (n int64) {
	for _, name := range t.types {
		n += l.types[name]
	}
	return n
}

var codecs = map[string]kgo.CompressionCodec{
	"":     kgo.NoCompression(),
	"none": kgo.NoCompression(),
	"lz4":  kgo.Lz4Compression(),
	"zstd": kgo.ZstdCompression(),
}

// load puts n events on a topic, in turn on each of its partitions.
func load(ctx context.Context, brokers []string, topic string, s *Scenario, n int) (loaded, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ProducerBatchCompression(codecs[s.Compression]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(50_000),
		kgo.ProducerLinger(10*time.Millisecond),
	)
	if err != nil {
		return loaded{}, fmt.Errorf("bench: loading: %w", err)
	}
	defer client.Close()

	var failure error
	var once sync.Once
	stored := func(_ *kgo.Record, err error) {
		if err != nil {
			once.Do(func() { failure = err })
		}
	}
	l := loaded{types: make(map[string]int64)}
	f := feed.New(1)
	for i := range n {
		r, typ := next(f, s.Payload)
		l.Events++
		l.Bytes += int64(len(r.Value))
		l.types[typ]++
		client.Produce(ctx, &kgo.Record{
			Topic: topic, Partition: int32(i % partitions), Key: r.Key, Value: r.Value, Headers: headers(r.Headers),
		}, stored)
	}
	if err := client.Flush(ctx); err != nil {
		return l, fmt.Errorf("bench: loading: %w", err)
	}
	if failure != nil {
		return l, fmt.Errorf("bench: loading: %w", failure)
	}
	return l, nil
}

// next makes an event of a payload, and tells its type.
func next(f *feed.Feed, payload string) (feed.Record, string) {
	for {
		r := f.Next(time.Now())
		typ := typeOf(r)
		if payload == payloadMixed || typ != endpoints.DeviceMessage {
			return r, typ
		}
	}
}

var eventTypeKey = []byte(`,"eventType":"`)

// typeOf reads the type where the feed puts it.
func typeOf(r feed.Record) string {
	if len(r.Headers) > 0 {
		return endpoints.DeviceMessage
	}
	rest := r.Value[bytes.LastIndex(r.Value, eventTypeKey)+len(eventTypeKey):]
	return string(rest[:bytes.IndexByte(rest, '"')])
}

func headers(from []feed.Header) []kgo.RecordHeader {
	if len(from) == 0 {
		return nil
	}
	to := make([]kgo.RecordHeader, len(from))
	for i, h := range from {
		to[i] = kgo.RecordHeader(h)
	}
	return to
}
