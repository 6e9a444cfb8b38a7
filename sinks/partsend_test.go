package sinks

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// What a lane has for other parts is not dropped with what fails, and both lose
// nothing of their order.
func TestMixedBatch(t *testing.T) {
	for _, keep := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			service := newParted(16, 0)
			options := defaults
			options.Linger, options.KeepDropped = 50*ms, keep
			h := newHarness(t, hub, options).of(service)
			for range 3 { // partitions 0 and 8 share a lane
				h.put(0, 2)
				h.put(8, 2)
			}
			advance(time.Second / 2)
			h.expect(counts{"unreachable": 6, "delivered": 6})
			h.put(0, 1)
			h.put(8, 1)
			advance(60 * ms)
			h.expect(counts{"unreachable": 6, "backoff": 1, "delivered": 7})
			h.inOrder()
			if keep {
				for i, l := range h.letters.got {
					reason := event.Unreachable
					if i == 6 {
						reason = event.Backoff
					}
					if l.partition != 0 || l.offset != int64(i) || l.reason != reason || !strings.Contains(l.detail, errTest.Error()) {
						t.Errorf("letter %d is %+v", i, l)
					}
				}
			}
			h.finish()
		})
	}
}

// A retry, and new keys, end a part's back-off too; what was sent before them and
// fails after them doesn't begin it anew.
func TestPartBackOffEnds(t *testing.T) {
	for name, end := range map[string]func(*harness){
		"retry": func(h *harness) { h.Retry() },
		"new keys": func(h *harness) {
			closeOld := h.Update(newKeys())
			h.t.Cleanup(func() { _ = closeOld(context.Background()) })
		},
	} {
		for _, probing := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/probing ", probing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					service := newParted(4, 1)
					h := newHarness(t, hub, defaults).of(service)
					h.feed(time.Second, time.Minute, count(4)...)
					advance(time.Until(h.snapshot().BackOffUntil))
					if probing {
						h.put(1, 1)
						advance(10 * ms)
					}
					opened := h.service.opened
					end(h)
					if snap := h.snapshot(); snap.State != StateProvisioning || snap.PartitionsBackingOff != nil || !snap.BackOffUntil.IsZero() {
						t.Errorf("after its end: %+v", snap.Health)
					}
					service.set()
					before := h.dropped()
					for p := range int32(4) {
						h.put(p, 1)
					}
					advance(time.Second)
					snap := h.snapshot()
					if snap.State != StateReady || snap.Counts.DroppedTotal() != before || h.service.opened == opened {
						t.Errorf("then: %+v, %d dropped, %d connections opened", snap.Health, snap.Counts.DroppedTotal()-before, h.service.opened-opened)
					}
					h.finish()
				})
			})
		}
	}
}

// What was sent before its back-off ended and has its result after that begins
// none, and ends none of what began since.
func TestLateResultsOfAPart(t *testing.T) {
	// The try of a part, which hangs until it answers.
	setup := func(t *testing.T) (h *harness, service *parted, answer chan error) {
		service = newParted(4, 1)
		h = newHarness(t, hub, defaults)
		answer = make(chan error)
		var trying bool
		h.service.respond = func(ctx context.Context, key string, events []*event.Event) (int, error) {
			if trying && key == "primary" && events[0].Chunk.Partition == 1 {
				return len(events), <-answer
			}
			return service.respond(ctx, key, events)
		}
		h.feed(time.Second, 10*time.Second, count(4)...)
		advance(time.Until(h.snapshot().BackOffUntil))
		synctest.Wait()
		trying = true
		h.put(1, 1)
		advance(10 * ms)
		return h, service, answer
	}
	t.Run("a failure after a retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, _, answer := setup(t)
			h.Retry()
			lines := h.logs.Len()
			for range defaults.Attempts {
				answer <- &Error{Reason: event.Unreachable, Parts: 4, Err: errTest}
			}
			advance(time.Second)
			if snap := h.snapshot(); snap.State != StateProvisioning || snap.PartitionsBackingOff != nil || h.logs.Len() != lines {
				t.Errorf("%+v, %d lines in the log", snap.Health, h.logs.Len()-lines)
			}
			h.finish()
		})
	})
	t.Run("a success after new keys", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, _, answer := setup(t)
			closeOld := h.Update(newKeys())
			h.service.mu.Lock()
			old := h.service.respond
			h.service.respond = func(ctx context.Context, key string, events []*event.Event) (int, error) {
				if strings.HasPrefix(key, "new") {
					return 0, refusal(event.Unauthorized, 0)
				}
				return old(ctx, key, events)
			}
			h.service.mu.Unlock()
			h.put(0, 1)
			advance(10 * ms)
			answer <- nil
			advance(10 * ms)
			if snap := h.snapshot(); snap.State != StateBackingOff || snap.Reason != "unauthorized" {
				t.Errorf("%+v", snap.Health)
			}
			if err := closeOld(t.Context()); err != nil {
				t.Error(err)
			}
			h.finish()
		})
	})
}

// A part is tried over a connection of its own, which leaves that of the others
// alone, and with the key that works: the primary, which is refused, is not tried
// each time. When the part is back its connection is the one in use.
func TestPartHasItsOwnConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newParted(4, 1)
		h := newHarness(t, hub, defaults)
		h.service.respond = func(ctx context.Context, key string, events []*event.Event) (int, error) {
			if key == "primary" {
				return 0, refusal(event.Unauthorized, 0)
			}
			return service.respond(ctx, key, events)
		}
		for p := range int32(4) {
			h.put(p, 1)
		}
		advance(time.Second)
		opened, closed := h.service.opened, len(h.service.closed)
		// What was opened for the part is closed again, and nothing else.
		expect := func(when string, inUse int) {
			t.Helper()
			if o, c := h.service.opened-opened, len(h.service.closed)-closed; o-c != inUse || h.snapshot().Key != Secondary {
				t.Errorf("%s: %d connections opened and %d closed, want %d in use", when, o, c, inUse)
			}
		}
		before := h.failures(func(p int32) bool { return p == 1 })
		h.feed(time.Second, 10*time.Minute, count(4)...)
		tries := h.failures(func(p int32) bool { return p == 1 }) - before
		expect("while it is down", 0)
		if o := h.service.opened - opened; o != tries || tries < 6 {
			t.Errorf("%d connections for %d tries", o, tries)
		}
		service.set()
		advance(time.Until(h.snapshot().BackOffUntil))
		tries = h.service.opened
		h.put(1, 1)
		advance(10 * ms)
		for p := range int32(4) {
			h.put(p, 1)
		}
		advance(10 * ms)
		expect("when it is back", 0)
		if o := h.service.opened - tries; o != 1 {
			t.Errorf("%d connections to come back", o)
		}
		calls := h.calls()
		for _, c := range calls[len(calls)-5:] {
			if c.sink != h.service.opened {
				t.Errorf("partition %d is sent to over connection %d of %d", c.part, c.sink, h.service.opened)
			}
		}
		h.finish()
	})
}

// What is said about it: once each time it backs off, and when it is back.
func TestPartLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newParted(4, 1)
		h := newHarness(t, hub, defaults).of(service)
		h.feed(time.Second, 6*time.Second, count(4)...)
		lines := h.logs.FilterMessageSnippet("part of the endpoint backs off").All()
		if len(lines) != h.failures(func(p int32) bool { return p == 1 })/defaults.Attempts || len(lines) != h.logs.Len() {
			t.Fatalf("%d lines, of %d in all", len(lines), h.logs.Len())
		}
		fields := lines[0].ContextMap()
		want := map[string]any{"hubPartition": int64(1), "hubPartitions": int64(4), "reason": "unreachable"}
		maps.DeleteFunc(fields, func(k string, _ any) bool { return want[k] == nil })
		if !maps.Equal(fields, want) {
			t.Errorf("the line has %v", fields)
		}
		h.finish()
	})
}
