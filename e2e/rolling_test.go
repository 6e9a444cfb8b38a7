//go:build integration

package e2e

import (
	"strconv"
	"syscall"
	"testing"
	"time"
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
			w := newWorld(t, brokers(t), partitions, nil)
			f := &fleet{w: w, partitions: partitions}
			for i := range copies {
				name := "copy-" + strconv.Itoa(i)
				f.copies = append(f.copies, w.run(name, settings{
					"ingest.protocol": protocol, "ingest.instanceId": name,
					"ingest.sessionTimeout": "30s", // a restart must not take longer; with the consumer protocol it is the broker's
				}))
			}
			eventually(t, "the copies share the partitions", func() bool { return f.areShared() && f.evenly() })
			owned := f.owners()
			l := w.load(partitions, rate)
			eventually(t, "the load flows", func() bool { return w.ledger.count("hub") > 2*rate })

			begun := w.ledger.now()
			for _, r := range f.copies {
				r.signal(syscall.SIGTERM)
				if code := r.wait(); code != 0 {
					t.Errorf("%s stopped with exit code %d", r.name, code)
				}
				r.start()
				r.awaitReady()
				stored := l.ends()
				eventually(t, r.name+"'s partitions flow again", func() bool {
					for p, end := range stored {
						if w.ledger.complete("hub", p) < end || w.ledger.complete("topic", p) < end {
							return false
						}
					}
					return true
				})
			}
			for p, r := range f.owners() {
				if owned[p] != r {
					t.Errorf("partition %d went from %s to %s", p, owned[p], r)
				}
			}
			l.pause()
			w.allCommitted(f.copies...)
			for _, e := range entities {
				waited, _ := l.slowest(e, begun)
				gap, of := w.ledger.longestGap(e, begun)
				t.Logf("%s: an event waited %.2f s at most, partition %d %.2f s without one", e, waited.Seconds(), of, gap.Seconds())
				if gap > longestPause || waited > longestPause {
					t.Errorf("%s: a pause of %v, want at most %v", e, max(gap, waited), longestPause)
				}
				if s := w.ledger.take(e, nil); s.lost+s.reordered+s.repeats > 0 || int64(s.arrivals) != l.total() {
					t.Errorf("%s: of %d events: %+v", e, l.total(), s)
				}
			}
		})
	}
}
