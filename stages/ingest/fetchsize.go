package ingest

import (
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// fetchBytes bounds a fetch in bytes on the wire. What a fetch brings is
	// memory in the client's buffers, beyond maxInFlightBytes.
	fetchBytes = fetchPartitions * fetchPartitionBytes
	// fetchPartitionBytes has room for the largest batch that a topic takes by
	// default, 1 MiB and 12 bytes. One that is larger comes only if it is the
	// first of a fetch, and then alone: with half of this a backlog in batches of
	// 700 KB came one batch at a time, from partitions that had to wait for others.
	fetchPartitionBytes = 1<<20 + 4<<10
	fetchPartitions     = 8
	// unpackedBytes bounds a fetch of each broker, all of them together, in unpacked
	// bytes, as far as that is known: brokers count compressed bytes, and send a whole
	// batch at least.
	unpackedBytes = 32 << 20
	// firstRatio is the compression ratio assumed until the first batches
	// arrive: that of an hour's backlog, at worst.
	firstRatio = 64
	// ratioBytes is the number of bytes on the wire after which a lower ratio is
	// assumed in full. A higher one is assumed at once.
	ratioBytes = 256 << 10
	// minPartitionBytes has room for the batches that producers usually make. A
	// partition whose next batch is larger brings nothing in a fetch that brings
	// another partition's.
	minPartitionBytes = 32 << 10
)

// fetchSize requests the less of a topic the more it is compressed: bounded on
// the wire alone, a topic packed to a hundredth would bring 800 MiB at once.
type fetchSize struct {
	client *kgo.Client

	mu        sync.Mutex
	brokers   int     // the client fetches from each of them at once
	ratio     float64 // of unpacked bytes to bytes on the wire; the highest of late
	requested int32   // bytes of a fetch
}

func newFetchSize() *fetchSize {
	f := &fetchSize{brokers: 1, ratio: firstRatio}
	f.requested = f.bytes()
	return f
}

// options returns the options for topics of which nothing is known yet.
func (f *fetchSize) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchMaxBytes(f.requested),
		kgo.FetchMaxPartitionBytes(partitionBytes(f.requested)),
		kgo.WithHooks(f),
	}
}

// bytes returns the bound of a fetch from one broker at the current ratio.
func (f *fetchSize) bytes() int32 {
	return int32(max(minPartitionBytes, min(fetchBytes, unpackedBytes/f.ratio/float64(f.brokers))))
}

// partitionBytes returns the share of a partition in a fetch.
func partitionBytes(fetch int32) int32 {
	return max(minPartitionBytes, fetch/fetchPartitions)
}

// OnNewClient implements kgo.HookNewClient: it is called before any other hook.
func (f *fetchSize) OnNewClient(client *kgo.Client) { f.client = client }

// OnBrokerConnect implements kgo.HookBrokerConnect. The client connects to a broker
// before it fetches from it.
func (f *fetchSize) OnBrokerConnect(kgo.BrokerMetadata, time.Duration, net.Conn, error) {
	brokers := max(1, len(f.client.DiscoveredBrokers()))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.brokers = brokers
	f.update()
}

// OnFetchBatchRead implements kgo.HookFetchBatchRead.
func (f *fetchSize) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	if m.CompressedBytes <= 0 {
		return
	}
	// Of tiny records the client's structs take more than their bytes.
	unpacked := max(m.UncompressedBytes, m.NumRecords*recordBytes)
	seen := max(1, float64(unpacked)/float64(m.CompressedBytes))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ratio = max(seen, f.ratio+(seen-f.ratio)*min(1, float64(m.CompressedBytes)/ratioBytes))
	f.update()
}

func (f *fetchSize) update() {
	if requested := f.bytes(); requested != f.requested {
		f.requested = requested
		f.client.UpdateFetchMaxBytes(requested, partitionBytes(requested))
	}
}
