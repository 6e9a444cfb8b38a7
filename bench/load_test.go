package bench

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/emulator"
)

// liveLoader returns a loader and a broker with the topic "paced".
func liveLoader(t *testing.T, payload, compression string) (context.Context, *emulator.Kafka, *loader) {
	t.Helper()
	k, err := emulator.StartKafka(emulator.KafkaConfig{Topics: map[string]int{"paced": partitions}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	l, err := newLoader(k.Addrs(), &Scenario{Payload: payload, Compression: compression, live: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, k, l
}

// TestPaced reads events that were produced in prepared requests, and the
// remainder as single events.
func TestPaced(t *testing.T) {
	for _, compression := range []string{"none", "lz4", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			ctx, k, l := liveLoader(t, payloadFeed, compression)

			// In steps of 2 ms these are 62 events of each partition in 20 requests,
			// and 324 that are left.
			const n, rate, each, request = 10_244, 250_000, 62, 62 * partitions
			want := make([]string, 0, n)
			have := make(map[string]int64)
			for i := range n {
				r := l.ready[i]
				want = append(want, string(r.Value))
				have[r.typ]++
			}
			begin := time.Now().Truncate(time.Millisecond)
			on, err := l.load(ctx, "paced", n, rate)
			if err != nil {
				t.Fatal(err)
			}
			if on.Events != n || !maps.Equal(on.types, have) {
				t.Fatalf("%d events of types %v", on.Events, on.types)
			}

			client, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...), kgo.ConsumeTopics("paced"))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			got := make(map[int32][]string)
			var bytes, stamped int64
			for total := 0; total < n; {
				fetches := client.PollFetches(ctx)
				if err := fetches.Err(); err != nil {
					t.Fatal(err)
				}
				fetches.EachRecord(func(r *kgo.Record) {
					got[r.Partition] = append(got[r.Partition], string(r.Value))
					bytes += int64(len(r.Value))
					total++
					if !r.Timestamp.Before(begin) && !r.Timestamp.After(time.Now()) {
						stamped++
					}
				})
			}
			if bytes != on.Bytes {
				t.Errorf("%d bytes of values, counted %d", bytes, on.Bytes)
			}
			if stamped != n {
				t.Errorf("%d events are of the time when they were put there, want %d", stamped, n)
			}
			for partition := range int32(partitions) {
				var expected []string
				i := 0
				for ; i+request <= n; i += request {
					from := i + int(partition)*each
					expected = append(expected, want[from:from+each]...)
				}
				for ; i < n; i++ {
					if int32(i%partitions) == partition {
						expected = append(expected, want[i])
					}
				}
				if !slices.Equal(got[partition], expected) {
					t.Errorf("partition %d has %d events, want %d, or others", partition, len(got[partition]), len(expected))
				}
			}
		})
	}
}

// At a low rate each event is a request of its own.
func TestPacedSlowly(t *testing.T) {
	ctx, k, l := liveLoader(t, payloadSensor, "none")
	const n = 3*partitions + 1
	begin := time.Now()
	on, err := l.load(ctx, "paced", n, 1000)
	if err != nil || on.Events != n {
		t.Fatalf("%d events, %v", on.Events, err)
	}
	if took, least := time.Since(begin), n*time.Millisecond; took < least {
		t.Errorf("%d events at 1,000 a second took %v", n, took)
	}
	for partition := range int32(partitions) {
		want := int64(3)
		if partition == 0 {
			want++
		}
		if got := k.Cluster.PartitionInfo("paced", partition).HighWatermark; got != want {
			t.Errorf("partition %d has %d events, want %d", partition, got, want)
		}
	}
}
