package ingest

import (
	"context"
	"math"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/event"
)

// Past maxWindow chunks behind an unresolved one, the partition is paused until
// the window has shrunk to half. It only comes to that where one chunk is
// stuck for minutes while others go on (a dead letter that can't be stored):
// everything behind it would be repeated after a crash, so there must not be
// too much. It must not come to that while a service that hangs is found out:
// a chunk can be as small as a poll's few records, a hundred of them a second,
// and stuck for send.timeout at every probe.
const maxWindow = 16 << 10

// committer is what a tracker does to the consumer.
type committer interface {
	mark(topic string, partition, epoch int32, offset int64)
	pause(topic string, partition int32, paused bool)
	stopFetching(topic string, partition int32)
	release(bytes int64)
	wake()
}

// tracker keeps the watermark of one partition for as long as this copy owns
// it. A new ownership gets a new tracker, so that the late outcome of a chunk
// of the old one can't move anything.
//
// Chunks are tracked in poll order and resolved in any order; the watermark
// moves over resolved chunks only, since Kafka's commit is one number:
// committing chunk 7 would commit an unresolved chunk 6 with it.
type tracker struct {
	topic     string
	partition int32
	consumer  committer
	maxWindow int // chunks
	place     *place
	queued    []*event.Chunk     // turns' own
	settled   func(*event.Chunk) // resolve, bound once
	limit     int64              // this offset and those behind it are not read

	mu      sync.Mutex
	window  []entry // the first unresolved chunk and all behind it
	base    uint64  // sequence number of window[0]
	handed  int     // chunks that the dispatcher has and that aren't resolved
	state   ownership
	idle    chan struct{} // closed when draining and handed is 0
	paused  bool
	started bool
	// The group has said what it has committed of the partition. Until then
	// nobody may say where it begins: that would be marked, over what is committed.
	answered bool
	// Where a partition begins that nothing is committed of, while nothing was read.
	unmarked   bool
	startEpoch int32
	mark       int64 // the watermark: the offset after the last resolved chunk; -1 until it is known
	end        int64 // the partition's high watermark, when last heard of
}

type entry struct {
	last  int64
	epoch int32
	done  bool
}

type ownership uint8

const (
	owned    ownership = iota
	draining           // being revoked: hands out nothing, still marks
	gone               // marks nothing
)

func newTracker(topic string, partition int32, at *place, consumer committer, maxWindow int) *tracker {
	t := &tracker{
		topic: topic, partition: partition, place: at, consumer: consumer, maxWindow: maxWindow,
		idle: make(chan struct{}), mark: -1, limit: math.MaxInt64,
	}
	t.settled = t.resolve
	return t
}

// within cuts off records beyond the limit, and ends fetching there. What is
// cut off is not tracked, and so is never committed.
func (t *tracker) within(records []*kgo.Record) []*kgo.Record {
	n := len(records)
	if n == 0 || records[n-1].Offset < t.limit-1 {
		return records
	}
	t.consumer.stopFetching(t.topic, t.partition)
	for n > 0 && records[n-1].Offset >= t.limit {
		n--
	}
	return records[:n]
}

// track adds a chunk behind those that are tracked already. end is the
// partition's high watermark as of the poll.
func (t *tracker) track(c *event.Chunk, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(c.First, end)
	c.Seq = t.base + uint64(len(t.window))
	t.window = append(t.window, entry{last: c.Last, epoch: c.Epoch})
	if !t.paused && t.state == owned && len(t.window) >= t.maxWindow {
		t.paused = true
		t.consumer.pause(t.topic, t.partition, true)
	}
}

// begin notes what a poll brought: where the first one starts, and how far the
// partition reaches.
func (t *tracker) begin(first, end int64) {
	if !t.started {
		t.started, t.mark, t.unmarked = true, first, false
	}
	t.end = max(t.end, end)
}

// pass moves on over an offset that has no event, such as a transaction's end:
// with the chunk before it, if that has no outcome yet.
func (t *tracker) pass(offset int64, epoch int32, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(offset, end)
	if n := len(t.window); n > 0 {
		t.window[n-1].last, t.window[n-1].epoch = offset, epoch
		return
	}
	t.advance(offset, epoch)
}

// advance moves the watermark behind an offset. The caller holds the lock that
// guards state: a mark that came after the revocation would be committed over
// the next owner's.
func (t *tracker) advance(last int64, epoch int32) {
	t.mark = last + 1
	if t.state != gone {
		t.consumer.mark(t.topic, t.partition, epoch, t.mark)
	}
}

// hand tells whether the dispatcher may have a tracked chunk: not once the
// partition is being given up, when the chunk is its next owner's to send.
func (t *tracker) hand() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != owned {
		return false
	}
	t.handed++
	t.place.handed.Add(1)
	return true
}

// resolve is what a chunk does when it is settled: it moves the watermark if
// it was the first of the window, and frees its memory.
func (t *tracker) resolve(c *event.Chunk) {
	t.mu.Lock()
	t.handed--
	if t.state == draining && t.handed == 0 {
		close(t.idle)
	}
	t.window[c.Seq-t.base].done = true
	n := 0
	for n < len(t.window) && t.window[n].done {
		n++
	}
	if n > 0 {
		last := t.window[n-1]
		t.window = t.window[n:]
		t.base += uint64(n)
		t.advance(last.last, last.epoch)
		if t.paused && t.state == owned && len(t.window) <= t.maxWindow/2 {
			t.paused = false
			t.consumer.pause(t.topic, t.partition, false)
		}
	}
	t.mu.Unlock()

	bytes := c.Bytes()
	c.Free()
	t.consumer.release(bytes)
	if t.place.resolved() {
		t.consumer.wake()
	}
}

// drain gives the partition up in order: nothing more is handed out, what is
// with the senders may still get its outcome until ctx ends, and after that
// nothing is marked any more.
func (t *tracker) drain(ctx context.Context) {
	t.mu.Lock()
	if t.state == owned {
		t.state = draining
		if t.handed == 0 {
			close(t.idle)
		}
	}
	t.mu.Unlock()
	select {
	case <-t.idle:
	case <-ctx.Done():
	}
	t.lose()
}

// lose gives the partition up at once: it is another copy's already.
func (t *tracker) lose() {
	t.mu.Lock()
	t.state = gone
	t.mu.Unlock()
}

// resumes says where the group had got to; negative is nowhere yet.
func (t *tracker) resumes(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered = true
	if t.mark < 0 && offset >= 0 {
		t.mark = offset
	}
}

// begins says where a partition begins that the group has committed nothing
// of. That becomes the first commit (markStart).
func (t *tracker) begins(offset int64, epoch int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mark < 0 {
		t.mark, t.startEpoch, t.unmarked = offset, epoch, true
	}
}

// markStart marks where the partition begins. Lag that is measured from
// outside, as autoscalers do, needs an offset; and it makes a group known that
// has not read anything. The client forgets a mark that comes before it has
// begun to fetch, so it is repeated.
func (t *tracker) markStart() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unmarked && t.state == owned {
		t.consumer.mark(t.topic, t.partition, t.startEpoch, t.mark)
	}
}

// fresh tells whether the group has committed nothing of the partition, and
// where it begins isn't known yet.
func (t *tracker) fresh() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answered && t.mark < 0
}

// reach says how far the partition reaches.
func (t *tracker) reach(end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = max(t.end, end)
}

// marked is the offset up to which everything that was read is resolved; 0
// while nothing was read, when the mark is where to start, not what is done.
func (t *tracker) marked() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.started {
		return 0
	}
	return t.mark
}

// lag is the number of offsets between the watermark and the partition's end.
func (t *tracker) lag() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mark < 0 {
		return 0 // asked for a moment ago
	}
	return max(t.end-t.mark, 0)
}
