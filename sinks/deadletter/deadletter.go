// Package deadletter stores events that are set aside in a Kafka topic, their
// bytes intact.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
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
	// headroom is the room in the dead-letter topic beyond the largest record of
	// the ingest topics: for our headers, and the batch's own frame.
	headroom = 64 << 10
	// defaultMaxBytes is Kafka's own default of max.message.bytes.
	defaultMaxBytes = 1048588
	// maxRequestBytes is a broker's default limit for one request
	// (socket.request.max.bytes), less room for the request's frame.
	maxRequestBytes = 100<<20 - 64<<10
	// retryDelay is the pause before a refused dead letter is tried again.
	retryDelay = time.Second
	// maxBuffered bounds the letters in the client, where one costs about a
	// kilobyte; in our own queue, which is bounded otherwise, a tenth of that. It
	// is far more than it takes to keep a broker busy.
	maxBuffered = 10_000
	// detailLimit bounds a codec's or a service's text in the headers, in bytes.
	detailLimit = 1000
)

// Topic is the dead-letter topic. Its methods may be called by several goroutines.
type Topic struct {
	name   string
	client *kgo.Client
	large  *kgo.Client // for letters over the topic's limit, one by one
	log    *zap.Logger

	ctx     context.Context
	cancel  context.CancelFunc
	closing chan struct{} // closed when nothing is Put any more
	queued  queue         // not with the client yet
	writer  sync.WaitGroup
	refused queue
	retrier sync.WaitGroup
	waiting atomic.Int64 // dead letters that are not stored yet
}

// queue holds letters in order, without a bound of its own.
type queue struct {
	ready chan struct{} // has room for one: there are letters

	mu      sync.Mutex
	letters []letter
}

func newQueue() queue { return queue{ready: make(chan struct{}, 1)} }

func (q *queue) push(l letter) {
	q.mu.Lock()
	q.letters = append(q.letters, l)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default: // the signal is there already
	}
}

func (q *queue) drain() (letters []letter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	letters, q.letters = q.letters, nil
	return letters
}

// Open connects, creates the topic if it is missing, and reads its limit for a
// record. connect are the options for the brokers.
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
			kgo.MaxBufferedRecords(maxBuffered),
			kgo.RecordPartitioner(bySource),
			kgo.RecordRetries(10), // then the promise gets the error, which is logged
		}, connect...)...)
		if err != nil {
			return nil, fmt.Errorf("dead-letter producer: %w", err)
		}
		return client, nil
	}
	// A batch of several letters must not be refused for a size that none of them
	// has alone, so batches stay below the topic's limit. A letter over it is
	// still tried, alone: the limit may be raised meanwhile.
	client, err := producer(min(maxBytes, maxRequestBytes))
	if err != nil {
		return nil, err
	}
	large, err := producer(maxRequestBytes)
	if err != nil {
		client.Close()
		return nil, err
	}
	t := &Topic{
		name: name, client: client, large: large, log: log,
		closing: make(chan struct{}), queued: newQueue(), refused: newQueue(),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.writer.Go(t.write)
	t.retrier.Go(t.retryRefused)
	return t, nil
}

// bySource puts the letters of one source partition in one partition, so that
// they stay in order. The source partition is the Partition of a record that is
// not produced yet. The key can't be used: it is the source's own, and may be none.
var bySource = kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
	return func(r *kgo.Record, n int) int { return int(r.Partition) % n }
})

// prepare creates the topic if it is missing and returns its max.message.bytes.
func prepare(ctx context.Context, name string, ingestTopics []string, connect []kgo.Opt, log *zap.Logger) (int32, error) {
	// The client's context ends a wait for brokers that don't answer; a request's
	// context does not.
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.WithContext(ctx)}, connect...)...)
	if err != nil {
		return 0, fmt.Errorf("dead-letter topic: %w", err)
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil { // this is the first request to them
		return 0, fmt.Errorf("no Kafka broker answers (check ingest.brokers, ingest.tls and ingest.sasl): %w", err)
	}
	admin := kadm.NewClient(client)

	want := int32(defaultMaxBytes)
	for _, topic := range ingestTopics {
		if n, ok := maxMessageBytes(ctx, admin, topic); ok {
			want = max(want, n)
		}
	}
	want = min(want, math.MaxInt32-headroom) + headroom
	value := strconv.Itoa(int(want))
	response, err := admin.CreateTopic(ctx, -1, -1, map[string]*string{"max.message.bytes": &value}, name)
	if err == nil {
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

// Put implements sinks.DeadLetters: it takes over one count of the event's chunk
// and settles it when the letter is stored on all in-sync replicas. Until then
// the letter is tried again, and an error logged each time; its bytes are the
// chunk's.
//
// Put never blocks: lanes and the dispatcher call it. The queue is bounded by
// what may be in flight, since every letter in it holds a chunk: where the
// topic is slower than events are dropped, polling waits in the end.
func (t *Topic) Put(ev *event.Event, reason event.Reason, detail, endpointID string) {
	if len(detail) > detailLimit {
		detail = strings.ToValidUTF8(detail[:detailLimit], "") + "…" // not half a character
	}
	t.waiting.Add(1)
	t.queued.push(letter{event: ev, reason: reason, detail: detail, endpoint: endpointID, time: time.Now()})
}

// letter is a dead letter that is not stored yet. It is small, and made a record
// only when it is produced.
type letter struct {
	event    *event.Event
	reason   event.Reason
	detail   string
	endpoint string
	time     time.Time
	err      error // of the last try
}

// record returns the letter as it is stored. Our headers come first, `time` the
// last of them; the source record's own are behind it.
func (l *letter) record() *kgo.Record {
	ev, c, r := l.event, l.event.Chunk, l.event.Record
	headers := make([]kgo.RecordHeader, 0, 8+len(r.Headers))
	headers = append(headers,
		header("reason", l.reason.String()),
		header("detail", l.detail),
		header("topic", c.Topic),
		header("partition", strconv.Itoa(int(c.Partition))),
		header("offset", strconv.FormatInt(r.Offset, 10)),
	)
	if ev.Index != event.NoIndex {
		headers = append(headers, header("index", strconv.Itoa(int(ev.Index))))
	}
	if l.endpoint != "" {
		headers = append(headers, header("endpoint", l.endpoint))
	}
	headers = append(headers, header("time", l.time.UTC().Format(time.RFC3339Nano)))
	for _, h := range r.Headers {
		headers = append(headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return &kgo.Record{Partition: c.Partition, Key: r.Key, Value: ev.Body, Headers: headers}
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

// write produces queued letters, in order, until Close and until the queue is
// empty.
func (t *Topic) write() {
	for {
		letters := t.queued.drain()
		if len(letters) == 0 {
			select {
			case <-t.queued.ready:
				continue
			case <-t.closing:
			case <-t.ctx.Done():
			}
			if letters = t.queued.drain(); len(letters) == 0 {
				return
			}
		}
		for _, l := range letters {
			t.produce(l)
		}
	}
}

// produce blocks while the client has maxBuffered letters.
func (t *Topic) produce(l letter) {
	t.client.Produce(t.ctx, l.record(), func(_ *kgo.Record, err error) { t.done(l, err) })
}

// done settles a stored letter's chunk and queues a refused letter again. The
// client has tried it for long by then: it may be stored behind younger ones.
func (t *Topic) done(l letter, err error) {
	if err == nil {
		t.waiting.Add(-1)
		l.event.Chunk.Settle(1)
		return
	}
	l.err = err
	t.refused.push(l)
}

// retryRefused tries refused letters again, all of them every retryDelay, until
// Close. Then their chunks stay unsettled.
func (t *Topic) retryRefused() {
	for {
		select {
		case <-t.refused.ready:
		case <-t.ctx.Done():
			return
		}
		select {
		case <-time.After(retryDelay):
		case <-t.ctx.Done():
			return
		}
		refused := t.refused.drain()
		for i, l := range refused {
			if i == 0 { // one line a round is enough
				t.log.Error("dead letters can't be stored: their partitions wait until they can",
					zap.String("topic", t.name), zap.Int("letters", len(refused)),
					zap.String("source", l.event.Chunk.Topic), zap.Int32("partition", l.event.Chunk.Partition), zap.Error(l.err))
			}
			if errors.Is(l.err, kerr.MessageTooLarge) {
				t.done(l, t.large.ProduceSync(t.ctx, l.record()).FirstErr())
			} else {
				t.produce(l)
			}
		}
	}
}

// Waiting returns the number of dead letters that are not stored yet.
func (t *Topic) Waiting() int64 { return t.waiting.Load() }

// Close stores what it can within ctx. The offsets of the rest stay uncommitted.
// Put must not be called after it.
func (t *Topic) Close(ctx context.Context) error {
	close(t.closing)
	defer context.AfterFunc(ctx, t.cancel)() // else the writer may block in produce
	t.writer.Wait()
	err := t.client.Flush(ctx)
	t.cancel()
	// The clients are closed before the wait for the retrier, whose request may
	// never be answered: the context alone may not end it.
	t.client.Close()
	t.large.Close()
	t.retrier.Wait()
	if n := t.waiting.Load(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d dead letters were not stored; their events come again after the restart", n))
	}
	return err
}
