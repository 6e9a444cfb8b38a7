package replay

import (
	"twinegress/internal/event"
	"twinegress/sinks/deadletter"
)

// origin is the partition that an event came from: its order is kept.
type origin struct {
	topic     string
	partition int32
}

// run is the letters of one chunk with one origin, and the chunk that is made of
// them: order, lanes and message ids depend on its topic and partition.
type run struct {
	letters []deadletter.Letter // of chunk.Records, one each
	records []*event.Record     // the letters themselves
	bytes   int
	chunk   *event.Chunk
}

func (r *run) add(l deadletter.Letter, record *event.Record) {
	r.letters = append(r.letters, l)
	r.records = append(r.records, record)
	r.bytes += len(record.Key) + len(record.Value)
	for _, h := range l.Own {
		r.bytes += len(h.Value)
	}
}

// rebuild makes the run's chunk: the records as they were before they were set
// aside. It holds one count of the letters' chunk until its own chunk is settled.
func (r *run) rebuild(from origin, letters *event.Chunk) {
	letters.Hold(1)
	r.chunk = event.NewChunk(from.topic, from.partition, len(r.letters), r.bytes, func(c *event.Chunk) {
		c.Free()
		letters.Settle(1)
	})
	for i, l := range r.letters {
		r.chunk.Add(l.Offset, r.records[i].Timestamp, 0, r.records[i].Key, r.records[i].Value)
		for _, h := range l.Own {
			r.chunk.AddHeader(h.Key, h.Value)
		}
	}
}
