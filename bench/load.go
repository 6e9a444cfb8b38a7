package bench

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"twinegress/bench/feed"
	"twinegress/endpoints"
)

// The payloads of a topic. A number is SensorChanges of exactly that many bytes.
const (
	payloadTwins  = "twins"  // the feed without DeviceMessages, 530 B on average
	payloadFeed   = "feed"   // the whole feed, 470 B on average
	payloadSensor = "sensor" // its SensorChanges
)

// Payloads are the payloads' names and sizes.
var Payloads = []string{payloadTwins, payloadFeed, payloadSensor, "300", "540", "4096"}

// loaded counts the events that were produced to a topic.
type loaded struct {
	Events  int64
	Bytes   int64            // of values
	types   map[string]int64 // events by type
	further int64            // records that are read and are no events
}

// deliveries returns the number of outcomes of the events at these endpoints.
func (l loaded) deliveries(targets []target) (n int64) {
	for _, t := range targets {
		n += l.at(t)
	}
	return n
}

func (l loaded) at(t target) (n int64) {
	for _, name := range t.Types {
		n += l.types[name]
	}
	return n
}

func (l loaded) and(more loaded) loaded {
	sum := loaded{Events: l.Events + more.Events, Bytes: l.Bytes + more.Bytes, further: l.further + more.further, types: make(map[string]int64)}
	for _, types := range []map[string]int64{l.types, more.types} {
		for name, n := range types {
			sum.types[name] += n
		}
	}
	return sum
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(),
	"lz4":  kgo.Lz4Compression(),
	"zstd": kgo.ZstdCompression(),
}

// pace is the interval at which events that are due are produced.
const pace = 2 * time.Millisecond

// preparedEvents is the number of events that a live loader generates in advance
// and repeats. Generating one takes 1.5 µs (BenchmarkNext in bench/feed), on the
// core that the loader shares with broker and services, and a delay there would
// count as latency.
const preparedEvents = 20_000

// loader produces a scenario's events to topics, round-robin over the partitions.
type loader struct {
	client *kgo.Client
	broker *kgo.Broker // the only one
	codec  kgo.CompressionCodec
	events *source
	ready  []ready // generated in advance, for a live scenario
	next   int     // of ready
}

type ready struct {
	feed.Record
	typ string
}

// event returns the next event and its type.
func (l *loader) event() (feed.Record, string) {
	if len(l.ready) == 0 {
		return l.events.next()
	}
	r := l.ready[l.next]
	l.next = (l.next + 1) % len(l.ready)
	return r.Record, r.typ
}

// newLoader returns a loader. A live one doesn't linger for full batches.
func newLoader(brokers []string, s *Scenario) (*loader, error) {
	linger := 10 * time.Millisecond
	if s.live {
		linger = 0
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ProducerBatchCompression(codecs[s.Compression]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(50_000),
		kgo.ProducerLinger(linger),
		// Later versions of the produce request identify the topic by its id.
		kgo.MaxVersions(kversion.V3_9_0()),
	)
	if err != nil {
		return nil, fmt.Errorf("bench: loading: %w", err)
	}
	l := &loader{client: client, broker: client.SeedBrokers()[0], codec: codecs[s.Compression], events: newSource(s.Payload)}
	if s.live {
		l.ready = make([]ready, preparedEvents)
		for i := range l.ready {
			l.ready[i].Record, l.ready[i].typ = l.events.next()
		}
	}
	return l, nil
}

// load produces n events to a topic, at rate events a second, or, at 0, as fast as
// possible.
func (l *loader) load(ctx context.Context, topic string, n int, rate float64) (loaded, error) {
	var failure error
	var once sync.Once
	stored := func(_ *kgo.Record, err error) {
		if err != nil {
			once.Do(func() { failure = err })
		}
	}
	on := loaded{types: make(map[string]int64)}
	if rate > 0 {
		var err error
		if on, err = l.paced(ctx, topic, n, rate); err != nil {
			return on, err
		}
	}
	for i := 0; on.Events < int64(n) && ctx.Err() == nil; i++ {
		r, typ := l.event()
		on.Events++
		on.Bytes += int64(len(r.Value))
		on.types[typ]++
		l.client.Produce(ctx, &kgo.Record{
			Topic: topic, Partition: int32(i % partitions), Key: r.Key, Value: r.Value, Headers: r.Headers,
		}, stored)
	}
	if err := l.client.Flush(ctx); err != nil {
		return on, fmt.Errorf("bench: loading: %w", err)
	}
	if failure != nil {
		return on, fmt.Errorf("bench: loading: %w", failure)
	}
	return on, nil
}

// source generates the events of a payload.
type source struct {
	feed    *feed.Feed
	payload string
	size    int // of each event; 0: the feed's
}

func newSource(payload string) *source {
	size, _ := strconv.Atoi(payload) // 0 for a name
	return &source{feed.New(1), payload, size}
}

// next returns the next event and its type.
func (s *source) next() (feed.Record, string) {
	for {
		r := s.feed.Next(time.Now())
		typ := typeOf(r)
		switch {
		case s.payload == payloadFeed,
			s.payload == payloadTwins && typ != endpoints.DeviceMessage,
			s.payload == payloadSensor && typ == endpoints.SensorChange:
			return r, typ
		case s.size > 0 && typ == endpoints.SensorChange:
			r.Value = sized(r.Value, s.size)
			return r, typ
		}
	}
}

// sized returns a SensorChange of exactly size bytes: without its Properties, and
// with a padded value.
func sized(value []byte, size int) []byte {
	properties, end := []byte(`,"Properties":{`), []byte(`}}`)
	before, rest, _ := bytes.Cut(value, properties)
	_, after, _ := bytes.Cut(rest, end)
	head, tail, _ := bytes.Cut(before, []byte(`","PreviousValue":`))
	if size < len(head)+len(tail)+len(after) { // the smallest has no room for these
		tail = nil
		after = bytes.Replace(after, []byte(`,"topic":"/subscriptions/YOUR_TOPIC_NAME"`), nil, 1)
	}
	out := make([]byte, 0, size)
	out = append(out, head...)
	closing := []byte(`"}`)
	if tail != nil {
		closing = append([]byte(`","PreviousValue":`), tail...)
		closing = append(closing, '}')
	}
	for len(out)+len(closing)+len(after) < size {
		out = append(out, '.')
	}
	return append(append(out, closing...), after...)
}

var eventTypeKey = []byte(`,"eventType":"`)

// typeOf returns the type of an event of the feed.
func typeOf(r feed.Record) string {
	if len(r.Headers) > 0 {
		return endpoints.DeviceMessage
	}
	rest := r.Value[bytes.LastIndex(r.Value, eventTypeKey)+len(eventTypeKey):]
	return string(rest[:bytes.IndexByte(rest, '"')])
}
