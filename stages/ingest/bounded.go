package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

// extent is the part of a partition that a bounded source reads.
type extent struct {
	from int64 // where the group stood when the source was made
	end  int64 // the partition's end then: this offset is not read
}

// NewBounded makes a consumer that reads what its topics hold now, rather than
// for ever: Remaining tells when that is done. A new group starts with what was
// appended since a moment; the zero time is everything. ctx is for asking the
// brokers where that is.
func NewBounded(ctx context.Context, c config.Ingest, since time.Time, connect []kgo.Opt, log *zap.Logger) (*Source, error) {
	start := kgo.NewOffset().AtStart()
	if !since.IsZero() {
		start = kgo.NewOffset().AfterMilli(since.UnixMilli())
	}
	span, err := measureSpan(ctx, c, since, connect)
	if err != nil {
		return nil, err
	}
	s, err := newSource(c, start, connect, log)
	if err != nil {
		return nil, err
	}
	s.span = span
	return s, nil
}

func measureSpan(ctx context.Context, c config.Ingest, since time.Time, connect []kgo.Opt) (map[partition]extent, error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// Committed in the sense of transactions: as far as the consumer will see.
	ends, err := listed(admin.ListCommittedOffsets(ctx, c.Topics...))
	if err != nil {
		return nil, err
	}
	var starts map[partition]int64
	if since.IsZero() {
		starts, err = listed(admin.ListStartOffsets(ctx, c.Topics...))
	} else {
		starts, err = listed(admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), c.Topics...))
	}
	if err != nil {
		return nil, err
	}
	committed, err := committedBy(ctx, admin, c.Group)
	if err != nil {
		return nil, err
	}
	span := make(map[partition]extent, len(ends))
	for p, end := range ends {
		from := starts[p]
		if at, ok := committed[p]; ok {
			from = at
		}
		span[p] = extent{from: min(from, end), end: end}
	}
	return span, nil
}

// whole makes sure of an answer about every partition.
func whole(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for a topic's offsets: %w", err)
	}
	for topic, of := range offsets {
		for number, o := range of {
			switch {
			case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
				return nil, fmt.Errorf("the topic %s does not exist on these brokers", topic)
			case o.Err != nil:
				return nil, fmt.Errorf("asking Kafka for the offsets of %s/%d: %w", topic, number, o.Err)
			}
		}
	}
	return offsets, nil
}

// listed gives the offsets of an answer that is whole.
func listed(offsets kadm.ListedOffsets, err error) (map[partition]int64, error) {
	offsets, err = whole(offsets, err)
	at := make(map[partition]int64)
	for topic, of := range offsets {
		for number, o := range of {
			at[partition{topic, number}] = o.Offset
		}
	}
	return at, err
}

func committedBy(ctx context.Context, admin *kadm.Client, group string) (map[partition]int64, error) {
	offsets, err := admin.FetchOffsets(ctx, group)
	if err == nil {
		err = offsets.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil // it has committed nothing yet
	}
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for the committed offsets of the group %s: %w", group, err)
	}
	at := make(map[partition]int64)
	for topic, of := range offsets {
		for number, o := range of {
			if o.At >= 0 {
				at[partition{topic, number}] = o.At
			}
		}
	}
	return at, nil
}

// Total is how many offsets a bounded source had before it when it was made.
func (s *Source) Total() (n int64) {
	for _, e := range s.span {
		n += e.end - e.from
	}
	return n
}

// Remaining is how many of a bounded source's offsets have no outcome yet: at
// this copy, nor at another one of the same group that has some of the
// partitions, nor have they left the topic meanwhile.
func (s *Source) Remaining(ctx context.Context) (int64, error) {
	admin := kadm.NewClient(s.client)
	at, err := listed(admin.ListStartOffsets(ctx, s.config.Topics...))
	if err != nil {
		return 0, err
	}
	committed, err := committedBy(ctx, admin, s.config.Group)
	if err != nil {
		return 0, err
	}
	var n int64
	for p, e := range s.span {
		// What is marked here counts, too: it is committed a little later.
		n += max(0, e.end-max(e.from, at[p], committed[p], s.marked(p)))
	}
	return n, nil
}

func (s *Source) marked(p partition) int64 {
	s.mu.Lock()
	t := s.trackers[p]
	s.mu.Unlock()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.started {
		return 0 // what is known before is where to start, not what is done
	}
	return t.mark
}

// within cuts off what lies beyond the end of a bounded source, and stops
// fetching there. What is cut off is not tracked, and so is never committed.
func (s *Source) within(p kgo.FetchTopicPartition) []*kgo.Record {
	records := p.Records
	if s.span == nil || len(records) == 0 {
		return records
	}
	end := s.span[partition{p.Topic, p.Partition}].end // 0 for a partition that came later
	if records[len(records)-1].Offset < end-1 {
		return records
	}
	s.client.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
	for len(records) > 0 && records[len(records)-1].Offset >= end {
		records = records[:len(records)-1]
	}
	return records
}
