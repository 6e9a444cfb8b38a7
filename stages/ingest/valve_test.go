package ingest

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// refuser is a harness that holds its source, and refuses what is emitted, until it
// is opened.
type refuser struct {
	*harness
	open    atomic.Bool
	refused atomic.Int64
}

func (r *refuser) take(c *event.Chunk) bool {
	if !r.open.Load() {
		r.Hold()
		r.refused.Add(1)
		return false
	}
	return r.harness.take(c)
}

// While the source is held nothing is polled, nor is emitted or committed what was
// polled before, and partitions are given up without a wait for that. Then all comes,
// once and in order.
func TestHold(t *testing.T) {
	eachProtocol(t, 2, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		commits := watchCommits(t, k)
		produce(t, k, 2, 10, 10)
		first := consumeHeld(t, cfg)
		eventually.Holds(t, "a chunk is refused", func() bool { return first.refused.Load() > 0 })
		eventually.Holds(t, "it owns both", first.owns(2))
		read := first.Status().Records
		produce(t, k, 2, 10, 10)
		signal(first.offsets.due)
		eventually.Holds(t, "what comes is lag", func() bool { return lagIs(first.Source, 40) })
		for _, p := range first.partitions.all() {
			p.mu.Lock()
			if p.inFlight > 0 {
				t.Error("a rebalance would wait for a chunk that is not sent")
			}
			p.mu.Unlock()
		}
		second := consumeHeld(t, cfg)
		eventually.Holds(t, "each has one", func() bool { return first.owns(1)() && second.owns(1)() })
		if st := first.Status(); st.Records != read || !st.Held || !st.Member || first.refused.Load() != 1 {
			t.Errorf("%d records were read when it was held, the status is %+v, %d chunks are refused", read, st, first.refused.Load())
		}
		if first.count() > 0 || commits.sum() > 0 {
			t.Errorf("%d events are emitted, %d committed", first.count(), commits.sum())
		}
		for _, r := range []*refuser{first, second} {
			r.open.Store(true)
			r.Release()
		}
		eventually.Holds(t, "everything comes", func() bool { return first.count()+second.count() == 40 })
		eventually.Holds(t, "everything is committed", commits.sums(40))
		for _, r := range []*refuser{first, second} {
			r.mu.Lock()
			for p, offsets := range r.seen {
				for offset, times := range offsets {
					if times != 1 {
						t.Errorf("%d/%d came %d times", p, offset, times)
					}
				}
			}
			r.mu.Unlock()
		}
	})
}

// Waiting is said at once and then rarely, and so is its end.
func TestValveIsLoudRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		v := new(valve)
		if !v.waitLoudly(ctx, zap.New(core)) || logs.Len() > 0 {
			t.Fatal("an open valve waits, or is logged")
		}
		v.close()
		passed := make(chan bool)
		go func() { passed <- v.waitLoudly(ctx, zap.New(core)) }()
		time.Sleep(time.Hour + time.Second)
		if n := logs.FilterMessageSnippet("there is no endpoint").Len(); n != 7 {
			t.Errorf("it was said %d times in an hour", n)
		}
		v.open()
		if !<-passed || logs.FilterMessageSnippet("reading goes on").Len() != 1 {
			t.Error("its end isn't said")
		}
		v.close()
		go func() { passed <- v.waitLoudly(ctx, zap.New(core)) }()
		cancel()
		if <-passed {
			t.Error("it passes at a stop")
		}
	})
}

// A set that is emptied and filled over and over again loses no chunk.
func TestHoldAndRelease(t *testing.T) {
	t.Parallel()
	k := broker(t, 2)
	cfg := ingestConfig(k)
	h := consume(t, cfg, true)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				h.Hold()
				h.Release()
			}
		}
	}()
	for range 20 {
		produce(t, k, 2, 50, 10)
	}
	eventually.Holds(t, "everything comes", func() bool { return h.count() == 2000 })
	close(stop)
	<-done
}
