package ingest

import "github.com/twmb/franz-go/pkg/kgo"

// Unpacker unpacks batches for who fetches them without a consumer. It bounds what
// one batch takes, as a consumer's does, and all batches of a fetch: it returns an
// error for the next one as soon as they take the limit. It is one goroutine's.
type Unpacker struct{ *unpacker }

// NewUnpacker returns an unpacker that unpacks no batch that takes more than limit
// bytes of memory. Of such a batch the client's error is kgo.ErrDecompressTooLarge.
func NewUnpacker(limit int64) (Unpacker, error) {
	u, err := newUnpacker(limit, unpackedBytes)
	return Unpacker{u}, err
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
