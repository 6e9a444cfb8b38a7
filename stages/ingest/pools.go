package ingest

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pools gives the client's memory back to it: cut copies every record, so the
// client's own slices are free again right after a poll. Without it a
// compressed topic costs about a quarter more.
type pools struct {
	records      sync.Pool // of *[]kgo.Record
	decompressed sync.Pool // of *[]byte
}

var (
	_ kgo.PoolRecords         = (*pools)(nil)
	_ kgo.PoolDecompressBytes = (*pools)(nil)
)

// maxPooledBytes keeps a batch that is large for once from staying for good.
const maxPooledBytes = 4 << 20

// GetRecords gives a slice with room for n records.
func (p *pools) GetRecords(n int) []kgo.Record {
	if s, _ := p.records.Get().(*[]kgo.Record); s != nil && cap(*s) >= n {
		return (*s)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords takes one back.
func (p *pools) PutRecords(s []kgo.Record) { p.records.Put(&s) }

// GetDecompressBytes gives a slice to decompress into, of any size: the client
// takes a larger one where it must, and gives that back.
func (p *pools) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	if s, _ := p.decompressed.Get().(*[]byte); s != nil {
		return *s
	}
	return nil
}

// PutDecompressBytes takes one back.
func (p *pools) PutDecompressBytes(s []byte) {
	if cap(s) <= maxPooledBytes {
		p.decompressed.Put(&s)
	}
}
