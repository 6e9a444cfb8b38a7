package bench

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/bench/feed"
)

const (
	// hostileRSS bounds the memory of `run` over a hostile topic: 64 MiB in flight,
	// what is unpacked beside it, and what the garbage collector leaves for later.
	hostileRSS = 300 << 20
	// hostileRounds is how often events and bombs alternate.
	hostileRounds = 8
	// maxBomb is the largest batch that topics take.
	maxBomb = 32 << 20
)

// bomb is a batch that takes much more memory than it has bytes, or that is larger
// than batches usually are.
type bomb struct {
	batch []byte
	read  int64 // its records, if it is read at all
}

// bombs returns one of each kind, against the default limits.
func bombs() ([]bomb, error) {
	zstd, err := kgo.DefaultCompressor(kgo.ZstdCompression())
	if err != nil {
		return nil, err
	}
	record := func(r feed.Record) []ready { return []ready{{Record: r}} }
	repeat := func(n int, r feed.Record) []ready {
		records := make([]ready, n)
		for i := range records {
			records[i].Record = r
		}
		return records
	}
	array := func(elements int) feed.Record {
		return feed.Record{Value: []byte("[" + strings.Repeat("{},", elements-1) + "{}]")}
	}
	var all []bomb
	for _, b := range []struct {
		records []ready
		packed  bool
		skipped bool
	}{
		{records: record(feed.Record{Value: make([]byte, 100<<20)}), packed: true, skipped: true},
		{records: repeat(500_000, feed.Record{}), packed: true, skipped: true},
		{records: record(feed.Record{Headers: make([]kgo.RecordHeader, 1_000_000)}), packed: true, skipped: true},
		{records: record(feed.Record{Value: make([]byte, 8<<20)}), packed: true},
		{records: record(feed.Record{Value: make([]byte, 8<<20)}), packed: true},
		{records: record(feed.Record{Value: make([]byte, 8<<20)}), packed: true},
		{records: repeat(60, feed.Record{Headers: make([]kgo.RecordHeader, 5000)}), packed: true}, // just below batchBytes
		// Not packed: the Kafka client has no bound of its own for these.
		{records: record(feed.Record{Value: make([]byte, 31<<20)}), skipped: true},
		{records: repeat(900_000, feed.Record{}), skipped: true},
		{records: record(feed.Record{Headers: make([]kgo.RecordHeader, 500_000)}), skipped: true},
		{records: record(feed.Record{Value: make([]byte, 15<<20)})}, // this, and the next two, are just below batchBytes
		{records: repeat(85_000, feed.Record{})},
		{records: record(feed.Record{Headers: make([]kgo.RecordHeader, 300_000)})},
		{records: record(array(150_000))},
		{records: record(array(1000))},
	} {
		var compressor kgo.Compressor
		if b.packed {
			compressor = zstd
		}
		made := bomb{batch: recordBatch(b.records, compressor), read: int64(len(b.records))}
		if b.skipped {
			made.read = 0
		}
		stamp(made.batch, time.Now())
		all = append(all, made)
	}
	return all, nil
}

// hostile produces n events to a topic, with bombs among them in every partition.
func (l *loader) hostile(ctx context.Context, topic string, n int) (on loaded, err error) {
	all, err := bombs()
	if err != nil {
		return on, err
	}
	for i := range hostileRounds {
		some, err := l.load(ctx, topic, n/(hostileRounds+1), 0)
		if on = on.and(some); err != nil {
			return on, err
		}
		for _, b := range all {
			if err := l.explode(ctx, topic, int32(i%partitions), b.batch); err != nil {
				return on, err
			}
			on.further += b.read
		}
	}
	some, err := l.load(ctx, topic, n-int(on.Events), 0) // behind the bombs
	return on.and(some), err
}

// explode produces one batch as it is.
func (l *loader) explode(ctx context.Context, topic string, partition int32, batch []byte) error {
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, int32((10 * time.Second).Milliseconds())
	to := kmsg.NewProduceRequestTopic()
	to.Topic = topic
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, bytes.Clone(batch)
	to.Partitions = append(to.Partitions, part)
	request.Topics = append(request.Topics, to)
	response, err := request.RequestWith(ctx, l.broker)
	if err != nil {
		return fmt.Errorf("bench: loading: %w", err)
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("bench: loading partition %d of %s: %w", p.Partition, t.Topic, err)
			}
		}
	}
	return nil
}
