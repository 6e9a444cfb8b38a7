package sinks

import (
	"context"
	"math"
	"math/bits"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"twinegress/internal/event"
)

// fuzz makes a fuzz target of a property.
func fuzz(f *testing.F, property func(*testing.T) func(*rapid.T)) {
	f.Helper()
	f.Add([]byte("a first input, of which rapid makes its draws"))
	f.Fuzz(func(t *testing.T, data []byte) { rapid.MakeFuzz(property(t))(t, data) })
}

// waits are durations as a service may ask for: any, and those at which a sum or
// a comparison changes its result.
func waits(limit time.Duration) *rapid.Generator[time.Duration] {
	const most, least = math.MaxInt64, math.MinInt64
	return rapid.OneOf(
		rapid.SampledFrom([]time.Duration{
			least, -1, 0, 1, minThrottle, limit - 1, limit, limit + 1, limit / 2,
			most - limit - 1, most - limit, most - limit + 1, most - 1, most,
		}),
		rapid.Map(rapid.Int64(), func(n int64) time.Duration { return time.Duration(n) }),
		rapid.Map(rapid.Int64Range(0, int64(limit)), func(n int64) time.Duration { return time.Duration(n) }),
	)
}

// Whatever a service answers, in whatever order: what a batch waits for in all is
// within the limit, its outcome comes, and a back-off ends within 30 minutes.
func TestWaitsAreBounded(t *testing.T) { rapid.Check(t, waitsAreBounded(t)) }

func FuzzWaits(f *testing.F) { fuzz(f, waitsAreBounded) }

func waitsAreBounded(t *testing.T) func(*rapid.T) {
	return func(rt *rapid.T) {
		limit := time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(rt, "limit"))
		type answer struct {
			reason event.Reason
			wait   time.Duration
		}
		answers := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) answer {
			reasons := []event.Reason{event.Throttled, event.Throttled, event.Throttled, event.Unreachable, event.Unauthorized, event.Rejected}
			return answer{rapid.SampledFrom(reasons).Draw(rt, "reason"), waits(limit).Draw(rt, "wait")}
		}), 1, 12).Draw(rt, "answers")

		synctest.Test(t, func(t *testing.T) {
			options := defaults
			options.ThrottleLimit = limit
			h := newHarness(t, hub, options)
			var errs []error
			for _, a := range answers {
				errs = append(errs, refusal(a.reason, a.wait))
			}
			h.service.respond = script(errs...)
			h.put(0, 1)
			advance(options.Linger + limit + time.Duration(len(answers))*options.Timeout)
			if n := h.snapshot().Counts.Pending; n != 0 {
				rt.Errorf("%d events have no outcome", n)
			}
			var waited time.Duration
			calls := h.calls()
			for i, c := range calls[1:] {
				if gap := c.at - calls[i].at; answers[i].reason == event.Throttled {
					waited += gap
					if gap < minThrottle {
						rt.Errorf("sent again %v after the service asked to wait", gap)
					}
				}
			}
			if waited > limit {
				rt.Errorf("waited %v, the limit is %v", waited, limit)
			}
			if backOff := time.Until(h.snapshot().BackOffUntil); backOff > options.BackoffMax {
				rt.Errorf("backs off for %v", backOff)
			}
			h.finish()
		})
	}
}

// For any bad events in a batch, and any number that the service takes at a time:
// exactly those are set aside, all others arrive in order, and k bad events cost
// O(k log n) sends.
func TestHalving(t *testing.T) { rapid.Check(t, halving(t)) }

func FuzzHalving(f *testing.F) { fuzz(f, halving) }

func halving(t *testing.T) func(*rapid.T) {
	return func(rt *rapid.T) {
		n := rapid.IntRange(1, defaults.MaxEvents).Draw(rt, "events")
		fit := rapid.IntRange(1, n).Draw(rt, "events that fit")
		bad := map[int64]event.Reason{}
		for _, offset := range rapid.SliceOfDistinct(rapid.Int64Range(0, int64(n-1)), rapid.ID[int64]).Draw(rt, "bad") {
			bad[offset] = rapid.SampledFrom([]event.Reason{event.Rejected, event.TooLarge}).Draw(rt, "reason")
		}
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, hub, defaults)
			h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
				events = events[:min(len(events), fit)]
				for _, ev := range events {
					if reason, is := bad[ev.Record.Offset]; is {
						return len(events), refusal(reason, 0)
					}
				}
				return len(events), nil
			}
			h.put(0, n)
			advance(time.Second)
			var wantStored []int64
			for offset := range int64(n) {
				if _, is := bad[offset]; !is {
					wantStored = append(wantStored, offset)
				}
			}
			if got := h.service.stored[0]; !slices.Equal(got, wantStored) {
				rt.Errorf("stored are %v, want %v", got, wantStored)
			}
			if len(h.letters.got) != len(bad) {
				rt.Errorf("%d events were set aside, want %d", len(h.letters.got), len(bad))
			}
			for _, l := range h.letters.got {
				if bad[l.offset] != l.reason {
					rt.Errorf("event %d was set aside as %s, want %s", l.offset, l.reason, bad[l.offset])
				}
			}
			most := (n+fit-1)/fit + len(bad)*(bits.Len(uint(fit))+2)
			if sends := len(h.calls()); sends > most {
				rt.Errorf("%d sends for %d bad events among %d, %d at a time, want %d at most", sends, len(bad), n, fit, most)
			}
			h.finish()
		})
	}
}
