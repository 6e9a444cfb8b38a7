package ingest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

const (
	topic    = "twins"
	patience = 20 * time.Second // how long a test waits for what must happen
)

func broker(t *testing.T, partitions int) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(partitions), topic),
		// Its default of 5 s would make every rebalance of the consumer protocol slow.
		kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "300"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// produce adds n records of that many bytes to each partition.
func produce(t *testing.T, k *kfake.Cluster, partitions, n, bytes int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	records := make([]*kgo.Record, 0, partitions*n)
	for p := range partitions {
		for range n {
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(p), Value: make([]byte, bytes)})
		}
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consumer is a running source that keeps what it is handed until the test
// settles it.
type harness struct {
	t *testing.T
	*Source
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	held []*event.Chunk
	seen map[int32]map[int64]int
	last map[int32]int64
	auto bool // settle at once
}

func ingestConfig(k *kfake.Cluster) config.Ingest {
	c := config.Default().Ingest
	c.Brokers, c.Topics, c.Group = k.ListenAddrs(), []string{topic}, "g"
	c.RebalanceTimeout = 2 * time.Second // a drain takes half of it at most
	return c
}

func consume(t *testing.T, c config.Ingest, auto bool) *harness {
	t.Helper()
	return consumeWith(t, c, auto)
}

func consumeWith(t *testing.T, c config.Ingest, auto bool, more ...kgo.Opt) *harness {
	t.Helper()
	source, err := New(c, append(more, kgo.SeedBrokers(c.Brokers...)), noHook{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &harness{
		t: t, Source: source, cancel: cancel, done: make(chan struct{}), auto: auto,
		seen: make(map[int32]map[int64]int), last: make(map[int32]int64),
	}
	go func() {
		defer close(s.done)
		if err := source.Run(ctx, s.emit); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { s.stop() })
	return s
}

type noHook struct{}

func (noHook) OnNewClient(*kgo.Client) {}

func (s *harness) emit(c *event.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[c.Partition] == nil {
		s.seen[c.Partition] = make(map[int64]int)
	}
	if c.First != c.Records[0].Offset || c.Last != c.Records[len(c.Records)-1].Offset {
		s.t.Errorf("a chunk of %d..%d says %d..%d", c.Records[0].Offset, c.Records[len(c.Records)-1].Offset, c.First, c.Last)
	}
	for _, r := range c.Records {
		s.seen[c.Partition][r.Offset]++
	}
	if s.auto {
		c.Settle(1)
		return
	}
	s.held = append(s.held, c)
}

// settle settles what is held and chosen, the newest first.
func (s *harness) settle(choose func(*event.Chunk) bool) {
	s.mu.Lock()
	var now []*event.Chunk
	s.held = slices.DeleteFunc(s.held, func(c *event.Chunk) bool {
		if choose(c) {
			now = append(now, c)
			return true
		}
		return false
	})
	s.mu.Unlock()
	slices.Reverse(now)
	for _, c := range now {
		c.Settle(1)
	}
}

func all(*event.Chunk) bool { return true }

func (s *harness) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, offsets := range s.seen {
		n += len(offsets)
	}
	return n
}

// stop stops as the pipeline does, and tells how long that took.
func (s *harness) stop() time.Duration {
	s.t.Helper()
	begun := time.Now()
	s.cancel()
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		s.t.Fatal("Run does not return")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil && s.t.Context().Err() == nil {
		s.t.Errorf("Close: %v", err)
	}
	return time.Since(begun)
}

// eventually polls: what is waited for happens on the broker's and the client's goroutines.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("timed out: %s", what)
		}
	}
}

// committed records every commit, and checks that none goes back.
type committed struct {
	mu      sync.Mutex
	offsets map[int32]int64
}

func watchCommits(t *testing.T, k *kfake.Cluster) *committed {
	w := &committed{offsets: make(map[int32]int64)}
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

func (w *committed) of(p int32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.offsets[p]
}

func (w *committed) sum() (n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.offsets {
		n += o
	}
	return n
}

// A copy is stopped with every other chunk unsettled. The next one sees
// everything from the first unsettled chunk on, and nothing before it.
func TestRestart(t *testing.T) {
	for _, protocol := range []string{config.ProtocolClassic, config.ProtocolConsumer} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			const partitions, n = 3, 3000
			k := broker(t, partitions)
			commits := watchCommits(t, k)
			produce(t, k, partitions, n, 100)
			cfg := ingestConfig(k)
			cfg.Protocol = protocol
			first := consume(t, cfg, false)
			eventually(t, "everything is read", func() bool { return first.count() == partitions*n })
			if st := first.Status(); st.Records != partitions*n || len(st.Partitions) != partitions || st.Lag != partitions*n {
				t.Errorf("status is %+v", st)
			}
			if !first.Joined() {
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
			for p, offset := range from {
				if got := commits.of(p); got != offset {
					t.Errorf("partition %d: committed %d, want %d", p, got, offset)
				}
			}
			first.settle(all) // too late: must change nothing

			second := consume(t, cfg, true)
			want := 0
			for _, offset := range from {
				want += n - int(offset)
			}
			eventually(t, "the rest is read again", func() bool { return second.count() >= want })
			eventually(t, "everything is committed", func() bool { return commits.sum() == partitions*n })
			for p, offset := range from {
				if got := slices.Min(slices.Collect(maps.Keys(second.seen[p]))); got != offset {
					t.Errorf("partition %d: read again from %d, want %d", p, got, offset)
				}
			}
			if st := second.Status(); st.Lag != 0 || st.InFlight != 0 {
				t.Errorf("in the end the status is %+v", st)
			}
		})
	}
}

// Past the limit of bytes in flight polling stops, and the membership goes on.
func TestInFlightLimit(t *testing.T) {
	t.Parallel()
	const n, size, limit = 24_000, 1000, 1 << 20
	k := broker(t, 2)
	var heartbeats atomic.Int64
	k.ControlKey(kmsg.Heartbeat.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		heartbeats.Add(1)
		return nil, nil, false
	})
	var left atomic.Bool
	k.ControlKey(kmsg.LeaveGroup.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		left.Store(true)
		return nil, nil, false
	})
	produce(t, k, 2, n/2, size)
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = limit
	s := consume(t, cfg, false)
	eventually(t, "the limit is reached", func() bool { return s.Status().InFlight >= limit })
	before := heartbeats.Load()
	eventually(t, "heartbeats go on", func() bool { return heartbeats.Load() >= before+1 })
	const poll = pollRecords * (size + 256)
	if st := s.Status(); st.InFlight > limit+poll || st.Records > n/2 {
		t.Errorf("%d records of %d bytes are in flight, want at most %d bytes", st.Records, st.InFlight, limit+poll)
	}
	if left.Load() || !s.Joined() {
		t.Error("the group was left")
	}
	eventually(t, "the rest comes as room is made", func() bool {
		s.settle(all)
		return s.count() == n
	})
	s.settle(all)
	if in := s.Status().InFlight; in != 0 {
		t.Errorf("%d bytes in flight, of nothing", in)
	}
}

// A second copy joins, and the first leaves, while chunks are unsettled and
// are settled late. Nothing is lost, no commit goes back.
func TestRebalance(t *testing.T) {
	for _, protocol := range []string{config.ProtocolClassic, config.ProtocolConsumer} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			const partitions, n = 4, 1000
			k := broker(t, partitions)
			commits := watchCommits(t, k)
			produce(t, k, partitions, n, 100)
			cfg := ingestConfig(k)
			cfg.Protocol = protocol
			a := consume(t, cfg, false)
			eventually(t, "the first copy reads", func() bool { return a.count() == partitions*n })
			// One chunk of each partition stays unsettled beyond the revocation.
			a.settle(func(c *event.Chunk) bool { return c.First > 300 || c.First == 0 })

			b := consume(t, cfg, true)
			eventually(t, "two partitions each", func() bool {
				return len(a.Status().Partitions) == 2 && len(b.Status().Partitions) == 2
			})
			owned := slices.Concat(a.Status().Partitions, b.Status().Partitions)
			slices.Sort(owned)
			if !slices.Equal(owned, []int32{0, 1, 2, 3}) {
				t.Errorf("the partitions are owned so: %v", owned)
			}
			eventually(t, "the second copy repeats what was unsettled", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return len(b.seen) == 2
			})
			produce(t, k, partitions, n, 100)
			eventually(t, "the second copy commits", func() bool {
				for _, p := range b.Status().Partitions {
					if commits.of(p) != 2*n {
						return false
					}
				}
				return true
			})
			a.settle(all) // late, for two of the partitions: must not be committed
			a.stop()
			eventually(t, "one copy is left with all", func() bool { return len(b.Status().Partitions) == partitions })
			eventually(t, "everything is committed", func() bool { return commits.sum() == 2*n*partitions })
			for p := range int32(partitions) {
				for o := range int64(2 * n) {
					if a.seen[p][o]+b.seen[p][o] == 0 {
						t.Fatalf("%d/%d was never seen", p, o)
					}
				}
			}
		})
	}
}

// Run returns at once when ctx ends, whatever it is doing.
func TestRunReturns(t *testing.T) {
	tests := map[string]struct {
		records int
		limit   int
	}{
		"waiting for records": {0, 64 << 20},
		"waiting for room":    {5000, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 1)
			produce(t, k, 1, test.records, 10)
			cfg := ingestConfig(k)
			cfg.MaxInFlightBytes = config.ByteSize(test.limit)
			s := consume(t, cfg, false)
			eventually(t, "joined", func() bool {
				return s.Joined() && (test.records == 0 || s.count() > 0)
			})
			s.cancel()
			select {
			case <-s.done:
			case <-time.After(time.Second):
				t.Error("Run goes on")
			}
		})
	}
}
