package ingest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/eventually"
)

func TestFetchSize(t *testing.T) {
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	f := newFetchSize()
	f.OnNewClient(client)
	read := func(wire, unpacked, times int) {
		for range times {
			f.OnFetchBatchRead(kgo.BrokerMetadata{}, topic, 0, kgo.FetchBatchMetrics{CompressedBytes: wire, UncompressedBytes: unpacked})
		}
	}
	if f.requested*firstRatio != unpackedBytes {
		t.Errorf("at first %d bytes", f.requested)
	}
	for _, step := range []struct {
		what                  string
		wire, unpacked, times int
		least, most           int32
	}{
		{"a small batch proves little", 100, 100, 1, 512 << 10, 513 << 10},
		{"an uncompressed topic", ratioBytes, ratioBytes, 1, fetchBytes, fetchBytes},
		{"compressed to a third", 10 << 10, 30 << 10, 1, fetchBytes, fetchBytes},
		{"to a hundredth", 10 << 10, 1000 << 10, 1, unpackedBytes / 100, unpackedBytes / 100},
		{"and again, each the same", 10 << 10, 1000 << 10, 1000, unpackedBytes / 100, unpackedBytes / 100},
		{"a batch that is not, among them", 10 << 10, 10 << 10, 1, unpackedBytes / 100, unpackedBytes / 90},
		{"no more such batches", 10 << 10, 10 << 10, 200, fetchBytes, fetchBytes},
	} {
		read(step.wire, step.unpacked, step.times)
		got, _ := client.OptValue(kgo.FetchMaxBytes).(int32)
		if got < step.least || got > step.most {
			t.Errorf("%s: fetches of %d bytes, want %d to %d", step.what, got, step.least, step.most)
		}
		part, _ := client.OptValue(kgo.FetchMaxPartitionBytes).(int32)
		if part > max(minPartitionBytes, got/fetchPartitions) || part < minPartitionBytes {
			t.Errorf("%s: %d bytes of a partition in fetches of %d", step.what, part, got)
		}
	}
}

// A fetch of each broker, all of them together, brings as much as one would.
func TestFetchSizeOfSeveralBrokers(t *testing.T) {
	t.Parallel()
	k := brokers(t, 3, 3)
	f := newFetchSize()
	newClient(t, k, append(f.options(), kgo.ConsumeTopics(topic))...)
	eventually.Holds(t, "each brings a third", func() bool {
		f.mu.Lock() // the client's own value races with its change
		defer f.mu.Unlock()
		return f.requested == unpackedBytes/firstRatio/3
	})
	// Many brokers still send a batch of what producers usually make.
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.brokers = 1000; f.bytes() != minPartitionBytes {
		t.Errorf("of a thousand brokers %d bytes each", f.bytes())
	}
}
