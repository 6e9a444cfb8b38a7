package replay

import (
	"errors"
	"fmt"
	"strconv"

	"twinegress/internal/event"
)

// letter is what the headers of a dead letter contain.
type letter struct {
	reason    string
	topic     string
	partition int32
	offset    int64
	index     int32  // of an array, or event.NoIndex
	endpoint  string // "" if it was set aside before it was routed
	own       []event.Header
}

// parse reads a letter's headers. Those of sinks/deadletter come first and end
// with `time`; those behind it are the source record's own, and may have the
// same names.
func parse(headers []event.Header) (letter, error) {
	l := letter{offset: -1, partition: -1, index: event.NoIndex}
	for i, h := range headers {
		var err error
		switch value := string(h.Value); h.Key {
		case "reason":
			l.reason = value
		case "topic":
			l.topic = value
		case "partition":
			l.partition, err = number[int32](value, 32)
		case "offset":
			l.offset, err = number[int64](value, 64)
		case "index":
			l.index, err = number[int32](value, 32)
		case "endpoint":
			l.endpoint = value
		case "time":
			l.own = headers[i+1:]
			if l.topic == "" || l.partition < 0 || l.offset < 0 {
				return letter{}, errors.New("the headers topic, partition and offset are not all there")
			}
			return l, nil
		}
		if err != nil {
			return letter{}, fmt.Errorf("header %s: %w", h.Key, err)
		}
	}
	return letter{}, errors.New("the header time is missing")
}

func number[N int32 | int64](s string, bits int) (N, error) {
	n, err := strconv.ParseInt(s, 10, bits)
	if err == nil && n < 0 {
		err = fmt.Errorf("%s is negative", s)
	}
	return N(n), err
}

// origin is the partition that an event came from: its order is kept.
type origin struct {
	topic     string
	partition int32
}

// run is the letters of one chunk with one origin, and the chunk that is made of
// them: order, lanes and message ids depend on its topic and partition.
type run struct {
	letters []letter        // of chunk.Records, one each
	records []*event.Record // the letters themselves
	bytes   int
	chunk   *event.Chunk
}

func (r *run) add(l letter, record *event.Record) {
	r.letters = append(r.letters, l)
	r.records = append(r.records, record)
	r.bytes += len(record.Key) + len(record.Value)
	for _, h := range l.own {
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
		r.chunk.Add(l.offset, r.records[i].Timestamp, 0, r.records[i].Key, r.records[i].Value)
		for _, h := range l.own {
			r.chunk.AddHeader(h.Key, h.Value)
		}
	}
}
