package filestore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
)

// hangsAfter is how long an operation on the file may take before the log and
// Stale say that it hangs. A busy disk answers within seconds.
const hangsAfter = 10 * time.Second

// afterEnd is how long await waits for an operation beyond its context: one that
// began just before the end has its result within milliseconds.
const afterEnd = time.Second

// await runs op, which does I/O, on a goroutine of its own, and returns when op
// has ended; or with an error a moment after ctx has, if the file system doesn't
// answer: nothing can end a system call that NFS without its server keeps. op then
// ends whenever it is answered, and what it does takes effect.
//
// There are no more such goroutines than callers that wait for each other anyway:
// one of Watch, one of Change.
func (s *Store) await(ctx context.Context, op func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		op()
	}()
	started := time.Now()
	hangs := time.NewTimer(hangsAfter)
	defer hangs.Stop()
	for {
		select {
		case <-done:
			if took := time.Since(started); took >= hangsAfter {
				s.log.Info("the endpoints file answers again", zap.String("file", s.path), zap.Duration("took", took))
			}
			return nil
		case <-hangs.C:
			s.log.Error("the endpoints file doesn't answer, or another process keeps its lock: what is in force stays until it does",
				zap.String("file", s.path), zap.Time("since", started))
		case <-ctx.Done():
			return s.awaitEnd(ctx, done, started)
		}
	}
}

func (s *Store) awaitEnd(ctx context.Context, done <-chan struct{}, started time.Time) error {
	end := time.NewTimer(afterEnd)
	defer end.Stop()
	select {
	case <-done:
		return nil
	case <-end.C:
		return fmt.Errorf("endpoints file %s has not answered for %s: %w",
			s.path, time.Since(started).Round(100*time.Millisecond), context.Cause(ctx))
	}
}

// startReading notes since when Watch waits for the file; zero: it doesn't.
func (s *Store) startReading(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.reading = at
}

// abandonable is an edit whose caller may go away while the file hangs: it must
// not be called after that, since it writes to the caller's variables.
type abandonable struct {
	edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)

	mu              sync.Mutex
	called, dropped bool
}

func (a *abandonable) call(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dropped {
		return nil, context.Canceled
	}
	a.called = true
	return a.edit(set)
}

// abandon makes later calls fail, and reports whether there was one before.
func (a *abandonable) abandon() (called bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropped = true
	return a.called
}
