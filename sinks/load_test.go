package sinks

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// Everything at once: a dispatcher, a service with every kind of failure, changes
// of keys, snapshots all the time, and an end in the middle of it. The equation
// holds in every snapshot, order holds in what is stored, and every chunk is
// settled exactly once.
func TestEquationUnderLoad(t *testing.T) {
	for name, overflow := range map[string]endpoints.Overflow{"block": endpoints.OverflowBlock, "drop": endpoints.OverflowDrop} {
		for _, end := range []string{"remove", "close"} {
			t.Run(name+"/"+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { load(t, overflow, end == "remove") })
			})
		}
	}
}

func load(t *testing.T, overflow endpoints.Overflow, remove bool) {
	options := defaults
	options.MaxEvents = 40
	options.BackoffInitial, options.BackoffMax = 20*ms, 200*ms
	options.ThrottleLimit = 3 * time.Second
	endpoint := hub
	endpoint.Overflow = overflow
	h := newHarness(t, endpoint, options)
	h.service.respond = everyFailure

	// The dispatcher takes no more than 300 chunks; the end comes after, while
	// the lanes are still full.
	var others sync.WaitGroup
	done := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(ms / 2):
				h.snapshot()
			}
		}
	})
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
			e := endpoint
			if i%2 == 0 {
				e.ConnectionString = "other"
			}
			if closeOld := h.Update(e); closeOld != nil {
				if err := closeOld(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var routed int
	for range 300 {
		n := rand.IntN(60)
		routed += n
		if err := h.dispatch(t.Context(), h.chunk(rand.Int32N(12), n, rand.IntN(200))); err != nil {
			t.Error(err)
		}
		if rand.IntN(10) == 0 {
			<-time.After(rand.N(50 * ms))
		}
	}
	close(done)
	others.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), rand.N(500*ms))
	defer cancel()
	stop := h.Close
	if remove {
		stop = h.Remove
	}
	if err := stop(ctx); err != nil {
		t.Error(err)
	}
	c := h.snapshot().Counts
	if int(c.Routed) != routed {
		t.Errorf("routed %d, want %d", c.Routed, routed)
	}
	if (remove || c.Pending == 0) && h.unsettled() > 0 {
		t.Errorf("nothing is pending, but %d chunks are not settled", h.unsettled())
	}
	if remove && c.Pending > 0 {
		t.Errorf("%d events are pending after a removal", c.Pending)
	}
	if c.Pending > 0 && h.unsettled() == 0 {
		t.Errorf("%d events are pending, but all chunks are settled", c.Pending)
	}
	var stored int
	for _, offsets := range h.service.stored {
		stored += len(offsets)
	}
	if stored != int(c.Delivered) {
		t.Errorf("%d events stored, %d counted as delivered", stored, c.Delivered)
	}
	if bad := int(c.Dropped[event.Rejected] + c.Dropped[event.TooLarge]); bad != len(h.letters.got) {
		t.Errorf("%d events set aside, %d dead letters", bad, len(h.letters.got))
	}
	if c.Delivered == 0 || c.DroppedTotal() == 0 {
		t.Errorf("a dull run: %v", h.counted())
	}
	h.inOrder()
}

// everyFailure returns every kind of result.
func everyFailure(ctx context.Context, _ string, events []*event.Event) (int, error) {
	select {
	case <-time.After(rand.N(5 * ms)):
	case <-ctx.Done():
		return len(events), ctx.Err()
	}
	for _, ev := range events {
		if ev.Record.Offset%97 == 13 {
			return len(events), refusal(event.Rejected, 0)
		}
	}
	n := 1 + rand.IntN(len(events))
	switch rand.IntN(40) {
	case 0:
		return n, refusal(event.Unreachable, 0)
	case 1:
		return n, refusal(event.Throttled, rand.N(time.Second))
	case 2, 3, 4, 5:
		return n, refusal(event.Unauthorized, 0)
	case 6:
		return 0, refusal(event.Rejected, 0)
	case 7:
		return n, refusal(event.TooLarge, 0)
	case 8:
		<-ctx.Done() // hangs
		return n, ctx.Err()
	}
	return n, nil
}
