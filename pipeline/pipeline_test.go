package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
	"twinegress/stages/ingest"
	"twinegress/stages/match"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "twins"

// store loads one set, and watches those that come through the channel.
type store struct {
	endpoints.Store // nil: nothing here reads or writes beside what follows
	set             []endpoints.Endpoint
	changes         chan []endpoints.Endpoint
	load            chan struct{} // if not nil, Load blocks until it is closed
}

func (s store) Load(context.Context) ([]endpoints.Endpoint, error) {
	if s.load != nil {
		<-s.load
	}
	return s.set, nil
}

func (s store) Watch(ctx context.Context, apply func([]endpoints.Endpoint)) error {
	for {
		select {
		case set := <-s.changes:
			if set == nil {
				return errWatch
			}
			apply(set)
		case <-ctx.Done():
			return nil
		}
	}
}

var errWatch = errors.New("the store is gone")

// sink answers as a function says; nil takes everything.
type sink func(context.Context, []*event.Event) (int, error)

func (s sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if s == nil {
		return len(events), nil
	}
	return s(ctx, events)
}

func (sink) Close(context.Context) error { return nil }

func endpoint(id string, types ...string) endpoints.Endpoint {
	return endpoints.Endpoint{ID: id, Type: endpoints.TypeEventHub, Path: id, ConnectionString: "x", EventTypes: types}
}

var senderOptions = sinks.Options{
	Linger: time.Millisecond, MaxEvents: 10, BackoffInitial: time.Second, BackoffMax: time.Minute,
	Timeout: time.Second, Attempts: 1, ThrottleLimit: time.Hour,
}

// running is a pipeline over an embedded broker, and a client of that.
type running struct {
	*Pipeline
	t      *testing.T
	client *kgo.Client
	stop   context.CancelFunc
	done   chan error
}

func run(t *testing.T, timeout time.Duration, st store, answers map[string]sink, values ...string) *running {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	connect := []kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...)}
	r := &running{t: t, done: make(chan error, 1)}
	if r.client, err = kgo.NewClient(append(connect, kgo.DefaultProduceTopic(topic))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	r.produce(values...)
	cfg := config.Default().Ingest
	cfg.Topics = []string{topic}
	r.Pipeline = New(Options{
		OpenLetters: func(ctx context.Context) (*deadletter.Topic, error) {
			return deadletter.Open(ctx, "dead", cfg.Topics, connect, zap.NewNop())
		},
		OpenSource: func(ingest.Positions) (*ingest.Source, error) {
			return ingest.NewBounded(cfg, kgo.NewOffset().AtStart(), nil, connect, zap.NewNop())
		},
		Endpoints: st, Sender: senderOptions, ShutdownTimeout: timeout, WaitForEndpoints: true, Log: zap.NewNop(),
		Open: map[endpoints.Type]sinks.Open{endpoints.TypeEventHub: func(e endpoints.Endpoint, _ sinks.Key) (sinks.Sink, error) {
			return answers[e.ID], nil
		}},
	})
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	return r
}

// produce adds records with these values.
func (r *running) produce(values ...string) {
	r.t.Helper()
	records := make([]*kgo.Record, 0, len(values))
	for _, v := range values {
		records = append(records, kgo.StringRecord(v))
	}
	if err := r.client.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// stopped stops the pipeline and returns the offset that is committed.
func (r *running) stopped() int64 {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("the stop failed: %v", err)
	}
	offsets, err := kadm.NewClient(r.client).FetchOffsets(r.t.Context(), config.Default().Ingest.Group)
	if err != nil {
		r.t.Fatal(err)
	}
	o, _ := offsets.Lookup(topic, 0)
	return o.At
}

// balanced checks the equation of each endpoint.
func balanced(t *testing.T, st Status) {
	t.Helper()
	for _, e := range st.Endpoints {
		sum := e.Delivered + e.Deferred + uint64(e.Pending)
		for _, n := range e.Dropped {
			sum += n
		}
		if e.Routed != sum {
			t.Errorf("%s: routed %d, but delivered %d, dropped %v, pending %d", e.ID, e.Routed, e.Delivered, e.Dropped, e.Pending)
		}
	}
}

func TestRun(t *testing.T) {
	sensor, space, odd := `{"eventType":"SensorChange"}`, `{"eventType":"SpaceChange"}`, `{"eventType":"Odd"}`
	values := []string{sensor, space, "nonsense", "[" + sensor + "," + odd + "," + space + "]", `{"eventType":"UdfCustom"}`, sensor}
	bad := sink(func(_ context.Context, events []*event.Event) (int, error) {
		return len(events), &sinks.Error{Reason: event.Rejected, Err: errors.New("bad")}
	})
	filtered := endpoint("a", endpoints.SensorChange, endpoints.SpaceChange)
	filtered.Filter = "type = 'SpaceChange'" // what it keeps from the endpoint is not routed to it
	r := run(t, 10*time.Second, store{set: []endpoints.Endpoint{
		filtered, endpoint("b", endpoints.SpaceChange), endpoint("c", endpoints.SensorChange),
	}}, map[string]sink{"b": bad}, values...)
	eventually.Holds(t, "every event has its outcome", func() bool {
		st := r.Status()
		balanced(t, st)
		return st.Ingest.Records == int64(len(values)) && st.Ingest.CaughtUp()
	})
	if !r.Status().Ready {
		t.Error("not ready")
	}
	st := r.Status()
	if in := st.Ingest; in.Events != 6 || in.Unrouted != 1 || in.Rejected["undecodable"] != 1 || in.Rejected["unknown_type"] != 1 {
		t.Errorf("ingest: %+v", in)
	}
	var got []string
	for _, e := range st.Endpoints {
		got = append(got, fmt.Sprint(e.ID, " ", e.Routed, " ", e.Delivered, " ", e.Dropped["rejected"], " ", e.State))
	}
	if want := "a 2 2 0 ready, b 2 0 2 ready, c 3 3 0 ready"; strings.Join(got, ", ") != want {
		t.Errorf("endpoints: %s, want %s", strings.Join(got, ", "), want)
	}
	registry := prometheus.NewPedanticRegistry() // which looks for contradictions
	if err := registry.Register(r.Pipeline); err != nil {
		t.Error(err)
	}
	if metrics, err := registry.Gather(); err != nil || len(metrics) < 15 {
		t.Errorf("%d metrics, %v", len(metrics), err)
	}
	if at := r.stopped(); at != int64(len(values)) {
		t.Errorf("committed %d, want %d", at, len(values))
	}
}

// A stop is bounded also while a lane is full and holds the dispatcher, the
// workers and the source. What has no outcome is not committed.
func TestStopWithAFullLane(t *testing.T) {
	var sends atomic.Int32
	throttled := sink(func(_ context.Context, events []*event.Event) (int, error) {
		if sends.Add(1) == 1 {
			return len(events), nil
		}
		return len(events), &sinks.Error{Reason: event.Throttled, Wait: time.Minute, Err: errors.New("busy")}
	})
	// Far more chunks than there are workers.
	values := slices.Repeat([]string{`{"eventType":"SensorChange"}`}, 256*4*(1+runtime.GOMAXPROCS(0)))
	r := run(t, time.Second, store{set: []endpoints.Endpoint{endpoint("a", endpoints.SensorChange)}}, map[string]sink{"a": throttled}, values...)
	eventually.Holds(t, "the lane is full", func() bool {
		st := r.Status()
		return st.Ingest.Records == int64(len(values)) && st.Endpoints[0].HoldsBack
	})
	begun := time.Now()
	at := r.stopped()
	if took := time.Since(begun); took > 1200*time.Millisecond {
		t.Errorf("the stop took %v, of 1 s", took)
	}
	balanced(t, r.Status())
	if at >= int64(len(values)) {
		t.Errorf("committed %d with events pending", at)
	}
}

func TestRunEndsWithItsStore(t *testing.T) {
	changes := make(chan []endpoints.Endpoint)
	r := run(t, time.Second, store{changes: changes}, nil)
	changes <- []endpoints.Endpoint{endpoint("a", endpoints.SensorChange)} // is applied
	changes <- nil
	if err := <-r.done; !errors.Is(err, errWatch) {
		t.Errorf("Run says %v", err)
	}
	if st := r.Status(); len(st.Endpoints) != 1 {
		t.Errorf("the endpoints are %+v", st.Endpoints)
	}
	r.stop()
}

// bare is a pipeline without anything before it.
func bare() *Pipeline {
	return New(Options{
		Sender: senderOptions, ShutdownTimeout: time.Minute, Log: zap.NewNop(),
		Open: map[endpoints.Type]sinks.Open{endpoints.TypeEventHub: func(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return sink(nil), nil }},
	})
}

// inBubble runs a test of a bare pipeline in a bubble, and ends what it started.
func inBubble(t *testing.T, test func(*Pipeline)) {
	synctest.Test(t, func(*testing.T) {
		p := bare()
		test(p)
		p.router.apply(nil)
		p.router.background.Wait()
		p.workers.Wait()
	})
	// conc keeps its channels in a sync.Pool, of which this is what empties it: a
	// channel of the bubble must not be used outside. The first leaves a victim cache.
	runtime.GC()
	runtime.GC()
}

// dispatchOne dispatches a chunk of one event that uses these routes.
func (p *Pipeline) dispatchOne(r *routes) {
	c := event.NewChunk(topic, 0, 1, 0, func(*event.Chunk) {})
	c.Add(0, 0, 0, nil, []byte(`{"eventType":"SensorChange"}`))
	p.dispatch(c, p.prepare(c, r.table), r)
	r.users.Done()
}

// A removed endpoint's sender is drained only when no chunk is left that was
// given a table with it: not even one that was replaced twice since.
func TestRemoveWaitsForEveryTable(t *testing.T) {
	inBubble(t, func(p *Pipeline) {
		a, b := endpoint("a", endpoints.SensorChange), endpoint("b", endpoints.SensorChange)
		p.router.apply([]endpoints.Endpoint{a})
		first := p.router.acquire()
		p.router.apply([]endpoints.Endpoint{a, b})
		second := p.router.acquire()
		p.router.apply([]endpoints.Endpoint{b, a})
		p.router.apply([]endpoints.Endpoint{b})
		synctest.Wait()
		states := func() (s string) {
			for _, e := range p.shown() {
				s += e.ID + " " + string(e.State) + "; "
				if _, ok := p.EndpointLog(e.ID); !ok {
					t.Errorf("%s is shown and has no log", e.ID)
				}
			}
			return s
		}
		const waiting = "a provisioning; b provisioning; "
		if got := states(); got != waiting {
			t.Errorf("with two tables in use: %s", got)
		}
		second.users.Done()
		synctest.Wait()
		if got := states(); got != waiting {
			t.Errorf("with the first table in use: %s", got)
		}
		p.dispatchOne(first)
		synctest.Wait()
		if got := states(); got != "b provisioning; " {
			t.Errorf("with no table in use: %s", got)
		}
		if _, ok := p.EndpointLog("a"); ok {
			t.Error("what is gone has a log")
		}
	})
}

// What is counted by endpoint type doesn't fall when an endpoint is deleted, nor
// while one drains whose id is in use again.
func TestDeletedEndpointsStayCounted(t *testing.T) {
	inBubble(t, func(p *Pipeline) {
		counted := func() string {
			byType := p.each(func(*sinks.Snapshot) {})
			times := byType[endpoints.TypeEventHub]
			return fmt.Sprintf("%d delivered, %d sends", times.latency.Count(), times.sends.Count())
		}
		a, b := endpoint("a", endpoints.SensorChange), endpoint("b", endpoints.SensorChange)
		p.router.apply([]endpoints.Endpoint{a, b})
		p.dispatchOne(p.router.acquire())
		time.Sleep(time.Minute)
		busy := p.router.acquire()
		const want = "2 delivered, 2 sends"
		for _, step := range []struct {
			name  string
			do    func()
			shown string
		}{
			{"a is removed", func() { p.router.apply([]endpoints.Endpoint{b}) }, "ab"},
			{"it is there again, and the one before drains", func() { p.router.apply([]endpoints.Endpoint{a, b}) }, "ab"},
			{"that one is gone", func() { busy.users.Done() }, "ab"},
			{"no endpoint is there", func() { p.router.apply(nil) }, ""},
		} {
			step.do()
			synctest.Wait()
			if got := counted(); got != want {
				t.Errorf("%s: %s, want %s", step.name, got, want)
			}
			shown := ""
			for _, e := range p.shown() {
				shown += e.ID
			}
			if shown != step.shown {
				t.Errorf("%s: the status shows %q, want %q", step.name, shown, step.shown)
			}
		}
	})
}

// The log names the endpoints that come and go, and not thousands at the start.
func TestStartIsOneLine(t *testing.T) {
	p := bare()
	core, logs := observer.New(zap.InfoLevel)
	p.options.Log = zap.New(core)
	set := []endpoints.Endpoint{endpoint("a", endpoints.SensorChange), endpoint("b", endpoints.SensorChange)}
	p.router.apply(set)
	if all := logs.TakeAll(); len(all) != 1 || all[0].ContextMap()["endpoints"] != int64(2) {
		t.Errorf("at the start: %v", all)
	}
	p.router.apply(append(set, endpoint("c", endpoints.SensorChange)))
	if all := logs.TakeAll(); len(all) != 1 || all[0].Message != "endpoint added" {
		t.Errorf("a change: %v", all)
	}
	p.router.background.Wait()
}

func targets(p *Pipeline, typ event.Type) (senders []*sinks.Sender) {
	var l match.Lookup[sinks.Slot]
	for _, slot := range l.Targets(p.router.routes.table, &event.Event{Type: typ}) {
		senders = append(senders, p.router.routes.senders[slot])
	}
	return senders
}

// An apply keeps the senders of endpoints that change.
func TestApplyKeepsSenders(t *testing.T) {
	inBubble(t, func(p *Pipeline) {
		a, b := endpoint("a", endpoints.SensorChange), endpoint("b", endpoints.SpaceChange)
		p.router.apply([]endpoints.Endpoint{a, b})
		before := map[string]*sinks.Sender{"a": p.router.senders["a"], "b": p.router.senders["b"]}
		changed := b
		changed.ConnectionString, changed.EventTypes = "y", []string{endpoints.SensorChange}
		a.Filter = "type = 'SensorChange'" // is no part of the connection
		p.router.apply([]endpoints.Endpoint{a, changed})
		for id, s := range before {
			if p.router.senders[id] != s {
				t.Errorf("%s has another sender", id)
			}
		}
		if got := targets(p, event.SensorChange); len(got) != 2 || got[0] != before["a"] || got[1] != before["b"] {
			t.Errorf("the table has %d senders", len(got))
		}
		if got := targets(p, event.SpaceChange); len(got) != 0 {
			t.Error("the old type is still routed")
		}
		if e := before["b"].Endpoint(); e.ConnectionString != "y" {
			t.Error("the sender was not updated")
		}
	})
}
