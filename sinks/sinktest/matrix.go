package sinktest

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// Run runs the matrix against a sink.
func Run(t *testing.T, s Service) {
	var tests []subtest
	for _, c := range cases() {
		if !s.speaks(c.only) {
			continue
		}
		ways := c.how
		if ways == nil {
			ways = []string{clears, stays}
		}
		for _, how := range ways {
			tests = append(tests, subtest{c.name + ", " + how, func(t *testing.T) {
				e := newEnv(t, s, c, how == stays)
				stop := e.watch()
				// Also when the test ends early, so that nothing is left running.
				defer func() {
					stop()
					e.finish()
				}()
				e.run(how)
			}})
		}
	}
	runParallel(t, tests)
}

// three dispatches two events to each of the Kafka partitions 0, 1 and 4, of
// which the last two share a partition of the hub, in different lanes.
func (e *env) three(text string) (events uint64) {
	for _, partition := range []int32{0, 1, 4} {
		if e.test.alone {
			e.settled()
		}
		e.dispatch(partition, text, text)
	}
	return 6
}

// run is one test: a sender before, during and after a fault.
func (e *env) run(how string) {
	if !e.test.cold {
		n := e.three("before")
		e.expect("before the fault", e.settled(), n, 0)
	}
	times := 0
	if how == once {
		times = 1
	}
	e.inject(times)
	switch {
	case how == once:
		e.allDelivered("the fault once")
		e.allDelivered("after")
	case e.test.want == setAside:
		e.expectSetAside()
	case e.test.want == delivered:
		e.expectDelivered()
	default:
		e.expectBackoff(how)
	}
	if how != clears {
		return
	}
	if e.test.want != kept { // then it is repaired already
		e.repair()
	}
	e.expectRecovery()
}

// allDelivered dispatches some events and expects all of them delivered.
func (e *env) allDelivered(text string) sinks.Snapshot {
	e.t.Helper()
	before := e.snapshot()
	n := uint64(4)
	e.dispatch(0, e.big(text), text, text, text)
	if text != "the fault once" { // the fault is to meet this batch
		n += e.three(text)
	}
	after := e.settled()
	e.expect(text, after, before.Counts.Delivered+n, before.Counts.DroppedTotal())
	if after.State != sinks.StateReady || (after.Reason != "") != (after.Key == sinks.Secondary) {
		e.t.Errorf("%s: state %s, last error %q", text, after.State, after.LastError)
	}
	return after
}

func (e *env) expect(when string, snap sinks.Snapshot, delivered, dropped uint64) {
	e.t.Helper()
	if c := &snap.Counts; c.Delivered != delivered || c.DroppedTotal() != dropped {
		e.t.Errorf("%s: %d delivered and %v dropped, want %d and %d; last error %q", when, c.Delivered, c.Dropped, delivered, dropped, snap.LastError)
	}
}

// big makes a text larger than a frame where the case needs that.
func (e *env) big(text string) string {
	if e.test.big {
		return text + strings.Repeat(".", 100<<10)
	}
	return text
}

// expectDelivered dispatches events that the fault must not cost.
func (e *env) expectDelivered() {
	for range 2 {
		snap := e.allDelivered("during the fault")
		if e.test.secondary != (snap.Key == sinks.Secondary) {
			e.t.Errorf("the key in use is %s", snap.Key)
		}
	}
	if refused := e.logs.FilterMessageSnippet("key refused").Len(); e.test.secondary != (refused == 1) {
		e.t.Errorf("%d lines in the log about a refused key", refused)
	}
}

// expectBackoff dispatches events that the fault costs, and expects the endpoint
// to back off.
func (e *env) expectBackoff(how string) {
	before := e.snapshot()
	e.dispatch(0, e.big("during the fault"), "during the fault", "during the fault")
	if e.test.want == kept {
		snap := e.await("it is throttled", func(s sinks.Snapshot) bool { return s.State == sinks.StateThrottled })
		e.expectCause(snap.LastError)
		if how == clears {
			e.repair()
			e.expect("throttled for a while", e.settled(), before.Counts.Delivered+3, 0)
			return
		}
	}
	snap := e.settled()
	if n := snap.Counts.Dropped[e.test.reason]; n != 3 || snap.Counts.DroppedTotal() != 3 || snap.Counts.Delivered != before.Counts.Delivered {
		e.t.Errorf("delivered %d, dropped %v, want 3 as %s", snap.Counts.Delivered-before.Counts.Delivered, snap.Counts.Dropped, e.test.reason)
	}
	e.expectBackingOff(snap)

	// What is dispatched now is dropped, in the back-off or as a failed probe.
	e.three(e.big("meanwhile"))
	e.settled()
	if how == stays {
		e.feed("a probe failed", func(s sinks.Snapshot) bool {
			return s.Counts.Dropped[e.test.reason] > snap.Counts.Dropped[e.test.reason] && s.State == sinks.StateBackingOff
		})
		e.expectBackingOff(e.settled())
	}
	snap = e.snapshot()
	if c := snap.Counts; c.Delivered != before.Counts.Delivered || c.DroppedTotal() != c.Dropped[e.test.reason]+c.Dropped[event.Backoff] {
		e.t.Errorf("while the fault stays: delivered %d, dropped %v", c.Delivered, c.Dropped)
	}
	if opened := e.logs.FilterMessageSnippet("backs off").Len(); opened < 1 {
		e.t.Error("the log has no line about the back-off")
	}
}

func (e *env) expectBackingOff(snap sinks.Snapshot) {
	e.t.Helper()
	atMost := max(options.BackoffMax, time.Second) // a throttling service says one second
	if left := time.Until(snap.BackOffUntil); snap.State != sinks.StateBackingOff || snap.BackOffUntil.IsZero() || left > atMost {
		e.t.Errorf("state %s until %v", snap.State, snap.BackOffUntil)
	}
	e.expectCause(snap.LastError)
}

// causedBy reports whether a text names the cause.
func (e *env) causedBy(text string) bool { return regexp.MustCompile(e.test.cause).MatchString(text) }

// expectCause checks that a text names the cause and the reason.
func (e *env) expectCause(text string) {
	e.t.Helper()
	if !e.causedBy(text) || !strings.HasPrefix(text, e.test.reason.String()+": ") {
		e.t.Errorf("%q does not name the cause, %q, after %q", text, e.test.cause, e.test.reason)
	}
}

// feed dispatches one event after the other until ok holds for a snapshot.
func (e *env) feed(what string, ok func(sinks.Snapshot) bool) {
	e.t.Helper()
	turn := int32(0)
	e.await(what, func(s sinks.Snapshot) bool {
		if ok(s) {
			return true
		}
		if s.Counts.Pending == 0 {
			e.dispatch(turn%5, e.big("feed"))
			turn++
		}
		return false
	})
}

// expectSetAside dispatches bad events among good ones, and expects the bad ones
// alone to be dropped.
func (e *env) expectSetAside() {
	before := e.snapshot()
	bad := e.test.bad
	texts := slices.Repeat([]string{"good"}, 12)
	texts[0], texts[4], texts[5] = bad, bad, bad
	e.dispatch(0, texts...)
	e.dispatch(1, "good", bad)
	e.dispatch(4, "good")
	snap := e.settled()
	e.expect("four bad events", snap, before.Counts.Delivered+11, 4)
	if snap.Counts.Dropped[e.test.reason] != 4 || snap.State != sinks.StateReady || snap.Reason != "" {
		e.t.Errorf("dropped %v, state %s, last error %q", snap.Counts.Dropped, snap.State, snap.LastError)
	}
	letters := e.letters.all()
	for id, text := range e.sent {
		letter, is := letters[id]
		if is != (text == bad) || is && (letter.reason != e.test.reason || !e.causedBy(letter.detail)) {
			e.t.Errorf("%v: dead letter %v with %s %q", id, is, letter.reason, letter.detail)
		}
	}
}

// expectRecovery expects every event delivered soon after the repair.
func (e *env) expectRecovery() {
	delivered := e.snapshot().Counts.Delivered
	begun := time.Now()
	e.feed("something is delivered again", func(s sinks.Snapshot) bool { return s.Counts.Delivered > delivered })
	// A back-off and a time-out, and both again after a probe amid the repair.
	if took, atMost := time.Since(begun), 2*(options.BackoffMax+options.Timeout)+3*time.Second; took > atMost {
		e.t.Errorf("recovering took %v", took)
	}
	e.settled()
	e.allDelivered(cmp.Or(e.test.bad, "after")) // what was bad is so no more
}

// finish closes the sender and checks its end state.
func (e *env) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	begun := time.Now()
	err := e.Close(ctx)
	if took := time.Since(begun); took > waitTimeout/2 {
		e.t.Errorf("Close took %v", took)
	}
	snap := e.snapshot()
	if snap.State != sinks.StateStopped || snap.Counts.Pending != 0 || snap.Counts.Routed != uint64(len(e.sent)) {
		e.t.Errorf("in the end: state %s, routed %d of %d, pending %d", snap.State, snap.Counts.Routed, len(e.sent), snap.Counts.Pending)
	}
	e.mu.Lock()
	unsettled := e.unsettled
	e.mu.Unlock()
	if unsettled != 0 {
		e.t.Errorf("%d chunks are not settled", unsettled)
	}
	e.checkStored(snap)
	e.checkSecrets(err)
	if e.impostor != nil && e.impostor.Stats().Count() != 0 {
		e.t.Error("events went to a service with the wrong certificate")
	}
}

// RunShrunk replaces a hub by one of the same name with fewer partitions. The
// sink asked for them once, so what goes to the others fails; the endpoint
// recovers without being changed.
func RunShrunk(t *testing.T, s Service) {
	e := newEnv(t, s, faultCase{name: "shrunk"}, false)
	e.three("before")
	e.expect("before", e.settled(), 6, 0)
	address := e.emulator.AMQPAddr()
	if err := e.emulator.Close(); err != nil {
		t.Fatal(err)
	}
	e.emulator = s.start(t, keys, func(c *emulator.Config) {
		c.AMQPListen, c.Hubs[0].Partitions = address, 1
	})
	e.feed("each Kafka partition is tried twice", func(snap sinks.Snapshot) bool {
		return len(e.sent) > 6+2*5 && snap.State == sinks.StateReady
	})
	e.settled()
	e.allDelivered("after")
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
}
