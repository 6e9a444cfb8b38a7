package ingest

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// What a fetch may bring decides how much memory lies in the client's
	// buffers, beyond maxInFlightBytes. These bound it as it comes over the wire.
	fetchBytes = fetchPartitions * fetchPartitionBytes
	// fetchPartitionBytes has room for the largest batch that a topic takes by
	// default, 1 MiB and 12 bytes. One that is larger comes only if it is the
	// first of a fetch, and then alone: with half of this a backlog in batches of
	// 700 KB came one batch at a time, from partitions that had to wait for others.
	fetchPartitionBytes = 1<<20 + 4<<10
	fetchPartitions     = 8
	// unpackedBytes bounds it as it is unpacked, as far as that can be known:
	// brokers count compressed bytes, and send a whole batch at least.
	unpackedBytes = 32 << 20
	// firstRatio is what a topic's compression is taken for until its first
	// batches show it: what an hour's backlog of it may be, at worst.
	firstRatio = 64
	// evidence is how many bytes on the wire it takes to believe that a topic is
	// compressed less. That it is more is believed at once.
	evidence = 256 << 10
	// leastPartitionBytes has room for the batches that producers make: of a
	// partition whose next one is larger, a fetch that brings another's brings nothing.
	leastPartitionBytes = 32 << 10
)

// fetchSize asks for less of a topic the more it is compressed: by the wire's
// bytes alone a topic packed to a hundredth would bring 800 MiB at once.
type fetchSize struct {
	client *kgo.Client

	mu    sync.Mutex
	ratio float64 // of what batches hold to what they take on the wire; the lately highest
	asked int32   // bytes of a fetch
}

func newFetchSize() *fetchSize {
	f := &fetchSize{ratio: firstRatio}
	f.asked = f.bytes()
	return f
}

// options ask for what suits a topic of which nothing is known.
func (f *fetchSize) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchMaxBytes(f.asked),
		kgo.FetchMaxPartitionBytes(partitionBytes(f.asked)),
		kgo.WithHooks(f),
	}
}

// bytes is how large a fetch may be at the ratio seen.
func (f *fetchSize) bytes() int32 { return int32(min(fetchBytes, unpackedBytes/f.ratio)) }

// partitionBytes is the share of a partition in it.
func partitionBytes(fetch int32) int32 {
	return max(leastPartitionBytes, fetch/fetchPartitions)
}

// OnNewClient implements kgo.HookNewClient: it is called before any other hook.
func (f *fetchSize) OnNewClient(client *kgo.Client) { f.client = client }

// OnFetchBatchRead implements kgo.HookFetchBatchRead.
func (f *fetchSize) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	if m.CompressedBytes <= 0 {
		return
	}
	seen := max(1, float64(m.UncompressedBytes)/float64(m.CompressedBytes))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ratio = max(seen, f.ratio+(seen-f.ratio)*min(1, float64(m.CompressedBytes)/evidence))
	if asked := f.bytes(); asked != f.asked {
		f.asked = asked
		f.client.UpdateFetchMaxBytes(asked, partitionBytes(asked))
	}
}
