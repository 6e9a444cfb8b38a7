package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// prepared is a produce request that was encoded in advance, and its events'
// counts. Its topic is set when it is sent.
type prepared struct {
	request *kmsg.ProduceRequest
	holds   loaded
}

// prepare encodes requests for up to n of the events that were generated in
// advance: each has that many events for each partition or, if that is 0, one
// event for one partition, round-robin. A producer takes 1.4 µs per event, on the
// core that the loader shares with broker and services, whose delays count as
// latency.
func (l *loader) prepare(n, each int) ([]prepared, error) {
	compressor, err := kgo.DefaultCompressor(l.codec)
	if err != nil {
		return nil, fmt.Errorf("bench: loading: %w", err)
	}
	all := make([]prepared, 0, min(n, len(l.ready))/max(1, each*partitions))
	for i := range cap(all) {
		p := prepared{kmsg.NewPtrProduceRequest(), loaded{types: make(map[string]int64)}}
		p.request.Acks = -1 // the client's default
		p.request.TimeoutMillis = int32(childTimeout.Milliseconds())
		topic := kmsg.NewProduceRequestTopic()
		for partition := range partitions {
			if each == 0 && partition != i%partitions {
				continue
			}
			records := make([]ready, max(1, each))
			for i := range records {
				r, typ := l.event()
				records[i] = ready{r, typ}
				p.holds.Events++
				p.holds.Bytes += int64(len(r.Value))
				p.holds.types[typ]++
			}
			of := kmsg.NewProduceRequestTopicPartition()
			of.Partition = int32(partition)
			of.Records = recordBatch(records, compressor)
			topic.Partitions = append(topic.Partitions, of)
		}
		p.request.Topics = append(p.request.Topics, topic)
		all = append(all, p)
	}
	return all, nil
}

// recordBatch encodes records as a Kafka record batch of version 2: a header, and
// after it the records, which may be compressed.
func recordBatch(records []ready, compressor kgo.Compressor) []byte {
	var encoded []byte
	for i, r := range records {
		record := kmsg.Record{OffsetDelta: int32(i), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, kmsg.Header(h))
		}
		// The length doesn't include itself, which is one byte while it is 0.
		record.Length = int32(len(record.AppendTo(nil)) - 1)
		encoded = record.AppendTo(encoded)
	}
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(records) - 1),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(records)), Records: encoded,
	}
	if compressor != nil {
		var codec kgo.CompressionCodecType
		batch.Records, codec = compressor.Compress(new(bytes.Buffer), encoded)
		batch.Attributes = int16(codec)
	}
	const length, behindLength = 8, 12 // offsets in the header
	b := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(b[length:], uint32(len(b)-behindLength))
	return b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp sets a batch's timestamps and checksum. The broker's own time can't be
// used: the embedded one doesn't update the checksum then.
func stamp(batch []byte, t time.Time) {
	const checksum, behindChecksum, first, last = 17, 21, 27, 35 // offsets in the header
	for _, at := range []int{first, last} {
		binary.BigEndian.PutUint64(batch[at:], uint64(t.UnixMilli()))
	}
	binary.BigEndian.PutUint32(batch[checksum:], crc32.Checksum(batch[behindChecksum:], castagnoli))
}

// paced produces up to n events to a topic, at rate events a second, in prepared
// requests; it omits a remainder that fills no request. It waits for each
// response, so that a slow broker delays the events that are due meanwhile.
func (l *loader) paced(ctx context.Context, topic string, n int, rate float64) (loaded, error) {
	return l.pacedWhile(ctx, topic, rate, n, func(next int64) bool { return next <= int64(n) })
}

// pacedWhile is paced without a number: it prepares n events, and produces them again and
// again as long as more is true of how many they are with the next request.
func (l *loader) pacedWhile(ctx context.Context, topic string, rate float64, n int, more func(next int64) bool) (loaded, error) {
	on := loaded{types: make(map[string]int64)}
	all, err := l.prepare(n, int(rate*pace.Seconds())/partitions)
	if err != nil || len(all) == 0 {
		return on, err
	}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	start := time.Now()
	for i := 0; ; i = (i + 1) % len(all) {
		next := on.Events + all[i].holds.Events
		if !more(next) {
			return on, nil
		}
		for time.Since(start).Seconds()*rate < float64(next) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return on, fmt.Errorf("bench: loading: %w", context.Cause(ctx))
			}
		}
		to := &all[i].request.Topics[0]
		to.Topic = topic
		now := time.Now()
		for _, p := range to.Partitions {
			stamp(p.Records, now)
		}
		response, err := all[i].request.RequestWith(ctx, l.broker)
		if err != nil {
			return on, fmt.Errorf("bench: loading: %w", err)
		}
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return on, fmt.Errorf("bench: loading partition %d of %s: %w", p.Partition, t.Topic, err)
				}
			}
		}
		on = on.and(all[i].holds)
	}
}
