package sinks

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// Whatever the state comes from, what is told of it is since when it is that, and
// nobody has to look meanwhile.
func TestStateSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.withoutJitter()
		begun := time.Now()
		expect := func(state State, since time.Duration, reason string) {
			t.Helper()
			if snap := h.snapshot(); snap.State != state || snap.Since.Sub(begun) != since || snap.Reason != reason {
				t.Errorf("after %v: %s since %v, %q; want %s since %v, %q", time.Since(begun), snap.State, snap.Since.Sub(begun), snap.Reason, state, since, reason)
			}
		}
		advance(time.Second)
		expect(StateProvisioning, 0, "")
		h.put(0, 1)
		advance(time.Second)
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, 1005*ms, "")

		h.service.respond = script(refusal(event.Throttled, 10*time.Second))
		h.put(0, 1)
		advance(5 * time.Second)
		expect(StateThrottled, 3005*ms, "throttled")
		advance(15 * time.Second)
		expect(StateReady, 13005*ms, "")

		h.service.respond = refusing("primary", "secondary")
		h.put(0, 1)
		advance(500 * ms)
		expect(StateBackingOff, 23005*ms, "unauthorized")
		h.service.respond = func(context.Context, string, []*event.Event) (int, error) {
			<-time.After(2 * time.Second)
			return 0, refusal(event.Unauthorized, 0)
		}
		advance(1500 * ms)
		h.put(0, 1)
		advance(time.Second)
		expect(StateProbing, 25005*ms, "unauthorized")
		advance(5 * time.Second)
		expect(StateBackingOff, 29005*ms, "unauthorized")
		if snap := h.snapshot(); snap.FailingSince.Sub(begun) != 23005*ms {
			t.Errorf("failing since %v", snap.FailingSince.Sub(begun))
		}
		h.service.respond = nil
		h.Retry()
		expect(StateProvisioning, 31*time.Second, "")
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, 31005*ms, "")
		snap := h.snapshot()
		if !snap.FailingSince.IsZero() || snap.LastErrorAt.Sub(begun) != 29005*ms || !strings.Contains(snap.LastError, "both keys are refused") ||
			snap.LastDeliveredAt.Sub(begun) != 31005*ms {
			t.Errorf("in the end: %+v", snap.Health)
		}
		h.finish()
		expect(StateStopped, 32*time.Second, "")
	})
}

// On the secondary an endpoint is ready, and says that the primary is refused and
// since when, through back-offs and until the primary works again or is replaced.
func TestPrimaryRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.withoutJitter()
		const words = "the primary key is refused, the secondary is used: test"
		expect := func(state State, key Key, reason, lastError string) {
			t.Helper()
			snap := h.snapshot()
			if snap.State != state || snap.Key != key || snap.Reason != reason || !strings.HasPrefix(snap.LastError, lastError) {
				t.Errorf("after %v: %+v", time.Since(h.start), snap.Health)
			}
		}
		h.service.respond = refusing("primary")
		for p := range int32(8) { // all lanes at once
			h.put(p, 1)
		}
		advance(time.Second)
		expect(StateReady, Secondary, "unauthorized", words)
		if n := len(h.Log()); n != 2 {
			t.Errorf("%d entries: %+v", n, h.Log())
		}
		h.service.respond = script(errTest, errTest, errTest)
		h.put(0, 1)
		advance(time.Second)
		expect(StateBackingOff, Secondary, "unreachable", "unreachable: test")
		h.service.respond = refusing("primary")
		advance(time.Second)
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Secondary, "unauthorized", words)
		h.service.respond = refusing("secondary")
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Primary, "", "the secondary key is refused, the primary is used: test")
		h.service.respond = refusing("primary")
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Secondary, "unauthorized", words)
		if since := h.snapshot().FailingSince.Sub(h.start).Round(time.Second); since != 5*time.Second {
			t.Errorf("failing since %v", since)
		}
		h.Retry()
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Secondary, "unauthorized", words)
		h.service.respond = nil
		h.Retry()
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Primary, "", "")
		h.service.respond = refusing("primary")
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Secondary, "unauthorized", words)
		h.service.respond = nil
		if err := h.Update(newKeys())(t.Context()); err != nil {
			t.Error(err)
		}
		h.put(0, 1)
		advance(time.Second)
		expect(StateReady, Primary, "", "the primary")
		h.finish()
	})
}

// Where few events come, three that are refused over ten seconds are one after the
// other; in a burst they may well be three bad ones, unless none is taken for so long.
func TestFewEventsAllRefused(t *testing.T) {
	for _, test := range []struct {
		n     int
		every time.Duration
		state State
	}{
		{refusedAtLeast, refusedFor / 2, StateDegraded},
		{refusedAtLeast - 1, refusedFor, StateReady},
		{refusedAtLeast, refusedFor/2 - ms, StateReady},
	} {
		t.Run(fmt.Sprintf("%d every %v", test.n, test.every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				h.service.respond = always(refusal(event.Rejected, 0))
				for i := range test.n {
					if i > 0 {
						advance(test.every)
					}
					h.put(0, 1)
				}
				advance(10 * ms)
				if snap := h.snapshot(); snap.State != test.state || snap.LastError == "" || (snap.Reason == "rejected") != (test.state == StateDegraded) {
					t.Errorf("%+v", snap.Health)
				}
				h.service.respond = nil
				h.put(0, 1)
				advance(10 * ms)
				if snap := h.snapshot(); snap.State != StateReady || snap.Reason != "" {
					t.Errorf("after a delivery: %+v", snap.Health)
				}
				h.finish()
			})
		})
	}
}

// A burst of refused events after which no more come shows with time, is said once, and
// is over with a delivery or a change of the endpoint.
func TestBurstOfRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		n    int
		long bool
	}{"below": {refusedAtLeast - 1, false}, "at": {refusedAtLeast, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				expect := func(what string, state State, lines int) {
					t.Helper()
					h.HoldBack(false, time.Now())
					snap := h.snapshot()
					if degraded := state == StateDegraded; snap.State != state || (snap.Reason == "rejected") != degraded ||
						strings.Contains(snap.LastError, RefusesAll) != degraded {
						t.Errorf("%s: %+v", what, snap.Health)
					}
					if n := h.logs.Len(); n != lines {
						t.Errorf("%s: %d lines, want %d", what, n, lines)
					}
				}
				refuse := func() {
					h.service.respond = always(refusal(event.Rejected, 0))
					for range test.n {
						h.put(0, 1)
					}
					advance(refusedFor - ms)
				}
				state, lines := StateReady, 0
				if test.long {
					state, lines = StateDegraded, 1
				}
				refuse()
				expect("just before", StateReady, 0)
				advance(time.Second)
				expect("after ten seconds", state, lines)
				advance(time.Hour)
				expect("once", state, lines)
				if err := h.Update(newKeys())(t.Context()); err != nil {
					t.Error(err)
				}
				advance(time.Hour)
				expect("corrected", StateProvisioning, lines)
				refuse()
				advance(time.Second)
				expect("again", state, 2*lines)
				h.service.respond = nil
				h.put(0, 1)
				advance(refusedFor)
				expect("a delivery", StateReady, 2*lines)
				refuse()
				expect("just before, after a delivery", StateReady, 2*lines)
				h.finish()
			})
		})
	}
}

// The oldest event counts, whichever lane it is in and however many came after it;
// and an endpoint at which it waits for long holds back, though its lanes have room.
func TestOldestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		expect := func(want time.Duration, holds bool, reason string) {
			t.Helper()
			if snap := h.snapshot(); snap.OldestPending != want || snap.HoldsBack != holds || snap.Reason != reason {
				t.Errorf("after %v: %+v", time.Since(h.start), snap.Health)
			}
		}
		expect(0, false, "")
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			if events[0].Chunk.Partition == 1 {
				<-time.After(9 * time.Second)
			}
			return len(events), nil
		}
		h.put(1, 2)
		advance(time.Second)
		h.put(1, 2)
		h.put(2, 2)
		advance(time.Second)
		expect(2*time.Second, false, "")
		advance(waitsLong - 2*time.Second)
		expect(waitsLong, true, ReasonSlow)
		advance(4500 * ms) // the first two are delivered, the next are sent
		expect(8500*ms, true, ReasonSlow)
		advance(time.Minute)
		expect(0, false, "")
		h.expect(counts{"delivered": 6})
		h.finish()
	})
}
