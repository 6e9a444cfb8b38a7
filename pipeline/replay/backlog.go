package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/stages/ingest"
)

// Backlog reads the dead letters that the topic holds at the start, and none
// that come later. It is a source that ends: Remaining reports when.
type Backlog struct {
	*ingest.Source
	extents map[string]map[int32]extent // by topic and partition
}

// extent is the part of a partition that is read.
type extent struct {
	from int64 // where the group stood at the start
	end  int64 // the partition's end at the start: this offset is not read
}

// OpenBacklog asks the brokers, until ctx ends, what is to be read, and returns
// a source of it. A new group starts with what was appended since a moment; the
// zero time means everything.
func OpenBacklog(ctx context.Context, c config.Ingest, since time.Time, connect []kgo.Opt, log *zap.Logger) (*Backlog, error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	// The last stable offsets: a consumer that reads what is committed by
	// transactions gets no further.
	ends, err := ingest.Listed(admin.ListCommittedOffsets(ctx, c.Topics...))
	if err != nil {
		return nil, err
	}
	start := kgo.NewOffset().AtStart()
	var starts kadm.ListedOffsets
	if since.IsZero() {
		starts, err = ingest.Listed(admin.ListStartOffsets(ctx, c.Topics...))
	} else {
		start = kgo.NewOffset().AfterMilli(since.UnixMilli())
		starts, err = ingest.Listed(admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), c.Topics...))
	}
	if err != nil {
		return nil, err
	}
	committed, err := ingest.Committed(ctx, admin, c.Group)
	if err != nil {
		return nil, err
	}
	b := &Backlog{extents: make(map[string]map[int32]extent)}
	for topic, of := range ends {
		b.extents[topic] = make(map[int32]extent)
		for number, end := range of {
			from := starts[topic][number].Offset
			if o, ok := committed.Lookup(topic, number); ok {
				from = o.At
			}
			b.extents[topic][number] = extent{from: min(from, end.Offset), end: end.Offset}
		}
	}
	b.Source, err = ingest.NewBounded(c, start, ends.Offsets(), connect, log) //nolint:contextcheck // it outlives the call; Close ends it
	return b, err
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
