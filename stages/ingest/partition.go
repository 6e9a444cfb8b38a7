package ingest

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/event"
	"twinegress/internal/watermark"
)

// maxWindow bounds the chunks behind an unresolved one. At the bound the
// partition is paused until the window has shrunk to half. It only comes to
// that where one chunk is stuck for minutes while others go on (a dead letter
// that can't be stored): everything behind it would be repeated after a crash,
// so there must not be too much. It must not come to that while a hanging
// service is detected: a chunk can be as small as a poll's few records, a
// hundred of them a second, and stuck for send.timeout at every probe.
const maxWindow = 16 << 10

// ownership is the state of a partition of this copy:
//
//	assigned ─► unknown ──────┐
//	               │ answered │
//	               ▼          │
//	           positioned ────┤
//	               │ polled   │
//	               ▼          ├─ revoked ──► draining
//	             active ──────┤                 │ nothing in flight, or timeout
//	                          │                 ▼
//	                          ├─ closed ───► released
//	                          │                 │ committed, or timeout
//	                          │                 ▼
//	                          └─ lost ─────►  ended
//
// answered: the group has returned what it has committed. polled: a poll has
// returned records. No state is entered twice: a partition that comes back is a
// new one.
type ownership uint8

const (
	// unknown: the start of the partition must not be marked, since it would be
	// committed over what the group has committed.
	unknown ownership = iota
	// positioned: nothing was read yet. Of a partition of which nothing is
	// committed, the start is marked.
	positioned
	// active: chunks are tracked, dispatched and marked.
	active
	// draining: nothing more is dispatched; chunks in flight are still marked.
	draining
	// released: nothing is marked; what was marked is committed once more. A late
	// outcome frees memory only.
	released
	// ended: nothing is committed, since that would be over the next owner's commits:
	// the brokers don't check who owns what.
	ended
)

// topicPartition identifies a partition.
type topicPartition struct {
	topic  string
	number int32
}

// consumer is what a partition needs of the consumer. Tests check it against a
// model, which is the second implementation.
type consumer interface {
	// pause and resume stop and start fetching. They are called with the partition's
	// lock held, and must not call back.
	pause(of topicPartition)
	resume(of topicPartition)
	// acquire, grow and release count bytes in flight, and what decoding adds.
	acquire(bytes int64)
	grow(bytes int64)
	release(bytes, grown int64)
	// wake makes the scheduler look at waiting partitions again.
	wake()
}

// partition is one ownership of one partition: from the moment at which this
// copy was assigned it until it is revoked or lost. A new ownership is a new
// partition, so that a late outcome of a chunk of the old one can't move
// anything. It has more fields and methods than other types, since one lock has
// to decide about all of them: tracking, ownership, offsets, pausing.
type partition struct {
	topicPartition
	owned    *event.Ownership // what chunks know of it
	consumer consumer
	limit    int64              // this offset and those behind it are not read
	settled  func(*event.Chunk) // settle, bound once
	grew     func(bytes int64)  // grow, bound once
	bytes    atomic.Int64       // in flight
	// stalled is how many bytes were in flight when fetching stopped for them; 0
	// while it goes on. It changes with mu held.
	stalled atomic.Int64
	// grown is what of bytes decoding has added, and heldBack how much of it there
	// was when dispatching stopped for that; 0 while it goes on.
	grown, heldBack atomic.Int64

	// member is what the group calls this copy; rejoined is what it has called it since,
	// of which nothing was committed yet.
	member, rejoined string

	lane   *assignment
	queued []*event.Chunk // guarded by scheduler.mu

	// mu decides both whether a settled chunk is marked and whether the
	// partition is still owned: a mark never comes after a release.
	mu       sync.Mutex
	state    ownership
	inFlight int           // chunks that are dispatched and not settled
	idle     chan struct{} // closed when draining and inFlight is 0

	watermark watermark.Watermark
	// marked is what is to be committed; a negative offset is nothing yet. It is the
	// watermark until the partition is released.
	marked kgo.EpochOffset
	// committed is what the group has, as far as this copy knows.
	committed commitment
	// restored: Positions know what there is. Before that nothing is read or committed.
	// restoring is closed when they are no longer asked; ctx ends that.
	restored  bool
	restoring chan struct{}
	since     time.Time // of the ownership
	ctx       context.Context
	cancel    context.CancelFunc
	end       int64 // the highest high watermark seen
	// endAt is when the brokers were asked for it last. Polls say it, too; but what
	// they don't bring is not known to be nothing.
	endAt time.Time
	// paused is beside the state, not a part of it: fetching stops for a full
	// window, and starts again, within active. So is what reading can't get past.
	paused   bool
	obstacle obstacle
	epoch    int32 // to go on with behind it
}

func newPartition(id topicPartition, lane *assignment, c consumer) *partition {
	p := &partition{
		topicPartition: id, owned: &event.Ownership{Topic: id.topic, Partition: id.number}, consumer: c, lane: lane, limit: math.MaxInt64,
		state: unknown, idle: make(chan struct{}), watermark: watermark.At(-1),
		marked: nothing, committed: commitment{mark: nothing}, restored: true, since: time.Now(),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.settled, p.grew = p.settle, p.grow
	return p
}

// within cuts off records beyond the limit, and stops fetching there. What is
// cut off is not tracked, and so is never committed.
func (p *partition) within(records []*kgo.Record) []*kgo.Record {
	n := len(records)
	if n == 0 || records[n-1].Offset < p.limit-1 {
		return records
	}
	p.consumer.pause(p.topicPartition)
	for n > 0 && records[n-1].Offset >= p.limit {
		n--
	}
	return records[:n]
}

// track adds a chunk behind those that are tracked. end is the partition's high
// watermark as of the poll. It reports whether that filled the window, and the
// partition is paused.
func (p *partition) track(c *event.Chunk, end int64) (paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.polled(c.First, end)
	c.Seq = p.watermark.Track(c.Last, c.Epoch)
	if p.paused || p.state != active || p.watermark.Tracked() < maxWindow {
		return false
	}
	p.paused = true
	if p.stalled.Load() == 0 {
		p.consumer.pause(p.topicPartition)
	}
	return true
}

// skip passes over an offset that has no event.
func (p *partition) skip(offset int64, epoch int32, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.polled(offset, end)
	if p.watermark.Skip(offset, epoch) {
		p.mark(epoch)
	}
}

// polled records the first offset and the high watermark of what a poll
// returned. The caller holds mu.
func (p *partition) polled(first, end int64) {
	if p.state < active {
		p.state = active
		p.watermark.SetOffset(first)
	}
	p.end = max(p.end, end)
}

// mark marks the watermark, unless the partition is released. The caller holds mu.
func (p *partition) mark(epoch int32) {
	if p.state < released {
		p.marked = kgo.EpochOffset{Epoch: epoch, Offset: p.watermark.Offset()}
	}
}

// dispatch reports whether a tracked chunk may be dispatched, which counts it as in
// flight: not once the partition is revoked or lost, when the chunk is its next
// owner's to send.
func (p *partition) dispatch() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state >= draining {
		return false
	}
	p.inFlight++
	p.lane.inFlight.Add(1)
	return true
}

// withdraw takes a dispatch back: nobody took the chunk, or it isn't one of what is
// tracked here.
func (p *partition) withdraw() {
	p.mu.Lock()
	p.inFlight--
	if p.state == draining && p.inFlight == 0 {
		close(p.idle)
	}
	p.mu.Unlock()
	if p.lane.settled() {
		p.consumer.wake()
	}
}

// settle is called by a dispatched chunk when it is settled. It moves the
// watermark if the chunk was the first of the window, and frees its memory.
func (p *partition) settle(c *event.Chunk) {
	p.mu.Lock()
	p.inFlight--
	if p.state == draining && p.inFlight == 0 {
		close(p.idle)
	}
	if epoch, moved := p.watermark.Resolve(c.Seq); moved {
		p.mark(epoch)
		if p.paused && p.state == active && p.watermark.Tracked() <= maxWindow/2 {
			p.paused = false
			p.resume()
		}
	}
	p.mu.Unlock()

	p.free(c)
	if p.lane.settled() {
		p.consumer.wake()
	}
}

// acquire counts a chunk that was read.
func (p *partition) acquire(c *event.Chunk) {
	bytes := c.Bytes()
	p.bytes.Add(bytes)
	p.consumer.acquire(bytes)
}

// grow counts what decoding a chunk has added.
func (p *partition) grow(bytes int64) {
	p.bytes.Add(bytes)
	p.grown.Add(bytes)
	p.consumer.grow(bytes)
}

// free returns the memory of a chunk that is settled, or was never dispatched.
func (p *partition) free(c *event.Chunk) {
	bytes, grown := c.Bytes(), c.Grown()
	c.Free()
	if left, stalled := p.bytes.Add(-bytes), p.stalled.Load(); stalled > 0 && left <= stalled/4 {
		p.unstall()
	}
	if p.grown.Add(-grown); p.heldBack.Load() > 0 && p.letGo() {
		p.consumer.wake()
	}
	p.consumer.release(bytes, grown)
}

// drain ends the ownership in order: nothing more is dispatched, chunks in
// flight may settle until ctx ends, and after that nothing is marked.
func (p *partition) drain(ctx context.Context) {
	p.cancel()
	p.mu.Lock()
	if p.state < draining {
		p.state = draining
		if p.inFlight == 0 {
			close(p.idle)
		}
	}
	p.mu.Unlock()
	select {
	case <-p.idle:
	case <-ctx.Done():
	}
	p.release()
}

// release makes what is marked by now the last that is committed.
func (p *partition) release() {
	p.cancel()
	p.mu.Lock()
	p.state = max(p.state, released)
	p.mu.Unlock()
}

// setCommitted sets what the group has committed; a negative offset means nothing.
func (p *partition) setCommitted(c commitment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state > positioned {
		return
	}
	p.state = positioned
	if p.watermark.Offset() < 0 && c.mark.Offset >= 0 {
		p.watermark.SetOffset(c.mark.Offset)
		p.marked, p.committed = c.mark, c
	}
}

// uncommitted reports whether the group has committed nothing, and no start is
// set yet.
func (p *partition) uncommitted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == positioned && p.watermark.Offset() < 0
}

// setStart sets where a partition starts of which the group has committed
// nothing. That is the first commit: lag that is measured from outside, as
// autoscalers do, needs an offset; and it makes a group known that has not read
// anything.
func (p *partition) setStart(start kgo.EpochOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == positioned && p.watermark.Offset() < 0 {
		p.watermark.SetOffset(start.Offset)
		p.mark(start.Epoch)
	}
}

// setEnd sets the partition's high watermark, which the brokers just said.
func (p *partition) setEnd(end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end, p.endAt = max(p.end, end), time.Now()
}

// lag returns the number of offsets between the watermark and the end, and when
// the brokers were asked for that; zero until both are known, which takes a moment.
func (p *partition) lag() (n int64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watermark.Offset() < 0 {
		return 0, time.Time{}
	}
	return max(p.end-p.watermark.Offset(), 0), p.endAt
}

// waits reports whether fetching has stopped until more of what was read has its
// outcome.
func (p *partition) waits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == active && (p.paused || p.stalled.Load() > 0)
}

// resolved returns the offset up to which everything that was read is resolved;
// 0 while nothing was read, when the watermark is where to start, not what is done.
func (p *partition) resolved() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != active {
		return 0
	}
	return p.watermark.Offset()
}
