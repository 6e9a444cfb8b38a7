package sinks

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// An endpoint that takes a few events of many keeps whole chunks in flight for
// them. With overflow: drop it drops at its share of what may be in flight, long
// before its lanes are full of its own events; with block its health says that
// it is over its share.
func TestShareOfWhatIsInFlight(t *testing.T) {
	const records, each = 100, 4 // chunks that are a lane's share
	for name, tt := range map[string]struct {
		overflow endpoints.Overflow
		want     counts
	}{
		"drop":  {endpoints.OverflowDrop, counts{"pending": each, "overflow": 6}},
		"block": {endpoints.OverflowBlock, counts{"pending": each + 6}},
	} {
		t.Run(name, func(t *testing.T) {
			// Two collections empty the chunks' pools: one that another test left may
			// have a larger buffer, which counts.
			runtime.GC()
			runtime.GC()
			synctest.Test(t, func(t *testing.T) {
				endpoint := hub
				endpoint.Overflow = tt.overflow
				options := defaults
				probe := event.NewChunk("", 0, 0, 0, nil)
				for range records {
					probe.Add(0, 0, 0, nil, make([]byte, 10))
				}
				options.MaxInFlight = event.Lanes * each * probe.Bytes()
				h := newHarness(t, endpoint, options)
				answer := make(chan error)
				h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
					return len(events), <-answer
				}
				put := func(n int) {
					for range n {
						c := h.chunk(0, records, 10)
						one := []*event.Event{&c.Events[records/2]} // the others are other endpoints'
						if err := h.Enqueue(t.Context(), c, one); err != nil {
							t.Fatal(err)
						}
						c.Settle(1)
					}
				}
				put(each + 6)
				advance(time.Second)
				h.expect(tt.want)
				if h.Health().OverShare {
					t.Error("one lane of eight is not half of what may be in flight")
				}
				if tt.overflow == endpoints.OverflowBlock {
					for lane := int32(1); lane < event.Lanes; lane++ {
						for range each {
							c := h.chunk(lane, records, 10)
							_ = h.Enqueue(t.Context(), c, []*event.Event{&c.Events[0]})
							c.Settle(1)
						}
					}
					if !h.Health().OverShare {
						t.Error("its share isn't told of")
					}
				}

				close(answer)
				advance(time.Second)
				if h.Health().OverShare || h.queue.inFlight.Load() != 0 || h.unsettled() != 0 {
					t.Errorf("%d bytes and %d chunks are held for nothing", h.queue.inFlight.Load(), h.unsettled())
				}
				before := h.snapshot().Counts.Dropped
				put(each)
				advance(time.Second)
				if h.snapshot().Counts.Dropped != before {
					t.Error("it drops when there is room again")
				}
				h.finish()
			})
		})
	}
}

// What the dead letters have to store does not count as the endpoint's.
func TestDeadLettersAreNotInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.MaxInFlight, options.KeepDropped = 1<<20, true
		h := newHarness(t, hub, options)
		h.service.respond = script(refusal(event.Rejected, 0), refusal(event.Unreachable, 0), refusal(event.Unreachable, 0), refusal(event.Unreachable, 0))
		h.put(0, 1) // set aside
		advance(time.Minute)
		h.put(0, 10) // dropped and kept
		advance(400 * ms)
		h.put(0, 10) // dropped and kept at once
		h.expect(counts{"rejected": 1, "unreachable": 10, "backoff": 10})
		if n := h.queue.inFlight.Load(); n != 0 {
			t.Errorf("%d bytes are held: %v", n, h.counted())
		}
		h.finish()
	})
}
