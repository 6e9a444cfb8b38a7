package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/event"
)

const (
	// chunkRecords and chunkBytes bound a chunk. Smaller chunks would cost more
	// hand-offs per event; larger ones would delay more events behind a slow one
	// and leave the decoding workers less to share.
	chunkRecords = 256
	chunkBytes   = 256 << 10

	// pollRecords and pollBytes bound a poll: of records that are larger on average
	// than one by the other it takes fewer, if there is room for fewer. What the
	// client has is not counted yet: three records of 30 MiB were taken at once
	// while there was room for one byte. Less than pollBytes is no limit, or polls
	// would be of a few records each whenever the limit is nearly reached.
	pollRecords  = 8192
	pollBytes    = 8 << 20
	pauseOnError = 100 * time.Millisecond
)

// poller reads records, cuts them into chunks and queues these.
type poller struct {
	member     *member
	budget     *budget
	gate       *pollGate
	partitions *partitionSet
	scheduler  *scheduler
	seeker     *seeker
	unpacker   *unpacker
	valve      *valve
	errors     fetchErrors
	records    atomic.Int64 // read since start
	skipped    atomic.Int64 // batches, as well
}

// run polls until ctx ends or the client is closed.
func (r *poller) run(ctx context.Context) {
	for r.budget.wait(ctx, r.stall) && r.valve.waitLoudly(ctx, r.member.log) {
		open, failed := r.poll(ctx)
		if !open {
			return
		}
		if failed { // and may at once again
			select {
			case <-time.After(pauseOnError):
			case <-ctx.Done():
			}
		}
	}
}

// poll polls once, and cuts what it gets. open is false once the client is closed.
func (r *poller) poll(ctx context.Context) (open, failed bool) {
	r.gate.mu.RLock()
	defer r.gate.mu.RUnlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.gate.ctx, cancel)() //nolint:contextcheck // the gate's context is not this call's: it ends the poll from beside
	fetches := r.member.client.PollRecords(ctx, pollSize(r.budget.left(), r.member.client.BufferedFetchRecords(), r.member.client.BufferedFetchBytes()))
	if fetches.IsClientClosed() {
		return false, false
	}
	failed = r.errors.handle(fetches, time.Now())
	fetches.EachPartition(r.cut)
	return true, failed
}

// pollSize returns how many records to poll while there is room for so many bytes
// and the client has records of so many bytes.
func pollSize(left, records, bytes int64) int {
	if left = max(left, pollBytes); bytes <= left {
		return pollRecords
	}
	return int(min(pollRecords, max(1, records*left/bytes)))
}

// obstacle handles what the client doesn't get past by itself.
func (r *poller) obstacle(e kgo.FetchError) (handled bool) {
	if errors.Is(e.Err, errNoRoom) {
		r.unpacker.drained()
		return true // fetched again
	}
	p := r.partitions.get(topicPartition{e.Topic, e.Partition})
	if p == nil {
		return false
	}
	if batch, is := errors.AsType[*kgo.ErrDecompressTooLarge](e.Err); is {
		r.skipBatch(p, batch)
		return true
	}
	if errors.Is(e.Err, kerr.OffsetOutOfRange) {
		p.block(outOfRange, -1)
		signal(r.seeker.due)
	}
	return false
}

// skipBatch passes over a batch that takes more memory than it may, or that can't be
// unpacked: a dead letter stands for its offsets. The client is moved on once that is stored.
func (r *poller) skipBatch(p *partition, batch *kgo.ErrDecompressTooLarge) {
	r.seeker.unsuspect(p.topicPartition)
	blocked, next, _ := p.blockedBy()
	if blocked != none {
		return // an error of before it was moved
	}
	first, last := max(next.Offset, batch.Offset), min(batch.NextOffset, p.limit)-1
	if first >= p.limit {
		p.consumer.pause(p.topicPartition) // as within does
		return
	}
	limit := r.member.config.Limits.BatchBytes
	r.skipped.Add(1)
	r.member.log.Error("batch skipped: it takes more memory than ingest.limits.batchBytes allows, or can't be unpacked; a dead letter has its offsets",
		zap.String("topic", p.topic), zap.Int32("partition", p.number),
		zap.Int64("first", first), zap.Int64("last", last), zap.Stringer("limit", limit))
	c := event.NewChunk(p.topic, p.number, 0, 0, p.settled)
	c.Owned, c.Grew = p.owned, p.grew
	c.Skip(first, last, time.Now().UnixMilli(), batch.Epoch, event.Undecodable, fmt.Sprintf(
		"offsets %d to %d are not read: their batch takes more memory than ingest.limits.batchBytes (%v) allows, or can't be unpacked", first, last, limit))
	p.track(c, last+1)
	p.acquire(c)
	p.block(tooLarge, batch.Epoch) // behind the chunk: it is resolved before the client is moved
	r.scheduler.push(p, c)
	r.scheduler.wake()
	signal(r.seeker.due)
}

// cut makes chunks of one partition's records and queues them.
func (r *poller) cut(fetched kgo.FetchTopicPartition) {
	p := r.partitions.get(topicPartition{fetched.Topic, fetched.Partition})
	if p == nil {
		return // released since it was polled: its next owner reads it
	}
	records := p.within(fetched.Records)
	if len(records) == 0 {
		return
	}
	for len(records) > 0 {
		if records[0].Attrs.IsControl() {
			p.skip(records[0].Offset, records[0].LeaderEpoch, fetched.HighWatermark)
			records[0].Recycle()
			records = records[1:]
			continue
		}
		c, n := cutChunk(p.owned, records, p.settled)
		c.Grew = p.grew
		records = records[n:]
		if p.track(c, fetched.HighWatermark) {
			r.member.log.Warn("partition paused: its oldest chunk is stuck while newer ones went through",
				zap.String("topic", fetched.Topic), zap.Int32("partition", fetched.Partition))
		}
		r.records.Add(int64(n)) // once they are tracked: what counts as read shows in the lag
		p.acquire(c)
		r.scheduler.push(p, c)
	}
	r.scheduler.wake()
}

// Cut copies records of a partition that were read beside the consumer into chunks, as
// the consumer does, and recycles them. Each chunk has a count of one.
func Cut(records []*kgo.Record, o *event.Ownership, settled func(*event.Chunk)) (chunks []*event.Chunk) {
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

// cutChunk makes a chunk of the first records, of which there must be one that is no
// control record, and returns of how many.
func cutChunk(o *event.Ownership, records []*kgo.Record, settled func(*event.Chunk)) (c *event.Chunk, n int) {
	n, bytes := measure(records)
	c = event.NewChunk(o.Topic, o.Partition, n, bytes, settled)
	c.Owned = o
	for _, record := range records[:n] {
		c.Add(record.Offset, record.Timestamp.UnixMilli(), record.LeaderEpoch, record.Key, record.Value)
		for _, h := range record.Headers {
			c.AddHeader(h.Key, h.Value)
		}
		record.Recycle() // copied; the client may have its memory back
	}
	return c, n
}

// measure returns how many of the records make up the next chunk, at least one,
// and how many bytes of it the chunk copies into one buffer. The chunk ends before
// a control record.
func measure(records []*kgo.Record) (n, buffer int) {
	bytes := 0
	for _, r := range records {
		if r.Attrs.IsControl() {
			break
		}
		copied := len(r.Key) + len(r.Value)
		size := copied
		for _, h := range r.Headers {
			copied += len(h.Value)
			size += event.HeaderOverhead + len(h.Key) + len(h.Value)
		}
		if n == chunkRecords || n > 0 && bytes+size > chunkBytes {
			break
		}
		n++
		bytes += size
		buffer += copied
	}
	return n, buffer
}
