//go:build integration

package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
	"twinegress/internal/eventually"
	"twinegress/pipeline"
)

// The defaults are what is asked of every run: more endpoints than the metadata of a
// commit has room for. A thousand, of which nine hundred fall behind, take a machine of
// their own: -behind=900 -live=100 -load=10 -away=1m -backoff=1m.
var (
	manyEndpointsBehind = flag.Int("behind", 180, "many behind: endpoints that fall behind")
	manyEndpointsLive   = flag.Int("live", 20, "many behind: endpoints that don't")
	manyRate            = flag.Int("load", 40, "many behind: events a second, each for all endpoints")
	manyAway            = flag.Duration("away", 10*time.Second, "many behind: for how long the services are away, before and after the kill each")
	manyMaxBackOff      = flag.Duration("backoff", 2*time.Second, "many behind: backoff.max")
)

const (
	manyPartitions = 16
	manyMemory     = 300 << 20
	// manyGroups fall behind one after the other, so that they are at different places.
	manyGroups  = 9
	manyTimeout = 10 * time.Minute
)

// many is a copy with many endpoints that catch up, most of which fail.
type many struct {
	*harness
	t             *testing.T
	r             *replica
	load          *load
	leaving, live []string // entities, and names
}

// A network takes most of many endpoints away. Commits go on, though the list of who is
// behind doesn't fit into them; the others get everything; the process keeps within its
// memory, also through a kill. When the network is back everything arrives, in order, and
// no list is left.
func TestManyBehind(t *testing.T) {
	m := newMany(t)
	m.load.flows("the load flows", m.live[0], m.leaving[0])
	m.AwaitCommittedOnce(manyPartitions)
	unlisted := m.lists()

	for group := range slices.Chunk(m.leaving, (len(m.leaving)+manyGroups-1)/manyGroups) {
		ends := sum(m.load.ends())
		m.within("events come between two groups", func() bool { return sum(m.load.ends()) > ends+manyPartitions/4 })
		m.SetFault(emulator.Fault{Refuse: "amqp:not-found"}, group...)
	}
	m.awaitBehind()
	m.load.limiter.SetLimit(rate.Limit(*manyRate))
	m.stretch("behind, under load", *manyAway)
	m.spilled()
	m.load.pause()
	m.flow("the others get everything")
	m.AwaitCommitted()
	m.stretch("behind, without load", *manyAway)

	m.r.kill()
	m.r.start()
	m.r.awaitReady()
	m.load.resume()
	m.awaitBehind()
	m.stretch("behind, after a kill, under load", *manyAway)
	m.spilled()

	m.load.limiter.SetLimit(m.slow())
	m.Repair(m.leaving...)
	m.catchesUp()
	m.load.pause()
	for _, e := range slices.Concat(m.live, m.leaving) {
		m.flow(e+" has everything", e)
		if s := m.Ledger.Take(e, nil); s.Lost+s.Reordered > 0 || m.Ledger.Count(e) != m.load.total() {
			t.Errorf("%s has %d different events of %d: %+v", e, m.Ledger.Count(e), m.load.total(), s)
		}
	}
	m.within("nobody is behind", func() bool { n, _, _ := m.behind(); return n == 0 })
	m.within("no commit lists an endpoint", func() bool { return slices.Equal(m.lists(), unlisted) })
	m.stretch("live again, without load", *manyAway/2)
	m.within("no list is left in the topic", func() bool { return len(m.stored()) == 0 })
	m.r.stop()
	if m.r.logged("OFFSET_METADATA_TOO_LARGE") || m.r.logged("positions can't be stored") {
		t.Error("a list was refused")
	}
}

// spilled checks that there is a commit whose list is elsewhere, in the topic.
func (m *many) spilled() {
	m.t.Helper()
	stored := m.stored()
	m.t.Logf("  %d lists in the topic", len(stored))
	for _, text := range m.lists() {
		if _, name, is := strings.Cut(text, "@"); is && slices.ContainsFunc(stored, func(key string) bool { return strings.HasSuffix(key, "/"+name) }) {
			return
		}
	}
	m.t.Errorf("no commit names a list of the topic: %.100q; the topic has %.300q", m.lists(), stored)
}

// stored returns the keys of the lists that the positions topic has.
func (m *many) stored() (keys []string) {
	m.t.Helper()
	topic := m.Topic + "-positions"
	ends := m.Ends(topic)
	there := make(map[string]bool)
	client := m.NewClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.KeepControlRecords())
	defer client.Close()
	for at := int64(0); at < ends[0]; {
		fetched := client.PollFetches(m.Context())
		m.Must(fetched.Err())
		fetched.EachRecord(func(r *kgo.Record) {
			at = r.Offset + 1
			there[string(r.Key)] = len(r.Value) > 0
		})
	}
	for key, is := range there {
		if is {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func newMany(t *testing.T) *many {
	t.Helper()
	m := &many{t: t}
	for i := range *manyEndpointsBehind {
		m.leaving = append(m.leaving, fmt.Sprintf("leaving-%d", i))
	}
	for i := range *manyEndpointsLive {
		m.live = append(m.live, fmt.Sprintf("live-%d", i))
	}
	m.harness = newHarness(t, env.Config{Partitions: manyPartitions, Services: func(c *emulator.Config) {
		c.Hubs, c.EventGridTopics, c.Topics, c.Record, c.TrackIDs = nil, nil, nil, 1, false
		for _, name := range slices.Concat(m.live, m.leaving) {
			c.Topics = append(c.Topics, emulator.Topic{Name: name})
		}
	}})
	set := make([]env.Endpoint, 0, len(m.leaving)+len(m.live))
	for _, name := range slices.Concat(m.live, m.leaving) {
		set = append(set, m.AMQP("ServiceBus", name, "SensorChange").With("recovery", "catchUp"))
	}
	m.SetEndpoints(set...)
	m.r = m.run("one", env.Settings{"backoff.initial": "1s", "backoff.max": manyMaxBackOff.String()})
	m.load = m.harness.load(manyPartitions, 1)
	m.load.limiter.SetLimit(m.slow())
	return m
}

// slow is the load while all endpoints take part: each event is a message of each, in
// a batch of its own.
func (m *many) slow() rate.Limit {
	return rate.Limit(*manyRate) * rate.Limit(len(m.live)) / rate.Limit(len(m.live)+len(m.leaving))
}

func (m *many) within(what string, holds func() bool) {
	m.t.Helper()
	eventually.Within(m.t, manyTimeout, what, holds)
}

// flow blocks until endpoints have what is stored: without any, those that are live.
func (m *many) flow(what string, at ...string) {
	m.t.Helper()
	ends := m.load.ends()
	if len(at) == 0 {
		at = m.live
	}
	for _, e := range at {
		m.within(what, func() bool {
			for p, end := range ends {
				if m.Ledger.Complete(e, p) < end {
					return false
				}
			}
			return true
		})
	}
}

// behind returns how many endpoints are behind, by how many offsets in all, and a
// status.
func (m *many) behind() (n int, backlog int64, st pipeline.Status) {
	st = m.r.status()
	if len(st.Endpoints) != len(m.leaving)+len(m.live) {
		return -1, 0, st
	}
	for _, e := range st.Endpoints {
		if e.BehindSince != nil {
			n++
			backlog += e.Backlog
		}
	}
	return n, backlog, st
}

func (m *many) awaitBehind() {
	m.t.Helper()
	m.within("they are behind", func() bool { n, _, _ := m.behind(); return n == len(m.leaving) })
}

// stretch watches for a while, and logs what the process took.
func (m *many) stretch(what string, d time.Duration) {
	m.t.Helper()
	began, cpu, from := time.Now(), m.cpu(), m.Ledger.Now()
	committed := sum(m.Committed())
	arrived := m.Ledger.Count(m.live[0])
	total := m.load.total()
	time.Sleep(d)
	took, used := time.Since(began).Seconds(), m.cpu()-cpu
	stored, moved, got := m.load.total()-total, sum(m.Committed())-committed, m.Ledger.Count(m.live[0])-arrived
	n, backlog, st := m.behind()
	lag := int64(-1) // not known
	if st.Ingest.Lag != nil {
		lag = *st.Ingest.Lag
	}
	worst := time.Duration(0)
	for _, e := range m.live {
		worst = max(worst, m.load.slowest(e, from))
	}
	m.t.Logf("%s: %.0f s, CPU %.1f %% of a core; RSS %d MiB, at most %d; stored %d, committed %d, lag %d, at a live endpoint %d, slowest %v; %d behind by %d",
		what, took, 100*used/took, m.memory()>>20, m.r.peakMemory()>>20, stored, moved, lag, got, worst.Round(time.Millisecond), n, backlog)
	for _, path := range []string{"/status", "/fleet", "/endpoints"} {
		began := time.Now()
		a, err := m.r.get(&m.r.api, path)
		m.t.Logf("  %s: %d KiB, %v, %v", path, len(a.body)>>10, time.Since(began).Round(time.Millisecond), err)
	}
	if len(st.Ingest.Positions) > 0 {
		m.t.Errorf("positions: %q", st.Ingest.Positions)
	}
	if peak := m.r.peakMemory(); peak > manyMemory {
		m.t.Errorf("the process took %d MiB, want at most %d", peak>>20, manyMemory>>20)
	}
}

// memory is the resident size, in bytes, by the system: a process that is busy answers
// late.
func (m *many) memory() int {
	m.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.r.cmd.Process.Pid))
	m.Must(err)
	return int(m.r.number(string(status), "VmRSS: %g kB")) << 10
}

// cpu is the processor time that the process has taken, in seconds, by the system.
func (m *many) cpu() float64 {
	m.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.r.cmd.Process.Pid))
	m.Must(err)
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	var user, system float64
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	m.Must(err)
	return (user + system) / 100
}

func sum(offsets map[int32]int64) (n int64) {
	for _, at := range offsets {
		n += at
	}
	return n
}

// catchesUp blocks until nobody is behind, and logs how that goes.
func (m *many) catchesUp() {
	m.t.Helper()
	back := time.Now()
	told, logged := 0, time.Now()
	m.within("they have caught up", func() bool {
		n, backlog, st := m.behind()
		var last time.Time
		tells := 0
		for _, e := range st.Endpoints {
			if e.CaughtUpAt != nil {
				tells++
				last = slices.MaxFunc([]time.Time{last, *e.CaughtUpAt}, time.Time.Compare)
			}
		}
		told = max(told, tells)
		if time.Since(logged) > 5*time.Second {
			logged = time.Now()
			m.t.Logf("%v after the return: %d behind by %d; %d say when they will have caught up, the last one at %s; RSS %d MiB",
				time.Since(back).Round(time.Second), n, backlog, tells, last.Format(time.TimeOnly), m.memory()>>20)
		}
		return n == 0
	})
	m.t.Logf("caught up %v after the return; at most %d said when; RSS at most %d MiB", time.Since(back).Round(time.Second), told, m.r.peakMemory()>>20)
}
