package sinks

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// What becomes of one batch of three events, by what the service answers.
func TestOneBatch(t *testing.T) {
	unreachable := refusal(event.Unreachable, 0)
	throttled := func(wait time.Duration) error { return refusal(event.Throttled, wait) }
	at := func(times ...time.Duration) (calls []call) {
		for _, d := range times {
			calls = append(calls, sent(5*ms+d, 3))
		}
		return calls
	}
	cases := map[string]struct {
		answers  []error
		attempts int
		timeout  time.Duration
		limit    time.Duration // of throttling
		calls    []call
		counts   counts
		state    State
		backOff  time.Duration // at least; 0: the initial one
		lastErr  string        // where it matters
	}{
		"delivered":                       {calls: at(0), counts: counts{"delivered": 3}, state: StateReady},
		"tried again, doubling the delay": {answers: []error{unreachable, errTest}, calls: at(0, 100*ms, 300*ms), counts: counts{"delivered": 3}, state: StateReady},
		"given up after the attempts":     {answers: []error{unreachable, errTest, unreachable}, calls: at(0, 100*ms, 300*ms), counts: counts{"unreachable": 3}, state: StateBackingOff},
		"one attempt":                     {answers: []error{unreachable}, attempts: 1, calls: at(0), counts: counts{"unreachable": 3}, state: StateBackingOff},
		"given up after the time-out": {
			answers: []error{unreachable, unreachable, unreachable, unreachable}, attempts: 9, timeout: 500 * ms,
			calls: at(0, 100*ms, 300*ms), counts: counts{"unreachable": 3}, state: StateBackingOff,
		},
		"hung: costs its time-out":                 {answers: []error{errHang}, timeout: 500 * ms, calls: at(0), counts: counts{"unreachable": 3}, state: StateBackingOff},
		"hung at last: the try before says why":    {answers: []error{unreachable, errTest, errHang}, timeout: 350 * ms, calls: at(0, 100*ms, 300*ms), counts: counts{"unreachable": 3}, state: StateBackingOff, lastErr: "unreachable: context deadline exceeded, after test"},
		"rejected, but no event: not its fault":    {answers: []error{ofNoEvent{refusal(event.Rejected, 0)}}, calls: []call{sent(5*ms, 0)}, counts: counts{"unreachable": 3}, state: StateBackingOff},
		"too large, but no event: not its fault":   {answers: []error{ofNoEvent{refusal(event.TooLarge, 0)}}, calls: []call{sent(5*ms, 0)}, counts: counts{"unreachable": 3}, state: StateBackingOff},
		"throttled: kept, and sent after the wait": {answers: []error{throttled(4 * time.Second)}, calls: at(0, 4*time.Second), counts: counts{"delivered": 3}, state: StateReady},
		"throttled: twice":                         {answers: []error{throttled(4 * time.Second), throttled(2 * time.Second)}, calls: at(0, 4*time.Second, 6*time.Second), counts: counts{"delivered": 3}, state: StateReady},
		"throttled: no tight loop without a wait":  {answers: []error{throttled(0), throttled(0)}, calls: at(0, time.Second, 2*time.Second), counts: counts{"delivered": 3}, state: StateReady},
		"throttled: up to the limit":               {answers: []error{throttled(4 * time.Second), throttled(4 * time.Second)}, limit: 8 * time.Second, calls: at(0, 4*time.Second, 8*time.Second), counts: counts{"delivered": 3}, state: StateReady},
		"throttled: all waits together": {
			answers: []error{throttled(4 * time.Second), throttled(4 * time.Second), throttled(4 * time.Second)}, limit: 10 * time.Second,
			calls: at(0, 4*time.Second, 8*time.Second), counts: counts{"throttled": 3}, state: StateBackingOff, backOff: 4 * time.Second,
		},
		"throttled: past the limit":                   {answers: []error{throttled(40 * time.Second), throttled(50 * time.Second)}, limit: 89 * time.Second, calls: at(0, 40*time.Second), counts: counts{"throttled": 3}, state: StateBackingOff, backOff: 50 * time.Second},
		"throttled: told to wait longer than allowed": {answers: []error{throttled(5 * time.Minute)}, calls: at(0), counts: counts{"throttled": 3}, state: StateBackingOff, backOff: 5 * time.Minute},
		"throttled: told to wait for ever, then":      {answers: []error{throttled(time.Second), throttled(math.MaxInt64)}, calls: at(0, time.Second), counts: counts{"throttled": 3}, state: StateBackingOff, backOff: 24 * time.Minute},
		"throttled, then unreachable":                 {answers: []error{throttled(time.Second), unreachable}, calls: at(0, time.Second, time.Second+100*ms), counts: counts{"delivered": 3}, state: StateReady},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				if test.attempts > 0 {
					options.Attempts = test.attempts
				}
				if test.timeout > 0 {
					options.Timeout = test.timeout
				}
				if test.limit > 0 {
					options.ThrottleLimit = test.limit
				}
				h := newHarness(t, hub, options)
				h.service.respond = script(test.answers...)
				h.put(0, 3)
				synctest.Wait()
				last := test.calls[len(test.calls)-1].at
				if last > 5*ms {
					advance(last - ms - time.Since(h.start)) // just before the last send
					if n := h.snapshot().Counts.Pending; n != 3 {
						t.Errorf("%d pending before the last send, want 3", n)
					}
				}
				advance(last - time.Since(h.start))
				if test.timeout > 0 {
					advance(test.timeout)
				}
				h.expectCalls(test.calls...)
				h.expect(test.counts)
				snap := h.snapshot()
				if snap.State != test.state {
					t.Errorf("state is %s, want %s", snap.State, test.state)
				}
				if (snap.Reason != "") != (test.state == StateBackingOff) || (snap.LastError == "") != snap.LastErrorAt.IsZero() {
					t.Errorf("a sender that is %s: %q, last error %q at %v", snap.State, snap.Reason, snap.LastError, snap.LastErrorAt)
				}
				if test.lastErr != "" && snap.LastError != test.lastErr {
					t.Errorf("last error is %q, want %q", snap.LastError, test.lastErr)
				}
				if test.state == StateBackingOff {
					wait := time.Until(snap.BackOffUntil)
					if test.backOff == 0 && (wait > time.Second || wait < 300*ms) || wait < test.backOff {
						t.Errorf("backs off for %v", wait)
					}
				}
				h.finish()
			})
		})
	}
}

func TestThrottledState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = script(refusal(event.Throttled, 4*time.Second))
		h.put(0, 1)
		advance(time.Second)
		if snap := h.snapshot(); snap.State != StateThrottled || !strings.Contains(snap.LastError, "throttled") {
			t.Errorf("while waiting: %s, %q", snap.State, snap.LastError)
		}
		h.put(1, 1) // another lane is not held up
		advance(time.Second)
		h.expect(counts{"delivered": 1, "pending": 1})
		advance(time.Minute)
		h.expect(counts{"delivered": 2})
		h.finish()
	})
}

// The whole of a back-off: the batch has its own reason, everything else is
// dropped as backoff until one probe goes out, which fails, then one succeeds.
func TestBackOffAndProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Attempts = 1
		options.MaxEvents = 10
		h := newHarness(t, hub, options)
		down := true
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(ms)
			if down {
				return len(events), errTest
			}
			return len(events), nil
		}
		h.put(0, 25) // two more batches in the queue
		h.put(8, 4)  // the same lane
		advance(ms)
		h.expect(counts{"unreachable": 10, "backoff": 19})
		h.put(1, 7) // another lane
		h.expect(counts{"unreachable": 10, "backoff": 26})
		if n := h.unsettled(); n != 0 {
			t.Errorf("%d chunks unsettled while backing off", n)
		}

		until := h.snapshot().BackOffUntil
		advance(time.Until(until) - 1)
		h.put(0, 1)
		synctest.Wait()
		h.expect(counts{"unreachable": 10, "backoff": 27})
		advance(1)
		h.put(0, 10) // the probe
		synctest.Wait()
		if s := h.snapshot().State; s != StateProbing {
			t.Errorf("state is %s, want probing", s)
		}
		h.put(1, 5) // others don't go along
		advance(ms)
		h.expect(counts{"unreachable": 20, "backoff": 32})
		if n := len(h.calls()); n != 2 {
			t.Errorf("%d sends, want 2", n)
		}
		if wait := time.Until(h.snapshot().BackOffUntil); wait < 1600*ms || wait > 2*time.Second {
			t.Errorf("the second wait is %v, want about 2 s", wait)
		}

		down = false
		advance(time.Until(h.snapshot().BackOffUntil))
		h.put(0, 10)
		advance(ms)
		h.put(1, 10)
		advance(ms)
		h.expect(counts{"unreachable": 20, "backoff": 32, "delivered": 20})
		if snap := h.snapshot(); snap.State != StateReady || snap.Reason != "" || snap.LastError == "" || !snap.BackOffUntil.IsZero() {
			t.Errorf("after the probe's success: %+v", snap.Health)
		}

		down = true // the wait starts anew
		h.put(0, 10)
		advance(ms)
		if wait := time.Until(h.snapshot().BackOffUntil); wait > time.Second {
			t.Errorf("the wait after a success is %v, want at most 1 s", wait)
		}
		h.finish()
	})
}

// An endpoint that takes its time holds the dispatcher back, and says so.
func TestOverflow(t *testing.T) {
	for _, overflow := range []endpoints.Overflow{endpoints.OverflowBlock, endpoints.OverflowDrop} {
		t.Run(string(overflow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.MaxEvents = 10
				h := newHarness(t, hub, options)
				endpoint := hub
				endpoint.Overflow = overflow
				h.Update(endpoint)
				h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
					<-time.After(time.Second)
					return len(events), nil
				}
				h.put(0, 39) // one below the limit: the next run is let in whole
				h.put(0, 11)
				synctest.Wait()
				if h.snapshot().HoldsBack {
					t.Error("holds back before it must")
				}
				done := make(chan struct{})
				go func() {
					h.put(0, 5)
					close(done)
				}()
				synctest.Wait()
				if overflow == endpoints.OverflowDrop {
					<-done
					h.expect(counts{"overflow": 5, "pending": 50})
				} else {
					select {
					case <-done:
						t.Error("a full lane took events")
					default:
					}
					if !h.snapshot().HoldsBack {
						t.Error("does not say that it holds back")
					}
					h.expect(counts{"pending": 55})
				}
				advance(2 * time.Second)
				<-done
				if h.snapshot().HoldsBack {
					t.Error("still holds back")
				}
				advance(time.Minute)
				h.inOrder()
				h.finish()
			})
		})
	}
}

// A dispatcher that is stopped at a full lane leaves the chunk unsettled.
func TestEnqueueIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.MaxEvents = 1
		h := newHarness(t, hub, options)
		h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
			<-ctx.Done()
			return len(events), ctx.Err()
		}
		h.put(0, 4)
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errTest)
		defer cancel()
		if err := h.dispatch(ctx, h.chunk(0, 2, 10)); err != errTest { //nolint:errorlint // the cause itself
			t.Errorf("the error is %v", err)
		}
		if snap := h.snapshot(); snap.Counts.Pending != 6 || snap.HoldsBack {
			t.Errorf("pending %d, holds back %v", snap.Counts.Pending, snap.HoldsBack)
		}
		stopped, stop := context.WithCancel(t.Context())
		stop()
		if err := h.Close(stopped); err != nil {
			t.Error(err)
		}
		if n := h.unsettled(); n != 2 {
			t.Errorf("%d chunks are unsettled, want both", n)
		}
	})
}

// A success that was in flight when another lane's failure opened the breaker does
// not hide why the endpoint backs off.
func TestLateSuccessHidesNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Attempts = 1
		h := newHarness(t, hub, options)
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			if events[0].Chunk.Partition == 0 {
				<-time.After(10 * ms)
				return len(events), errTest
			}
			<-time.After(20 * ms)
			return len(events), nil
		}
		h.put(0, 1)
		h.put(1, 1)
		advance(100 * ms)
		h.expect(counts{"unreachable": 1, "delivered": 1})
		if snap := h.snapshot(); snap.State != StateBackingOff || !strings.Contains(snap.LastError, errTest.Error()) {
			t.Errorf("%s, because of %q", snap.State, snap.LastError)
		}
		h.finish()
	})
}

// An endpoint that takes nothing at all is noticed, once.
func TestNothingButRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		for _, step := range []struct {
			respond  func(context.Context, string, []*event.Event) (int, error)
			n        int
			warnings int
			state    State
		}{
			{always(refusal(event.Rejected, 0)), refusedInARow - 1, 0, StateReady},
			{nil, 1, 0, StateReady},
			{always(refusal(event.Rejected, 0)), refusedInARow - 1, 0, StateReady},
			{always(refusal(event.Rejected, 0)), refusedInARow, 1, StateDegraded},
			{nil, 1, 1, StateReady},
		} {
			h.service.respond = step.respond
			h.put(0, step.n)
			advance(time.Second)
			if n := h.logs.Len(); n != step.warnings {
				t.Errorf("%d warnings after %d more, want %d", n, step.n, step.warnings)
			}
			snap := h.snapshot()
			if degraded := step.state == StateDegraded; snap.State != step.state ||
				(snap.Reason == "rejected") != degraded ||
				strings.Contains(snap.LastError, RefusesAll) != degraded || snap.FailingSince.IsZero() == degraded {
				t.Errorf("after %d more: %+v", step.n, snap.Health)
			}
		}
		h.expect(counts{"rejected": 3*refusedInARow - 2, "delivered": 2})
		h.finish()
	})
}

// always returns this error from each Send.
func always(err error) func(context.Context, string, []*event.Event) (int, error) {
	return func(_ context.Context, _ string, events []*event.Event) (int, error) { return len(events), err }
}
