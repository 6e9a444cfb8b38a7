package sinks

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// What a part that is down gets is nearly all there is. The others' events, few
// and far between, arrive all the same.
func TestFewEventsForTheRest(t *testing.T) {
	for name, down := range map[string][]int{"one part is down": {0}, "two parts are down": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := newParted(8, down...)
				h := newHarness(t, hub, defaults).of(service)
				h.put(5, 1) // as far as is known, that works
				advance(time.Second)
				for range 100 {
					h.feed(time.Second, time.Minute, 0, 1)
					h.put(5, 1)
					advance(ms * 10)
				}
				if lost := int(h.next[5]) - len(h.service.stored[5]); lost > 0 {
					t.Errorf("%d of %d events were lost", lost, h.next[5])
				}
				h.finish()
			})
		})
	}
}

// Two parts that are down look like the endpoint, where nothing is sent between
// their failures. When anything else works they back off by themselves, and what
// is known of them isn't forgotten.
func TestTwoPartsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newParted(4, 0, 1)
		h := newHarness(t, hub, defaults).of(service)
		h.withoutJitter()
		state := func(when string, want State, partitions ...int) {
			t.Helper()
			if snap := h.snapshot(); snap.State != want || !slices.Equal(snap.PartitionsBackingOff, partitions) {
				t.Errorf("%s: %s of %v, want %s of %v", when, snap.State, snap.PartitionsBackingOff, want, partitions)
			}
		}
		h.put(0, 1)
		advance(310 * ms)
		state("one failed", StateBackingOff, 0)
		h.put(1, 1)
		advance(310 * ms)
		state("both failed", StateBackingOff)
		h.put(0, 1) // dropped: the endpoint backs off
		h.put(2, 1) // but this one wasn't tried yet
		advance(10 * ms)
		state("a third one works", StateReady)
		h.put(0, 1)
		h.put(1, 1)
		advance(310 * ms)
		state("both failed again", StateDegraded, 0, 1)
		h.put(2, 1)
		h.put(3, 1)
		advance(10 * ms)
		h.expect(counts{"unreachable": 4, "backoff": 1, "delivered": 3})
		service.set(1)
		advance(time.Second)
		h.put(0, 1)
		advance(10 * ms)
		state("one is back", StateDegraded, 1)
		service.set()
		h.put(1, 1)
		advance(10 * ms)
		state("both are back", StateReady)
		service.set(service.all()...) // and that they failed is forgotten
		h.put(0, 1)
		h.put(1, 1)
		advance(310 * ms)
		state("all is down", StateBackingOff)
		h.finish()
	})
}

// A part is down, then all is, then all but the part works again.
func TestPartDownAndThenAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newParted(4, 0)
		h := newHarness(t, hub, defaults).of(service)
		h.withoutJitter()
		h.feed(time.Second, 2*time.Minute, count(4)...)
		if s := h.snapshot().State; s != StateDegraded {
			t.Fatalf("a part is down: %s", s)
		}
		service.set(service.all()...)
		h.feed(time.Second, 2*time.Minute, 1, 2, 3)
		if snap := h.snapshot(); snap.State != StateBackingOff || !slices.Equal(snap.PartitionsBackingOff, []int{0}) {
			t.Fatalf("all is down: %+v", snap.Health)
		}
		// What comes back first ends the endpoint's back-off as well.
		service.set(1, 2, 3)
		if until := h.ledger.backoff.parts.of(0); until != nil {
			_, at := until.breaker.State()
			advance(time.Until(at))
		}
		h.put(0, 1)
		advance(10 * ms)
		if snap := h.snapshot(); snap.State != StateReady || snap.PartitionsBackingOff != nil {
			t.Errorf("the part is back: %+v", snap.Health)
		}
		h.finish()
	})
}

// What tells a part's failure from the whole's is what was begun since the first
// try failed, or since the only one began.
func TestEvidence(t *testing.T) {
	type step struct {
		at    time.Duration // of the dispatch; a batch lingers for 5 ms
		part  int32
		took  time.Duration // by each try, up to its failure
		works bool
	}
	cases := map[string]struct {
		steps []step
		state State
		apart []int
	}{
		"nothing else":                       {[]step{{0, 0, ms, false}}, StateBackingOff, []int{0}},
		"a success from before":              {[]step{{0, 1, ms, true}, {10 * ms, 0, ms, false}}, StateBackingOff, []int{0}},
		"a success amid the first try":       {[]step{{0, 0, 50 * ms, false}, {20 * ms, 1, ms, true}}, StateBackingOff, []int{0}},
		"one begun before, that ended after": {[]step{{0, 1, 90 * ms, true}, {10 * ms, 0, ms, false}}, StateBackingOff, []int{0}},
		"a success after the first try":      {[]step{{0, 0, 50 * ms, false}, {60 * ms, 1, ms, true}}, StateDegraded, []int{0}},
		"a success amid the only try":        {[]step{{0, 0, time.Minute, false}, {20 * ms, 1, ms, true}}, StateDegraded, []int{0}},
		"another one failed":                 {[]step{{0, 0, ms, false}, {0, 1, ms, false}}, StateBackingOff, nil},
		"another one failed, a third one works": {
			[]step{{0, 0, ms, false}, {0, 1, ms, false}, {20 * ms, 2, ms, true}}, StateDegraded, []int{0, 1},
		},
		"one hung while a third one worked, another one failed since": {
			[]step{{0, 0, time.Minute, false}, {20 * ms, 2, ms, true}, {40 * ms, 1, ms, false}}, StateBackingOff, []int{0, 1},
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.BackoffInitial = time.Minute
				h := newHarness(t, hub, options)
				h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
					for _, s := range test.steps {
						if s.part != events[0].Chunk.Partition {
							continue
						}
						select {
						case <-time.After(s.took):
						case <-ctx.Done():
						}
						if s.works {
							return len(events), nil
						}
					}
					return len(events), &Error{Reason: event.Unreachable, Parts: 4, Err: errTest}
				}
				for _, s := range test.steps {
					advance(s.at - time.Since(h.start))
					h.put(s.part, 1)
				}
				advance(11 * time.Second)
				if snap := h.snapshot(); snap.State != test.state || !slices.Equal(snap.PartitionsBackingOff, test.apart) {
					t.Errorf("%s of %v, want %s of %v", snap.State, snap.PartitionsBackingOff, test.state, test.apart)
				}
				h.finish()
			})
		})
	}
}

// While the endpoint is tried and hangs, events of a part that was not tried yet
// don't wait for it, though they share its lane: no other endpoint may wait.
func TestFreshPartDoesNotHoldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newParted(16, 0, 1)
		options := defaults
		options.MaxEvents = 1
		h := newHarness(t, hub, options).of(service)
		h.withoutJitter()
		h.put(0, 1)
		h.put(1, 1)
		advance(time.Until(h.snapshot().BackOffUntil))
		advance(2 * time.Second)
		service.hangs = true
		h.put(0, 1) // hangs in the lane of part 8
		advance(10 * ms)
		if s := h.snapshot().State; s != StateProbing {
			t.Fatalf("state %s", s)
		}
		begun := time.Now()
		h.put(8, 50)
		h.put(8, 50)
		if took := time.Since(begun); took > 0 {
			t.Errorf("they waited for %v", took)
		}
		h.finish()
	})
}
