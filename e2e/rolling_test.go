//go:build integration

package e2e

import (
	"testing"
	"time"

	"twinegress/e2e/env"
)

// longestPause is what a partition may wait while copies are restarted one by one.
const longestPause = 3 * time.Second

// Three static members are restarted one by one under load. No partition
// changes hands, none waits for longer than its copy's restart, and nothing is
// lost, repeated or out of order.
func TestRollingRestart(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			const copies, partitions, rate = 3, 12, 1200
			h := newHarness(t, env.Config{Partitions: partitions})
			h.protocol = protocol
			f := &fleet{h: h, partitions: partitions}
			f.grow(copies, func(name string) env.Settings {
				return env.Settings{
					"ingest.instanceId":     name,
					"ingest.sessionTimeout": "30s", // a restart must not take longer; with the consumer protocol it is the broker's
				}
			})
			f.awaitShares(true)
			owned := f.owners()
			l := h.load(partitions, rate)
			env.Eventually(t, "the load flows", func() bool { return h.Ledger.Count("hub") > 2*rate })

			begun := h.Ledger.Now()
			for _, r := range f.copies {
				r.stop()
				r.start()
				r.awaitReady()
				l.flows(r.name+"'s partitions flow again", entities...)
			}
			for p, r := range f.owners() {
				if owned[p] != r {
					t.Errorf("partition %d went from %s to %s", p, owned[p], r)
				}
			}
			l.pause()
			h.allCommitted(f.copies...)
			for _, e := range entities {
				waited := l.slowest(e, begun)
				gap, of := h.Ledger.LongestGap(e, begun)
				t.Logf("%s: an event waited %.2f s at most, partition %d %.2f s without one", e, waited.Seconds(), of, gap.Seconds())
				if gap > longestPause || waited > longestPause {
					t.Errorf("%s: a pause of %v, want at most %v", e, max(gap, waited), longestPause)
				}
				if s := h.Ledger.Take(e, nil); s.Lost+s.Reordered+s.Repeats > 0 || int64(s.Arrivals) != l.total() {
					t.Errorf("%s: of %d events: %+v", e, l.total(), s)
				}
			}
		})
	}
}
