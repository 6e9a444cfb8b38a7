//go:build integration

package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/kafkatest"
)

var (
	matrixRounds = flag.Int("rounds", 0, "rounds of the kill matrix; 0 is one of each fault")
	matrixOutage = flag.Duration("outage", 8*time.Second, "kill matrix: how long a broker is unreachable")
	matrixReport = flag.String("report", "", "kill matrix: write its table to this file")
	matrixOnly   = flag.String("fault", "", "kill matrix: this fault only")
	matrixSeed   = flag.Uint64("seed", 0, "kill matrix: seed of what is random; 0 is another one each time")
)

const (
	matrixCopies     = 3
	matrixPartitions = 8
	matrixRate       = 1500 // events a second
)

// mode is how the copies are in the group.
type mode struct {
	protocol string
	static   bool
}

func (m mode) String() string {
	if m.static {
		return m.protocol + ", static"
	}
	return m.protocol
}

var modes = []mode{{"classic", false}, {"consumer", false}, {"classic", true}, {"consumer", true}}

// matrix is a group of copies under load, to which faults happen.
type matrix struct {
	fleet
	t       *testing.T
	mode    mode
	cluster *kafkatest.Cluster
	load    *load
	watch   *commitWatch
	random  *rand.Rand
	extra   bool // the endpoint that comes and goes is there

	unlisted []string // lists while nobody is behind
}

// TestKillMatrix has every fault happen to three copies under load, in every
// mode, and checks after each round that nothing was lost or came out of
// order, that repeats stay within what was not committed, and that no commit
// was ahead of the outcomes.
func TestKillMatrix(t *testing.T) {
	seed := cmp.Or(*matrixSeed, uint64(time.Now().UnixNano()))
	t.Logf("-seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	plan := planRounds(*matrixRounds)
	properties := quick()
	maps.Copy(properties, map[string]string{
		"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "500",
		"min.insync.replicas": "2", "auto.leader.rebalance.enable": "false",
	})
	cluster := ownCluster(t, kafkatest.Config{Nodes: 3, HeapMB: 320, Properties: properties})
	table := &table{seed: seed, begun: time.Now(), sums: make(map[string]result)}
	for _, mode := range modes {
		if len(plan[mode]) == 0 {
			continue
		}
		t.Run(mode.String(), func(t *testing.T) {
			m := newMatrix(t, mode, cluster, random)
			for i, f := range plan[mode] {
				r := m.round(f)
				table.add(f, r)
				t.Logf("round %d of %d, %s: %s", i+1, len(plan[mode]), f.name, r)
				if t.Failed() {
					return // what follows would only repeat it
				}
			}
		})
	}
	if *matrixReport != "" && !t.Failed() {
		table.write(t, *matrixReport)
	}
	t.Log("\n" + table.String())
}

// planRounds assigns each mode its faults, so that over the rounds every fault
// meets every mode.
func planRounds(n int) map[mode][]fault {
	chosen := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return *matrixOnly != "" && f.name != *matrixOnly })
	plan := make(map[mode][]fault)
	for i := range cmp.Or(n, len(chosen)) {
		mode := modes[(i%len(chosen)+i/len(chosen))%len(modes)]
		plan[mode] = append(plan[mode], chosen[i%len(chosen)])
	}
	return plan
}

func newMatrix(t *testing.T, mode mode, cluster *kafkatest.Cluster, random *rand.Rand) *matrix {
	t.Helper()
	m := &matrix{t: t, mode: mode, cluster: cluster, random: random}
	h := newHarness(t, env.Config{Brokers: cluster.Addrs(), Partitions: matrixPartitions, Services: flappingServices})
	h.protocol = mode.protocol
	m.fleet = fleet{h: h, partitions: matrixPartitions}
	m.setEndpoints()
	m.grow(matrixCopies, m.settings)
	m.load = m.h.load(m.partitions, matrixRate)
	m.watch = m.watchCommits()
	m.awaitShares(false)
	m.load.flows("the load flows", append(slices.Clone(entities), catcher, dropper)...)
	m.h.AwaitCommittedOnce(m.partitions)
	m.unlisted = m.h.lists()
	return m
}

func (m *matrix) settings(name string) env.Settings {
	s := env.Settings{
		"ingest.rebalanceTimeout": "15s", "send.timeout": "4s", "backoff.initial": "500ms", "backoff.max": "2s",
	}
	if m.mode.static {
		s["ingest.instanceId"] = name
	}
	return s
}

// round injects one fault and returns what came of it.
func (m *matrix) round(f fault) result {
	m.t.Helper()
	m.load.resume()
	begun, before := m.h.Ledger.Now(), m.load.total()
	env.Eventually(m.t, "events are stored", func() bool { return m.load.total() > before+matrixRate/2 })
	m.load.flows("the load flows before "+f.name, entities...)
	m.watch.begin()
	committed, deferred := m.h.Committed(), m.deferred()
	steady := m.flap()

	f.inject(m)

	for _, r := range m.copies {
		r.awaitReady()
	}
	m.awaitShares(false)
	stored := m.load.total()
	env.Eventually(m.t, "events are stored after "+f.name, func() bool { return m.load.total() > stored+matrixRate/4 })
	steady()
	m.load.pause()
	m.load.flows("everything arrives after "+f.name, append(slices.Clone(entities), catcher)...)
	m.h.allCommitted(m.copies...)
	m.allLive(f.name)

	inFlight, ahead, back := m.watch.seen()
	r := result{rounds: 1, events: m.load.total() - before, inFlight: inFlight, ahead: len(ahead), back: len(back)}
	for _, e := range entities {
		r.Summary.Add(m.h.Ledger.Take(e, committed))
		r.recovery = max(r.recovery, m.load.slowest(e, begun))
	}
	r.flapping = m.h.Ledger.Take(catcher, nil)
	r.deferred = int(max(0, m.deferred()-deferred))
	for _, c := range m.copies {
		for name, e := range c.standings() {
			if name != dropper {
				r.dropped += int(dropped(e))
			}
		}
	}
	for _, v := range slices.Concat(ahead, back) {
		m.t.Log(v)
	}
	m.check(f, r)
	return r
}

// check says what a round must not come to.
func (m *matrix) check(f fault, r result) {
	m.t.Helper()
	for what, n := range map[string]int{
		"lost": r.Lost, "out of order": r.Reordered, "in another partition of the hub": r.Misplaced, "dropped": r.dropped,
		"lost by the one that catches up": r.flapping.Lost, "out of order at the one that catches up": r.flapping.Reordered,
		"in another partition of the hub that flaps": r.flapping.Misplaced,
		"repeated although they were committed":      r.Behind,
		"commits ahead of the outcomes":              r.ahead, "commits that went back": r.back,
	} {
		if n > 0 {
			m.t.Errorf("%s: %d %s", f.name, n, what)
		}
	}
	// Each receiver, and each of the two copies that may have had them in flight.
	if bound := r.inFlight * len(entities) * 2; r.Repeats > bound {
		m.t.Errorf("%s: %d repeats, but only %d events were stored and not committed at any time", f.name, r.Repeats, r.inFlight)
	}
}

// commitWatch looks at the group's offsets all the time.
type commitWatch struct {
	mu       sync.Mutex
	last     map[int32]int64
	low      map[int32]time.Time // since when an offset is lower than it was
	inFlight int
	ahead    []string
	back     []string
}

func (m *matrix) watchCommits() *commitWatch {
	c := &commitWatch{last: make(map[int32]int64), low: make(map[int32]time.Time)}
	ctx := m.t.Context()
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			asking, stop := context.WithTimeout(ctx, 5*time.Second)
			at, _ := m.h.FetchCommitted(asking) // while the coordinator moves there is no answer
			stop()
			c.see(m, at)
		}
	})
	m.t.Cleanup(watching.Wait)
	return c
}

// staleRead is for how long a coordinator that has just taken over may answer
// what was true before the last commit: until it has heard that its own log is
// committed up to its end.
const staleRead = 500 * time.Millisecond

// see compares the offsets with what has arrived, which is looked at later,
// and so may only be more.
func (c *commitWatch) see(m *matrix, at map[int32]int64) {
	ends, now := m.load.ends(), time.Now()
	stamp := now.Format(time.StampMilli)
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, offset := range at {
		for _, e := range entities {
			if done := m.h.Ledger.Complete(e, p); offset > done {
				c.ahead = append(c.ahead, fmt.Sprintf("%s: %d/%d committed, %s complete up to %d", stamp, p, offset, e, done))
			}
		}
		since, low := c.low[p]
		switch {
		case offset >= c.last[p]:
			c.last[p] = offset
			delete(c.low, p)
		case !low:
			c.low[p] = now
		case now.Sub(since) >= staleRead:
			c.back = append(c.back, fmt.Sprintf("%s: %d/%d committed after %d", stamp, p, offset, c.last[p]))
			c.last[p] = offset
			delete(c.low, p)
		}
	}
	inFlight := 0
	for p, end := range ends {
		inFlight += int(max(0, end-c.last[p]))
	}
	c.inFlight = max(c.inFlight, inFlight)
}

func (c *commitWatch) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight, c.ahead, c.back = 0, nil, nil
}

// seen returns how many events were in flight at most, and what was wrong with
// the offsets, since begin.
func (c *commitWatch) seen() (inFlight int, ahead, back []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inFlight, slices.Clone(c.ahead), slices.Clone(c.back)
}
