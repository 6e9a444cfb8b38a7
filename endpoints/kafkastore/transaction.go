package kafkastore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/panics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/kafka"
)

// attempt makes one attempt to write a batch, as the package comment describes. If
// it returns nil, the batch's answers are valid.
func (s *Store) attempt(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTimeout, errors.New("the brokers took too long"))
	defer cancel()
	producer, err := s.client(
		kgo.TransactionalID(s.o.Topic+"-writer"),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DefaultProduceTopic(s.o.Topic),
		kgo.ProducerLinger(0),
		kgo.ProduceRequestTimeout(requestTimeout),
		kgo.WithContext(ctx),
	)
	if err != nil {
		return err
	}
	// A record in flight to a silent broker outlives its context, so that the
	// producer's sequence stays intact. Only closing the client ends the wait for
	// it.
	closing := sync.OnceFunc(producer.Close)
	defer closing()
	defer context.AfterFunc(ctx, closing)()

	if _, _, err := producer.ProducerID(ctx); err != nil {
		return fmt.Errorf("asking for the transactional id: %w", causeOf(ctx, err))
	}
	if err := s.catchUp(ctx, producer); err != nil {
		return fmt.Errorf("reading to the end: %w", causeOf(ctx, err))
	}
	if s.wasCommitted(b) {
		return nil
	}
	records, err := s.compute(b)
	if err != nil || len(records) == 0 {
		return err
	}
	return s.commit(ctx, producer, b, records)
}

// causeOf returns the cause of ctx's end if err is ctx's error, else err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		return cause
	}
	return err
}

// wasCommitted reports whether the batch's transaction with an unknown outcome was
// committed. The transactional id must have been initialised since, and the topic
// read: then the transaction is closed.
func (s *Store) wasCommitted(b *batch) bool {
	if b.mark == "" {
		return false
	}
	s.mu.Lock()
	committed := s.expected[b.mark]
	s.mu.Unlock()
	s.forget(b)
	return committed
}

func (s *Store) expect(b *batch, mark string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.mark = mark
	s.expected[mark] = false
}

func (s *Store) forget(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.expected, b.mark)
	b.mark = ""
}

// compute runs the edits of a batch, each on the result of the one before, and
// returns the records that change the topic to the last result.
func (s *Store) compute(b *batch) ([]*kgo.Record, error) {
	s.mu.Lock()
	err := s.table.hidden()
	s.mu.Unlock()
	if err != nil {
		return nil, &configError{err.Error()}
	}
	before, now := s.live.Current(), time.Now()
	set := before
	b.answers = make(map[*request]answer, len(b.requests))
	for _, r := range b.requests {
		r.claim(func() {
			next, err := edited(set, r, s.o.Options, now)
			b.answers[r] = answer{next, err}
			if err == nil {
				set = next
			}
		})
	}
	return s.records(b, before, set, now)
}

// edited returns the set that a request's edit makes of a set.
func edited(set []endpoints.Endpoint, r *request, o endpoints.Options, now time.Time) (next []endpoints.Endpoint, err error) {
	// It runs on the writer's goroutine, where a panic would end the process; on
	// the caller's it would fail one request.
	if p := panics.Try(func() { next, err = r.edit(endpoints.Clone(set)) }); p != nil {
		return nil, fmt.Errorf("BUG: changing the endpoints: %w", p.AsError())
	}
	if err != nil {
		return nil, err
	}
	return endpoints.Revise(set, next, o, now)
}

// records returns the difference between two sets, and for a batch that reseals the
// stale endpoints.
func (s *Store) records(b *batch, before, after []endpoints.Endpoint, now time.Time) ([]*kgo.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var records []*kgo.Record
	box := s.o.Keyring.Box(nil)
	written := make(map[string]bool)
	put := func(e endpoints.Endpoint, created time.Time) error {
		value, err := endpoints.Encode(e, box.Seal)
		if err != nil {
			return err
		}
		written[e.ID] = true
		records = append(records, &kgo.Record{
			Key: []byte(e.ID), Value: value,
			Headers: []kgo.RecordHeader{{Key: createdHeader, Value: []byte(created.UTC().Format(time.RFC3339Nano))}},
		})
		return nil
	}
	was, is := make(map[string]endpoints.Endpoint, len(before)), make(map[string]bool, len(after))
	for _, e := range before {
		was[e.ID] = e
	}
	for i, e := range after {
		is[e.ID] = true
		old, known := was[e.ID]
		if known && len(endpoints.Diff(old, e).Fields) == 0 {
			continue
		}
		created := s.table[e.ID].created
		if !known {
			created = now.Add(time.Duration(i)) // keeps the order of those created at once
		}
		if err := put(e, created); err != nil {
			return nil, err
		}
	}
	for _, e := range before {
		if !is[e.ID] {
			written[e.ID] = true
			records = append(records, &kgo.Record{Key: []byte(e.ID)})
		}
	}
	if b.reseal {
		stale := s.table.stale()
		for _, old := range stale[:min(len(stale), maxBatch)] {
			if written[old.endpoint.ID] {
				continue
			}
			if err := put(old.endpoint, old.created); err != nil {
				return nil, err
			}
		}
	}
	return records, nil
}

// commit writes the records in one transaction, and blocks until this copy has read
// them. If it returns an error and the batch has a mark, the outcome is unknown.
func (s *Store) commit(ctx context.Context, producer *kgo.Client, b *batch, records []*kgo.Record) error {
	mark := uuid.NewString()
	for _, r := range records {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: markHeader, Value: []byte(mark)})
	}
	if err := producer.BeginTransaction(); err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	results := producer.ProduceSync(ctx, records...)
	if err := results.FirstErr(); err != nil {
		abort(ctx, producer)
		return fmt.Errorf("writing: %w", causeOf(ctx, err))
	}
	s.expect(b, mark)
	s.awaitPartition(ctx, producer)
	if err := producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		if errors.Is(err, kerr.OperationNotAttempted) {
			s.forget(b)
			abort(ctx, producer)
		}
		return fmt.Errorf("committing: %w", causeOf(ctx, err))
	}
	last := records[len(records)-1].Offset
	if err := s.await(ctx, func() bool { return s.position > last }); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	// Only what was read back counts, not the client's result.
	if !s.wasCommitted(b) {
		return errNotCommitted
	}
	return nil
}

// errNotCommitted means that the client reported a commit, but the transaction was
// aborted.
var errNotCommitted = errors.New("the transaction was aborted while it was said to be committed")

// awaitPartition blocks until the client has stored the partition that it wrote to.
// The reply to its first write may come before that, and then it aborts instead of
// committing, without an error (franz-go v1.22.2: storePartitionsUpdate stores
// after it produces).
func (s *Store) awaitPartition(ctx context.Context, producer *kgo.Client) {
	for {
		if leader, _, _ := producer.PartitionLeader(s.o.Topic, 0); leader >= 0 || !kafka.Pause(ctx, time.Millisecond) {
			return
		}
	}
}

// abort aborts a failed transaction, so that no copy waits for the brokers' time-out
// of it. If abort fails, they time it out.
func abort(ctx context.Context, producer *kgo.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = producer.EndTransaction(ctx, kgo.TryAbort)
}

// fenced reports whether an error means that another copy initialised the
// transactional id.
func fenced(err error) bool {
	return isOneOf(err, kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping, kerr.InvalidTxnState,
		kerr.ConcurrentTransactions, kerr.TransactionAbortable, kerr.OperationNotAttempted, kerr.UnknownProducerID,
		kerr.TransactionCoordinatorFenced)
}

// unauthorized reports whether an error means that this user must not write.
func unauthorized(err error) bool {
	return isOneOf(err, kerr.TopicAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed)
}

// neededRight returns the right that is missing after such an error.
func (s *Store) neededRight(err error) string {
	switch {
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return "Write and Describe on the transactional id " + s.o.Topic + "-writer"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "IdempotentWrite on the cluster, before Kafka 3.0"
	}
	return "Read and Write on the topic"
}

func isOneOf(err error, all ...error) bool {
	return slices.ContainsFunc(all, func(one error) bool { return errors.Is(err, one) })
}
