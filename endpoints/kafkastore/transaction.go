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
)

// attempt is one way through what the package comment describes. Without an
// error the batch's answers are true.
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
	// What is on its way to a broker that is silent outlives its context, lest
	// the producer's sequence break. Only closing the client ends it, and with
	// it a wait of which the caller would else not see the end.
	closing := sync.OnceFunc(producer.Close)
	defer closing()
	defer context.AfterFunc(ctx, closing)()

	if _, _, err := producer.ProducerID(ctx); err != nil {
		return fmt.Errorf("asking for the transactional id: %w", because(ctx, err))
	}
	if err := s.catchUp(ctx, producer); err != nil {
		return fmt.Errorf("reading to the end: %w", because(ctx, err))
	}
	if s.decided(b) {
		return nil
	}
	records, err := s.compute(b)
	if err != nil || len(records) == 0 {
		return err
	}
	return s.commit(ctx, producer, b, records)
}

// because adds why a context ended, where an error only says that it did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		return cause
	}
	return err
}

// decided reports whether the transaction of which it wasn't known was
// committed. Whoever asked for the transactional id since knows: what was open
// is closed, and read.
func (s *Store) decided(b *batch) bool {
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

// compute runs the edits of a batch, one upon the other, and gives the records
// that make what is in the topic what comes out.
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

// edited is what a request makes of a set.
func edited(set []endpoints.Endpoint, r *request, o endpoints.Options, now time.Time) (next []endpoints.Endpoint, err error) {
	// It runs on the writer's goroutine: a panic must not end the process over
	// what would be a failed request where it came from.
	if p := panics.Try(func() { next, err = r.edit(endpoints.Clone(set)) }); p != nil {
		return nil, fmt.Errorf("BUG: changing the endpoints: %w", p.AsError())
	}
	if err != nil {
		return nil, err
	}
	return endpoints.Revise(set, next, o, now)
}

// records are the difference between two sets, and what is to be encrypted anew.
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
			created = now.Add(time.Duration(i)) // those of one moment stay in order
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

// commit writes the records in one transaction, and waits until this copy has
// read them. An error after which the batch has a mark leaves open whether they
// are in the topic.
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
		return fmt.Errorf("writing: %w", because(ctx, err))
	}
	s.expect(b, mark)
	s.noted(ctx, producer)
	if err := producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		if errors.Is(err, kerr.OperationNotAttempted) {
			s.forget(b)
			abort(ctx, producer)
		}
		return fmt.Errorf("committing: %w", because(ctx, err))
	}
	last := records[len(records)-1].Offset
	if err := s.await(ctx, func() bool { return s.position > last }); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	// Only what was read back counts, whatever the client says.
	if !s.decided(b) {
		return errNotCommitted
	}
	return nil
}

// errNotCommitted is for a commit that was none, although it was said to be.
var errNotCommitted = errors.New("the transaction was aborted while it was said to be committed")

// noted waits until the client has noted the partition that it wrote to. It may
// get the answer to its first write before that, and what it is told to commit
// then it aborts, without an error (franz-go v1.22.2, storePartitionsUpdate
// stores after it produces).
func (s *Store) noted(ctx context.Context, producer *kgo.Client) {
	for {
		if leader, _, _ := producer.PartitionLeader(s.o.Topic, 0); leader >= 0 || !pause(ctx, time.Millisecond) {
			return
		}
	}
}

// abort ends a transaction that failed, so that nobody has to wait for the
// brokers to do so. They do, if it doesn't work.
func abort(ctx context.Context, producer *kgo.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = producer.EndTransaction(ctx, kgo.TryAbort)
}

// fenced reports whether an error says that another copy asked for the
// transactional id.
func fenced(err error) bool {
	return isOneOf(err, kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping, kerr.InvalidTxnState,
		kerr.ConcurrentTransactions, kerr.TransactionAbortable, kerr.OperationNotAttempted, kerr.UnknownProducerID,
		kerr.TransactionCoordinatorFenced)
}

// refused reports whether this user must not write.
func refused(err error) bool {
	return isOneOf(err, kerr.TopicAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed)
}

func isOneOf(err error, all ...error) bool {
	return slices.ContainsFunc(all, func(one error) bool { return errors.Is(err, one) })
}
