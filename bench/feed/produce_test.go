package feed

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startKafka(t *testing.T) (cluster *kfake.Cluster, client *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "twins"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err = Connect(cluster.ListenAddrs()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return cluster, client
}

func TestProduceAllAndKeepEachTwinInItsPartition(t *testing.T) {
	const n = 5000
	cluster, client := startKafka(t)
	var acked atomic.Int64
	counts, err := Produce(t.Context(), client, "twins", New(1), Options{Events: n, Acked: &acked})
	if err != nil {
		t.Fatal(err)
	}
	if counts != (Counts{Produced: n}) || acked.Load() != n {
		t.Errorf("%+v and %d acknowledged, want %d", counts, acked.Load(), n)
	}

	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("twins"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	partitions, devices := map[string]int32{}, 0
	for read := 0; read < n; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d events: %v", read, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			read++
			if p, ok := partitions[string(r.Key)]; ok && p != r.Partition {
				t.Fatalf("twin %s is in the partitions %d and %d", r.Key, p, r.Partition)
			}
			partitions[string(r.Key)] = r.Partition
			if len(r.Headers) > 0 {
				devices++
			}
		})
	}
	if devices == 0 {
		t.Error("no record has headers")
	}
}

func TestProduceAtARate(t *testing.T) {
	_, client := startKafka(t)
	const rate, n = 2000, 400
	start := time.Now()
	counts, err := Produce(t.Context(), client, "twins", New(1), Options{Rate: rate, Events: n})
	if err != nil || counts.Produced != n {
		t.Fatalf("%+v, %v", counts, err)
	}
	// A slow machine may take longer.
	if took, least := time.Since(start), time.Second*n/rate*9/10; took < least {
		t.Errorf("%d events at %d a second took %v, want at least %v", n, rate, took, least)
	}
}

func TestProduceStopsWithItsContextAndLosesNothing(t *testing.T) {
	_, client := startKafka(t)
	ctx, cancel := context.WithCancel(t.Context())
	made := 0
	counts, err := Produce(ctx, client, "twins", New(1), Options{Room: func(context.Context) error {
		if made += burst; made > 10*burst {
			cancel()
		}
		return nil
	}})
	if err != nil || counts.Failed != 0 || counts.Produced < 10*burst {
		t.Errorf("%+v, %v", counts, err)
	}
}

func TestProduceReturnsErrors(t *testing.T) {
	_, client := startKafka(t)
	counts, err := Produce(t.Context(), client, "no-such-topic", New(1), Options{Events: 3})
	if err == nil || counts != (Counts{Failed: 3}) {
		t.Errorf("%+v, %v", counts, err)
	}
	full := errors.New("no room")
	_, err = Produce(t.Context(), client, "twins", New(1), Options{Room: func(context.Context) error { return full }})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}
