package catchup

import (
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
)

// This file counts what is read and has no outcome: it is in memory, and a partition
// can't change lanes meanwhile.

// reserve returns how many bytes may be fetched, and how many in memory are counted for
// them until received is called; none: when to try again.
func (r *Reader) reserve(c *client) (ask int32, memory int64, later next) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var wait time.Duration
	now := time.Now()
	if wait, r.waits = r.pace.wait(now); wait > 0 {
		return 0, 0, next{due: now.Add(wait)}
	}
	inFlight := r.inFlight.Load()
	room := r.share - inFlight
	ask, memory = c.size(min(r.fetchMemory, max(room, 0)))
	if !r.admits(memory, inFlight) {
		return 0, 0, next{wants: memory}
	}
	r.inFlight.Add(memory)
	return ask, memory, next{}
}

// admits reports whether a fetch that takes so much memory may begin beside what is in
// flight. One may take more than there is room for while half of the room is left: where
// a fetch is larger than all of it, an endpoint that keeps a little for long would else
// hold up all others.
func (r *Reader) admits(memory, inFlight int64) bool {
	room := r.share - inFlight
	return memory <= room || room > r.share/2
}

// received counts what a fetch has brought instead of what was reserved, and puts it
// behind the window. It returns false if the partition isn't owned any more.
func (r *Reader) received(p *reading, f *fetched, reserved int64) (owned bool) {
	records, bytes := 0, int64(0)
	for _, c := range f.chunks {
		records += len(c.Records)
		bytes += c.Bytes()
	}
	r.inFlight.Add(bytes - reserved)
	r.o.Source.Acquire(bytes)
	r.records.Add(int64(records))
	if f.tooLarge > 0 {
		r.tooLarge.Add(f.tooLarge)
		r.o.Log.Warn("offsets are passed over for endpoints that are behind, too: their batch takes more memory than ingest.limits.batchBytes allows, or can't be unpacked",
			zap.String("topic", p.owned.Topic), zap.Int32("partition", p.owned.Partition),
			zap.Int64("first", f.next-f.tooLarge), zap.Int64("last", f.next-1))
	}
	r.mu.Lock()
	r.pace.take(records)
	r.mu.Unlock()
	chunks := f.chunks
	if last := len(chunks) - 1; f.next > p.at && (last < 0 || chunks[last].Last < f.next-1) {
		// What is behind the last record has no event, and endpoints have to get past it.
		chunks = append(chunks, event.NewChunk(p.owned.Topic, p.owned.Partition, 0, 0, r.settled))
		bytes := chunks[last+1].Bytes()
		r.inFlight.Add(bytes)
		r.o.Source.Acquire(bytes)
		chunks[last+1].Owned, chunks[last+1].Last = p.owned, f.next-1
	}
	for i, c := range chunks {
		lane, ok := r.o.Source.TakeLane(p.owned)
		if !ok {
			for _, c := range chunks[i:] {
				r.free(c)
			}
			p.cancel()
			return false
		}
		c.Lane, c.Grew, c.First = lane, r.grew, p.at
		p.window = append(p.window, piece{chunk: c, from: p.at, to: c.Last + 1})
		p.at = c.Last + 1
	}
	return true
}

// grow counts what decoding has added to a chunk.
func (r *Reader) grow(bytes int64) {
	r.inFlight.Add(bytes)
	r.o.Source.Acquire(bytes)
}

// handed is the Seq of chunks of which somebody was given something.
const handed = 1

// hand counts that somebody was given events of a chunk.
func (r *Reader) hand(c *event.Chunk, events int) {
	c.Grow(int64(events) * copyBytes)
	if c.Seq != handed {
		c.Seq = handed
		r.outstanding.Add(1)
	}
}

// settle is called by a chunk when all that were given events of it have an outcome for
// each, and the window doesn't have it any more.
func (r *Reader) settle(c *event.Chunk) {
	o := c.Owned
	r.free(c)
	r.o.Source.ReturnLane(o)
}

func (r *Reader) free(c *event.Chunk) {
	bytes := c.Bytes()
	if c.Seq == handed {
		r.outstanding.Add(-1)
	}
	c.Free()
	r.inFlight.Add(-bytes)
	r.o.Source.Return(bytes)
	if r.hungry.Load() {
		signal(r.wake)
	}
}
