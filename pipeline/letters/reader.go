// Package letters reads the dead-letter topic to look at it: no group, no commits,
// and nothing changes by it.
//
//	Reader   List, Count, Show: one answer each, bounded as Bounds say
//	session  where the topic's partitions begin and end, and one fetch after another
//
// It fetches by itself, without the client's consumer: that one reads ahead, can't
// read backwards, and stops for good at a batch that takes more memory than it may.
package letters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/stages/ingest"
)

// Reader reads the dead-letter topic.
type Reader struct {
	Topic      string
	BatchBytes int64     // no batch that takes more memory is unpacked
	Connect    []kgo.Opt // how the brokers are found
}

// Bounds are of one answer. Zero is none.
type Bounds struct {
	Records int64
	Time    time.Duration
}

// Span is a part of a partition, from one offset to before another.
type Span struct {
	Partition int32
	From, End int64
}

// session is the topic as it is at one time.
type session struct {
	*Reader
	client   *kgo.Client
	unpacker ingest.Unpacker
	topic    kadm.TopicDetail
	spans    []Span // by partition: what is there, of the time that was asked for

	read       int64 // records
	unreadable int64 // offsets in batches that can't be unpacked
	// large are these batches. Who reads backwards comes to one again and again, and
	// the brokers would send all of it each time.
	large []Span
}

// fetchBytes is what a fetch brings at most, unless one batch alone is larger.
const fetchBytes = 1 << 20

// open asks the brokers what there is that was stored since one time and until
// another; the zero time bounds nothing.
func (r *Reader) open(ctx context.Context, since, until time.Time) (*session, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.WithContext(ctx)}, r.Connect...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	s := &session{Reader: r, client: client}
	if err := s.lookUp(ctx, since, until); err != nil {
		client.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() { s.client.Close() }

func (s *session) lookUp(ctx context.Context, since, until time.Time) (err error) {
	if s.unpacker, err = ingest.NewUnpacker(s.BatchBytes); err != nil {
		return fmt.Errorf("unpacking dead letters: %w", err)
	}
	if err := s.client.Ping(ctx); err != nil {
		if ctx.Err() != nil { // the client says that it is closed then
			err = context.Cause(ctx)
		}
		return fmt.Errorf("no Kafka broker answers (check ingest.brokers, ingest.tls and ingest.sasl): %w", err)
	}
	admin := kadm.NewClient(s.client)
	starts, ends, err := Extent(ctx, admin, since, until, s.Topic)
	if err != nil {
		return fmt.Errorf("dead-letter topic (deadLetter.topic): %w", err)
	}
	for number, end := range ends[s.Topic] {
		from := starts[s.Topic][number].Offset
		s.spans = append(s.spans, Span{Partition: number, From: min(from, end.Offset), End: end.Offset})
	}
	return s.findLeaders(ctx)
}

// Extent returns where the partitions of topics begin and end: what was stored since
// one time and until another. The ends are the last stable offsets: a consumer that
// reads what is committed by transactions gets no further.
func Extent(ctx context.Context, admin *kadm.Client, since, until time.Time, topics ...string) (starts, ends kadm.ListedOffsets, err error) {
	if ends, err = ingest.Listed(admin.ListCommittedOffsets(ctx, topics...)); err != nil {
		return nil, nil, err
	}
	if !until.IsZero() {
		later, err := ingest.Listed(admin.ListOffsetsAfterMilli(ctx, until.UnixMilli(), topics...))
		if err != nil {
			return nil, nil, err
		}
		for topic, of := range ends {
			for number, end := range of {
				end.Offset = min(end.Offset, later[topic][number].Offset)
				of[number] = end
			}
		}
	}
	if since.IsZero() {
		starts, err = ingest.Listed(admin.ListStartOffsets(ctx, topics...))
	} else {
		starts, err = ingest.Listed(admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...))
	}
	return starts, ends, err
}

func (s *session) findLeaders(ctx context.Context) error {
	found, err := kadm.NewClient(s.client).Metadata(ctx, s.Topic)
	if err != nil {
		return fmt.Errorf("asking Kafka for the topic %s: %w", s.Topic, err)
	}
	s.topic = found.Topics[s.Topic]
	if s.topic.Err != nil {
		return fmt.Errorf("the topic %s: %w", s.Topic, s.topic.Err)
	}
	return nil
}

// each calls f with the records of a span, in order, until f returns false.
func (s *session) each(ctx context.Context, span Span, f func(*kgo.Record) bool) error {
	for at := span.From; at < span.End; {
		if large, is := s.isLarge(span.Partition, at); is {
			at = large.End
			continue
		}
		records, next, err := s.fetch(ctx, span.Partition, at)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Offset >= span.End {
				return nil
			}
			s.read++
			if !f(r) {
				return nil
			}
		}
		at = next
	}
	return nil
}

// isLarge reports whether an offset is in a batch that can't be unpacked, and which.
func (s *session) isLarge(partition int32, at int64) (Span, bool) {
	for _, large := range s.large {
		if large.Partition == partition && large.From <= at && at < large.End {
			return large, true
		}
	}
	return Span{}, false
}

const (
	// fetchTries is how often a partition is asked for before its error is returned:
	// leaders move, and an answer without a record may be one that came too early.
	fetchTries = 5
	fetchDelay = 200 * time.Millisecond
)

// fetch returns what is at an offset, and the offset behind it. What can't be
// unpacked is stepped over, and counted.
func (s *session) fetch(ctx context.Context, partition int32, at int64) (records []*kgo.Record, next int64, err error) {
	for try := range fetchTries {
		if try > 0 {
			select {
			case <-time.After(fetchDelay):
			case <-ctx.Done():
				return nil, at, ctx.Err()
			}
			if err := s.findLeaders(ctx); err != nil {
				return nil, at, err
			}
		}
		if records, next, err = s.fetchOnce(ctx, partition, at); err == nil && next > at || ctx.Err() != nil {
			return records, next, err
		}
		if err != nil && !kerr.IsRetriable(err) {
			break
		}
	}
	if err == nil {
		err = errors.New("the brokers return nothing")
	}
	return nil, at, fmt.Errorf("reading %s/%d at offset %d: %w", s.Topic, partition, at, err)
}

func (s *session) fetchOnce(ctx context.Context, partition int32, at int64) (records []*kgo.Record, next int64, err error) {
	detail, ok := s.topic.Partitions[partition]
	if !ok || detail.Leader < 0 {
		return nil, at, kerr.LeaderNotAvailable
	}
	asked := kmsg.NewFetchRequestTopicPartition()
	asked.Partition, asked.FetchOffset, asked.PartitionMaxBytes = partition, at, fetchBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID, topic.Partitions = s.Topic, s.topic.ID, append(topic.Partitions, asked)
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 500, 1, fetchBytes
	request.IsolationLevel = 1 // what transactions have committed
	request.Topics = append(request.Topics, topic)
	answer, err := s.client.Broker(int(detail.Leader)).RetriableRequest(ctx, request)
	if err != nil {
		return nil, at, err
	}
	response := answer.(*kmsg.FetchResponse) //nolint:forcetypeassert // to a fetch request
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, at, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, at, nil
	}
	got := &response.Topics[0].Partitions[0]
	s.unpacker.Next()
	of, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: at, IsolationLevel: kgo.ReadCommitted(), Topic: s.Topic, Partition: partition,
	}, got, s.unpacker, nil)
	large, tooLarge := errors.AsType[*kgo.ErrDecompressTooLarge](of.Err)
	switch {
	case tooLarge:
		s.unreadable += large.NextOffset - large.Offset
		s.large = append(s.large, Span{Partition: partition, From: large.Offset, End: large.NextOffset})
		return of.Records, large.NextOffset, nil
	case errors.Is(of.Err, kerr.OffsetOutOfRange) && got.LogStartOffset > at:
		return nil, got.LogStartOffset, nil // the topic's retention has been here
	case of.Err != nil && next == at:
		return nil, at, of.Err
	}
	return of.Records, next, nil
}

// within runs read within bounds of time, and returns what was not seen because of
// them: "" is nothing.
func (r *Reader) within(ctx context.Context, b Bounds, since, until time.Time, read func(context.Context, *session) (cut string, err error)) (cut string, s *session, err error) {
	bounded := ctx
	if b.Time > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, b.Time)
		defer cancel()
	}
	if s, err = r.open(bounded, since, until); err != nil {
		return "", nil, err
	}
	defer s.close()
	cut, err = read(bounded, s)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return fmt.Sprintf("only what could be read in %s was read", b.Time), s, nil
	}
	return cut, s, err
}
