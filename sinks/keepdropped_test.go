package sinks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// kept are the letters' reasons and how many there are of each.
func (h *harness) kept() map[event.Reason]int {
	h.letters.mu.Lock()
	defer h.letters.mu.Unlock()
	n := make(map[event.Reason]int)
	for _, l := range h.letters.got {
		n[l.reason]++
	}
	return n
}

func keeping() Options {
	o := defaults
	o.KeepDropped = true
	return o
}

// With KeepDropped every drop is a letter, in order, that says why; without,
// none is.
func TestKeepDropped(t *testing.T) {
	for name, keep := range map[string]bool{"kept": true, "not asked for": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := keeping()
				o.KeepDropped, o.Attempts = keep, 1
				h := newHarness(t, hub, o)
				defer h.finish()
				h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
					<-time.After(time.Second) // the dispatcher is not blocked meanwhile
					return 0, errors.New("gone")
				}
				for range 5 { // lane 0 has work when the breaker opens, by lane 1
					h.put(0, 50)
				}
				h.put(1, 100)
				advance(1100 * time.Millisecond)
				h.put(0, 50)
				h.put(0, 50)
				advance(time.Minute)

				counted := h.counted()
				if counted["unreachable"]+counted["backoff"] != 450 || len(counted) != 2 {
					t.Errorf("counts %v", counted)
				}
				kept := h.kept()
				if !keep {
					if len(kept) != 0 {
						t.Errorf("letters %v", kept)
					}
					return
				}
				if kept[event.Unreachable] != counted["unreachable"] || kept[event.Backoff] != counted["backoff"] {
					t.Errorf("letters %v, counts %v", kept, counted)
				}
				next := int64(0)
				for _, l := range h.letters.got {
					if !strings.Contains(l.detail, "gone") {
						t.Fatalf("detail %q", l.detail)
					}
					if l.partition == 0 {
						if l.offset != next {
							t.Fatalf("letter of offset %d where %d was next", l.offset, next)
						}
						next++
					}
				}
			})
		})
	}
}

// While a send hangs, what comes later is kept behind it, as far as the lane has
// room; the dispatcher never waits for an endpoint that backs off.
func TestKeepDroppedBehindAHangingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := keeping()
		o.Attempts = 1
		h := newHarness(t, hub, o)
		defer h.finish()
		hang := time.Duration(0)
		h.service.respond = func(context.Context, string, []*event.Event) (int, error) {
			<-time.After(hang)
			return 0, errors.New("gone")
		}
		h.put(0, 100)
		advance(2 * time.Second) // the back-off is over
		hang = 5 * time.Second
		h.put(0, 100)
		advance(time.Second)
		start := time.Now()
		for range 10 {
			h.put(0, 100) // the lane takes 4 × 100 in all
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the dispatcher waited %v", waited)
		}
		advance(time.Minute)
		var offsets []int64
		for _, l := range h.letters.got {
			offsets = append(offsets, l.offset)
		}
		if len(offsets) != 1200 {
			t.Fatalf("%d letters", len(offsets))
		}
		slices.Sort(offsets)
		for i, o := range offsets {
			if o != int64(i) {
				t.Fatalf("offset %d is missing or twice", i)
			}
		}
		// The probe's 100, and the 300 that were behind it, came last, in order.
		last := h.letters.got[800:]
		for i, l := range last {
			if want := int64(100 + i); l.offset != want {
				t.Fatalf("letter %d is of offset %d, want %d", 800+i, l.offset, want)
			}
		}
	})
}

// Overflow and removal are drops, too.
func TestKeepDroppedOfAFullAndARemovedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := hub
		e.Overflow = endpoints.OverflowDrop
		h := newHarness(t, e, keeping())
		h.service.respond = func(ctx context.Context, _ string, _ []*event.Event) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		for range 5 {
			h.put(0, 100)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Remove(ctx); err != nil {
			t.Error(err)
		}
		h.expect(counts{"overflow": 100, "removed": 400})
		if kept := h.kept(); kept[event.Overflow] != 100 || kept[event.Removed] != 400 {
			t.Errorf("letters %v", kept)
		}
		if n := h.unsettled(); n != 0 {
			t.Errorf("%d chunks are not settled", n)
		}
	})
}
