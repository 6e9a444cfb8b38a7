package kafkastore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/kafka"
)

const (
	// attemptTimeout bounds one attempt to write, from initialising the
	// transactional id to reading back. A silent replica delays a write until the
	// cluster removes it from the in-sync ones, after 9 s by default.
	attemptTimeout = 20 * time.Second
	// transactionTimeout is when the brokers abort the open transaction of a copy
	// that died, if no other copy fences it before.
	transactionTimeout = 30 * time.Second
	// maxBatch bounds the changes in one transaction.
	maxBatch = 256
	// minPause and maxPause bound the pause after a failed attempt.
	minPause, maxPause = 50 * time.Millisecond, 2 * time.Second
	// maxYield bounds the shortest time for which yield waits.
	maxYield = 4 * time.Second
)

// batch is a set of changes in one transaction.
type batch struct {
	requests []*request
	reseal   bool // also encrypts stale secrets again
	// answers are the results computed for each request, valid after the commit.
	answers map[*request]answer
	// mark identifies the transaction with an unknown outcome that has these
	// answers; empty: there is none.
	mark string
}

// writeAll writes one batch after the other, until ctx ends.
func (s *Store) writeAll(ctx context.Context) {
	s.reseal(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.requests:
			s.write(ctx, &batch{requests: []*request{r}})
		}
	}
}

// reseal encrypts secrets again that aren't encrypted with the newest key, so that a
// restart of every copy completes a rotation.
func (s *Store) reseal(ctx context.Context) {
	for done := false; ; done = true {
		s.mu.Lock()
		stale := len(s.table.stale())
		s.mu.Unlock()
		if stale == 0 && done {
			s.o.Logger.Info("every secret in the endpoints topic is encrypted with the newest key of endpoints.secretsKeyFile now",
				zap.String("topic", s.o.Topic))
		}
		if stale == 0 || !s.write(ctx, &batch{reseal: true}) {
			return
		}
	}
}

// write writes a batch, to which it adds requests that come while it retries, and
// answers them. It retries until it succeeds, no request is left, or ctx ends, and
// reports whether it succeeded.
func (s *Store) write(ctx context.Context, b *batch) bool {
	for delay := minPause; ; delay = min(2*delay, maxPause) {
		s.collect(b)
		if len(b.requests) == 0 && !b.reseal {
			return false
		}
		known, begun := b.mark == "", time.Now()
		err := s.attempt(ctx, b)
		s.mu.Lock()
		s.failure = err
		s.mu.Unlock()
		switch {
		case err == nil:
			b.finish(nil)
			return true
		case ctx.Err() != nil:
			return false
		case known && b.mark != "":
			s.o.Logger.Warn("a change may be in the endpoints topic or not: finding out", zap.String("topic", s.o.Topic), zap.Error(err))
		case fenced(err):
			s.o.Logger.Debug("another copy changes the endpoints at the same time: trying again", zap.Error(err))
		case unauthorized(err):
			b.finish(fmt.Errorf("%w: %w (needed: %s)", endpoints.ErrReadOnly, s.named(err), s.neededRight(err)))
			return false
		case permanent(err):
			b.finish(s.named(err))
			return false
		default:
			s.o.Logger.Warn("the endpoints topic can't be written: trying again", zap.String("topic", s.o.Topic), zap.Error(err))
		}
		if fenced(err) {
			s.yield(ctx, time.Since(begun))
		}
		if !kafka.Pause(ctx, rand.N(delay)) {
			return false
		}
	}
}

// yield waits for a change by the copy that fenced this one: fencing it at once would
// abort its attempt, and where an attempt takes seconds, as while a broker is
// frozen, copies would abort each other for ever. If no change comes, it waits one
// to three times as long as the attempt took.
func (s *Store) yield(ctx context.Context, took time.Duration) {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	took = max(minPause, min(took, maxYield))
	timer := time.NewTimer(took + rand.N(2*took))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (s *Store) named(err error) error { return fmt.Errorf("endpoints topic %s: %w", s.o.Topic, err) }

// collect removes the requests whose callers have returned, and adds those that
// wait. It doesn't change a batch with an unknown outcome.
func (s *Store) collect(b *batch) {
	if b.mark != "" {
		return
	}
	for _, r := range b.requests {
		r.release()
	}
	b.requests = slices.DeleteFunc(b.requests, func(r *request) bool { return r.ctx.Err() != nil })
	for len(b.requests) < maxBatch {
		select {
		case r := <-s.requests:
			b.requests = append(b.requests, r)
		default:
			return
		}
	}
}

// finish answers every request with its computed answer, or with an error.
func (b *batch) finish(err error) {
	for _, r := range b.requests {
		a, computed := b.answers[r]
		switch {
		case err != nil && b.mark != "":
			a = answer{err: fmt.Errorf("%w: %w", endpoints.ErrUnknown, err)}
		case err != nil:
			a = answer{err: err}
		case !computed:
			a = answer{err: context.Cause(r.ctx)} // its caller has returned
		}
		r.answer <- a
	}
}
