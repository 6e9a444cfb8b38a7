package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/pipeline/letters"
	"twinegress/stages/ingest"
)

// Backlog reads the dead letters that the topic holds at the start, and none
// that come later. It is a source that ends: Remaining reports when.
type Backlog struct {
	*ingest.Source
	extents map[string]map[int32]extent // by topic and partition
	group   string
	connect []kgo.Opt
	log     *zap.Logger
}

// extent is the part of a partition that is read.
type extent struct {
	start int64 // of the selection
	from  int64 // where the group stood at the start
	end   int64 // the partition's end at the start: this offset is not read
}

// OpenBacklog asks the brokers, until ctx ends, what is to be read, and returns
// a source of it: what was stored since one time and until another, the zero time
// bounds nothing. A group goes on where it stood.
func OpenBacklog(ctx context.Context, c config.Ingest, since, until time.Time, connect []kgo.Opt, log *zap.Logger) (*Backlog, error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	defer client.Close()
	b := &Backlog{group: c.Group, connect: connect, log: log}
	var ends kadm.ListedOffsets
	if b.extents, ends, err = askExtents(ctx, kadm.NewClient(client), c, since, until); err != nil {
		return nil, err
	}
	start := kgo.NewOffset().AtStart()
	if !since.IsZero() {
		start = kgo.NewOffset().AfterMilli(since.UnixMilli())
	}
	b.Source, err = ingest.NewBounded(c, start, ends.Offsets(), connect, log) //nolint:contextcheck // it outlives the call; Close ends it
	return b, err
}

// askExtents asks the brokers what there is for a group.
func askExtents(ctx context.Context, admin *kadm.Client, c config.Ingest, since, until time.Time) (map[string]map[int32]extent, kadm.ListedOffsets, error) {
	starts, ends, err := letters.Extent(ctx, admin, since, until, c.Topics...)
	if err != nil {
		return nil, nil, err
	}
	committed, err := ingest.Committed(ctx, admin, c.Group)
	if err != nil {
		return nil, nil, err
	}
	extents := make(map[string]map[int32]extent)
	for topic, of := range ends {
		extents[topic] = make(map[int32]extent)
		for number, end := range of {
			start := min(starts[topic][number].Offset, end.Offset)
			from := start
			if o, ok := committed.Lookup(topic, number); ok {
				from = min(o.At, end.Offset)
			}
			extents[topic][number] = extent{start: start, from: from, end: end.Offset}
		}
	}
	return extents, ends, nil
}

// Total returns how many offsets there were to read at the start.
func (b *Backlog) Total() (n int64) {
	for _, of := range b.extents {
		for _, e := range of {
			n += e.end - e.from
		}
	}
	return n
}

// Remaining returns how many of these offsets are neither resolved, here or in
// another process of the same group, nor gone from the topic.
func (b *Backlog) Remaining(ctx context.Context) (int64, error) {
	resolved, err := b.Resolved(ctx)
	if err != nil {
		return 0, err
	}
	var n int64
	for topic, of := range b.extents {
		for number, e := range of {
			n += max(0, e.end-max(e.from, resolved[topic][number].At))
		}
	}
	return n, nil
}
