package ingest

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// restorePause is how long a partition waits until its positions are asked for
	// again, at first and at most.
	restorePause, maxRestorePause = time.Second, 30 * time.Second
	// restoreTime is how long restoring may take before the status says so.
	restoreTime = 2 * time.Second
	// restoreInterval is how often it is said again that it waits.
	restoreInterval = 10 * time.Minute
)

// restorer passes ownerships to Positions: each begins with a goroutine that restores
// what was committed, before anything of the partition is read, and ends with it. The
// partition's fetches are paused until then: it takes no room from others, however
// long it waits.
type restorer struct {
	positions Positions // nil: none
	log       *zap.Logger
	running   sync.WaitGroup
}

// begin restores a partition's positions, once the group has answered what is
// committed.
func (r *restorer) begin(p *partition, committed commitment) {
	if r.positions == nil {
		return
	}
	if done := p.beginRestoring(); done != nil {
		r.running.Go(func() {
			defer close(done)
			r.restore(p, committed)
		})
	}
}

func (r *restorer) restore(p *partition, committed commitment) {
	begun, logged := time.Now(), time.Time{}
	for pause := restorePause; p.ctx.Err() == nil; pause = min(2*pause, maxRestorePause) {
		err := r.positions.Assigned(p.ctx, p.owned, committed.mark.Offset, committed.metadata)
		if err == nil {
			p.endRestoring()
			return
		}
		if p.ctx.Err() != nil {
			return
		}
		if now := time.Now(); now.Sub(logged) >= restoreInterval {
			logged = now
			r.log.Error("a partition is not read: who is behind in it can't be found out, which is tried again",
				zap.String("topic", p.topic), zap.Int32("partition", p.number), zap.Duration("for", now.Sub(begun)), zap.Error(err))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
		}
	}
}

// revoked is called when the ownership begins to end in order.
func (r *restorer) revoked(p *partition) {
	if r.positions != nil {
		r.positions.Revoked(p.owned)
	}
}

// finish ends the ownership.
func (r *restorer) finish(p *partition) {
	restoring, first := p.finish()
	switch {
	case r.positions == nil || !first:
	case restoring == nil:
		r.positions.Released(p.owned)
	default:
		r.running.Go(func() { // a callback of the client waits for nobody
			<-restoring
			r.positions.Released(p.owned)
		})
	}
}

// wait waits for all that was begun, until ctx ends.
func (r *restorer) wait(ctx context.Context) error {
	return await(ctx, func() error { r.running.Wait(); return nil })
}

// beginRestoring returns a channel to close when the positions are restored; nil if
// the ownership is over already, or it was called before.
func (p *partition) beginRestoring() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state >= draining || p.restoring != nil {
		return nil
	}
	p.restoring = make(chan struct{})
	return p.restoring
}

// endRestoring makes the partition be read and committed.
func (p *partition) endRestoring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restored = true
	if p.state < draining {
		p.consumer.resume(p.topicPartition)
	}
}

// isRestoring reports whether the partition isn't read yet for that, and should be.
func (p *partition) isRestoring() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.restored && time.Since(p.since) > restoreTime
}

// finish ends the ownership: the partition is another copy's, or may be at any time. It
// returns what is closed when its positions are no longer being restored, nil if they
// never were, and whether the ownership had not ended before.
func (p *partition) finish() (restoring <-chan struct{}, first bool) {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	first = p.state != ended
	p.state = ended
	return p.restoring, first
}
