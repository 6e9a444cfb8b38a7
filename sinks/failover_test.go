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

// refusing answers Unauthorized to the keys that stand in refused.
func refusing(refused ...string) func(context.Context, string, []*event.Event) (int, error) {
	return func(_ context.Context, way string, events []*event.Event) (int, error) {
		if slices.Contains(refused, way) {
			return len(events), refusal(event.Unauthorized, 0)
		}
		return len(events), nil
	}
}

func TestFailover(t *testing.T) {
	tests := map[string]struct {
		refused   []string
		secondary string
		calls     []call // of two batches, one after the other
		counts    counts
		key       Key
		lastError string
	}{
		"primary works":    {secondary: "secondary", calls: []call{sent(5*ms, 1, "primary"), sent(15*ms, 1, "primary")}, counts: counts{"delivered": 2}},
		"primary refused":  {refused: []string{"primary"}, secondary: "secondary", calls: []call{sent(5*ms, 1, "primary"), sent(5*ms, 1, "secondary"), sent(15*ms, 1, "secondary")}, counts: counts{"delivered": 2}, key: Secondary},
		"both refused":     {refused: []string{"primary", "secondary"}, secondary: "secondary", calls: []call{sent(5*ms, 1, "primary"), sent(5*ms, 1, "secondary")}, counts: counts{"unauthorized": 1, "backoff": 1}, key: Secondary, lastError: "both keys are refused"},
		"no secondary key": {refused: []string{"primary"}, calls: []call{sent(5*ms, 1, "primary")}, counts: counts{"unauthorized": 1, "backoff": 1}, lastError: "there is no secondary"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				endpoint := hub
				endpoint.SecondaryConnectionString = test.secondary
				h := newHarness(t, endpoint, defaults)
				h.service.respond = refusing(test.refused...)
				h.put(0, 1)
				advance(10 * ms)
				h.put(0, 1)
				advance(10 * ms)
				h.expectCalls(test.calls...)
				h.expect(test.counts)
				snap := h.snapshot()
				if snap.Key != test.key {
					t.Errorf("the key in use is %s, want %s", snap.Key, test.key)
				}
				if !strings.Contains(snap.LastError, test.lastError) || (snap.LastError == "") != (test.lastError == "") {
					t.Errorf("last error is %q, want %q in it", snap.LastError, test.lastError)
				}
				h.finish()
			})
		})
	}
}

// A switch of key is not a try: with one attempt both keys are tried.
func TestFailoverIsNoTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Attempts = 2
		h := newHarness(t, hub, options)
		failures := 1
		h.service.respond = func(_ context.Context, way string, events []*event.Event) (int, error) {
			if way == "primary" {
				return len(events), refusal(event.Unauthorized, 0)
			}
			if failures > 0 {
				failures--
				return len(events), errTest
			}
			return len(events), nil
		}
		h.put(0, 1)
		advance(time.Second)
		h.expectCalls(sent(5*ms, 1, "primary"), sent(5*ms, 1, "secondary"), sent(105*ms, 1, "secondary"))
		h.expect(counts{"delivered": 1})
		h.finish()
	})
}

// The secondary is refused later on: back to the primary, in the same batch.
// After a back-off the probe starts with the primary.
func TestFailoverBackAndProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = refusing("primary")
		h.put(0, 1)
		advance(10 * ms)
		h.service.respond = refusing("secondary")
		h.put(0, 1)
		advance(10 * ms)
		h.expectCalls(sent(5*ms, 1, "primary"), sent(5*ms, 1, "secondary"), sent(15*ms, 1, "secondary"), sent(15*ms, 1, "primary"))
		h.service.respond = refusing("primary", "secondary")
		h.put(0, 1)
		advance(10 * ms)
		h.service.calls = nil
		h.expect(counts{"delivered": 2, "unauthorized": 1})
		if k := h.snapshot().Key; k != Secondary {
			t.Errorf("the key in use is %s", k)
		}
		h.service.respond = nil
		advance(time.Second)
		h.put(0, 1)
		advance(10 * ms)
		if calls := h.calls(); len(calls) != 1 || calls[0].way != "primary" {
			t.Errorf("the probe went %v, want primary alone", show(calls))
		}
		h.expect(counts{"delivered": 3, "unauthorized": 1})
		h.finish()
	})
}

// Only a probe's first try goes back to the primary.
func TestProbeStaysWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = refusing("primary", "secondary")
		h.put(0, 1)
		advance(1100 * ms) // the whole back-off, and the linger before it
		h.service.respond = script(refusal(event.Unauthorized, 0), errTest)
		h.service.calls = nil
		h.put(0, 1)
		advance(time.Second)
		var ways []string
		for _, c := range h.calls() {
			ways = append(ways, c.way)
		}
		if want := []string{"primary", "secondary", "secondary"}; !slices.Equal(ways, want) {
			t.Errorf("the probe went %v, want %v", ways, want)
		}
		h.finish()
	})
}

// All lanes find the key refused at the same time: each batch is sent twice,
// none is dropped.
func TestFailoverOfAllLanesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = func(ctx context.Context, way string, events []*event.Event) (int, error) {
			// The last lane's refusal comes when the first has long gone on.
			<-time.After(time.Duration(1+events[0].Chunk.Partition) * ms)
			return refusing("primary")(ctx, way, events)
		}
		for p := range int32(event.Lanes) {
			h.put(p, 5)
		}
		advance(time.Second)
		h.expect(counts{"delivered": 5 * event.Lanes})
		if n := len(h.calls()); n != 2*event.Lanes {
			t.Errorf("%d sends, want two a lane", n)
		}
		if k := h.snapshot().Key; k != Secondary {
			t.Errorf("the key in use is %s", k)
		}
		h.finish()
	})
}

func newKeys() endpoints.Endpoint {
	e := hub
	e.ConnectionString, e.SecondaryConnectionString = "new primary", "new secondary"
	return e
}

// What an update does to a batch that is under way the old way.
func TestUpdateWhileSending(t *testing.T) {
	unauthorized, throttled := refusal(event.Unauthorized, 0), refusal(event.Throttled, time.Minute)
	tests := map[string]struct {
		took  time.Duration // of the old way
		old   error         // its answer
		after time.Duration // the batch is out the new way, since the update
		calls int           // the new way
	}{
		"the old way works to the end":          {took: 100 * ms},
		"refused: goes the new way":             {took: 100 * ms, old: unauthorized, after: 100 * ms, calls: 1},
		"unreachable: goes the new way":         {took: 100 * ms, old: errTest, after: 100 * ms, calls: 1},
		"rejected: goes the new way":            {took: 100 * ms, old: refusal(event.Rejected, 0), after: 100 * ms, calls: 1},
		"throttled meanwhile: goes the new way": {took: 100 * ms, old: throttled, after: 100 * ms, calls: 1},
		"throttled before: the wait ends":       {old: throttled, calls: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				h.service.respond = func(_ context.Context, way string, events []*event.Event) (int, error) {
					if strings.HasPrefix(way, "new") {
						return len(events), nil
					}
					<-time.After(test.took)
					return len(events), test.old
				}
				h.put(0, 3)
				advance(5 * ms)
				closeOld := h.Update(newKeys())
				if closeOld == nil {
					t.Fatal("new keys are no new way")
				}
				closed := make(chan error)
				go func() { closed <- closeOld(t.Context()) }()
				advance(test.after)
				if calls := h.calls(); test.calls > 0 && calls[len(calls)-1].way != "new primary" {
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
					t.Errorf("state is %s after %d sends the new way", s, test.calls)
				}
				h.put(0, 1)
				advance(10 * ms)
				h.expect(counts{"delivered": 4})
				if n := len(h.letters.got); n > 0 {
					t.Errorf("%d dead letters", n)
				}
				if snap := h.snapshot(); snap.State != StateReady || snap.LastError != "" {
					t.Errorf("%s, %q", snap.State, snap.LastError)
				}
				h.finish()
			})
		})
	}
}

// New keys end a back-off at once; counts stay.
func TestUpdateWhileBackingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = refusing("primary", "secondary")
		h.put(0, 3)
		advance(10 * ms)
		h.put(0, 1)
		if s := h.snapshot().State; s != StateBackingOff {
			t.Fatalf("state is %s", s)
		}
		closeOld := h.Update(newKeys())
		if snap := h.snapshot(); snap.State != StateProvisioning || snap.LastError != "" || !snap.BackOffUntil.IsZero() {
			t.Errorf("after the update: %s, %q", snap.State, snap.LastError)
		}
		h.put(0, 2)
		advance(10 * ms)
		h.expect(counts{"unauthorized": 3, "backoff": 1, "delivered": 2})
		if err := closeOld(t.Context()); err != nil {
			t.Error(err)
		}
		h.finish()
	})
}

// A change that is none of the connection leaves it alone.
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
	tests := map[string]struct {
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
	for name, test := range tests {
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

// What lingers is sent at once when the sender is closed.
func TestCloseEndsLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Linger = time.Hour
		h := newHarness(t, hub, options)
		h.put(0, 2)
		synctest.Wait()
		h.finish()
		h.expectCalls(sent(0, 2))
	})
}
