package sinktest

import (
	"slices"
	"testing"
	"time"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// RunOnePartition injects faults into one partition of a hub, while events flow to
// all of them. What is for the others must arrive, whatever the SDK takes the
// partition's answers for: they share its client.
func RunOnePartition(t *testing.T, s Service) {
	const down = 1
	var tests []subtest
	for name, fault := range map[string]emulator.Fault{
		"internal error":          rejectedWith("amqp:internal-error"),
		"released":                {Outcome: emulator.OutcomeReleased},
		"detached":                {Detach: "amqp:link:detach-forced"},
		"detached with not-found": {Detach: "amqp:not-found"},
		"refused":                 {Refuse: "com.microsoft:argument-out-of-range"},
		"refused, not found":      {Refuse: "amqp:not-found"},
		"never settled":           {NeverSettle: true},
		"connection cut":          {Cut: emulator.CutBefore},
		"connection forced":       {Cut: emulator.CutClose},
	} {
		tests = append(tests, subtest{name, func(t *testing.T) {
			e := newEnv(t, s, faultCase{name: name, fault: fault, repeats: true}, true)
			stop := e.watch()
			defer func() {
				stop()
				e.finish()
			}()
			e.feedAll("each lane has its connection", func(snap sinks.Snapshot) bool { return snap.Counts.Delivered > 50 })
			e.expect("before the fault", e.settled(), uint64(len(e.sent)), 0)

			fault.Partitions = []int{down}
			e.setFault(fault)
			failures := 3
			if fault.NeverSettle {
				failures = 2 // they take a time-out each
			}
			e.feedAll("it was tried again and again", func(snap sinks.Snapshot) bool {
				if snap.State == sinks.StateDegraded && !slices.Equal(snap.PartitionsBackingOff, []int{down}) {
					e.t.Errorf("%v back off", snap.PartitionsBackingOff)
				}
				failed := e.logs.FilterMessageSnippet("part of the endpoint backs off").Len()
				return failed >= failures && snap.State == sinks.StateDegraded
			})
			e.clearFault()
			e.feedAll("it is ready", func(snap sinks.Snapshot) bool { return snap.State == sinks.StateReady })
			e.settled()
			for id, l := range e.letters.all() {
				if id.partition%partitions != down || l.reason != event.Unreachable && l.reason != event.Backoff {
					e.t.Fatalf("of partition %d was dropped: %+v", id.partition, l)
				}
			}
			e.allDelivered("after")
		}})
	}
	runParallel(t, tests)
}

// feedAll dispatches an event to each of some Kafka partitions, of all lanes, time
// and again until ok holds.
func (e *env) feedAll(what string, ok func(sinks.Snapshot) bool) {
	e.t.Helper()
	last := time.Now()
	e.await(what, func(snap sinks.Snapshot) bool {
		if ok(snap) {
			return true
		}
		// At a pace that ten tests side by side can keep; what hangs holds up its own lanes.
		if time.Since(last) > 20*time.Millisecond && snap.Counts.Pending < 100 {
			last = time.Now()
			for partition := range int32(event.Lanes) {
				e.dispatch(partition, "flow")
			}
		}
		return false
	})
}
