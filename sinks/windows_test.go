package sinks

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"twinegress/internal/event"
)

// Whatever happens when: a window has all of its length but one part, and nothing
// from before its length.
func TestWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type change struct {
			at time.Duration
			w  Window
		}
		var w windows
		var c Counts
		var all []change
		sum := func(from time.Duration) (s Window) {
			for _, ch := range all {
				if ch.at >= from {
					s.Routed += ch.w.Routed
					s.Delivered += ch.w.Delivered
					s.Dropped += ch.w.Dropped
				}
			}
			return s
		}
		age := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			age += rapid.SampledFrom([]time.Duration{
				0, time.Millisecond, time.Second, 7 * time.Second, time.Minute, 4 * time.Minute, 20 * time.Minute, 5 * time.Hour, 30 * time.Hour,
			}).Draw(t, "after")
			ch := change{age, Window{
				rapid.Uint64Range(0, 9).Draw(t, "routed"), rapid.Uint64Range(0, 9).Draw(t, "delivered"), rapid.Uint64Range(0, 9).Draw(t, "dropped"),
			}}
			w.roll(age, &c)
			c.Routed += ch.w.Routed
			c.Delivered += ch.w.Delivered
			c.Dropped[event.Backoff] += ch.w.Dropped
			all = append(all, ch)

			now := age + rapid.SampledFrom([]time.Duration{0, time.Second, 90 * time.Second, time.Hour}).Draw(t, "asked after")
			got := w.of(now, &c)
			for _, window := range []struct {
				name         string
				got          Window
				length, part time.Duration
			}{
				{"1m", got.Minute, time.Minute, minutePart},
				{"15m", got.Quarter, 15 * time.Minute, quarterPart},
				{"24h", got.Day, 24 * time.Hour, dayPart},
			} {
				least, most := sum(now-window.length+window.part), sum(now-window.length)
				for i, n := range []uint64{window.got.Routed, window.got.Delivered, window.got.Dropped} {
					l := []uint64{least.Routed, least.Delivered, least.Dropped}[i]
					m := []uint64{most.Routed, most.Delivered, most.Dropped}[i]
					if n < l || n > m {
						t.Fatalf("%s at %v: %+v, want from %+v to %+v", window.name, now, window.got, least, most)
					}
				}
			}
		}
	})
}

// Nothing is kept for an endpoint that sees nothing, and nothing more for each event.
func TestWindowsAllocateOnce(t *testing.T) {
	var w windows
	var c Counts
	age := time.Duration(0)
	w.of(age, &c)
	if w.past != nil {
		t.Error("allocated to be looked at")
	}
	w.roll(age, &c)
	if n := testing.AllocsPerRun(1000, func() {
		age += time.Second
		w.roll(age, &c)
	}); n > 0 {
		t.Errorf("%v allocations a change", n)
	}
}
