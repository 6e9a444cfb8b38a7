package sinks

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

func newKeys() endpoints.Endpoint {
	e := hub
	e.ConnectionString, e.SecondaryConnectionString = "new primary", "new secondary"
	return e
}

// What an update does to a batch in flight on the old connection.
func TestUpdateWhileSending(t *testing.T) {
	unauthorized, throttled := refusal(event.Unauthorized, 0), refusal(event.Throttled, time.Minute)
	cases := map[string]struct {
		took  time.Duration // on the old connection
		old   error         // its result there
		after time.Duration // until the batch is sent on the new one, since the update
		calls int           // on the new one
	}{
		"the old connection works to the end":      {took: 100 * ms},
		"refused: sent on the new one":             {took: 100 * ms, old: unauthorized, after: 100 * ms, calls: 1},
		"unreachable: sent on the new one":         {took: 100 * ms, old: errTest, after: 100 * ms, calls: 1},
		"rejected: sent on the new one":            {took: 100 * ms, old: refusal(event.Rejected, 0), after: 100 * ms, calls: 1},
		"throttled meanwhile: sent on the new one": {took: 100 * ms, old: throttled, after: 100 * ms, calls: 1},
		"throttled before: the wait ends":          {old: throttled, calls: 1},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				h.service.respond = func(_ context.Context, key string, events []*event.Event) (int, error) {
					if strings.HasPrefix(key, "new") {
						return len(events), nil
					}
					<-time.After(test.took)
					return len(events), test.old
				}
				h.put(0, 3)
				advance(5 * ms)
				closeOld := h.Update(newKeys())
				if closeOld == nil {
					t.Fatal("new keys make no new connection")
				}
				closed := make(chan error)
				go func() { closed <- closeOld(t.Context()) }()
				advance(test.after)
				if calls := h.calls(); test.calls > 0 && (len(calls) != 1+test.calls || calls[1].key != "new primary") {
					t.Errorf("after the update: %v", show(calls))
				}
				if err := <-closed; err != nil {
					t.Error(err)
				}
				if len(h.service.closed) == 0 {
					t.Error("the old connection is not closed")
				}
				advance(0)
				if s := h.snapshot().State; (s == StateReady) != (test.calls > 0) {
					t.Errorf("state is %s after %d sends on the new connection", s, test.calls)
				}
				h.put(0, 1)
				advance(10 * ms)
				h.expect(counts{"delivered": 4})
				if n := len(h.letters.got); n > 0 {
					t.Errorf("%d dead letters", n)
				}
				if snap := h.snapshot(); snap.State != StateReady || snap.Reason != "" || snap.LastError == "" != snap.LastErrorAt.IsZero() {
					t.Errorf("%s, %q, %q", snap.State, snap.Reason, snap.LastError)
				}
				h.finish()
			})
		})
	}
}

// An update while a batch is halved: what was sent on the old connection counts,
// and so does what is known of the bad event; everything else uses the new one.
func TestUpdateWhileHalving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(100 * ms)
			for _, ev := range events {
				if ev.Record.Offset == 5 {
					return len(events), refusal(event.Rejected, 0)
				}
			}
			return len(events), nil
		}
		h.put(0, 8)
		advance(150 * ms) // the first half is sent
		closeOld := h.Update(newKeys())
		advance(time.Second) // nobody closes the old connection yet
		h.expectCalls(
			sent(5*ms, 8, "primary"), sent(105*ms, 4, "primary"),
			sent(205*ms, 2, "new primary"), sent(305*ms, 1, "new primary"),
			sent(405*ms, 1, "new primary"), sent(505*ms, 2, "new primary"),
		)
		h.expect(counts{"delivered": 7, "rejected": 1})
		if err := closeOld(t.Context()); err != nil {
			t.Error(err)
		}
		h.finish()
	})
}

// An update while a batch waits, and more events behind it: the batch is sent
// again as it was, so that if the new connection fails too, it alone is dropped
// for that, and what was behind it for the back-off.
func TestUpdateKeepsTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = func(_ context.Context, key string, events []*event.Event) (int, error) {
			if key == "primary" {
				return len(events), refusal(event.Throttled, time.Minute)
			}
			return 0, errTest
		}
		h.put(0, 3)
		advance(5 * ms)
		h.put(0, 4)
		if err := h.Update(newKeys())(t.Context()); err != nil {
			t.Error(err)
		}
		advance(500 * ms)
		h.expect(counts{"unreachable": 3, "backoff": 4})
		h.finish()
	})
}

// What ends a back-off: the next events go out at once, with the primary key and
// over a new connection; and if that fails, the wait begins with the shortest.
// Counts stay. While the endpoint works, a retry changes nothing.
func TestBackOffEnds(t *testing.T) {
	cases := map[string]struct {
		end func(*harness)
		key string // of what is sent then
	}{
		"retry": {(*harness).Retry, "primary"},
		"new keys": {func(h *harness) {
			endpoint := newKeys()
			endpoint.Path = h.Endpoint().Path + "+" // a change, also the second time
			if err := h.Update(endpoint)(h.t.Context()); err != nil {
				h.t.Error(err)
			}
		}, "new primary"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				h.put(0, 1)
				advance(10 * ms)
				h.Retry()
				if s := h.snapshot().State; s != StateReady {
					t.Errorf("a retry of what works: %s", s)
				}
				h.service.respond = refusing("primary", "secondary", "new primary", "new secondary")
				for range 3 { // the wait grows
					advance(time.Until(h.snapshot().BackOffUntil))
					h.put(0, 1)
					advance(10 * ms)
				}
				h.put(0, 1)
				if snap := h.snapshot(); snap.State != StateBackingOff || snap.Reason != "unauthorized" || time.Until(snap.BackOffUntil) < 2*time.Second {
					t.Fatalf("%s %q until %v", snap.State, snap.Reason, snap.BackOffUntil)
				}
				test.end(h)
				if snap := h.snapshot(); snap.State != StateProvisioning || snap.Reason != "" || !snap.BackOffUntil.IsZero() || !snap.Since.Equal(time.Now()) {
					t.Errorf("after its end: %+v", snap.Health)
				}
				before, opened := len(h.calls()), h.service.opened
				h.put(0, 1)
				advance(10 * ms)
				if first := h.calls()[before]; first.key != test.key || h.service.opened == opened {
					t.Errorf("the first after it is sent with the %s key, over connection %d", first.key, h.service.opened)
				}
				if wait := time.Until(h.snapshot().BackOffUntil); wait > time.Second || wait <= 0 {
					t.Errorf("still refused: the wait is %v, want the shortest", wait)
				}
				h.service.respond = nil
				test.end(h)
				h.put(0, 2)
				advance(10 * ms)
				h.expect(counts{"unauthorized": 4, "backoff": 1, "delivered": 3})
				h.finish()
			})
		})
	}
}

// A change that does not concern the connection keeps it.
func TestUpdateOfTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		changed := hub
		changed.Name, changed.Overflow = "renamed", endpoints.OverflowDrop
		changed.EventTypes = []string{endpoints.SpaceChange}
		if h.Update(changed) != nil {
			t.Error("the connection was replaced")
		}
		if e := h.Endpoint(); e.Name != "renamed" || e.Overflow != endpoints.OverflowDrop {
			t.Errorf("the endpoint is still %+v", e)
		}
		for name, change := range map[string]func(*endpoints.Endpoint){
			"body":     func(e *endpoints.Endpoint) { e.Body = endpoints.BodyData },
			"ordering": func(e *endpoints.Endpoint) { e.Ordering = endpoints.OrderingNone },
			"path":     func(e *endpoints.Endpoint) { e.Path = "elsewhere" },
		} {
			change(&changed)
			if h.Update(changed) == nil {
				t.Errorf("%s: the connection was not replaced", name)
			}
		}
		h.finish()
	})
}

// Remove drains, then drops; Close drains, then leaves.
func TestRemoveAndClose(t *testing.T) {
	cases := map[string]struct {
		stop   func(*harness, context.Context) error
		within time.Duration
		want   counts
		left   int // chunks
	}{
		"remove, in time":  {func(h *harness, ctx context.Context) error { return h.Remove(ctx) }, time.Minute, counts{"delivered": 9}, 0},
		"remove, too late": {func(h *harness, ctx context.Context) error { return h.Remove(ctx) }, 1500 * ms, counts{"delivered": 3, "removed": 6}, 0},
		"close, in time":   {func(h *harness, ctx context.Context) error { return h.Close(ctx) }, time.Minute, counts{"delivered": 9}, 0},
		"close, too late":  {func(h *harness, ctx context.Context) error { return h.Close(ctx) }, 1500 * ms, counts{"delivered": 3, "pending": 6}, 2},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.MaxEvents = 3
				h := newHarness(t, hub, options)
				h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
					select {
					case <-time.After(time.Second):
						return len(events), nil
					case <-ctx.Done():
						return len(events), ctx.Err()
					}
				}
				for range 3 {
					h.put(0, 3)
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), test.within)
				defer cancel()
				begun := time.Now()
				if err := test.stop(h, ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took > min(test.within, 3*time.Second) {
					t.Errorf("took %v", took)
				}
				h.expect(test.want)
				if n := h.unsettled(); n != test.left {
					t.Errorf("%d chunks unsettled, want %d", n, test.left)
				}
				if s := h.snapshot().State; s != StateStopped {
					t.Errorf("state is %s", s)
				}
				if !slices.Contains(h.service.closed, "primary") {
					t.Error("the connection is not closed")
				}
			})
		})
	}
}
