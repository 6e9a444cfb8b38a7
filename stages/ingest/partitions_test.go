package ingest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/blackhole"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// A copy is stopped with every other chunk unsettled. The next one sees
// everything from the first unsettled chunk on, and nothing before it.
func TestRestart(t *testing.T) {
	const partitions, n = 3, 3000
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		commits := watchCommits(t, k)
		produce(t, k, partitions, n, 100)
		first := consume(t, cfg, false)
		eventually.Holds(t, "everything is read", func() bool { return first.count() == partitions*n })
		if st := first.Status(); st.Records != partitions*n || len(st.Partitions) != partitions {
			t.Errorf("status is %+v", st)
		}
		eventually.Holds(t, "all of it is lag", func() bool { return lagIs(first.Source, partitions*n) })
		if !first.Status().Member {
			t.Error("not joined")
		}
		// Of each partition its first chunks, and then every other one.
		from := make(map[int32]int64) // the first unsettled offset
		slices.SortFunc(first.held, func(a, b *event.Chunk) int { return cmp.Compare(a.First, b.First) })
		rank := make(map[int32]int)
		first.settle(func(c *event.Chunk) bool {
			rank[c.Partition]++
			settle := rank[c.Partition] <= int(1+c.Partition) || rank[c.Partition]%2 == 0
			if _, ok := from[c.Partition]; !ok && !settle {
				from[c.Partition] = c.First
			}
			return settle
		})
		if took := first.stop(); took > 800*time.Millisecond {
			t.Errorf("stopping with chunks unsettled took %v", took)
		}
		want := 0
		for p, offset := range from {
			want += n - int(offset)
			if got := commits.of(p); got != offset {
				t.Errorf("partition %d: committed %d, want %d", p, got, offset)
			}
		}
		first.settle(all) // too late: must change nothing

		second := consume(t, cfg, true)
		eventually.Holds(t, "the rest is read again", func() bool { return second.count() >= want })
		eventually.Holds(t, "everything is committed", commits.sums(partitions*n))
		for p, offset := range from {
			if got := slices.Min(slices.Collect(maps.Keys(second.seen[p]))); got != offset {
				t.Errorf("partition %d: read again from %d, want %d", p, got, offset)
			}
		}
		eventually.Holds(t, "there is no lag, and nothing in flight", func() bool { return lagIs(second.Source, 0) && second.Status().InFlight == 0 })
	})
}

// A second copy joins, and the first leaves, while chunks are unsettled and
// are settled late. Nothing is lost, no commit goes back.
func TestRebalance(t *testing.T) {
	const partitions, n = 4, 1000
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		commits := watchCommits(t, k)
		produce(t, k, partitions, n, 100)
		a := consume(t, cfg, false)
		eventually.Holds(t, "the first copy reads", func() bool { return a.count() == partitions*n })
		// One chunk of each partition stays unsettled beyond the revocation.
		a.settle(func(c *event.Chunk) bool { return c.First > 300 || c.First == 0 })

		b := consume(t, cfg, true)
		eventually.Holds(t, "two partitions each", func() bool { return a.owns(2)() && b.owns(2)() })
		owned := slices.Concat(a.Status().Partitions, b.Status().Partitions)
		slices.Sort(owned)
		if !slices.Equal(owned, []int32{0, 1, 2, 3}) {
			t.Errorf("the partitions are owned so: %v", owned)
		}
		eventually.Holds(t, "the second copy repeats what was unsettled", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.seen) == 2
		})
		produce(t, k, partitions, n, 100)
		eventually.Holds(t, "the second copy commits", func() bool {
			for _, p := range b.Status().Partitions {
				if commits.of(p) != 2*n {
					return false
				}
			}
			return true
		})
		a.settle(all) // late, for two of the partitions: must not be committed
		a.stop()
		eventually.Holds(t, "one copy is left with all", b.owns(partitions))
		eventually.Holds(t, "everything is committed", commits.sums(2*n*partitions))
		for p := range int32(partitions) {
			for o := range int64(2 * n) {
				if a.seen[p][o]+b.seen[p][o] == 0 {
					t.Fatalf("%d/%d was never seen", p, o)
				}
			}
		}
	})
}

// While a revoked partition waits for its last outcomes, those that stay are
// read and committed as ever.
func TestRebalanceDoesNotPauseWhatStays(t *testing.T) {
	const partitions = 4
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		commits := watchCommits(t, k)
		produce(t, k, partitions, 1, 10)
		cfg.RebalanceTimeout = 2 * testTimeout // the drain goes on until its chunks are settled here, or 10 s
		a := consume(t, cfg, false)
		eventually.Holds(t, "the first copy reads", func() bool { return a.count() == partitions })

		b := consume(t, cfg, true)
		eventually.Holds(t, "the first copy is left with two", a.owns(2))
		stay := a.Status().Partitions
		going := func(c *event.Chunk) bool { return !slices.Contains(stay, c.Partition) }
		staying := func(c *event.Chunk) bool { return !going(c) }
		begun := time.Now()
		for round := int64(1); round <= 5; round++ {
			a.settle(staying)
			produce(t, k, partitions, 1, 10)
			eventually.Holds(t, "what stays is read and committed", func() bool {
				a.settle(staying)
				return commits.of(stay[0]) > round && commits.of(stay[1]) > round
			})
		}
		if drained := time.Since(begun); drained > drainTimeout {
			t.Fatalf("the drain was over before the test: after %v", drained)
		}
		if !b.owns(0)() {
			t.Fatal("the second copy owns partitions already: nothing was held back")
		}
		a.settle(going)
		eventually.Holds(t, "two partitions each", func() bool {
			a.settle(all)
			return a.owns(2)() && b.owns(2)()
		})
		eventually.Holds(t, "everything is committed", func() bool {
			a.settle(all)
			return commits.sum() == 6*partitions
		})
		for p := range int32(partitions) {
			if !slices.Contains(stay, p) && b.seen[p][0] != 0 {
				t.Errorf("%d/0 was settled in the drain, and repeated", p)
			}
		}
	})
}

// heldPoll is a hook that holds a poll between the moment at which the client
// hands out its records and the moment at which the poll returns.
type heldPoll struct {
	mu   sync.Mutex
	hold chan struct{} // closed to end the hold; nil: don't hold
	held chan struct{}
}

func (h *heldPoll) OnFetchRecordUnbuffered(_ *kgo.Record, polled bool) {
	h.mu.Lock()
	hold := h.hold
	h.mu.Unlock()
	if hold == nil || !polled {
		return
	}
	signal(h.held)
	<-hold
}

func (h *heldPoll) set(hold chan struct{}) {
	h.mu.Lock()
	h.hold = hold
	h.mu.Unlock()
}

// A partition is revoked and comes back while its records are between a poll
// and their chunks. They are not taken for records of the new ownership, whose
// owner in between has gone further: that would take the committed offset back.
func TestComesBackBeforeItIsCut(t *testing.T) {
	const partitions = 2
	eachProtocol(t, partitions, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		commits := watchCommits(t, k)
		hook := &heldPoll{held: make(chan struct{}, 1)}
		a := consume(t, cfg, true, kgo.WithHooks(hook))
		eventually.Holds(t, "the first copy owns both", a.owns(partitions))
		produce(t, k, partitions, 10, 10)
		eventually.Holds(t, "the first copy commits", commits.sums(10*partitions))

		hold := make(chan struct{})
		hook.set(hold)
		release := sync.OnceFunc(func() { hook.set(nil); close(hold) })
		defer release()
		produce(t, k, partitions, 10, 10)
		<-hook.held

		b := consume(t, cfg, true)
		eventually.Holds(t, "the second copy owns one", b.owns(1))
		went := b.Status().Partitions[0]
		produce(t, k, partitions, 10, 10)
		eventually.Holds(t, "the second copy commits what the first one holds, and more", func() bool { return commits.of(went) == 30 })
		interrupted := a.poller.gate.current()
		b.stop()
		select { // the first copy is about to get it back, and waits for its poll
		case <-interrupted.Done():
		case <-time.After(testTimeout):
			t.Fatal("the first copy doesn't get the partition back")
		}
		release()
		eventually.Holds(t, "the first copy owns both again", a.owns(partitions))
		produce(t, k, partitions, 10, 10)
		eventually.Holds(t, "everything is committed, and never taken back", commits.sums(40*partitions))
		a.mu.Lock()
		defer a.mu.Unlock()
		for o := range int64(40) {
			want := 1
			if o >= 10 && o < 30 {
				want = 0 // the second copy's
			}
			if got := a.seen[went][o]; got != want {
				t.Errorf("the first copy saw %d/%d %d times, want %d", went, o, got, want)
			}
		}
	})
}

func (g *pollGate) current() context.Context {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.ctx
}

// Two copies with one instanceId: one of them ends, and returns why.
func TestTwoWithOneInstanceID(t *testing.T) {
	t.Parallel()
	cfg := ingestConfig(broker(t, 1))
	cfg.InstanceID = "pod-0"
	cfg.SessionTimeout = 6 * time.Second // the least; a fenced member notices with its next heartbeat, 2 s
	ends := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		source := newSourceOf(t, cfg, zap.NewNop())
		go func() {
			err := source.Run(ctx, func(c *event.Chunk) bool { c.Settle(1); return true })
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), testTimeout)
			defer cancel()
			_ = source.Close(closing) // a fenced member can't leave in order
			ends <- err
		}()
		eventually.Holds(t, "joined", func() bool { return source.Status().Member })
	}
	err := <-ends
	if err == nil || !strings.Contains(err.Error(), `ingest.instanceId "pod-0"`) {
		t.Errorf("it ended with %v", err)
	}
	cancel()
	if err := <-ends; err != nil {
		t.Errorf("the other one ended with %v", err)
	}
}

// A stop takes no longer than it may when a broker no longer answers: neither
// the commit that is under way, nor the one before the end, nor the leaving.
func TestCloseWhileTheBrokerIsSilent(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		cfg.InstanceID = "a"
		var network blackhole.Network
		core, logs := observer.New(zap.WarnLevel)
		source := newSourceOf(t, cfg, zap.New(core), kgo.Dialer(network.Dial))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		var settled atomic.Int32
		go func() {
			ended <- source.Run(ctx, func(c *event.Chunk) bool {
				c.Settle(1)
				settled.Add(1)
				return true
			})
		}()
		produce(t, k, 1, 1, 10)
		eventually.Holds(t, "an event is settled", func() bool { return settled.Load() == 1 })
		network.Begin()
		eventually.Holds(t, "the commit has no answer", func() bool { return network.Lost() > 1 }) // the other one is the fetch's
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		closing, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if err := source.Close(closing); err == nil {
			t.Error("Close returns no error, as if it had committed")
		}
		for _, untrue := range []string{"not a member", "partitions lost"} {
			if logs.FilterMessageSnippet(untrue).Len() > 0 {
				t.Errorf("logged %q: it was stopped", untrue)
			}
		}
		if took := time.Since(begun); took > 5*time.Second { // the client's own time-outs are 10 s and more
			t.Errorf("Close took %v", took)
		}
	})
}
