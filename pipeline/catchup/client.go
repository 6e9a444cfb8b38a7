package catchup

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/internal/event"
	"twinegress/stages/ingest"
)

const (
	// minFetch and maxFetch bound what a fetch asks for, in bytes on the wire. The
	// brokers send one batch at least, of whatever size.
	minFetch = 32 << 10
	maxFetch = 1<<20 + 4<<10 // has room for the largest batch that a topic takes by default
	// firstRatio is the ratio of bytes in memory to bytes on the wire that is assumed
	// until the first fetch, and ratioBytes after how many bytes on the wire a lower one
	// is assumed in full. A higher one is assumed at once.
	firstRatio = 64
	ratioBytes = 1 << 20
)

// errOutOfRange: the brokers don't have the offset.
var errOutOfRange = errors.New("offset out of range")

// client fetches partitions from any offset, without a group, as often as it is asked
// to. It doesn't use the Kafka client's own consumer: that has one place in a partition,
// reads ahead from there, and ends the fetches of all partitions when one is moved.
// Here each fetch is one request, so that a move costs nothing, and no more is read
// than there is room for.
type client struct {
	kafka *kgo.Client
	limit int64 // of one batch, in memory

	mu        sync.Mutex
	topics    map[string]kadm.TopicDetail // where the partitions are
	unpackers []ingest.Unpacker           // that nobody uses
	ratio     float64                     // of bytes in memory to bytes on the wire, the highest of late
}

func newClient(connect []kgo.Opt, batchBytes int64) (*client, error) {
	c, err := kgo.NewClient(connect...)
	if err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	return &client{kafka: c, limit: batchBytes, topics: make(map[string]kadm.TopicDetail), ratio: firstRatio}, nil
}

func (c *client) close() { c.kafka.Close() }

// fetched is what one fetch has brought.
type fetched struct {
	chunks   []*event.Chunk // of a count of one each
	next     int64          // the offset behind; what has no chunk before it has no event
	end      int64          // an offset up to which there is something
	tooLarge int64          // offsets before next in a batch that can't be unpacked
}

// size returns how many bytes to ask for so that they take about room in memory, and
// what they take by what is known.
func (c *client) size(room int64) (ask int32, memory int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ask = int32(min(maxFetch, max(minFetch, float64(room)/c.ratio)))
	return ask, int64(float64(ask) * c.ratio)
}

// seen learns how much memory bytes on the wire take.
func (c *client) seen(wire int, chunks []*event.Chunk) {
	memory := int64(0)
	for _, chunk := range chunks {
		memory += chunk.Bytes()
	}
	if wire == 0 || memory == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := max(1, float64(memory)/float64(wire))
	c.ratio = max(now, c.ratio+(now-c.ratio)*min(1, float64(wire)/ratioBytes))
}

func (c *client) unpacker() (ingest.Unpacker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.unpackers); n > 0 {
		u := c.unpackers[n-1]
		c.unpackers = c.unpackers[:n-1]
		return u, nil
	}
	return ingest.NewUnpacker(c.limit)
}

func (c *client) giveBack(u ingest.Unpacker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unpackers = append(c.unpackers, u)
}

// leader returns where a partition is fetched from, and its topic's id.
func (c *client) leader(ctx context.Context, o *event.Ownership) (broker int32, id kadm.TopicID, err error) {
	c.mu.Lock()
	topic, known := c.topics[o.Topic]
	c.mu.Unlock()
	if !known {
		found, err := kadm.NewClient(c.kafka).Metadata(ctx, o.Topic)
		if err != nil {
			return 0, id, fmt.Errorf("asking Kafka for the topic %s: %w", o.Topic, err)
		}
		if topic = found.Topics[o.Topic]; topic.Err != nil {
			return 0, id, fmt.Errorf("the topic %s: %w", o.Topic, topic.Err)
		}
		c.mu.Lock()
		c.topics[o.Topic] = topic
		c.mu.Unlock()
	}
	p, ok := topic.Partitions[o.Partition]
	if !ok || p.Leader < 0 {
		return 0, id, kerr.LeaderNotAvailable
	}
	return p.Leader, topic.ID, nil
}

// moved forgets where the partitions of a topic are.
func (c *client) moved(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.topics, topic)
}

// fetch returns what is at an offset. At the end of the partition that is nothing, at
// once: next is the offset itself. The error is errOutOfRange where the brokers don't
// have it.
func (c *client) fetch(ctx context.Context, o *event.Ownership, at int64, ask int32, settled func(*event.Chunk)) (f fetched, err error) {
	f.next = at
	defer func() {
		if err != nil && !errors.Is(err, errOutOfRange) {
			c.moved(o.Topic)
		}
	}()
	leader, id, err := c.leader(ctx, o)
	if err != nil {
		return f, err
	}
	answer, err := c.kafka.Broker(int(leader)).RetriableRequest(ctx, fetchRequest(o, id, at, ask))
	if err != nil {
		return f, err
	}
	response := answer.(*kmsg.FetchResponse) //nolint:forcetypeassert // to a fetch request
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return f, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return f, errors.New("the brokers return nothing of the partition")
	}
	u, err := c.unpacker()
	if err != nil {
		return f, fmt.Errorf("unpacking: %w", err)
	}
	defer c.giveBack(u)
	got := &response.Topics[0].Partitions[0]
	wire := len(got.RecordBatches)
	of, next := u.Process(kgo.ProcessFetchPartitionOpts{
		Offset: at, IsolationLevel: kgo.ReadCommitted(), Topic: o.Topic, Partition: o.Partition,
	}, got)
	f.chunks = ingest.Cut(of.Records, o, settled)
	c.seen(wire, f.chunks)
	f.next, f.end = max(at, next), max(next, got.HighWatermark)
	large, tooLarge := errors.AsType[*kgo.ErrDecompressTooLarge](of.Err)
	switch {
	case tooLarge:
		f.tooLarge = large.NextOffset - max(large.Offset, at)
		f.next = max(f.next, large.NextOffset)
	case errors.Is(of.Err, kerr.OffsetOutOfRange):
		return f, errOutOfRange
	case of.Err != nil && f.next == at:
		return f, of.Err
	}
	return f, nil
}

func fetchRequest(o *event.Ownership, id kadm.TopicID, at int64, ask int32) *kmsg.FetchRequest {
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = o.Partition, at, ask
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = o.Topic, id, append(topic.Partitions, partition)
	request := kmsg.NewPtrFetchRequest()
	// A broker that waits for records would keep others' fetches waiting, too: requests
	// on a connection are answered in order.
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 0, 0, ask
	request.IsolationLevel = 1 // what transactions have committed
	request.Topics = append(request.Topics, topic)
	return request
}

// extent returns where a partition begins and ends.
func (c *client) extent(ctx context.Context, o *event.Ownership) (start, end int64, err error) {
	admin := kadm.NewClient(c.kafka)
	starts, err := ingest.Listed(admin.ListStartOffsets(ctx, o.Topic))
	if err != nil {
		return 0, 0, err
	}
	ends, err := ingest.Listed(admin.ListEndOffsets(ctx, o.Topic))
	if err != nil {
		return 0, 0, err
	}
	first, ok := starts.Lookup(o.Topic, o.Partition)
	last, also := ends.Lookup(o.Topic, o.Partition)
	if !ok || !also {
		return 0, 0, fmt.Errorf("the brokers don't say where %s/%d begins and ends", o.Topic, o.Partition)
	}
	return first.Offset, last.Offset, nil
}
