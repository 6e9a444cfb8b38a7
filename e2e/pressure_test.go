//go:build integration

package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"twinegress/internal/emulator"
)

// An endpoint is slower than its events come, for longer than any time-out of
// the group. Polling waits for it; the copy stays in the group, nothing is
// dropped, and the lag says how far it is behind.
func TestSlowEndpointHoldsBack(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel() // it is held back for longer than the group's time-outs
			const partitions, n = 4, 60_000
			w := newWorld(t, brokers(t), partitions, nil)
			if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(time.Second)}); err != nil {
				t.Fatal(err)
			}
			r := w.run("one", settings{
				"ingest.protocol": protocol, "ingest.maxInFlightBytes": "1MiB",
				"batch.maxEvents": "17", // a batch takes 1 s, so a lane does 17 events a second
			})
			eventually(t, "it has all partitions", func() bool { return len(r.status().Ingest.Partitions) == partitions })
			w.fill(partitions, n/2)
			eventually(t, "the endpoint holds back", func() bool {
				for _, e := range r.status().Endpoints {
					if e.Path == "hub" {
						return e.HoldsBack
					}
				}
				return false
			})
			w.fill(partitions, n/2)
			held := r.status().Ingest.Records
			eventually(t, "what comes while it holds back counts as lag", func() bool { return r.status().Ingest.Lag > n/2 })
			// Longer than the session time-out and the rebalance time-out together.
			until := time.Now().Add(22 * time.Second)
			eventually(t, "it is held back for longer than the group's time-outs", func() bool { return time.Now().After(until) })
			st := r.status()
			if st.Ingest.Records > held+n/4 {
				t.Errorf("%d records were read meanwhile: polling was not held back", st.Ingest.Records-held)
			}
			if len(st.Ingest.Partitions) != partitions || r.logged("partitions lost") || r.logged("partitions revoked") {
				t.Errorf("it was expelled from the group: it has %v", st.Ingest.Partitions)
			}
			if err := w.services.ClearFault("hub"); err != nil {
				t.Fatal(err)
			}
			w.allCommitted(r)
			for _, e := range r.status().Endpoints {
				if e.Delivered != n || e.Routed != n {
					t.Errorf("%s: %d of %d were delivered, want %d", e.Path, e.Delivered, e.Routed, n)
				}
			}
		})
	}
}

// A copy that catches up with a backlog keeps within the memory of the
// container that deploy/kubernetes gives it, also where the fetches are many
// times as large once they are decompressed.
func TestBacklogInBoundedMemory(t *testing.T) {
	tests := map[string]func(p int32, offset int64) []byte{
		"readings": event,
		"compressible": func(p int32, offset int64) []byte { // to an eighth or so, as JSON often is
			return append(event(p, offset)[:200], strings.Repeat("0", 300)+`"}}`...)
		},
		"one over and over": func(int32, int64) []byte { return event(0, 0) }, // to a hundredth
	}
	for name, event := range tests {
		t.Run(name, func(t *testing.T) {
			const partitions, n, container = 16, 400_000, 512 << 20 // 200 MB, several times what may be in flight
			w := newWorld(t, brokers(t), partitions, map[string]string{"retention.ms": "600000"})
			w.fillWith(partitions, n, event)
			r := w.replica("one", nil)
			r.env = append(r.env, "GOMEMLIMIT="+strconv.Itoa(container/10*9)) // as run sets it in such a container
			r.start()
			r.awaitReady()
			eventuallyWithin(t, 3*time.Minute, "it has caught up", func() bool { return w.services.Stats().Entity("hub").Count >= n })
			w.allCommitted(r)
			_, peak := r.memory()
			t.Logf("%d events: %d MiB resident at most", n, peak>>20)
			if peak > container {
				t.Errorf("it took %d MiB, want at most %d MiB", peak>>20, container>>20)
			}
		})
	}
}
