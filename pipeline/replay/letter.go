package replay

import (
	"errors"
	"fmt"
	"strconv"

	"twinegress/internal/event"
)

// letter is what the headers of a dead letter say.
type letter struct {
	reason    string
	topic     string
	partition int32
	offset    int64
	index     int32  // of an array, or event.NoIndex
	endpoint  string // "" where it was set aside before it was routed
	own       []event.Header
}

// parse reads a letter's headers. Those of sinks/deadletter come first and end
// with `time`; what is behind them is the source record's own, and may well
// have the same names.
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

// place is where an event came from: its order is that of its source partition.
type place struct {
	topic     string
	partition int32
}

// run is the letters of one chunk that came from one source partition, in a
// chunk that says so: order, lanes and message ids go by it.
type run struct {
	letters []letter // of chunk.Records, one each
	from    []*event.Record
	bytes   int
	chunk   *event.Chunk
}

func (r *run) add(l letter, from *event.Record) {
	r.letters = append(r.letters, l)
	r.from = append(r.from, from)
	r.bytes += len(from.Key) + len(from.Value)
	for _, h := range l.own {
		r.bytes += len(h.Value)
	}
}

// rebuild makes the run's chunk: the records as they were before they were set
// aside. It takes one count of the chunk that the letters came in, and gives
// it up once its own chunk is settled.
func (r *run) rebuild(at place, letters *event.Chunk) {
	letters.Hold(1)
	r.chunk = event.NewChunk(at.topic, at.partition, len(r.letters), r.bytes, func(c *event.Chunk) {
		c.Free()
		letters.Settle(1)
	})
	for i, l := range r.letters {
		r.chunk.Add(l.offset, r.from[i].Timestamp, 0, r.from[i].Key, r.from[i].Value)
		for _, h := range l.own {
			r.chunk.AddHeader(h.Key, h.Value)
		}
	}
}
