package kafkastore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/kafka"
)

// markerTimeout is how long follow waits for the marker that ends a transaction,
// which only compaction can have removed.
const markerTimeout = 100 * time.Millisecond

// consumer returns a client that reads the topic from an offset: committed records,
// and the markers of transactions, which show the end of the topic.
func (s *Store) consumer(from kgo.Offset, options ...kgo.Opt) (*kgo.Client, error) {
	sparing, err := kafka.Sparing(maxUnpacked)
	if err != nil {
		return nil, err
	}
	return s.client(append(options,
		sparing, kgo.FetchMaxBytes(maxFetch), kgo.FetchMaxPartitionBytes(maxFetch),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.o.Topic: {0: from}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // the topic was deleted and created again
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
	)...)
}

// maxFetch bounds what one fetch brings, unless one batch alone is larger, and
// maxUnpacked what a batch unpacks to: a store's own has a megabyte at most.
const maxFetch, maxUnpacked = 256 << 10, 16 << 20

// skip moves the consumer past a batch that takes too much memory, and reports whether
// there is one: whoever wrote it is no store.
func (s *Store) skip(consumer *kgo.Client, r *reader, fetches kgo.Fetches) (skipped bool) {
	fetches.EachError(func(topic string, partition int32, err error) {
		batch, is := errors.AsType[*kgo.ErrDecompressTooLarge](err)
		if !is {
			return
		}
		skipped = true
		r.next = max(r.next, batch.NextOffset)
		if r.last == nil { // as far as this the topic is read: a change may wait for it
			r.last, r.marks = make(map[string]*kgo.Record), make(map[string]bool)
		}
		consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {partition: {Epoch: batch.Epoch, Offset: batch.NextOffset}}})
		s.o.Logger.Error("a batch of the endpoints topic is passed over: it takes more memory than one may",
			zap.String("topic", topic), zap.Int64("first", batch.Offset), zap.Int64("last", batch.NextOffset-1))
	})
	return skipped
}

// next returns the offset at which to continue.
func (s *Store) next() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position
}

// reader collects records until they are whole transactions.
type reader struct {
	next  int64                  // the offset after the last record
	last  map[string]*kgo.Record // of each key
	marks map[string]bool        // of the transactions
	open  bool                   // the last record's transaction wasn't read to its end
	reset bool                   // the topic began again at an earlier offset
}

func (r *reader) add(record *kgo.Record) {
	if record.Offset < r.next {
		*r = reader{reset: true}
	}
	if r.last == nil {
		r.last, r.marks = make(map[string]*kgo.Record), make(map[string]bool)
	}
	r.next = record.Offset + 1
	r.open = record.Attrs.IsTransactional() && !record.Attrs.IsControl()
	if record.Attrs.IsControl() {
		return
	}
	r.last[string(record.Key)] = record
	if mark := header(record, markHeader); mark != "" {
		r.marks[mark] = true
	}
}

// readAll reads the topic from the last position to its end, and puts it in force.
func (s *Store) readAll(ctx context.Context) error {
	// Other requests wait until the consumer's own fetch returns.
	from := s.next()
	consumer, err := s.consumer(kgo.NewOffset().At(from), kgo.FetchMaxWait(markerTimeout))
	if err != nil {
		return err
	}
	defer consumer.Close()
	admin := kadm.NewClient(consumer)
	end, err := s.end(ctx, admin)
	if err != nil {
		return err
	}
	r := reader{next: from}
	for r.next < end {
		// If there are records, they come at once.
		polling, cancel := context.WithTimeout(ctx, markerTimeout)
		fetches := consumer.PollFetches(polling)
		late := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fetches.EachRecord(r.add)
		if s.skip(consumer, &r, fetches) || !fetches.Empty() {
			continue
		}
		if err := fetches.Err(); err != nil && !late {
			return err
		}
		if nothing, err := s.emptyFrom(ctx, consumer, r.next); err != nil {
			return err
		} else if nothing {
			break
		}
	}
	r.next = max(r.next, end)
	s.putInForce(&r)
	return nil
}

// follow puts new records in force until ctx ends.
func (s *Store) follow(ctx context.Context, consumer *kgo.Client) {
	r := reader{next: s.next()}
	for {
		polling, cancel := ctx, context.CancelFunc(func() {})
		if r.open {
			polling, cancel = context.WithTimeout(ctx, markerTimeout)
		}
		fetches := consumer.PollFetches(polling)
		late := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		fetches.EachRecord(r.add)
		skipped := s.skip(consumer, &r, fetches)
		if r.last != nil && (!r.open || late) {
			if r.reset {
				s.o.Logger.Error("the endpoints topic began anew: what it holds now is in force", zap.String("topic", s.o.Topic))
			}
			s.putInForce(&r)
			r = reader{next: r.next}
		}
		if skipped || late {
			continue
		}
		if err := fetches.Err(); err != nil {
			s.o.Logger.Error("following the endpoints topic: what is in force stays, and changes are not seen until this is over",
				zap.String("topic", s.o.Topic), zap.Error(err))
			kafka.Pause(ctx, retryDelay)
		}
	}
}

// putInForce applies what was read to the table, and puts its set in force.
func (s *Store) putInForce(r *reader) {
	newer := decodeAll(r.last, s.o)
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.table == nil
	if r.reset || first {
		s.table = make(table)
	}
	for _, problem := range firstOf(s.table.apply(newer)) {
		s.o.Logger.Error("a record of the endpoints topic can't be read: the endpoint stays as it was, if there was one",
			zap.String("topic", s.o.Topic), zap.String("problem", problem))
	}
	if len(newer) > 0 || r.reset { // not only markers
		set, conflicts := s.table.set()
		for _, conflict := range firstOf(conflicts) {
			s.o.Logger.Error("an endpoint in the topic is not in force: it can't be beside another; delete the other, or take this one's record out by hand",
				zap.String("topic", s.o.Topic), zap.String("problem", conflict))
		}
		if !first {
			s.audit(s.live.Current(), set, r.last)
		}
		s.live.Put(set)
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.position = r.next
	for mark := range s.expected {
		s.expected[mark] = s.expected[mark] || r.marks[mark]
	}
	close(s.moved)
	s.moved = make(chan struct{})
}

// await blocks until done returns true, or ctx ends. done is called with s.mu held.
func (s *Store) await(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, moved := done(), s.moved
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// catchUp blocks until everything in the topic at this moment is in force.
func (s *Store) catchUp(ctx context.Context, client *kgo.Client) error {
	end, err := s.end(ctx, kadm.NewClient(client))
	if err != nil {
		return err
	}
	position := s.next()
	switch {
	case end < position:
		return &configError{fmt.Sprintf("the topic ends at offset %d, and was read up to %d before: it has lost records, "+
			"or was made anew; restart this process to take over what it holds now", end, position)}
	case end > position:
		nothing, err := s.emptyFrom(ctx, client, position)
		if err != nil {
			return err
		}
		if nothing {
			return nil
		}
	}
	return s.await(ctx, func() bool { return s.position >= end })
}
