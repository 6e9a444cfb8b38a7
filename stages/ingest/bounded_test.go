package ingest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

// readBounded reads a bounded source until nothing remains, or n records were
// read and settled, and gives how many offsets it had before it and how many
// records it read.
func readBounded(t *testing.T, c config.Ingest, since time.Time, n int64) (total, read int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	source, err := NewBounded(ctx, c, since, []kgo.Opt{kgo.SeedBrokers(c.Brokers...)}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := source.Run(running, func(c *event.Chunk) {
			if read+int64(len(c.Records)) > n {
				return // has no outcome, and so is not committed
			}
			read += int64(len(c.Records))
			c.Settle(1)
			if read == n {
				stop()
			}
		})
		if err != nil {
			t.Error(err)
		}
	}()
	for running.Err() == nil {
		left, err := source.Remaining(ctx)
		if err != nil && running.Err() == nil {
			t.Fatal(err)
		}
		if err == nil && left == 0 {
			stop()
		}
	}
	<-done
	total = source.Total()
	if err := source.Close(ctx); err != nil {
		t.Error(err)
	}
	return total, read
}

// A bounded source reads what is there when it is made, and the next one of
// its group what has come since.
func TestBounded(t *testing.T) {
	k := broker(t, 3)
	c := ingestConfig(k)
	produce(t, k, 2, 300, 10) // nothing in partition 2
	made, err := NewBounded(t.Context(), c, time.Time{}, []kgo.Opt{kgo.SeedBrokers(c.Brokers...)}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	produce(t, k, 3, 40, 10) // too late for it
	read := 0
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := made.Run(ctx, func(c *event.Chunk) {
			for _, r := range c.Records {
				if r.Offset >= 300 || c.Partition == 2 {
					t.Errorf("read %d/%d, which is beyond the end", c.Partition, r.Offset)
				}
			}
			read += len(c.Records)
			c.Settle(1)
		})
		if err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "nothing remains", func() bool {
		left, err := made.Remaining(ctx)
		return err == nil && left == 0
	})
	cancel()
	<-done
	// After the run: it pauses what it cuts off.
	for last, want := range map[int64]int{298: 2, 299: 2, 300: 1, 301: 0} { // of two records
		polled := kgo.FetchTopicPartition{Topic: topic}
		polled.Records = []*kgo.Record{{Offset: last - 1}, {Offset: last}}
		if got := len(made.within(polled)); got != want {
			t.Errorf("%d records of %d and %d are within 0..299, want %d", got, last-1, last, want)
		}
	}
	if err := made.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if read != 600 || made.Total() != 600 {
		t.Errorf("read %d of %d, want 600", read, made.Total())
	}
	if total, read := readBounded(t, c, time.Time{}, 1<<40); total != 120 || read != 120 {
		t.Errorf("the next one read %d of %d, want the 120 that came later", read, total)
	}
	if total, read := readBounded(t, c, time.Time{}, 1<<40); total != 0 || read != 0 {
		t.Errorf("the last one read %d of %d, want none", read, total)
	}
}

// What a bounded source left has its turn with the next one of the group.
func TestBoundedGoesOn(t *testing.T) {
	k := broker(t, 1)
	c := ingestConfig(k)
	produce(t, k, 1, 1000, 10)
	first, read := readBounded(t, c, time.Time{}, chunkRecords)
	if first != 1000 || read != chunkRecords {
		t.Errorf("the first read %d of %d", read, first)
	}
	second, read := readBounded(t, c, time.Time{}, 1<<40)
	if second != 1000-chunkRecords || read != second {
		t.Errorf("the second read %d of %d", read, second)
	}
}

// A new group starts at a moment, an old one where it stood.
func TestBoundedSince(t *testing.T) {
	k := broker(t, 2)
	c := ingestConfig(k)
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	now := time.Now()
	for i := range 5 { // one batch each: brokers find a time by its batch
		r := &kgo.Record{Topic: topic, Timestamp: now.Add(time.Duration(i-5) * time.Hour), Value: []byte("v")}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if total, read := readBounded(t, c, now.Add(-150*time.Minute), 1<<40); total != 2 || read != 2 {
		t.Errorf("read %d of %d, want the last 2", read, total)
	}
	if total, read := readBounded(t, c, now.Add(-10*time.Hour), 1<<40); total != 0 || read != 0 {
		t.Errorf("the group was at the end, but read %d of %d", read, total)
	}
	c.Group = "another"
	if total, read := readBounded(t, c, now, 1<<40); total != 0 || read != 0 {
		t.Errorf("read %d of %d, want none since now", read, total)
	}
}

func TestBoundedWithoutItsTopic(t *testing.T) {
	k := broker(t, 1)
	c := ingestConfig(k)
	c.Topics = []string{"none"}
	_, err := NewBounded(t.Context(), c, time.Time{}, []kgo.Opt{kgo.SeedBrokers(c.Brokers...)}, zap.NewNop())
	if err == nil || !strings.Contains(err.Error(), "the topic none does not exist") {
		t.Errorf("error %v", err)
	}
}
