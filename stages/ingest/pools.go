package ingest

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pools returns the client's memory to it: cut copies every record, so the
// client's slices are free again right after a poll. Without pools a compressed
// topic costs about a quarter more.
type pools struct {
	records      sync.Pool // of *[]kgo.Record
	decompressed sync.Pool // of *[]byte
}

var (
	_ kgo.PoolRecords         = (*pools)(nil)
	_ kgo.PoolDecompressBytes = (*pools)(nil)
)

// maxPooledBytes bounds what is pooled: one large batch must not stay for good.
const maxPooledBytes = 4 << 20

// GetRecords returns a slice with room for n records.
func (p *pools) GetRecords(n int) []kgo.Record {
	if s, _ := p.records.Get().(*[]kgo.Record); s != nil && cap(*s) >= n {
		return (*s)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords implements kgo.PoolRecords.
func (p *pools) PutRecords(s []kgo.Record) { p.records.Put(&s) }

// GetDecompressBytes returns a slice to decompress into, of any size: the client
// grows it where it must, and puts the larger one.
func (p *pools) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	if s, _ := p.decompressed.Get().(*[]byte); s != nil {
		return *s
	}
	return nil
}

// PutDecompressBytes implements kgo.PoolDecompressBytes.
func (p *pools) PutDecompressBytes(s []byte) {
	if cap(s) <= maxPooledBytes {
		p.decompressed.Put(&s)
	}
}
