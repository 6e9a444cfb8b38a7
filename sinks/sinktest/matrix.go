package sinktest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// How a fault goes on.
const (
	clears = "clears"
	stays  = "stays"
	once   = "once"
)

// Run runs the whole matrix against a sink.
func Run(t *testing.T, s Service) {
	type run struct {
		cell cell
		how  string
	}
	var runs []run
	var names []string
	for _, c := range cells() {
		if _, out := c.leftOut[s.Type]; out {
			continue
		}
		for _, how := range []string{clears, stays, once} {
			if c.onlyStays != "" && how != stays || c.onlyOnce != "" && how != once || how == once && !c.once {
				continue
			}
			runs, names = append(runs, run{c, how}), append(names, c.name+", "+how)
		}
	}
	together(t, names, func(t *testing.T, i int) {
		r := newRig(t, s, runs[i].cell, runs[i].how == stays)
		stop := r.watch()
		// Also when the test ends early, so that nothing is left running.
		defer func() {
			stop()
			r.finish()
		}()
		r.walk(runs[i].how)
	})
}

// three is the dispatch of nearly every step: the Kafka partitions 0, 1 and 4,
// of which the last two share a partition of the hub, in different lanes.
func (r *rig) three(text string) (events uint64) {
	for _, partition := range []int32{0, 1, 4} {
		if r.cell.alone {
			r.settled()
		}
		r.put(partition, text, text)
	}
	return 6
}

// walk takes a sender through a fault.
func (r *rig) walk(how string) {
	if !r.cell.cold {
		n := r.three("before")
		r.expect("before the fault", r.settled(), n, 0)
	}
	times := 0
	if how == once {
		times = 1
	}
	r.strike(times)
	switch {
	case how == once:
		r.allDelivered("struck once")
		r.allDelivered("after")
	case r.cell.fate == aside:
		r.setAside()
	case r.cell.fate == delivered:
		r.unharmed()
	default:
		r.harmed(how)
	}
	if how != clears {
		return
	}
	if r.cell.fate != kept { // then it is mended already
		r.mend()
	}
	r.recover()
}

// allDelivered dispatches some events, which have to arrive all.
func (r *rig) allDelivered(text string) sinks.Snapshot {
	r.t.Helper()
	before := r.snapshot()
	n := uint64(4)
	r.put(0, r.big(text), text, text, text)
	if text != "struck once" { // what strikes once is to strike this batch
		n += r.three(text)
	}
	after := r.settled()
	r.expect(text, after, before.Counts.Delivered+n, before.Counts.DroppedTotal())
	if after.State != sinks.StateReady || after.LastError != "" {
		r.t.Errorf("%s: state %s, last error %q", text, after.State, after.LastError)
	}
	return after
}

func (r *rig) expect(when string, snap sinks.Snapshot, delivered, dropped uint64) {
	r.t.Helper()
	if c := &snap.Counts; c.Delivered != delivered || c.DroppedTotal() != dropped {
		r.t.Errorf("%s: %d delivered and %v dropped, want %d and %d; last error %q", when, c.Delivered, c.Dropped, delivered, dropped, snap.LastError)
	}
}

// big makes a text larger than a frame where the cell wants that.
func (r *rig) big(text string) string {
	if r.cell.big {
		return text + strings.Repeat(".", 100<<10)
	}
	return text
}

// unharmed: the fault costs no event.
func (r *rig) unharmed() {
	for range 2 {
		snap := r.allDelivered("struck")
		if r.cell.key2 != (snap.Key == sinks.Secondary) {
			r.t.Errorf("the key in use is %s", snap.Key)
		}
	}
	if refused := r.logs.FilterMessageSnippet("key refused").Len(); r.cell.key2 != (refused == 1) {
		r.t.Errorf("%d lines in the log about a refused key", refused)
	}
}

// harmed: the fault costs events and makes the endpoint back off.
func (r *rig) harmed(how string) {
	before := r.snapshot()
	r.put(0, r.big("struck"), "struck", "struck")
	if r.cell.fate == kept {
		snap := r.await("it is throttled", func(s sinks.Snapshot) bool { return s.State == sinks.StateThrottled })
		r.names(snap.LastError)
		if how == clears {
			r.mend()
			r.expect("throttled for a while", r.settled(), before.Counts.Delivered+3, 0)
			return
		}
	}
	snap := r.settled()
	if n := snap.Counts.Dropped[r.cell.reason]; n != 3 || snap.Counts.DroppedTotal() != 3 || snap.Counts.Delivered != before.Counts.Delivered {
		r.t.Errorf("delivered %d, dropped %v, want 3 as %s", snap.Counts.Delivered-before.Counts.Delivered, snap.Counts.Dropped, r.cell.reason)
	}
	r.backsOff(snap)

	// Whoever comes now is dropped, one way or the other, and probes go wrong.
	r.three(r.big("meanwhile"))
	r.settled()
	if how == stays {
		r.feed("a probe failed", func(s sinks.Snapshot) bool {
			return s.Counts.Dropped[r.cell.reason] > snap.Counts.Dropped[r.cell.reason] && s.State == sinks.StateBackingOff
		})
		r.backsOff(r.settled())
	}
	snap = r.snapshot()
	if c := snap.Counts; c.Delivered != before.Counts.Delivered || c.DroppedTotal() != c.Dropped[r.cell.reason]+c.Dropped[event.Backoff] {
		r.t.Errorf("while the fault stays: delivered %d, dropped %v", c.Delivered, c.Dropped)
	}
	if opened := r.logs.FilterMessageSnippet("backs off").Len(); opened < 1 {
		r.t.Error("the log has no line about the back-off")
	}
}

func (r *rig) backsOff(snap sinks.Snapshot) {
	r.t.Helper()
	atMost := max(options.BackoffMax, time.Second) // a throttling service says one second
	if left := time.Until(snap.BackOffUntil); snap.State != sinks.StateBackingOff || snap.BackOffUntil.IsZero() || left > atMost {
		r.t.Errorf("state %s until %v", snap.State, snap.BackOffUntil)
	}
	r.names(snap.LastError)
}

// names checks that a text names the cause and the reason.
func (r *rig) names(text string) {
	r.t.Helper()
	if !r.cause.MatchString(text) || !strings.HasPrefix(text, r.cell.reason.String()+": ") {
		r.t.Errorf("%q does not name the cause, %q, after %q", text, r.cell.cause, r.cell.reason)
	}
}

// feed dispatches one event after the other until ok says so.
func (r *rig) feed(what string, ok func(sinks.Snapshot) bool) {
	r.t.Helper()
	turn := int32(0)
	r.await(what, func(s sinks.Snapshot) bool {
		if ok(s) {
			return true
		}
		if s.Counts.Pending == 0 {
			r.put(turn%5, r.big("feed"))
			turn++
		}
		return false
	})
}

// setAside: only the bad events are dropped, and all of those.
func (r *rig) setAside() {
	before := r.snapshot()
	bad := r.cell.bad(r)
	texts := slices.Repeat([]string{"good"}, 12)
	texts[0], texts[4], texts[5] = bad, bad, bad
	r.put(0, texts...)
	r.put(1, "good", bad)
	r.put(4, "good")
	snap := r.settled()
	r.expect("four bad events", snap, before.Counts.Delivered+11, 4)
	if snap.Counts.Dropped[r.cell.reason] != 4 || snap.State != sinks.StateReady || snap.LastError != "" {
		r.t.Errorf("dropped %v, state %s, last error %q", snap.Counts.Dropped, snap.State, snap.LastError)
	}
	letters := r.letters.copied()
	for id, text := range r.sent {
		letter, is := letters[id]
		if is != (text == bad) || is && (letter.reason != r.cell.reason || !r.cause.MatchString(letter.detail)) {
			r.t.Errorf("%v: dead letter %v with %s %q", id, is, letter.reason, letter.detail)
		}
	}
}

// recover: the fault is over, and soon it is as if it had never been.
func (r *rig) recover() {
	delivered := r.snapshot().Counts.Delivered
	begun := time.Now()
	r.feed("something is delivered again", func(s sinks.Snapshot) bool { return s.Counts.Delivered > delivered })
	// A back-off and a time-out, and both again for who was probing just then.
	if took, atMost := time.Since(begun), 2*(options.BackoffMax+options.Timeout)+3*time.Second; took > atMost {
		r.t.Errorf("recovering took %v", took)
	}
	r.settled()
	bad := "after"
	if r.cell.bad != nil {
		bad = r.cell.bad(r) // it is none any more
	}
	r.allDelivered(bad)
}

// finish stops the sender and looks at what is left of it all.
func (r *rig) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begun := time.Now()
	err := r.Close(ctx)
	if took := time.Since(begun); took > patience/2 {
		r.t.Errorf("Close took %v", took)
	}
	snap := r.snapshot()
	if snap.State != sinks.StateStopped || snap.Counts.Pending != 0 || snap.Counts.Routed != uint64(len(r.sent)) {
		r.t.Errorf("in the end: state %s, routed %d of %d, pending %d", snap.State, snap.Counts.Routed, len(r.sent), snap.Counts.Pending)
	}
	r.mu.Lock()
	unsettled := r.unsettled
	r.mu.Unlock()
	if unsettled != 0 {
		r.t.Errorf("%d chunks are not settled", unsettled)
	}
	r.checkStored(snap)
	r.checkSecrets(err)
	if r.impostor != nil && r.impostor.Stats().Count() != 0 {
		r.t.Error("events went to a service with the wrong certificate")
	}
}
