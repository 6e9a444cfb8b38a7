package ingest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topic       = "twins"
	testTimeout = 20 * time.Second // for what must happen
)

// eachProtocol runs a test with each protocol of groups, against a broker of its own.
func eachProtocol(t *testing.T, partitions int, test func(t *testing.T, k *kfake.Cluster, cfg config.Ingest)) {
	t.Helper()
	for _, protocol := range []string{config.ProtocolClassic, config.ProtocolConsumer} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			k := broker(t, partitions)
			cfg := ingestConfig(k)
			cfg.Protocol = protocol
			test(t, k, cfg)
		})
	}
}

func broker(t *testing.T, partitions int) *kfake.Cluster {
	t.Helper()
	return brokers(t, 1, partitions)
}

func brokers(t *testing.T, n, partitions int) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(n), kfake.SeedTopics(int32(partitions), topic),
		// Its default of 5 s would make every rebalance of the consumer protocol slow.
		kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "300", "message.max.bytes": "67108864"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newClient(t *testing.T, k *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(k.ListenAddrs()...), kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produce adds n records of that many bytes to each partition.
func produce(t *testing.T, k *kfake.Cluster, partitions, n, bytes int) {
	t.Helper()
	records := make([]*kgo.Record, 0, partitions*n)
	for p := range partitions {
		for range n {
			records = append(records, &kgo.Record{Partition: int32(p), Value: make([]byte, bytes)})
		}
	}
	client := newClient(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func ingestConfig(k *kfake.Cluster) config.Ingest {
	c := config.Default().Ingest
	c.Brokers, c.Topics, c.Group = k.ListenAddrs(), []string{topic}, "g"
	c.RebalanceTimeout = 2 * time.Second // a drain takes half of it at most
	return c
}

type noHook struct{}

func (noHook) OnNewClient(*kgo.Client) {}

func newSourceOf(t testing.TB, c config.Ingest, log *zap.Logger, opts ...kgo.Opt) *Source {
	t.Helper()
	source, err := New(c, nil, append(opts, kgo.SeedBrokers(c.Brokers...)), noHook{}, log)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// harness is a running source that keeps chunks until the test settles them.
type harness struct {
	t *testing.T
	*Source
	cancel context.CancelFunc
	done   chan struct{}
	auto   bool // settle at once
	decode func(*event.Chunk)

	mu   sync.Mutex
	held []*event.Chunk
	seen map[int32]map[int64]int
	// skipped are the details of chunks that stand for offsets that aren't read.
	skipped []string
}

func consume(t *testing.T, c config.Ingest, auto bool, opts ...kgo.Opt) *harness {
	t.Helper()
	return consumeLogged(t, c, auto, zap.NewNop(), opts...)
}

func consumeLogged(t *testing.T, c config.Ingest, auto bool, log *zap.Logger, opts ...kgo.Opt) *harness {
	t.Helper()
	return consumeDecoded(t, c, auto, nil, log, opts...)
}

// consumeDecoded decodes each chunk with a function.
func consumeDecoded(t *testing.T, c config.Ingest, auto bool, decode func(*event.Chunk), log *zap.Logger, opts ...kgo.Opt) *harness {
	t.Helper()
	h := newHarness(t, c, auto, decode, log, opts...)
	h.start(h.take)
	return h
}

// consumeHeld settles at once what it takes, which is nothing before it is opened.
func consumeHeld(t *testing.T, c config.Ingest) *refuser {
	t.Helper()
	r := &refuser{harness: newHarness(t, c, true, nil, zap.NewNop())}
	r.start(r.take)
	return r
}

func newHarness(t *testing.T, c config.Ingest, auto bool, decode func(*event.Chunk), log *zap.Logger, opts ...kgo.Opt) *harness {
	t.Helper()
	return &harness{
		t: t, Source: newSourceOf(t, c, log, opts...), done: make(chan struct{}), auto: auto, decode: decode,
		seen: make(map[int32]map[int64]int),
	}
}

// start runs the source until the test ends.
func (h *harness) start(take func(*event.Chunk) bool) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	h.cancel = cancel
	go func() {
		defer close(h.done)
		if err := h.Run(ctx, take); err != nil {
			h.t.Error(err)
		}
	}()
	h.t.Cleanup(func() { h.stop() })
}

// take takes every chunk.
func (h *harness) take(c *event.Chunk) bool {
	h.emit(c)
	return true
}

// lagIs reports whether the lag is known, and n.
func lagIs(s *Source, n int64) bool {
	lag := s.Status().Lag
	return lag != nil && *lag == n
}

func (h *harness) emit(c *event.Chunk) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen[c.Partition] == nil {
		h.seen[c.Partition] = make(map[int64]int)
	}
	if len(c.Records) == 0 {
		h.skipped = append(h.skipped, c.Rejected[0].Detail)
	} else if first, last := c.Records[0].Offset, c.Records[len(c.Records)-1].Offset; c.First != first || c.Last != last {
		h.t.Errorf("a chunk of %d..%d has the offsets %d..%d", first, last, c.First, c.Last)
	}
	for _, r := range c.Records {
		h.seen[c.Partition][r.Offset]++
	}
	if h.decode != nil {
		h.decode(c)
	}
	c.Decoded() // as decoding does in the end
	if h.auto {
		c.Settle(1)
		return
	}
	h.held = append(h.held, c)
}

// settle settles the held chunks that are chosen, the newest first.
func (h *harness) settle(choose func(*event.Chunk) bool) {
	h.mu.Lock()
	var now []*event.Chunk
	h.held = slices.DeleteFunc(h.held, func(c *event.Chunk) bool {
		if choose(c) {
			now = append(now, c)
			return true
		}
		return false
	})
	h.mu.Unlock()
	slices.Reverse(now)
	for _, c := range now {
		c.Settle(1)
	}
}

func all(*event.Chunk) bool { return true }

func (h *harness) count() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, offsets := range h.seen {
		n += len(offsets)
	}
	return n
}

func (h *harness) owns(partitions int) func() bool {
	return func() bool { return len(h.Status().Partitions) == partitions }
}

// stop stops as the pipeline does, and returns how long that took. Run returns
// at once, whatever it is doing.
func (h *harness) stop() time.Duration {
	h.t.Helper()
	begun := time.Now()
	h.cancel()
	select {
	case <-h.done:
	case <-time.After(3 * time.Second):
		h.t.Fatal("Run does not return")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil && h.t.Context().Err() == nil {
		h.t.Errorf("Close: %v", err)
	}
	return time.Since(begun)
}

// commits records every commit, and checks that none goes back.
type commits struct {
	mu      sync.Mutex
	offsets map[int32]int64
}

func watchCommits(t *testing.T, k *kfake.Cluster) *commits {
	w := &commits{offsets: make(map[int32]int64)}
	k.ControlKey(kmsg.OffsetCommit.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, topic := range request.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range topic.Partitions {
				if p.Offset < w.offsets[p.Partition] {
					t.Errorf("partition %d: a commit of %d after one of %d", p.Partition, p.Offset, w.offsets[p.Partition])
				}
				w.offsets[p.Partition] = p.Offset
			}
		}
		return nil, nil, false
	})
	return w
}

func (w *commits) of(p int32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.offsets[p]
}

func (w *commits) sum() (n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.offsets {
		n += o
	}
	return n
}

// sums reports whether as many offsets are committed over all partitions.
func (w *commits) sums(n int) func() bool { return func() bool { return w.sum() == int64(n) } }
