package ingest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// outOfRangeOnce answers the next fetch so, whatever the log has.
func outOfRangeOnce(k *kfake.Cluster) {
	k.ControlKey(kmsg.Fetch.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		fetch := request.(*kmsg.FetchRequest)
		if len(fetch.Topics) == 0 {
			k.KeepControl()
			return nil, nil, false
		}
		return failedFetch(fetch, kerr.OffsetOutOfRange), nil, true
	})
}

// failedFetch is the answer to a fetch of which each partition fails.
func failedFetch(fetch *kmsg.FetchRequest, why *kerr.Error) kmsg.Response {
	answer := fetch.ResponseKind().(*kmsg.FetchResponse)
	for _, of := range fetch.Topics {
		t := kmsg.NewFetchResponseTopic()
		t.Topic, t.TopicID = of.Topic, of.TopicID
		for _, p := range of.Partitions {
			failed := kmsg.NewFetchResponseTopicPartition()
			failed.Partition, failed.ErrorCode = p.Partition, why.Code
			t.Partitions = append(t.Partitions, failed)
		}
		answer.Topics = append(answer.Topics, t)
	}
	return answer
}

// Where reading goes on when the brokers say that they don't have the next offset.
// It never starts over but below the start: what was delivered is not sent again.
func TestOutOfRange(t *testing.T) {
	const n = 1000
	commit := func(offset int64) func(*testing.T, *kfake.Cluster) {
		return func(t *testing.T, k *kfake.Cluster) {
			t.Helper()
			offsets := kadm.OffsetsFromRecords(kgo.Record{Topic: topic, Offset: offset - 1, LeaderEpoch: -1})
			if err := kadm.NewClient(newClient(t, k)).CommitAllOffsets(t.Context(), "g", offsets); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		before func(*testing.T, *kfake.Cluster) // the first reading; nil: read all, and go on
		during func(*kfake.Cluster)             // once it has
		first  int64                            // the first offset that is read behind before
		log    string
	}{
		"while reading, without cause":   {during: outOfRangeOnce, first: n},
		"at the start, without cause":    {before: func(t *testing.T, k *kfake.Cluster) { commit(n)(t, k); outOfRangeOnce(k) }, first: n},
		"in the middle, without cause":   {before: func(t *testing.T, k *kfake.Cluster) { commit(n/2)(t, k); outOfRangeOnce(k) }, first: n / 2},
		"a new group, without cause":     {before: func(_ *testing.T, k *kfake.Cluster) { outOfRangeOnce(k) }, first: 0},
		"committed behind the end":       {before: commit(5 * n), first: n, log: "behind the end"},
		"committed at the end":           {before: commit(n), first: n},
		"committed, and deleted by then": {before: func(t *testing.T, k *kfake.Cluster) { commit(10)(t, k); deleteBefore(t, k, 300) }, first: 300, log: "have left the topic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 1)
			produce(t, k, 1, n, 10)
			commits := &commits{offsets: make(map[int32]int64)}
			if tt.during != nil {
				commits = watchCommits(t, k)
			}
			if tt.before != nil {
				tt.before(t, k)
			}
			core, logs := observer.New(zap.ErrorLevel)
			h := consumeLogged(t, ingestConfig(k), true, zap.New(core))
			want := n - int(tt.first)
			if tt.during != nil {
				want = n
			}
			eventually.Holds(t, "what is there is read", func() bool { return h.count() == want })
			if tt.during != nil {
				eventually.Holds(t, "it is committed", commits.sums(n))
				tt.during(k)
			} else {
				eventually.Holds(t, "it is owned", h.owns(1))
				eventually.Holds(t, "there is no lag", func() bool { return lagIs(h.Source, 0) && h.Status().Records == int64(want) })
			}
			logged := func() int { return logs.FilterMessageSnippet(tt.log).Len() }
			eventually.Holds(t, "it is said where reading goes on", func() bool { return tt.log == "" || logged() > 0 })
			produceUntil(t, k, h, want)
			h.mu.Lock()
			defer h.mu.Unlock()
			for offset, times := range h.seen[0] {
				if times > 1 {
					t.Fatalf("offset %d is read %d times", offset, times)
				}
				if tt.during == nil && offset < tt.first {
					t.Fatalf("offset %d is read, want those from %d", offset, tt.first)
				}
			}
			if tt.log != "" && logged() != 1 {
				t.Errorf("the log has %v, want one line with %q", logs.All(), tt.log)
			}
		})
	}
}

// produceUntil adds five records, and waits until they are read.
func produceUntil(t *testing.T, k *kfake.Cluster, h *harness, before int) {
	t.Helper()
	produce(t, k, 1, 5, 10)
	eventually.Holds(t, "what comes then is read", func() bool { return h.count() == before+5 })
}

func deleteBefore(t *testing.T, k *kfake.Cluster, offset int64) {
	t.Helper()
	var to kadm.Offsets
	to.Add(kadm.Offset{Topic: topic, At: offset})
	if _, err := kadm.NewClient(newClient(t, k)).DeleteRecords(t.Context(), to); err != nil {
		t.Fatal(err)
	}
}

// A batch that takes more memory than it may is stepped over: a chunk stands for its
// offsets, what is committed passes over them once that is settled and not before,
// and everything around it arrives, once, in order. Other partitions don't notice.
func TestBatchTooLarge(t *testing.T) {
	const limit = 2 << 20
	large := func() []*kgo.Record { return []*kgo.Record{{Value: make([]byte, limit+1)}} }
	manyRecords := func() []*kgo.Record {
		return repeated(limit/recordBytes, func() *kgo.Record { return &kgo.Record{} })
	}
	manyHeaders := func() []*kgo.Record {
		return []*kgo.Record{{Headers: make([]kgo.RecordHeader, limit/headerBytes)}}
	}
	for name, tt := range map[string]struct {
		codec kgo.CompressionCodec
		bomb  func() []*kgo.Record
	}{
		"a large value, gzip":   {kgo.GzipCompression(), large},
		"a large value, snappy": {kgo.SnappyCompression(), large},
		"a large value, lz4":    {kgo.Lz4Compression(), large},
		"a large value, zstd":   {kgo.ZstdCompression(), large},
		"a large value, none":   {kgo.NoCompression(), large},
		"many records":          {kgo.ZstdCompression(), manyRecords},
		"many records, none":    {kgo.NoCompression(), manyRecords},
		"many headers":          {kgo.ZstdCompression(), manyHeaders},
		"many headers, none":    {kgo.NoCompression(), manyHeaders},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 2)
			commits := watchCommits(t, k)
			records := tt.bomb()
			produce(t, k, 2, 10, 10)
			produceBatch(t, k, tt.codec, records)
			produce(t, k, 2, 10, 10)
			cfg := ingestConfig(k)
			cfg.Limits.BatchBytes = limit
			core, logs := observer.New(zap.ErrorLevel)
			h := consumeLogged(t, cfg, false, zap.New(core))
			last := 10 + len(records) - 1
			eventually.Holds(t, "what is before the batch is read, and the other partition", func() bool {
				h.settle(func(c *event.Chunk) bool { return len(c.Records) > 0 })
				return h.count() == 30 && commits.of(0) == 10
			})
			var skipped []string
			eventually.Holds(t, "the batch is skipped", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				skipped = slices.Clone(h.skipped)
				return len(skipped) > 0
			})
			if want := fmt.Sprintf("offsets 10 to %d are not read", last); len(skipped) != 1 || !strings.Contains(skipped[0], want) || !strings.Contains(skipped[0], "ingest.limits.batchBytes (2MiB)") {
				t.Errorf("skipped are %q, want %q and the limit", skipped, want)
			}
			if n, counted := logs.FilterMessageSnippet("batch skipped").Len(), h.Status().Skipped; n != 1 || counted != 1 {
				t.Errorf("the log says it %d times, the status %d: %v", n, counted, logs.All())
			}
			eventually.Holds(t, "what is behind it is read", func() bool {
				h.settle(all)
				return h.count() == 40 && commits.of(0) == int64(last)+11
			})
			if n, grown := h.Status().InFlight, h.budget.grown.Load(); n != 0 || grown != 0 {
				t.Errorf("%d bytes in flight, of nothing; %d of decoding", n, grown)
			}
			h.stop()
			h = consume(t, cfg, true)
			produce(t, k, 2, 5, 10)
			eventually.Holds(t, "only what is new is read after a restart", func() bool { return h.count() == 10 })
			if len(h.skipped) > 0 {
				t.Errorf("the batch is skipped again: %q", h.skipped)
			}
		})
	}
}

func repeated(n int, record func() *kgo.Record) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = record()
	}
	return records
}

// produceBatch produces records to partition 0 as one batch.
func produceBatch(t *testing.T, k *kfake.Cluster, codec kgo.CompressionCodec, records []*kgo.Record) {
	t.Helper()
	buffered := &partitioned{}
	buffered.Add(len(records))
	client := newClient(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec), kgo.WithHooks(buffered),
		kgo.ProducerBatchMaxBytes(64<<20), kgo.BrokerMaxWriteBytes(100<<20), kgo.ManualFlushing(), kgo.MaxBufferedRecords(len(records)))
	for _, r := range records {
		client.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	buffered.Wait() // a flush sends what there is of a batch while the rest of it comes
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// partitioned waits until so many records are in their partition's buffer.
type partitioned struct{ sync.WaitGroup }

// OnProduceRecordPartitioned implements kgo.HookProduceRecordPartitioned.
func (p *partitioned) OnProduceRecordPartitioned(*kgo.Record, int32) { p.Done() }

// badlyPacked is a compressor whose batches nobody can unpack.
type badlyPacked struct{}

func (badlyPacked) Compress(*bytes.Buffer, []byte, ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return []byte("no zstd"), kgo.CodecZstd
}

// A batch that can't be unpacked can never be: it is stepped over, too.
func TestBatchBadlyPacked(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	produce(t, k, 1, 10, 10)
	if err := newClient(t, k, kgo.WithCompressor(badlyPacked{})).ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 100)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	produce(t, k, 1, 10, 10)
	h := consume(t, ingestConfig(k), true)
	eventually.Holds(t, "what is behind it is read", func() bool { return h.count() == 20 })
	if len(h.skipped) != 1 || !strings.Contains(h.skipped[0], "offsets 10 to 10 are not read") {
		t.Errorf("skipped are %q, want the batch", h.skipped)
	}
}

// The client throws an error away if it ends its fetches before that is polled, as
// it does when another partition is moved. The batch is passed all the same.
func TestErrorThatIsThrownAway(t *testing.T) {
	t.Parallel()
	const limit = 2 << 20
	k := broker(t, 2)
	producer := newClient(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := producer.ProduceSync(t.Context(), &kgo.Record{Partition: 1}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cfg := ingestConfig(k)
	cfg.Limits.BatchBytes, cfg.MaxInFlightBytes = limit, 1
	h := consume(t, cfg, false)
	eventually.Holds(t, "polling waits", h.Full)
	produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, limit+1)}})
	produce(t, k, 1, 1, 10)
	eventually.Holds(t, "the batch is fetched", h.seeker.waits)
	h.member.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {1: {Epoch: -1, Offset: 1}}})
	eventually.Holds(t, "what is behind the batch is read", func() bool {
		h.settle(all)
		return h.count() == 2
	})
	if len(h.skipped) != 1 {
		t.Errorf("skipped are %q, want one batch", h.skipped)
	}
}

// The very first batch that a new group meets is stepped over, too: the client knows no
// offset of the partition then.
func TestFirstBatchTooLarge(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		const limit = 1 << 20
		commits := watchCommits(t, k)
		cfg.Limits.BatchBytes = limit
		produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, limit+1)}})
		produce(t, k, 1, 10, 10)
		h := consume(t, cfg, true)
		eventually.Holds(t, "what is behind it is read and committed", func() bool { return h.count() == 10 && commits.of(0) == 11 })
	})
}

// A partition that was read on since it was looked at is not moved back: what was
// read since would come twice, and behind what is after it.
func TestReadOnBeforeItIsMoved(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	produce(t, k, 1, 10, 10)
	h := consume(t, ingestConfig(k), true)
	id := topicPartition{topic, 0}
	settled := func(n int64) func() bool {
		return func() bool { p := h.partitions.get(id); return p != nil && p.resolved() == n }
	}
	eventually.Holds(t, "the first are resolved", settled(10))
	p := h.partitions.get(id)
	by, at, resolved := p.blockedBy()
	if by != none || at.Offset != 10 || !resolved {
		t.Fatalf("blocked by %v at %v, resolved %t", by, at, resolved)
	}
	produce(t, k, 1, 10, 10)
	eventually.Holds(t, "the second are resolved", settled(20))
	if h.seeker.move(p, by, at, at) {
		t.Error("it is moved back")
	}
	produce(t, k, 1, 1, 10)
	eventually.Holds(t, "the last is resolved", settled(21))
	h.mu.Lock()
	defer h.mu.Unlock()
	for offset, times := range h.seen[0] {
		if times > 1 {
			t.Errorf("offset %d is read %d times", offset, times)
		}
	}
}

// The client may wait for its fetches while it holds what a partition waits for, with
// its lock held, to pause: what the client calls from a fetch must not wait for either.
func TestFetchWaitsForNoPartition(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	h := consume(t, ingestConfig(k), true)
	eventually.Holds(t, "it is owned", h.owns(1))
	p := h.partitions.get(topicPartition{topic, 0})
	p.mu.Lock()
	defer p.mu.Unlock()
	h.partitions.mu.Lock()
	defer h.partitions.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.seeker.OnFetchBatchRead(kgo.BrokerMetadata{}, topic, 0, kgo.FetchBatchMetrics{CompressionType: 4})
	}()
	select {
	case <-done:
	case <-time.After(testTimeout):
		t.Fatal("a fetch waits for a partition")
	}
}
