package kafkastore

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// patience is how long the end of a transaction may be missing from what was
// read. It never is, unless compaction took it.
const patience = 100 * time.Millisecond

// consumer reads the topic from an offset on, committed records only, and the
// markers of transactions, by which it shows how far the topic has got.
func (s *Store) consumer(from kgo.Offset, options ...kgo.Opt) (*kgo.Client, error) {
	return s.client(append(options,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.o.Topic: {0: from}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // the topic was deleted, and made again
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
	)...)
}

// next is where following goes on.
func (s *Store) next() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position
}

// reader collects what a consumer reads until it can be put in force: whole
// transactions.
type reader struct {
	next  int64                  // the offset behind what was read
	last  map[string]*kgo.Record // of each key
	marks map[string]bool        // of the transactions
	open  bool                   // the last record belongs to one whose end wasn't read
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

// readAll reads the topic to its end, from its start or from where it was read
// to before, and puts it in force.
func (s *Store) readAll(ctx context.Context) error {
	// What else is fetched waits behind the consumer's own fetch.
	from := s.next()
	consumer, err := s.consumer(kgo.NewOffset().At(from), kgo.FetchMaxWait(patience))
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
		// Records come at once, if there are any.
		polling, cancel := context.WithTimeout(ctx, patience)
		fetches := consumer.PollFetches(polling)
		late := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fetches.EachRecord(r.add)
		if !fetches.Empty() {
			continue
		}
		if err := fetches.Err(); err != nil && !late {
			return err
		}
		if nothing, err := s.nothingFrom(ctx, consumer, r.next); err != nil {
			return err
		} else if nothing {
			break
		}
	}
	r.next = max(r.next, end)
	s.putInForce(&r)
	return nil
}

// follow puts in force whatever comes, until ctx ends.
func (s *Store) follow(ctx context.Context, consumer *kgo.Client) {
	r := reader{next: s.next()}
	for {
		polling, cancel := ctx, context.CancelFunc(func() {})
		if r.open {
			polling, cancel = context.WithTimeout(ctx, patience)
		}
		fetches := consumer.PollFetches(polling)
		late := polling.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		fetches.EachRecord(r.add)
		if r.last != nil && (!r.open || late) {
			if r.reset {
				s.o.Logger.Error("the endpoints topic began anew: what it holds now is in force", zap.String("topic", s.o.Topic))
			}
			s.putInForce(&r)
			r = reader{next: r.next}
		}
		if late {
			continue
		}
		if err := fetches.Err(); err != nil {
			s.o.Logger.Error("following the endpoints topic: what is in force stays, and changes are not seen until this is over",
				zap.String("topic", s.o.Topic), zap.Error(err))
			pause(ctx, retryDelay)
		}
	}
}

// putInForce makes what was read the set in force.
func (s *Store) putInForce(r *reader) {
	newer := decodeAll(r.last, s.o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.reset || s.table == nil {
		s.table = make(table)
	}
	for _, problem := range s.table.take(newer) {
		s.o.Logger.Error("a record of the endpoints topic can't be read: the endpoint stays as it was, if there was one",
			zap.String("topic", s.o.Topic), zap.String("problem", problem))
	}
	if len(newer) > 0 || r.reset { // else it was markers only
		set, conflicts := s.table.set()
		for _, conflict := range conflicts {
			s.o.Logger.Error("an endpoint in the topic is not in force: it can't be beside another; delete the other, or take this one's record out by hand",
				zap.String("topic", s.o.Topic), zap.String("problem", conflict))
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

// await waits until done, which is called with s.mu held, says so.
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

// catchUp waits until everything that the topic holds now is in force.
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
		nothing, err := s.nothingFrom(ctx, client, position)
		if err != nil {
			return err
		}
		if nothing {
			return nil
		}
	}
	return s.await(ctx, func() bool { return s.position >= end })
}
