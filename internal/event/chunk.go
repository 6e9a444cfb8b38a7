package event

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// recordOverhead is what a record costs in memory beyond its bytes: the
// Record, its Event and pointers to it in lanes. It keeps a backlog of tiny
// records within the limit on bytes in flight.
const recordOverhead = 256

// HeaderOverhead is what a header costs beyond its value: the Header, with what
// a growing slice has too much, and the allocation of its key. A record can have
// more headers than it has bytes of anything else.
const HeaderOverhead = 80

// eventOverhead is what an event or a rejection costs beyond the one that a
// record's overhead has: an array of 1 MiB can have half a million elements.
const eventOverhead = 160

// maxPooledBytes bounds what an idle chunk keeps: one record can be many
// megabytes, and a pool that kept each such buffer would never shrink.
const maxPooledBytes = 1 << 20

// minPooledEvents and pooledEventBytes bound the same of events and rejections, by
// the buffer that the chunk keeps: some more than array records have, of events of
// 100 bytes. Whoever gets the chunk next counts the buffer, and not these.
const (
	minPooledEvents  = 256
	pooledEventBytes = 64
)

// smallBytes is the size below which a chunk comes from a pool of its own. At a
// low rate a poll returns a few records, and many such chunks may be in flight:
// none of them must keep a full chunk's buffer.
const smallBytes = 16 << 10

// Rejection is input that can't be routed: a whole record, or one element of
// an array record.
type Rejection struct {
	Event  Event // Type is Unknown; Body is what is set aside
	Reason Reason
	Detail string
}

// Ownership is one ownership of a partition by this copy: from its assignment until
// it is revoked or lost. A partition that comes back has a new one, so that nothing of
// before is taken for the new one's.
type Ownership struct {
	Topic     string
	Partition int32
	// Dispatched is the offset behind the last one that the dispatcher has begun to
	// hand out. It is set before the first sender gets an event of that chunk: whoever
	// reads a lower offset knows that no sender has seen what is behind it.
	Dispatched atomic.Int64
	// Handed is the offset behind the last one that every sender has been handed. Between
	// it and Dispatched some senders have their events already, and others don't.
	Handed atomic.Int64
	// Listed moves when what a commit has to list of the endpoints that are behind has
	// changed: before anything is settled for it.
	Listed atomic.Uint64
	// Ended is set when the ownership has ended: what has no outcome by then is its next
	// owner's, which knows who is behind from what was committed.
	Ended atomic.Bool
}

// Chunk is a run of consecutive records of one Kafka partition that travel
// together. It owns every byte of them: ingest copies the records in, since a
// record that is kept pins the whole fetch that it came in, and frees the chunk
// when it is settled.
//
// One count is held for every event at every endpoint that has no outcome yet.
// At zero the chunk is settled, and only then may its offsets be committed. Its
// many fields are one allocation that is reused, for records, events and the
// bytes of both.
type Chunk struct {
	Topic     string
	Partition int32
	Lane      int // the number of its lane at each endpoint
	Owned     *Ownership
	// Reading is 0 for what all endpoints read together. Else the chunk is of one
	// endpoint that is behind, and this is the number of its reading.
	Reading uint64
	// Lettered says that an event of a chunk of one endpoint is on its way to the dead
	// letters, and Incomplete that one has no outcome and is read again.
	Lettered, Incomplete bool
	of                   *Chunk // whose records the events are of
	Seq                  uint64 // its number among its partition's chunks, for the tracker
	First, Last          int64  // offsets
	Epoch                int32  // leader epoch of the last record

	Records  []Record
	Events   []Event     // set by decode; in order of offset and index
	Rejected []Rejection // set by decode

	// Grew is called with what decoding and dead letters have added to Bytes.
	Grew func(bytes int64)

	buf     []byte
	headers int          // bytes of them beyond buf
	grown   atomic.Int64 // what was passed to Grew
	pending atomic.Int64
	settled func(*Chunk)
}

var emptyValue = []byte{}

// Lanes is how many lanes an endpoint has, and so how many sends it has in
// flight at most. More would cut the same flow into smaller batches, which
// cost more per event; fewer would let a service's latency bound the
// throughput. Eight keeps a hub of 1, 2, 4 or 8 partitions at one partition a
// lane, so that its batches fill.
const Lanes = 8

func newChunk() any { return new(Chunk) }

var smallChunks, chunks = sync.Pool{New: newChunk}, sync.Pool{New: newChunk}

func poolFor(bytes int) *sync.Pool {
	if bytes < smallBytes {
		return &smallChunks
	}
	return &chunks
}

// NewChunk returns an empty chunk with room for records of that many bytes in
// all. The caller holds one count, for Settle(1); settled is called once, when
// no count is left, and must end with Free.
func NewChunk(topic string, partition int32, records, bytes int, settled func(*Chunk)) *Chunk {
	c := poolFor(bytes).Get().(*Chunk)
	c.Topic, c.Partition, c.settled = topic, partition, settled
	c.Lane = int(partition) % Lanes
	if cap(c.buf) < bytes {
		if bytes > smallBytes {
			// Rounded up: full chunks differ by a little, and most of them must
			// fit in each other's buffers.
			bytes = (bytes + smallBytes - 1) / smallBytes * smallBytes
		}
		c.buf = make([]byte, 0, bytes)
	}
	if cap(c.Records) < records {
		c.Records = make([]Record, 0, records)
	}
	c.pending.Store(1)
	return c
}

// Part returns a chunk with copies of some of c's events, which are still c's records:
// c is held until it is settled. Its settled function is called before c's count is.
func (c *Chunk) Part(events []*Event, settled func(*Chunk)) *Chunk {
	c.Hold(1)
	part := NewChunk(c.Topic, c.Partition, 0, 0, settled)
	part.Owned, part.Lane, part.Epoch, part.Grew, part.of = c.Owned, c.Lane, c.Epoch, c.Grow, c
	part.First, part.Last = events[0].Record.Offset, events[len(events)-1].Record.Offset
	for _, ev := range events {
		copied := *ev
		copied.Chunk = part
		part.Events = append(part.Events, copied)
	}
	return part
}

// FreePart returns a part to the pool, and its count to the chunk that it is of.
func (c *Chunk) FreePart() {
	of := c.of
	c.Free()
	of.Settle(1)
}

// Add copies a record into the chunk.
func (c *Chunk) Add(offset, timestamp int64, epoch int32, key, value []byte) *Record {
	if len(c.Records) == 0 {
		c.First = offset
	}
	c.Last, c.Epoch = offset, epoch
	c.Records = append(c.Records, Record{
		Offset:    offset,
		Timestamp: timestamp,
		Key:       c.copied(key),
		Value:     c.copied(value),
	})
	return &c.Records[len(c.Records)-1]
}

// AddHeader copies a header onto the record that was added last.
func (c *Chunk) AddHeader(key string, value []byte) {
	r := &c.Records[len(c.Records)-1]
	r.Headers = append(r.Headers, Header{Key: strings.Clone(key), Value: c.copied(value)})
	c.headers += HeaderOverhead + len(key)
}

// Skip makes an empty chunk stand for offsets of which no record is read: what is
// committed passes over them, and what goes to the dead letters says so.
func (c *Chunk) Skip(first, last, timestamp int64, epoch int32, reason Reason, detail string) {
	c.First, c.Last, c.Epoch = first, last, epoch
	c.Rejected = append(c.Rejected, Rejection{
		Event:  Event{Chunk: c, Record: &Record{Offset: first, Timestamp: timestamp}, Index: NoIndex},
		Reason: reason,
		Detail: detail,
	})
}

// copied returns a copy of b. Nil stays nil: a tombstone is not an empty value.
func (c *Chunk) copied(b []byte) []byte {
	if len(b) == 0 {
		if b == nil {
			return nil
		}
		return emptyValue // b itself would pin the fetch that it came in
	}
	start := len(c.buf)
	c.buf = append(c.buf, b...)
	return c.buf[start:len(c.buf):len(c.buf)]
}

// Bytes returns what the chunk counts against the limit of bytes in flight: at
// least half of the memory that it holds, whatever is in it.
func (c *Chunk) Bytes() int64 {
	return int64(cap(c.buf)+len(c.Records)*recordOverhead+c.headers) + c.grown.Load()
}

// Grown returns how much of Bytes decoding and dead letters have added.
func (c *Chunk) Grown() int64 { return c.grown.Load() }

// Decoded counts what decoding has added. The caller holds a count.
func (c *Chunk) Decoded() {
	further := len(c.Events) + len(c.Rejected) - len(c.Records)
	if further <= 0 && len(c.Rejected) == 0 {
		return // an event or nothing of each record: that is in its overhead
	}
	bytes := int64(max(further, 0)) * eventOverhead
	for i := range c.Rejected {
		bytes += int64(len(c.Rejected[i].Detail))
	}
	c.Grow(bytes)
}

// Grow counts what is kept until the chunk is settled beyond what was read of it. The
// caller holds a count.
func (c *Chunk) Grow(bytes int64) {
	c.grown.Add(bytes)
	if c.Grew != nil {
		c.Grew(bytes)
	}
}

// Hold keeps the chunk from being settled until n more counts are settled. The
// caller must hold a count already.
func (c *Chunk) Hold(n int) { c.pending.Add(int64(n)) }

// Settle releases n counts. The call that releases the last one calls the settled
// function; the chunk's events must not be used after that.
func (c *Chunk) Settle(n int) {
	switch left := c.pending.Add(int64(-n)); {
	case left == 0:
		c.settled(c)
	case left < 0:
		panic(fmt.Sprintf("BUG: chunk %s/%d %d..%d settled %d times too often",
			c.Topic, c.Partition, c.First, c.Last, -left))
	}
}

// Free returns the chunk to the pool.
func (c *Chunk) Free() {
	if cap(c.buf) > maxPooledBytes {
		c.buf = nil
	}
	most := max(minPooledEvents, cap(c.buf)/pooledEventBytes)
	if cap(c.Events) > most {
		c.Events = nil
	}
	if cap(c.Rejected) > most {
		c.Rejected = nil
	}
	// Cleared, so that nothing that is freed stays reachable through the pool.
	clear(c.Records)
	clear(c.Events)
	clear(c.Rejected)
	*c = Chunk{
		buf:      c.buf[:0],
		Records:  c.Records[:0],
		Events:   c.Events[:0],
		Rejected: c.Rejected[:0],
	}
	poolFor(cap(c.buf)).Put(c)
}
