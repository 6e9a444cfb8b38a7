package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

func eachProtocol(t *testing.T, test func(t *testing.T, protocol string)) {
	t.Helper()
	for _, protocol := range []string{config.ProtocolClassic, config.ProtocolConsumer} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			test(t, protocol)
		})
	}
}

// While a partition that goes waits for its last outcomes, those that stay are
// read and committed as ever.
func TestRebalanceDoesNotPauseWhatStays(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		const partitions = 4
		k := broker(t, partitions)
		commits := watchCommits(t, k)
		produce(t, k, partitions, 1, 10)
		cfg := ingestConfig(k)
		cfg.Protocol = protocol
		cfg.RebalanceTimeout = 2 * patience // the drain goes on until its chunks are settled here, or 10 s
		a := consume(t, cfg, false)
		eventually(t, "the first copy reads", func() bool { return a.count() == partitions })

		b := consume(t, cfg, true)
		eventually(t, "the first copy gives two up", func() bool { return len(a.Status().Partitions) == 2 })
		stay := a.Status().Partitions
		going := func(c *event.Chunk) bool { return !slices.Contains(stay, c.Partition) }
		staying := func(c *event.Chunk) bool { return !going(c) }
		begun := time.Now()
		for round := int64(1); round <= 5; round++ {
			a.settle(staying)
			produce(t, k, partitions, 1, 10)
			eventually(t, "what stays is read and committed", func() bool {
				a.settle(staying)
				return commits.of(stay[0]) > round && commits.of(stay[1]) > round
			})
		}
		if drained := time.Since(begun); drained > drainTimeout {
			t.Fatalf("the drain was over before the test: after %v", drained)
		}
		if n := len(b.Status().Partitions); n != 0 {
			t.Fatalf("the second copy has %d partitions already: nothing was held back", n)
		}
		a.settle(going)
		eventually(t, "two partitions each", func() bool {
			a.settle(all)
			return len(a.Status().Partitions) == 2 && len(b.Status().Partitions) == 2
		})
		eventually(t, "everything is committed", func() bool {
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

// heldPoll holds a poll between the moment at which the client gives its
// records away and the moment at which the poll returns.
type heldPoll struct {
	mu   sync.Mutex
	hold chan struct{} // closed to let go; nil: don't hold
	held chan struct{}
}

func (h *heldPoll) OnFetchRecordUnbuffered(_ *kgo.Record, polled bool) {
	h.mu.Lock()
	hold := h.hold
	h.mu.Unlock()
	if hold == nil || !polled {
		return
	}
	select {
	case h.held <- struct{}{}:
	default:
	}
	<-hold
}

func (h *heldPoll) set(hold chan struct{}) {
	h.mu.Lock()
	h.hold = hold
	h.mu.Unlock()
}

// A partition goes and comes back while its records are between a poll and the
// tracker. They are not taken for records of the new ownership, whose owner in
// between has gone further: that would take the committed offset back.
func TestComesBackBeforeItIsCut(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		const partitions = 2
		k := broker(t, partitions)
		commits := watchCommits(t, k)
		cfg := ingestConfig(k)
		cfg.Protocol = protocol
		hook := &heldPoll{held: make(chan struct{}, 1)}
		a := consumeWith(t, cfg, true, kgo.WithHooks(hook))
		eventually(t, "the first copy has both", func() bool { return len(a.Status().Partitions) == partitions })
		produce(t, k, partitions, 10, 10)
		eventually(t, "the first copy commits", func() bool { return commits.sum() == 10*partitions })

		letGo := make(chan struct{})
		hook.set(letGo)
		release := sync.OnceFunc(func() { hook.set(nil); close(letGo) })
		defer release()
		produce(t, k, partitions, 10, 10)
		<-hook.held

		b := consume(t, cfg, true)
		eventually(t, "the second copy has one", func() bool { return len(b.Status().Partitions) == 1 })
		went := b.Status().Partitions[0]
		produce(t, k, partitions, 10, 10)
		eventually(t, "the second copy commits what the first one holds, and more", func() bool { return commits.of(went) == 30 })
		ended := a.poller.gate.current()
		b.stop()
		select { // the first copy is about to get it back, and waits for its poll
		case <-ended.Done():
		case <-time.After(patience):
			t.Fatal("the first copy doesn't get the partition back")
		}
		release()
		eventually(t, "the first copy has both again", func() bool { return len(a.Status().Partitions) == partitions })
		produce(t, k, partitions, 10, 10)
		eventually(t, "everything is committed, and never taken back", func() bool { return commits.sum() == 40*partitions })
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

// Two copies with one instanceId: one of them ends, and says why.
func TestTwoWithOneInstanceID(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	cfg := ingestConfig(k)
	cfg.InstanceID = "pod-0"
	cfg.SessionTimeout = 6 * time.Second // the least; a fenced member notices with its next heartbeat, 2 s
	ends := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		source, err := New(cfg, []kgo.Opt{kgo.SeedBrokers(cfg.Brokers...)}, noHook{}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			err := source.Run(ctx, func(c *event.Chunk) { c.Settle(1) })
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			_ = source.Close(closing) // a fenced member can't leave in order
			ends <- err
		}()
		eventually(t, "joined", source.Joined)
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

// What is fatal, and from when on.
func TestMembershipJudges(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(0, 0).Add(d) }
	tests := map[string]struct {
		errs  []error
		times []time.Duration
		fatal string
	}{
		"fenced":                 {[]error{kerr.FencedInstanceID}, []time.Duration{0}, `ingest.instanceId "pod-0" has taken it`},
		"session time-out":       {[]error{kerr.InvalidSessionTimeout}, []time.Duration{0}, "ingest.sessionTimeout 45s is outside"},
		"held for a while":       {[]error{kerr.UnreleasedInstanceID, kerr.UnreleasedInstanceID}, []time.Duration{0, 50 * time.Second}, ""},
		"held for too long":      {[]error{kerr.UnreleasedInstanceID, kerr.UnreleasedInstanceID}, []time.Duration{0, 61 * time.Second}, "has had it for 1m0s"},
		"held again":             {[]error{kerr.UnreleasedInstanceID, kerr.NotCoordinator, kerr.UnreleasedInstanceID}, []time.Duration{0, 50 * time.Second, 70 * time.Second}, ""},
		"the coordinator is off": {[]error{kerr.CoordinatorNotAvailable}, []time.Duration{0}, ""},
		"not allowed, yet":       {[]error{kerr.GroupAuthorizationFailed}, []time.Duration{0}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := config.Default().Ingest
			c.InstanceID = "pod-0"
			m := membership{config: c, log: zap.NewNop()}
			var err error
			for i := range test.errs {
				err = m.classify(fmt.Errorf("joining: %w", test.errs[i]), at(test.times[i]))
			}
			switch {
			case test.fatal == "" && err != nil:
				t.Errorf("ends with %v", err)
			case test.fatal != "" && (err == nil || !strings.Contains(err.Error(), test.fatal)):
				t.Errorf("ends with %v, want %q", err, test.fatal)
			}
		})
	}
}

// The lag is true of what was never polled, too.
func TestLag(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		const partitions, n = 2, 500
		k := broker(t, partitions)
		produce(t, k, partitions, n, 10)
		cfg := ingestConfig(k)
		cfg.Protocol = protocol
		cfg.MaxInFlightBytes = 1 // one poll, and then none until it is settled
		s := consume(t, cfg, false)
		eventually(t, "something is read", func() bool { return s.count() > 0 })
		eventually(t, "all of it is lag", func() bool { return s.Status().Lag == partitions*n })
		produce(t, k, partitions, n, 10)
		signal(s.offsets.due) // rather than wait for the next round
		eventually(t, "so is what comes while polling waits", func() bool { return s.Status().Lag == 2*partitions*n })
		eventually(t, "there is none in the end", func() bool {
			s.settle(all)
			return s.Status().Lag == 0
		})
		s.stop()

		// Joined again, and nothing new: the offsets that are committed count.
		again := consume(t, cfg, false)
		eventually(t, "the second one has them", func() bool { return len(again.Status().Partitions) == partitions })
		produce(t, k, partitions, 1, 10)
		signal(again.offsets.due)
		eventually(t, "only what is new is lag", func() bool { return again.Status().Lag == partitions })
		again.settle(all)
		again.stop()

		cfg.Group, cfg.Start = "late", config.StartLatest
		late := consume(t, cfg, false)
		eventually(t, "it has them", func() bool { return len(late.Status().Partitions) == partitions })
		if lag := late.Status().Lag; lag != 0 {
			t.Errorf("a group that starts with what comes has a lag of %d", lag)
		}
	})
}

// Offsets without an event, as transactions leave them, hold nothing back.
func TestTransactions(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocol string) {
		k := broker(t, 1)
		commits := watchCommits(t, k)
		cfg := ingestConfig(k)
		cfg.Protocol = protocol
		s := consume(t, cfg, true)
		events := 0
		for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
			transact(t, k, 10*(i+1), end)
			if end == kgo.TryCommit {
				events += 10 * (i + 1)
			}
			offsets := int64(5*(i+1)*(i+2) + i + 1) // the records so far, and an end each
			eventually(t, "past the transaction's end", func() bool { return commits.of(0) == offsets })
			eventually(t, "no lag", func() bool { return s.Status().Lag == 0 })
			if got := s.count(); got != events {
				t.Errorf("after %d transactions %d records were read, want %d", i+1, got, events)
			}
		}
	})
}

// While the coordinator doesn't say what the group has committed, its log being
// loaded after a failover, the partition's start is not taken for it: marked, it
// would take the group back there.
func TestNothingIsMarkedBeforeTheGroupAnswers(t *testing.T) {
	k := broker(t, 1)
	produce(t, k, 1, 100, 10)
	watchCommits(t, k) // none goes back
	first := consume(t, ingestConfig(k), true)
	eventually(t, "all is read", func() bool { return first.count() == 100 })
	first.stop()

	var loading atomic.Bool
	loading.Store(true)
	k.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		if !loading.Load() {
			return nil, nil, false
		}
		answer := r.ResponseKind().(*kmsg.OffsetFetchResponse)
		answer.ErrorCode = kerr.CoordinatorLoadInProgress.Code
		for _, g := range r.(*kmsg.OffsetFetchRequest).Groups {
			group := kmsg.NewOffsetFetchResponseGroup()
			group.Group, group.ErrorCode = g.Group, answer.ErrorCode
			answer.Groups = append(answer.Groups, group)
		}
		return answer, nil, true
	})
	second := consume(t, ingestConfig(k), true)
	eventually(t, "the partition is assigned", func() bool { return len(second.Status().Partitions) == 1 })
	for range 2 {
		if err := second.offsets.refresh(t.Context(), kadm.NewClient(second.member.client)); err != nil {
			t.Fatal(err)
		}
	}
	if lag := second.Status().Lag; lag != 0 {
		t.Errorf("lag %d before it is known", lag)
	}
	if err := second.member.client.CommitMarkedOffsets(t.Context()); err != nil {
		t.Error(err)
	}
	loading.Store(false)
	produce(t, k, 1, 1, 10)
	eventually(t, "the new record is read", func() bool { return second.count() > 0 })
	if n := second.count(); n != 1 {
		t.Errorf("%d records were read, want the new one only", n)
	}
}

func transact(t *testing.T, k *kfake.Cluster, n int, end kgo.TransactionEndTry) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.TransactionalID("t"), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for range n {
		client.Produce(t.Context(), &kgo.Record{Value: []byte("v")}, nil)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}
