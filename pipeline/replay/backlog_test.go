package replay

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "letters"

// env is an embedded broker with the dead-letter topic, and a client for it.
type env struct {
	*testing.T
	client *kgo.Client
	config config.Ingest
}

func newEnv(t *testing.T, partitions int32) *env {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	c := config.Default().Ingest
	c.Brokers, c.Topics, c.Group = broker.ListenAddrs(), []string{topic}, "g"
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &env{T: t, client: client, config: c}
}

// produce appends a record to a partition for each time, in batches of their
// own: brokers look up a time by its batch.
func (e *env) produce(partition int32, times ...time.Time) {
	e.Helper()
	for _, at := range times {
		r := &kgo.Record{Topic: topic, Partition: partition, Timestamp: at, Value: []byte("v")}
		if err := e.client.ProduceSync(e.Context(), r).FirstErr(); err != nil {
			e.Fatal(err)
		}
	}
}

func (e *env) open(since time.Time) *Backlog {
	e.Helper()
	b, err := OpenBacklog(e.Context(), e.config, since, time.Time{}, []kgo.Opt{kgo.SeedBrokers(e.config.Brokers...)}, zap.NewNop())
	if err != nil {
		e.Fatal(err)
	}
	return b
}

const allChunks = 1 << 30

// read settles that many chunks of a backlog, or all, and checks how many
// records it read of how many there were.
func (e *env) read(b *Backlog, chunks int, wantRead, wantTotal int64) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), 30*time.Second)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	var read int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := b.Run(running, func(c *event.Chunk) bool {
			if chunks == 0 {
				return true // without an outcome, and so not committed
			}
			read += int64(len(c.Records))
			c.Settle(1)
			if chunks--; chunks == 0 {
				stop()
			}
			return true
		})
		if err != nil {
			e.Error(err)
		}
	}()
	for running.Err() == nil {
		left, err := b.Remaining(running)
		if err != nil && running.Err() == nil {
			e.Fatal(err)
		}
		if err == nil && left == 0 {
			stop()
		}
	}
	<-done
	if err := b.Close(ctx); err != nil {
		e.Error(err)
	}
	if total := b.Total(); read != wantRead || total != wantTotal {
		e.Errorf("read %d of %d, want %d of %d", read, total, wantRead, wantTotal)
	}
}

// A backlog is what is there when it is opened. The next one of the group has
// what has come since, and what this one left.
func TestBacklog(t *testing.T) {
	e := newEnv(t, 3)
	now := time.Now()
	for range 30 {
		e.produce(0, now)
		e.produce(1, now)
	}
	first := e.open(time.Time{})
	e.produce(0, now, now) // too late for it
	e.produce(2, now)
	e.read(first, allChunks, 60, 60)
	e.read(e.open(time.Time{}), allChunks, 3, 3)
	e.read(e.open(time.Time{}), allChunks, 0, 0)

	const chunk = 256
	for range 2 * chunk {
		e.client.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}, nil)
	}
	if err := e.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.read(e.open(time.Time{}), 1, chunk, 2*chunk)
	e.read(e.open(time.Time{}), allChunks, chunk, chunk)
}

// A new group starts at a moment, an old one where it stood.
func TestBacklogSince(t *testing.T) {
	e := newEnv(t, 2)
	now := time.Now()
	for i := range 5 {
		e.produce(0, now.Add(time.Duration(i-5)*time.Hour))
	}
	e.read(e.open(now.Add(-150*time.Minute)), allChunks, 2, 2)
	e.read(e.open(now.Add(-10*time.Hour)), allChunks, 0, 0)
	e.config.Group = "another"
	e.read(e.open(now), allChunks, 0, 0)
}

func TestBacklogWithoutItsTopic(t *testing.T) {
	e := newEnv(t, 1)
	e.config.Topics = []string{"none"}
	_, err := OpenBacklog(t.Context(), e.config, time.Time{}, time.Time{}, []kgo.Opt{kgo.SeedBrokers(e.config.Brokers...)}, zap.NewNop())
	if err == nil || !strings.Contains(err.Error(), "the topic none does not exist") {
		t.Errorf("error %v", err)
	}
}

// Letters in a batch that takes more memory than it may are not read. The result
// says how many.
func TestBatchTooLarge(t *testing.T) {
	e := newEnv(t, 1)
	e.config.Limits.BatchBytes = 2 << 20
	e.produce(0, time.Now())
	packing, err := kgo.NewClient(kgo.SeedBrokers(e.config.Brokers...), kgo.ProducerBatchMaxBytes(16<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(packing.Close)
	if err := packing.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 3<<20)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	result, err := New(Options{Source: e.open(time.Time{}), ShutdownTimeout: 10 * time.Second, Log: zap.NewNop()}).Run(t.Context())
	if err != nil || !result.Complete || result.Letters != 2 || result.Skipped.Unreadable != 2 {
		t.Errorf("got %+v, %v, want 2 letters that can't be read", result, err)
	}
}
