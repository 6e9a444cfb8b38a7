package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// texts are Positions that have a text of each partition. They check that an ownership
// is told of in order.
type texts struct {
	t *testing.T

	mu      sync.Mutex
	compose func(partition int32) (string, error)
	// revoked is what the texts are from a revocation on, when that is set.
	revoked string
	restore func(ctx context.Context, partition int32) error
	stages  map[*event.Ownership]string
	begun   map[int32]commitment // the last answer to each Assigned
	ended   int
}

func newTexts(t *testing.T, compose func(int32) (string, error)) *texts {
	t.Helper()
	x := &texts{t: t, compose: compose, stages: make(map[*event.Ownership]string), begun: make(map[int32]commitment)}
	t.Cleanup(func() { // all sources are closed by then
		x.mu.Lock()
		defer x.mu.Unlock()
		for o, stage := range x.stages {
			if stage != "released" {
				t.Errorf("partition %d ends as %s", o.Partition, stage)
			}
		}
	})
	return x
}

func named(name string) func(int32) (string, error) {
	return func(p int32) (string, error) { return fmt.Sprint(name, " ", p), nil }
}

func (x *texts) set(compose func(int32) (string, error)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.compose = compose
}

// enter changes the stage of an ownership.
func (x *texts) enter(o *event.Ownership, to string, from ...string) {
	if !slices.Contains(from, x.stages[o]) {
		x.t.Errorf("partition %d is %s after %q", o.Partition, to, x.stages[o])
	}
	x.stages[o] = to
}

func (x *texts) Assigned(ctx context.Context, o *event.Ownership, committed int64, metadata string) error {
	x.mu.Lock()
	x.enter(o, "restoring", "", "failed", "revoked")
	restore := x.restore
	x.mu.Unlock()
	var err error
	if restore != nil {
		err = restore(ctx, o.Partition)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.stages[o] == "revoked":
	case err != nil:
		x.enter(o, "failed", "restoring")
	default:
		x.enter(o, "restored", "restoring")
	}
	x.begun[o.Partition] = commitment{kgo.EpochOffset{Offset: committed}, metadata}
	return err
}

func (x *texts) Metadata(_ context.Context, o *event.Ownership) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if stage := x.stages[o]; stage != "restored" && stage != "revoked" {
		x.t.Errorf("partition %d is to be committed when it is %q", o.Partition, stage)
	}
	if x.stages[o] == "revoked" && x.revoked != "" {
		return x.revoked, nil
	}
	return x.compose(o.Partition)
}

func (x *texts) TooLong(*event.Ownership, string) {}

func (x *texts) Revoked(o *event.Ownership) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.enter(o, "revoked", "", "restoring", "failed", "restored")
}

func (x *texts) Released(o *event.Ownership) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.enter(o, "released", "", "failed", "restored", "revoked")
	x.ended++
}

// found returns what Assigned was told of a partition.
func (x *texts) found(p int32) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	c, is := x.begun[p]
	if !is {
		return "nothing yet"
	}
	return fmt.Sprint(c.mark.Offset, " ", c.metadata)
}

func consumePositions(t *testing.T, c config.Ingest, x Positions, opts ...kgo.Opt) *harness {
	t.Helper()
	source, err := New(c, x, append(opts, kgo.SeedBrokers(c.Brokers...)), noHook{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, Source: source, done: make(chan struct{}), auto: true, seen: make(map[int32]map[int64]int)}
	h.start(h.take)
	return h
}

// committedBeside returns what the group has committed of a partition, and beside it.
func committedBeside(t *testing.T, k *kfake.Cluster, p int32) func() string {
	t.Helper()
	admin := kadm.NewClient(newClient(t, k))
	return func() string {
		offsets, err := admin.FetchOffsets(t.Context(), "g")
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			t.Fatal(err)
		}
		o, is := offsets.Lookup(topic, p)
		if !is {
			return "nothing"
		}
		return fmt.Sprint(o.At, " ", o.Metadata)
	}
}

// What Positions say of a partition is committed with its mark, also where no event
// comes, and the next owner gets it: after an end in order, a rebalance and a crash.
func TestMetadataReachesTheNextOwner(t *testing.T) {
	const partitions = 2 // nothing is in the second one
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		cfg.SessionTimeout = 6 * time.Second
		limit := []kadm.AlterConfig{{Name: "group.consumer.session.timeout.ms", Value: kadm.StringPtr("6000")}}
		if _, err := kadm.NewClient(newClient(t, k)).AlterBrokerConfigs(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
		produce(t, k, 1, 10, 10)
		x := newTexts(t, named("a"))
		a := consumePositions(t, cfg, x)
		busy, idle := committedBeside(t, k, 0), committedBeside(t, k, 1)
		holds := func(what string, got func() string, want string) {
			t.Helper()
			eventually.Holds(t, what, func() bool { return got() == want })
		}
		holds("committed with the mark", busy, "10 a 0")
		holds("an idle partition as well", idle, "0 a 1")
		if x.found(0) != "-1 " || x.found(1) != "-1 " {
			t.Errorf("a new group has %q and %q", x.found(0), x.found(1))
		}
		x.set(named("b"))
		holds("a change without an event", busy, "10 b 0")
		holds("also of the idle partition", idle, "0 b 1")
		x.mu.Lock()
		x.revoked = "of the end"
		x.mu.Unlock()
		a.stop()
		if busy() != "10 of the end" || idle() != "0 of the end" {
			t.Errorf("the end leaves %q and %q", busy(), idle())
		}

		y := newTexts(t, named("c"))
		b := consumePositions(t, cfg, y)
		eventually.Holds(t, "the next one has both", b.owns(partitions))
		holds("it gets what was committed", func() string { return y.found(0) }, "10 of the end")
		holds("it gets what was committed of the idle one", func() string { return y.found(1) }, "0 of the end")
		holds("it commits", busy, "10 c 0")
		holds("it commits of the idle one", idle, "0 c 1")
		y.mu.Lock()
		y.revoked = "of the revocation"
		y.mu.Unlock()

		z := newTexts(t, named("d"))
		c := consumePositions(t, cfg, z)
		eventually.Holds(t, "one each", func() bool { return b.owns(1)() && c.owns(1)() })
		went := c.Status().Partitions[0]
		mark := []int{10, 0}[went]
		holds("it gets what the revocation left", func() string { return z.found(went) }, fmt.Sprint(mark, " of the revocation"))
		holds("it commits", committedBeside(t, k, went), fmt.Sprint(mark, " d ", went))

		c.abandon() // neither a commit nor a word to the group
		eventually.Holds(t, "the first one has both again", b.owns(partitions))
		holds("it gets what the crash left", func() string { return y.found(went) }, fmt.Sprint(mark, " d ", went))
	})
}

// A mark is read before what is committed beside it is composed: a list that is older
// than its mark would lack who left behind it.
func TestMarkIsReadBeforeItsMetadata(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	var h *harness
	ready := make(chan struct{})
	offset := int64(0)
	x := newTexts(t, func(int32) (string, error) {
		<-ready
		p := h.partitions.get(topicPartition{topic, 0})
		if p == nil {
			return "", errors.New("the test is over")
		}
		defer h.settle(all) // the mark moves on behind it
		return strconv.FormatInt(p.resolved(), 10), nil
	})
	h = consumePositions(t, ingestConfig(k), x)
	h.mu.Lock()
	h.auto = false
	h.mu.Unlock()
	close(ready)
	beside := committedBeside(t, k, 0)
	for range 3 {
		produce(t, k, 1, 10, 10)
		offset += 10
		eventually.Holds(t, "all is committed", func() bool {
			var mark, composed int64
			if _, err := fmt.Sscan(beside(), &mark, &composed); err == nil && composed < mark {
				t.Fatalf("%d is committed, with what was composed at %d", mark, composed)
			}
			return mark == offset
		})
	}
}

// A partition isn't read before its positions are restored, which is tried again, and
// takes no room from those that are; an end in the meantime is one in order.
func TestRestoring(t *testing.T) {
	const partitions = 2
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		produce(t, k, partitions, 10, 10)
		tries := make(chan struct{}, 100)
		open := make(chan struct{})
		x := newTexts(t, named("a"))
		x.restore = func(ctx context.Context, p int32) error {
			if p == 0 {
				return nil
			}
			tries <- struct{}{}
			select {
			case <-open:
				return nil
			default:
			}
			if len(tries) == 1 {
				return errors.New("not yet")
			}
			select {
			case <-open:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		a := consumePositions(t, cfg, x)
		eventually.Holds(t, "it is tried again", func() bool { return len(tries) == 2 })
		eventually.Holds(t, "the other partition is committed", func() bool { return committedBeside(t, k, 0)() == "10 a 0" })
		eventually.Holds(t, "it is said", func() bool { return slices.Equal(a.Status().Waiting, []int32{1}) })
		if in := a.Status().InFlight; in != 0 {
			t.Errorf("%d bytes are in flight", in)
		}
		a.stop()
		a.mu.Lock()
		if n := len(a.seen[1]); n > 0 {
			t.Errorf("%d records were read before", n)
		}
		a.mu.Unlock()
		if got := committedBeside(t, k, 1)(); got != "nothing" {
			t.Errorf("committed is %q", got)
		}

		close(open)
		b := consumePositions(t, cfg, x)
		eventually.Holds(t, "both are read", func() bool { return b.count() == 10 }) // the first one is committed
		eventually.Holds(t, "both are committed", func() bool { return committedBeside(t, k, 1)() == "10 a 1" })
		if w := b.Status().Waiting; len(w) > 0 {
			t.Errorf("waiting are %v", w)
		}
	})
}

// Of a partition whose metadata can't be composed nothing is committed, and the
// others are.
func TestMetadataFails(t *testing.T) {
	t.Parallel()
	const partitions = 2
	k := broker(t, partitions)
	commits := watchCommits(t, k)
	produce(t, k, partitions, 10, 10)
	x := newTexts(t, func(p int32) (string, error) {
		if p == 1 {
			return "", errors.New("no room")
		}
		return "a", nil
	})
	a := consumePositions(t, ingestConfig(k), x)
	eventually.Holds(t, "one is committed", func() bool { return commits.of(0) == 10 })
	if err := a.committer.commit(t.Context(), a.partitions.all()); err == nil || commits.of(1) > 0 {
		t.Errorf("committed %d of the other one, error %v", commits.of(1), err)
	}
	x.set(named("b"))
	eventually.Holds(t, "the other one is committed", func() bool { return commits.of(1) == 10 })
}

// A partition stays in its lane while something of it is in flight that ingest didn't
// read, and a revocation waits for it.
func TestTakeLane(t *testing.T) {
	t.Parallel()
	k := broker(t, 2)
	a := consume(t, ingestConfig(k), true)
	eventually.Holds(t, "both are owned", a.owns(2))
	p := a.partitions.get(topicPartition{topic, 0})
	lane, ok := a.TakeLane(p.owned)
	if again, _ := a.TakeLane(p.owned); !ok || again != lane || lane != p.lane.lane {
		t.Fatalf("taken: lane %d, %v; again: %d", lane, ok, again)
	}
	a.scheduler.mu.Lock()
	p.lane.next, p.lane.until = lane+1, time.Now().Add(time.Hour)
	moved := p.lane.ready()
	a.scheduler.mu.Unlock()
	if moved {
		t.Error("the partition moves")
	}
	a.ReturnLane(p.owned)
	if _, ok := a.TakeLane(&event.Ownership{Topic: topic}); ok {
		t.Error("the lane of another ownership is taken")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		a.partitions.revoked(context.Background(), a.member.client, map[string][]int32{topic: {0}})
	}()
	eventually.Holds(t, "it drains", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.state == draining
	})
	if _, ok := a.TakeLane(p.owned); ok {
		t.Error("the lane is taken while the partition drains")
	}
	select {
	case <-drained:
		t.Error("the revocation doesn't wait")
	default:
	}
	a.ReturnLane(p.owned)
	<-drained
	a.scheduler.mu.Lock()
	defer a.scheduler.mu.Unlock()
	if !p.lane.ready() || p.lane.lane != lane+1 {
		t.Error("the lane is still taken")
	}
	if len(a.partitions.lent) > 0 {
		t.Error("a loan is left")
	}
	defer func() {
		if recover() == nil {
			t.Error("a lane can be returned twice")
		}
	}()
	a.ReturnLane(p.owned)
}

// What has its outcome by the end of a revocation is committed with what is beside it
// then, also where something else of the partition has none in time.
func TestRevocationCommitsAfterItsTimeout(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		x := newTexts(t, named("a"))
		x.revoked = "of the revocation"
		h := consumePositions(t, cfg, x)
		h.mu.Lock()
		h.auto = false
		h.mu.Unlock()
		eventually.Holds(t, "it is owned", h.owns(1))
		produce(t, k, 1, 10, 10)
		eventually.Holds(t, "all is read", func() bool { return h.count() == 10 })
		h.partitions.revoked(t.Context(), h.member.client, map[string][]int32{topic: {0}})
		if got := committedBeside(t, k, 0)(); got != "0 of the revocation" {
			t.Errorf("committed is %q", got)
		}
		h.settle(all) // too late
	})
}
