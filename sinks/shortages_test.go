package sinks

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// A process that has no descriptor left for a minute keeps what it can't send, and
// says so; no endpoint backs off for that, and one with open connections goes on.
func TestNoDescriptorsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed atomic.Uint64
		options := defaults
		options.Shortages = NewShortages(failed.Load)
		h := newHarness(t, hub, options)
		other := newHarness(t, hub, options)
		var short atomic.Bool
		short.Store(true)
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			if short.Load() {
				failed.Add(1)
				return 0, errTest
			}
			return len(events), nil
		}
		for range 60 {
			h.put(0, 1)
			other.put(0, 1)
			advance(time.Second)
		}
		h.expect(counts{"pending": 60})
		other.expect(counts{"delivered": 60})
		if snap := h.snapshot(); snap.State != StateThrottled || !strings.Contains(snap.LastError, "test") {
			t.Errorf("state %s, last error %q", snap.State, snap.LastError)
		}
		if n := h.logs.FilterMessageSnippet("no more connections").Len(); n < 4 || n > 6 {
			t.Errorf("the log says so %d times in a minute, want every 10 s", n)
		}
		short.Store(false)
		advance(2 * time.Second)
		h.expect(counts{"delivered": 60})
		h.inOrder()
		if snap := h.snapshot(); snap.State != StateReady || snap.Reason != "" {
			t.Errorf("afterwards: state %s, %q", snap.State, snap.Reason)
		}
		h.finish()
		other.finish()
	})
}

// What fails for another cause backs off, before and after a shortage, and one that
// nobody counts is none.
func TestNoShortage(t *testing.T) {
	for name, shortages := range map[string]*Shortages{"none": NewShortages(func() uint64 { return 7 }), "nobody counts": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.Shortages = shortages
				h := newHarness(t, hub, options)
				h.service.respond = script(errTest, errTest, errTest)
				h.put(0, 1)
				advance(time.Second)
				h.expect(counts{"unreachable": 1})
				h.finish()
			})
		})
	}
}

// A stop or a change of the endpoint doesn't wait for a shortage to end.
func TestStopAmidShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed atomic.Uint64
		options := defaults
		options.Shortages = NewShortages(failed.Load)
		h := newHarness(t, hub, options)
		h.service.respond = func(context.Context, string, []*event.Event) (int, error) {
			failed.Add(1)
			return 0, errTest
		}
		h.put(0, 1)
		advance(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		h.expect(counts{"pending": 1})
	})
}
