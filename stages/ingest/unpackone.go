package ingest

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Unpacker unpacks batches for who fetches them without a consumer. It bounds what
// one batch takes, as a consumer's does, and all batches of a fetch: it returns an
// error for the next one as soon as they take the limit. It is one goroutine's.
type Unpacker struct {
	*unpacker
	records *pools
}

// NewUnpacker returns an unpacker that unpacks no batch that takes more than limit
// bytes of memory. Of such a batch the client's error is kgo.ErrDecompressTooLarge.
func NewUnpacker(limit int64) (Unpacker, error) {
	u, err := newUnpacker(limit)
	return Unpacker{u, new(pools)}, err
}

// Decompress implements kgo.Decompressor.
func (u Unpacker) Decompress(packed []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec != kgo.CodecNone && u.bytes.Load() >= u.limit {
		return nil, errNoRoom
	}
	return u.unpacker.Decompress(packed, codec)
}

// Next starts another fetch: what the last one brought is not used any more.
func (u Unpacker) Next() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.beyond)
	u.bytes.Store(0)
}

// Process is kgo.ProcessFetchPartition for another fetch. It bounds batches that
// aren't compressed as well, and its records are to be recycled: Cut does.
func (u Unpacker) Process(o kgo.ProcessFetchPartitionOpts, got *kmsg.FetchResponseTopicPartition) (kgo.FetchPartition, int64) {
	u.Next()
	guardBatches(got.RecordBatches, u.limit)
	o.Pools = []kgo.Pool{u.unpacker, u.records}
	return kgo.ProcessFetchPartition(o, got, u, nil)
}
