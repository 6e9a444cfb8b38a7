package sinks

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// A retry ends a back-off as new keys do: the next events go out at once, with
// the primary key and over a new connection; and if that fails, the wait
// begins with the shortest. While the endpoint works it changes nothing.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		refused := map[string]bool{}
		h.service.respond = func(_ context.Context, way string, events []*event.Event) (int, error) {
			if refused[way] {
				return len(events), &Error{Reason: event.Unauthorized, Err: errTest}
			}
			return len(events), nil
		}
		h.put(0, 1)
		advance(10 * ms)
		h.Retry()
		if snap := h.snapshot(); snap.State != StateReady {
			t.Errorf("a retry of what works: %s", snap.State)
		}

		refused["primary"], refused["secondary"] = true, true
		for range 3 { // the wait grows
			h.put(0, 1)
			advance(10 * ms)
			advance(time.Until(h.snapshot().BackOffUntil))
		}
		h.put(0, 1)
		advance(10 * ms)
		if snap := h.snapshot(); snap.State != StateBackingOff || snap.Reason != "unauthorized" || time.Until(snap.BackOffUntil) < 2*time.Second {
			t.Fatalf("%s %q until %v", snap.State, snap.Reason, snap.BackOffUntil)
		}
		h.Retry()
		if snap := h.snapshot(); snap.State != StateProvisioning || snap.Reason != "" || snap.LastError != "" || !snap.BackOffUntil.IsZero() {
			t.Errorf("after the retry: %+v", snap.Health)
		}
		before := len(h.calls())
		h.put(0, 1)
		advance(10 * ms)
		if first := h.calls()[before]; first.way != "primary" {
			t.Errorf("the first after the retry went with the %s key", first.way)
		}
		if wait := time.Until(h.snapshot().BackOffUntil); wait > time.Second || wait <= 0 {
			t.Errorf("still refused: the wait is %v, want the shortest", wait)
		}
		refused = map[string]bool{}
		h.Retry()
		h.put(0, 2)
		advance(10 * ms)
		h.expect(counts{"unauthorized": 5, "delivered": 3})
		h.finish()
	})
}
