package kafkastore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
)

const (
	// attemptTimeout bounds one attempt to write, from asking for the
	// transactional id to reading back. A replica that is gone without a word
	// holds a write up until the cluster counts it out, which takes 9 s by default.
	attemptTimeout = 20 * time.Second
	// transactionTimeout is when the brokers abort what a copy that died left
	// open, if no other copy asks for the id before.
	transactionTimeout = 30 * time.Second
	// maxBatch is how many changes share a transaction.
	maxBatch = 256
	// Between attempts that fail.
	minPause, maxPause = 50 * time.Millisecond, 2 * time.Second
	// maxTurn is how long another copy that took the transactional id is given at least.
	maxTurn = 4 * time.Second
)

// batch is the changes that share a transaction.
type batch struct {
	requests []*request
	reseal   bool // and all secrets that aren't encrypted with the newest key
	// What was computed for each request; it is true once the transaction is.
	answers map[*request]answer
	// mark is that of a transaction of which it isn't known whether it was
	// committed, with these answers; empty: there is none.
	mark string
}

// writeAll is the writer. It writes one batch after the other, until ctx ends.
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

// reseal encrypts anew what isn't encrypted with the newest key, so that one
// more start of every copy ends a rotation.
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

// write writes a batch, which grows while it waits, and answers its requests.
// It tries again until it succeeds, no request is left, or ctx ends; and
// reports whether it succeeded.
func (s *Store) write(ctx context.Context, b *batch) bool {
	for delay := minPause; ; delay = min(2*delay, maxPause) {
		s.gather(b)
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
		case refused(err):
			b.finish(fmt.Errorf("%w: %w", endpoints.ErrReadOnly, s.named(err)))
			return false
		case permanent(err):
			b.finish(s.named(err))
			return false
		default:
			s.o.Logger.Warn("the endpoints topic can't be written: trying again", zap.String("topic", s.o.Topic), zap.Error(err))
		}
		if fenced(err) {
			s.giveTurn(ctx, time.Since(begun))
		}
		if !pause(ctx, rand.N(delay)) {
			return false
		}
	}
}

// giveTurn waits for a change of the copy that took the transactional id: to
// take it back at once would only stop that, and where an attempt takes
// seconds, as while a broker is frozen, copies would stop each other for ever.
// If no change comes, it waits longer than an attempt took, up to three times.
func (s *Store) giveTurn(ctx context.Context, took time.Duration) {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	took = max(minPause, min(took, maxTurn))
	timer := time.NewTimer(took + rand.N(2*took))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (s *Store) named(err error) error { return fmt.Errorf("endpoints topic %s: %w", s.o.Topic, err) }

// gather lets go of the requests whose callers are gone, and takes in those
// that wait. While it isn't known what became of the batch, it stays as it is.
func (s *Store) gather(b *batch) {
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

// finish answers every request: as was computed for it, or with an error.
func (b *batch) finish(err error) {
	for _, r := range b.requests {
		a, computed := b.answers[r]
		switch {
		case err != nil && b.mark != "":
			a = answer{err: fmt.Errorf("%w: %w", endpoints.ErrUnknown, err)}
		case err != nil:
			a = answer{err: err}
		case !computed:
			a = answer{err: context.Cause(r.ctx)} // nobody waits for it any more
		}
		r.answer <- a
	}
}
