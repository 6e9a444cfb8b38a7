package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

// directBytes bounds a fetch of Direct in unpacked bytes, as unpackedBytes bounds
// one of the consumer, with which it shares the memory.
const directBytes = 8 << 20

// Direct reads partitions of the ingest topics without a group, from where it is
// told to and as often: beside the consumer, for what that has read already. What the
// topic holds can't hurt it more than the consumer: the size of a fetch follows the
// compression, batches that take too much memory are stepped over. Offsets that the
// brokers don't have are the caller's. Its methods are one goroutine's, Close's too.
type Direct struct {
	client   *kgo.Client
	unpacker *unpacker
	reads    map[topicPartition]*directRead

	// damaged are partitions of which a batch was not unpacked, and since when: the
	// client stops fetching them then, and throws the error away if a partition is
	// moved before it is polled. A hook's; see suspect.
	mu      sync.Mutex
	damaged map[topicPartition]time.Time
}

// directRead is the reading of one partition.
type directRead struct {
	next  int64
	known bool // the client fetches it: it can be moved
}

// Fetched is what a poll of Direct returns of one partition.
type Fetched struct {
	Topic     string
	Partition int32
	// Records are read, control records too; they are the caller's until it calls Cut.
	Records []*kgo.Record
	// First is where it was read from, and Next where it is read on. What has no record
	// in between has no event.
	First, Next int64
	End         int64 // the high watermark; -1 if this poll doesn't say
	// TooLarge is how many offsets before Next are not read, since their batch takes
	// more memory than ingest.limits.batchBytes or can't be unpacked.
	TooLarge int64
	// OutOfRange: the brokers don't have Next. The partition isn't read until it is
	// moved.
	OutOfRange bool
	Err        error // reading fails, and is tried again
}

// NewDirect returns a reader that reads nothing yet. connect are the options for
// the brokers.
func NewDirect(c config.Ingest, connect []kgo.Opt) (*Direct, error) {
	u, err := newUnpacker(int64(c.Limits.BatchBytes), directBytes)
	if err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	dial, err := guarded(connect, int64(c.Limits.BatchBytes))
	if err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	d := &Direct{unpacker: u, reads: make(map[topicPartition]*directRead), damaged: make(map[topicPartition]time.Time)}
	opts := []kgo.Opt{
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // or Next wouldn't get past them
		kgo.WithHooks(u, d),
		kgo.WithDecompressor(u),
		kgo.WithPools(new(pools), u),
	}
	opts = append(opts, newFetchSize(directBytes).options()...)
	opts = append(opts, connect...)
	if d.client, err = kgo.NewClient(append(opts, dial)...); err != nil {
		return nil, fmt.Errorf("kafka reader: %w", err)
	}
	return d, nil
}

// Client returns the client, to ask the brokers by.
func (d *Direct) Client() *kgo.Client { return d.client }

// Close disconnects.
func (d *Direct) Close() { d.client.Close() }

// Read makes a partition be read from an offset on, whether it is read already or
// not. Moving a partition costs fetches of all that are under way.
func (d *Direct) Read(topic string, partition int32, from int64) {
	id := topicPartition{topic, partition}
	r := d.reads[id]
	if r != nil && r.known {
		r.next = from
		d.move(id, from)
		return
	}
	if r != nil { // the client may not have begun to fetch it, and would not move it then
		d.Drop(topic, partition)
	}
	d.reads[id] = &directRead{next: from}
	d.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}})
}

func (d *Direct) move(id topicPartition, to int64) {
	d.mu.Lock()
	delete(d.damaged, id)
	d.mu.Unlock()
	d.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{id.topic: {id.number: {Epoch: -1, Offset: to}}})
}

// Drop ends the reading of a partition.
func (d *Direct) Drop(topic string, partition int32) {
	id := topicPartition{topic, partition}
	delete(d.reads, id)
	d.mu.Lock()
	delete(d.damaged, id)
	d.mu.Unlock()
	d.client.RemoveConsumePartitions(map[string][]int32{topic: {partition}})
}

// Pause stops fetching a partition, without forgetting where it is.
func (d *Direct) Pause(topic string, partition int32) {
	d.client.PauseFetchPartitions(map[string][]int32{topic: {partition}})
}

// Resume ends Pause.
func (d *Direct) Resume(topic string, partition int32) {
	d.client.ResumeFetchPartitions(map[string][]int32{topic: {partition}})
}

// Poll blocks until something is read, or ctx ends, and returns about as many bytes
// as there is room for. It may return nothing.
func (d *Direct) Poll(ctx context.Context, room int64) (fetched []Fetched) {
	d.freeStuck(time.Now())
	ctx, cancel := context.WithTimeout(ctx, suspectTimeout) // to look for those that are stuck
	defer cancel()
	fetches := d.client.PollRecords(ctx, directSize(room, d.client.BufferedFetchRecords(), d.client.BufferedFetchBytes()))
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if f, is := d.take(p); is {
			fetched = append(fetched, f)
		}
	})
	return fetched
}

// directSize returns how many records to poll. Unlike pollSize it knows no least
// bytes: who has little room polls often.
func directSize(room, records, bytes int64) int {
	if bytes <= room {
		return pollRecords
	}
	return int(min(pollRecords, max(1, records*room/bytes)))
}

// take returns what a poll brought of a partition, if it is still to be read there.
func (d *Direct) take(p kgo.FetchTopicPartition) (f Fetched, is bool) {
	id := topicPartition{p.Topic, p.Partition}
	r := d.reads[id]
	if r == nil {
		return f, false
	}
	f = Fetched{Topic: p.Topic, Partition: p.Partition, Records: p.Records, First: r.next, Next: r.next, End: -1}
	if n := len(p.Records); n > 0 {
		if p.Records[0].Offset < r.next {
			return f, false // of before it was moved
		}
		r.known, f.Next = true, p.Records[n-1].Offset+1
	}
	if p.Err == nil {
		f.End = p.HighWatermark
	}
	batch, tooLarge := errors.AsType[*kgo.ErrDecompressTooLarge](p.Err)
	switch {
	case tooLarge:
		r.known = true
		if batch.NextOffset > f.Next {
			f.TooLarge = batch.NextOffset - max(f.Next, batch.Offset)
			f.Next = batch.NextOffset
		}
		d.move(id, f.Next)
	case errors.Is(p.Err, errNoRoom):
		d.unpacker.drained() // fetched again
	case errors.Is(p.Err, kerr.OffsetOutOfRange):
		r.known, f.OutOfRange = true, true
	default:
		f.Err = p.Err
	}
	r.next = f.Next
	return f, f.Next > f.First || f.OutOfRange || f.Err != nil
}

// freeStuck moves partitions to where they are of which the error of a damaged batch
// got lost.
func (d *Direct) freeStuck(now time.Time) {
	d.mu.Lock()
	var stuck []topicPartition
	for id, since := range d.damaged {
		if now.Sub(since) >= suspectTimeout {
			stuck = append(stuck, id)
		}
	}
	d.mu.Unlock()
	for _, id := range stuck {
		if r := d.reads[id]; r != nil {
			d.Read(id.topic, id.number, r.next)
		}
	}
}

// OnFetchBatchRead implements kgo.HookFetchBatchRead; see seeker's.
func (d *Direct) OnFetchBatchRead(_ kgo.BrokerMetadata, topic string, partition int32, m kgo.FetchBatchMetrics) {
	if m.NumRecords > 0 || m.CompressionType == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.damaged[topicPartition{topic, partition}] = time.Now()
}

// Cut copies what was fetched into chunks, as the consumer does, and gives the
// client its memory back. Each chunk has a count of one, which the caller settles.
func Cut(f Fetched, o *event.Ownership, settled func(*event.Chunk)) (chunks []*event.Chunk) {
	records := f.Records
	for len(records) > 0 {
		if records[0].Attrs.IsControl() {
			records[0].Recycle()
			records = records[1:]
			continue
		}
		c, n := cutChunk(o, records, settled)
		chunks = append(chunks, c)
		records = records[n:]
	}
	return chunks
}
