package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/pipeline"
	"twinegress/sinks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "status"

// fake is the pipeline of a copy.
type fake struct {
	mu       sync.Mutex
	instance string
	started  time.Time
	briefs   []sinks.Brief
	retried  []string
	catchUp  pipeline.CatchUp
	frozen   chan struct{} // if not nil, Briefs blocks until it is closed
}

func (p *fake) Self() pipeline.Status {
	return pipeline.Status{
		Instance: p.instance, Version: "v1", StartedAt: p.started, Ready: true, Ingest: pipeline.IngestStatus{Lag: new(int64)},
	}
}

func (p *fake) Briefs(f func(*sinks.Brief, pipeline.CatchUp)) {
	p.mu.Lock()
	frozen, briefs := p.frozen, append([]sinks.Brief{}, p.briefs...)
	p.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	for i := range briefs {
		f(&briefs[i], p.catchUp)
	}
}

func (p *fake) Retry(id string) (endpoints.Endpoint, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retried = append(p.retried, id)
	return endpoints.Endpoint{ID: id, Name: "a name"}, true
}

func (p *fake) set(n int, b sinks.Brief) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.briefs[n] = b
}

func idOf(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n+1) }

// brief is an endpoint of a copy, with counts in which the equation holds.
func brief(n int, state sinks.State, routed uint64) sinks.Brief {
	b := sinks.Brief{
		Endpoint: endpoints.Endpoint{ID: idOf(n), Type: endpoints.TypeEventHub, Path: "hub", EventTypes: []string{"SensorChange"}},
		Routed:   routed, Delivered: routed / 2, Pending: int(routed/2 - routed/4), Health: sinks.Health{State: state},
	}
	b.Dropped[event.Rejected] = routed - b.Delivered - uint64(b.Pending)
	return b
}

// one is a copy that runs.
type one struct {
	*Fleet
	pipeline *fake
	stop     func() // in order
}

func brokers(t *testing.T, options ...kfake.Opt) []string {
	t.Helper()
	return cluster(t, options...).ListenAddrs()
}

func cluster(t *testing.T, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

func start(t *testing.T, addrs []string, instance string, briefs ...sinks.Brief) *one {
	t.Helper()
	return startIn(t, "twinegress", []kgo.Opt{kgo.SeedBrokers(addrs...)}, instance, briefs...)
}

func startIn(t *testing.T, group string, connect []kgo.Opt, instance string, briefs ...sinks.Brief) *one {
	t.Helper()
	p := &fake{instance: instance, started: time.Now(), briefs: briefs}
	f := New(Options{Pipeline: p, Topic: topic, Group: group, Connect: connect, Log: zap.NewNop()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	c := &one{Fleet: f, pipeline: p, stop: func() { cancel(); <-done }}
	t.Cleanup(c.stop)
	return c
}

// shows reports whether the equation holds in the sums, and how many copies there are
// in a report, how many of them stale, and the sums of what was routed.
func shows(t *testing.T, r *Report) (copies, stale int, routed uint64) {
	t.Helper()
	for _, c := range r.Copies {
		copies++
		if c.Stale {
			stale++
		}
	}
	for _, e := range r.Endpoints {
		dropped := uint64(0)
		for _, n := range e.Dropped {
			dropped += n
		}
		if e.Routed != e.Delivered+dropped+uint64(e.Pending) {
			t.Errorf("the equation doesn't hold: %+v", e)
		}
		routed += e.Routed
	}
	return copies, stale, routed
}

func (c *one) awaits(t *testing.T, within time.Duration, copies, stale int, routed uint64) {
	t.Helper()
	what := fmt.Sprintf("%s: %d copies, %d stale, %d events routed", c.pipeline.instance, copies, stale, routed)
	eventually.Within(t, within, what, func() bool {
		n, s, sum := shows(t, c.Report())
		return n == copies && s == stale && sum == routed
	})
}

// Three copies, of which one is killed and one frozen: the others' sums are right
// within 5 s, a retry reaches all that can hear of it, and the frozen one is back when
// it goes on.
func TestCopies(t *testing.T) {
	addrs := brokers(t)
	set := func(routed uint64) []sinks.Brief {
		return []sinks.Brief{brief(0, sinks.StateReady, routed), brief(1, sinks.StateReady, 10*routed)}
	}
	a, b, c := start(t, addrs, "a", set(1)...), start(t, addrs, "b", set(2)...), start(t, addrs, "c", set(4)...)
	for _, one := range []*one{a, b, c} {
		one.awaits(t, 5*time.Second, 3, 0, 77)
	}
	if r := a.Report(); r.Notice != "" || r.Endpoints[0].Path != "hub" || r.Endpoints[0].States[sinks.StateReady] != 3 || len(r.Endpoints[0].Copies) != 3 {
		t.Errorf("%+v", r)
	}
	failing := brief(1, sinks.StateBackingOff, 28)
	failing.LastError = "both keys are refused"
	b.pipeline.set(1, failing)
	a.awaits(t, 5*time.Second, 3, 0, 85)
	e := a.Report().Endpoints[1]
	if e.State != sinks.StateBackingOff || e.States[sinks.StateReady] != 2 || len(e.Copies) != 1 || e.Copies[0] != b.ID() || e.LastError != "both keys are refused" {
		t.Errorf("%+v", e)
	}
	if known, notice := a.Retry(t.Context(), idOf(1)); known != 3 || notice != "" {
		t.Errorf("%d copies, %q", known, notice)
	}
	for _, one := range []*one{a, b, c} {
		eventually.Within(t, 5*time.Second, "the retry on each copy", func() bool {
			one.pipeline.mu.Lock()
			defer one.pipeline.mu.Unlock()
			return len(one.pipeline.retried) == 1 && one.pipeline.retried[0] == idOf(1)
		})
	}

	b.client.Close()
	frozen := make(chan struct{})
	c.pipeline.mu.Lock()
	c.pipeline.frozen = frozen
	c.pipeline.mu.Unlock()
	a.awaits(t, staleAfter+heartbeat, 3, 2, 11)
	close(frozen)
	a.awaits(t, 5*time.Second, 3, 1, 55)

	// A copy that begins now knows what the killed one said, and that it is old.
	d := start(t, addrs, "d", set(8)...)
	a.awaits(t, 5*time.Second, 4, 1, 143)
	d.awaits(t, 5*time.Second, 4, 1, 143)
	// One that stops in order says so.
	c.stop()
	a.awaits(t, 2*time.Second, 3, 1, 99)
	d.awaits(t, 2*time.Second, 3, 1, 99)
	if len(d.pipeline.retried) > 0 {
		t.Errorf("a command of before its start is done: %v", d.pipeline.retried)
	}
}

// Copies with different endpoints show in a metric of each, until they have the same; one
// that has not looked at its own yet, and one that is silent, don't count.
func TestEndpointSets(t *testing.T) {
	addrs := brokers(t)
	a := start(t, addrs, "a", brief(0, sinks.StateReady, 1))
	sets := func() (n float64) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(a)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "twinegress_fleet_endpoint_sets" {
				n = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return n
	}
	await := func(what string, want float64) {
		t.Helper()
		eventually.Within(t, 5*time.Second, what, func() bool { return sets() == want })
	}
	await("alone", 1)
	b := start(t, addrs, "b", brief(1, sinks.StateReady, 1))
	await("another has others", 2)
	b.pipeline.set(0, brief(0, sinks.StateReady, 1))
	await("it has the same", 1)
}

// The lag of all is not known while one copy doesn't know its own.
func TestLagThatACopyDoesNotKnow(t *testing.T) {
	lag := func(lags ...*int64) *int64 {
		b := newBuilder(time.Now())
		for _, n := range lags {
			b.addCopy(Copy{Ingest: pipeline.IngestStatus{Lag: n}})
		}
		return b.build().Ingest.Lag
	}
	if n := lag(new(int64(3)), new(int64(4))); n == nil || *n != 7 {
		t.Errorf("of 3 and 4 it is %v", n)
	}
	if n := lag(new(int64(3)), nil, new(int64(4))); n != nil {
		t.Errorf("with one that doesn't know it is %d", *n)
	}
}

// Groups of one Kafka have one topic by default, and know nothing of each other: not
// how others are, and not what they ask for.
func TestGroupsApart(t *testing.T) {
	addrs := brokers(t)
	a, other := start(t, addrs, "a", brief(0, sinks.StateReady, 4)), startIn(t, "other", []kgo.Opt{kgo.SeedBrokers(addrs...)}, "b", brief(0, sinks.StateReady, 8))
	b := start(t, addrs, "b", brief(0, sinks.StateReady, 16))
	a.awaits(t, 5*time.Second, 2, 0, 20)
	b.awaits(t, 5*time.Second, 2, 0, 20)
	eventually.Holds(t, "the other group has read the topic", func() bool { return other.Report().Notice == "" })
	other.awaits(t, time.Second, 1, 0, 8)
	if known, notice := other.Retry(t.Context(), idOf(0)); known != 1 || notice != "" {
		t.Errorf("%d copies, %q", known, notice)
	}
	if known, _ := b.Retry(t.Context(), idOf(0)); known != 2 { // behind the other's in the topic
		t.Errorf("%d copies", known)
	}
	asked := func() int {
		a.pipeline.mu.Lock()
		defer a.pipeline.mu.Unlock()
		return len(a.pipeline.retried)
	}
	eventually.Holds(t, "a is asked", func() bool { return asked() > 0 })
	if n := asked(); n != 1 {
		t.Errorf("a was asked %d times", n)
	}
}

// While Kafka is gone every copy shows its own truth, the others with their age, and
// says why; no caller waits for it.
func TestKafkaGone(t *testing.T) {
	kafka := cluster(t)
	a, b := start(t, kafka.ListenAddrs(), "a", brief(0, sinks.StateReady, 4)), start(t, kafka.ListenAddrs(), "b", brief(0, sinks.StateReady, 8))
	a.awaits(t, 5*time.Second, 2, 0, 12)
	kafka.Close()
	for _, one := range []*one{a, b} {
		eventually.Within(t, 2*staleAfter, "the others are not known", func() bool { return one.Report().Notice != "" })
	}
	a.awaits(t, 2*staleAfter, 2, 1, 4)
	r := a.Report()
	if len(r.Troubles) != 1 || !strings.HasPrefix(r.Troubles[0].What, "This copy can't say how the others are: ") {
		t.Errorf("%+v", r.Troubles)
	}
	eventually.Holds(t, "a failure is counted", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.failures > 0
	})
	asked := time.Now()
	if known, notice := a.Retry(t.Context(), idOf(0)); known != 1 || notice == "" || len(a.pipeline.retried) != 1 {
		t.Errorf("%d copies, %q", known, notice)
	}
	if took := time.Since(asked); took > commandTimeout+time.Second {
		t.Errorf("a retry waits for %v", took)
	}
}

// Without the right to create the topic a copy knows itself, says which right it is,
// and finds the topic when it is there.
func TestTopicThatMustNotBeCreated(t *testing.T) {
	allowed := kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true}
	addrs := brokers(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "app", "pass", allowed), kfake.Superuser("PLAIN", "admin", "admin"))
	p := &fake{instance: "a", briefs: []sinks.Brief{brief(0, sinks.StateReady, 4)}}
	core, logs := observer.New(zap.WarnLevel)
	f := New(Options{Pipeline: p, Topic: topic, Log: zap.New(core), Connect: []kgo.Opt{
		kgo.SeedBrokers(addrs...), kgo.SASL(plain.Auth{User: "app", Pass: "pass"}.AsMechanism()),
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	const want = "other copies are not known: the topic status is missing and can't be created (allow Create on it"
	eventually.Holds(t, "what is missing is said", func() bool { return strings.HasPrefix(f.Report().Notice, want) })
	if copies, _, routed := shows(t, f.Report()); copies != 1 || routed != 4 {
		t.Errorf("%d copies, %d events", copies, routed)
	}
	if known, notice := f.Retry(t.Context(), idOf(0)); known != 1 || !strings.HasPrefix(notice, want) || len(p.retried) != 1 {
		t.Errorf("%d, %q", known, notice)
	}
	if n := logs.FilterMessageSnippet("this copy knows itself only").Len(); n != 1 {
		t.Errorf("%d lines", n)
	}
}

// Without a topic a copy is by itself, and that is no trouble.
func TestNoTopic(t *testing.T) {
	f := New(Options{Pipeline: &fake{instance: "a", briefs: []sinks.Brief{brief(0, sinks.StateReady, 4)}}, Log: zap.NewNop()})
	f.Run(t.Context())
	r := f.Report()
	known, notice := f.Retry(t.Context(), idOf(0))
	if len(r.Copies) != 1 || len(r.Endpoints) != 1 || len(r.Troubles) != 0 || !strings.Contains(r.Notice, "status.topic is empty") || known != 1 || notice != r.Notice {
		t.Errorf("%+v, %d, %q", r, known, notice)
	}
}

// A copy's share of bytes goes to what changed state first, and to what was not
// written for longest then; all is written in the end.
func TestBudget(t *testing.T) {
	addrs := brokers(t)
	many := make([]sinks.Brief, 3000)
	for i := range many {
		many[i] = brief(i, sinks.StateReady, 1000)
		many[i].LastError, many[i].Reason = strings.Repeat("x", maxErrorLength), "slow"
	}
	p := &fake{instance: "a", briefs: many}
	f := New(Options{Pipeline: p, Topic: topic, Connect: []kgo.Opt{kgo.SeedBrokers(addrs...)}, Log: zap.NewNop()})
	w := f.newWriter()
	now := time.Now()
	w.walk(now)
	all := w.changes(now)
	if len(all) != blocks {
		t.Fatalf("%d blocks", len(all))
	}
	for n := range w.last { // as if all had been written, the last block first
		w.last[n] = published{hash: 1, urgent: w.urgent[n], at: now.Add(-time.Duration(n) * time.Second), written: true}
	}
	w.last[5].urgent++ // of another state
	order := w.changes(now)
	if order[0].block != 5 || order[1].block != blocks-1 || order[blocks-1].block != 0 {
		t.Errorf("%d, %d, …, %d", order[0].block, order[1].block, order[blocks-1].block)
	}

	// At once a burst, and then what it has a second: alone the most of a copy, beside
	// others its share of what the topic takes.
	var err error
	if f.client, err = f.connect(); err != nil {
		t.Fatal(err)
	}
	defer f.client.Close()
	most := 0 // what it may go over
	for _, value := range w.blocks {
		most = max(most, len(value)+80)
	}
	written := func(after time.Duration, others int) (bytes int) {
		now = now.Add(after)
		w.writeBlocks(t.Context(), now, others)
		for n := range w.last {
			if w.last[n].at.Equal(now) {
				bytes += len(w.blocks[n]) + 80
			}
		}
		return bytes
	}
	for _, step := range []struct {
		after  time.Duration
		others int
		want   int
	}{{time.Millisecond, 0, burst}, {time.Second, 0, maxRate}, {time.Second, 15, topicRate / 16}} {
		if got := written(step.after, step.others); got < step.want-most || got > step.want+most {
			t.Errorf("%d bytes after %v beside %d others, want %d", got, step.after, step.others, step.want)
		}
	}
}

// What another copy asks for is done once, while it is new.
func TestCommandsExpire(t *testing.T) {
	f := New(Options{Pipeline: &fake{instance: "a"}, Topic: topic, Log: zap.NewNop()})
	now := time.Now()
	for i, step := range []struct {
		id  string
		age time.Duration
		ok  bool
	}{{"1", 0, true}, {"1", 0, false}, {"2", expiry, true}, {"3", expiry + time.Millisecond, false}, {"4", -time.Hour, true}} {
		value, _ := json.Marshal(command{V: version, ID: step.id, At: now, Retry: idOf(0), Instance: "b"})
		if _, ok := f.accept(&kgo.Record{Value: value, Timestamp: now.Add(-step.age)}, now); ok != step.ok {
			t.Errorf("%d, %v old: done: %t", i, step.age, ok)
		}
	}
	if f.refusals.records != 0 {
		t.Errorf("%+v", f.refusals)
	}
}

// Of a copy that is forgotten nothing stays in the topic.
func TestBury(t *testing.T) {
	addrs := brokers(t, kfake.SeedTopics(1, topic))
	f := New(Options{Pipeline: &fake{instance: "a"}, Topic: topic, Connect: []kgo.Opt{kgo.SeedBrokers(addrs...)}, Log: zap.NewNop()})
	var err error
	if f.client, err = f.connect(); err != nil {
		t.Fatal(err)
	}
	defer f.client.Close()
	gone := new(copyOf)
	gone.blocks[0], gone.blocks[7] = []byte("x"), []byte("y")
	f.bury(t.Context(), "b-1", gone)
	var got []string
	for want := 4; len(got) < want; {
		fetches := f.client.PollFetches(t.Context())
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Value != nil {
				t.Errorf("%s: %s", r.Key, r.Value)
			}
			got = append(got, string(r.Key))
		})
	}
	want := []string{blockKey("b-1", 0), blockKey("b-1", 7), commandKey("b-1"), headKey("b-1")}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
