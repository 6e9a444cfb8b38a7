package ingest

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pools returns the client's memory to it: cut copies every record, so the
// client's slices are free again right after a poll. Without pools a compressed
// topic costs about a quarter more.
//
// What is unpacked has a pool of its own, unpacker.
type pools struct {
	records sync.Pool // of *[]kgo.Record
}

var _ kgo.PoolRecords = (*pools)(nil)

// maxPooledBytes and maxPooledRecords bound what is pooled: one large batch must
// not stay for good.
const (
	maxPooledBytes   = 4 << 20
	maxPooledRecords = maxPooledBytes / recordBytes
)

// GetRecords returns a slice with room for n records.
func (p *pools) GetRecords(n int) []kgo.Record {
	if s, _ := p.records.Get().(*[]kgo.Record); s != nil && cap(*s) >= n {
		return (*s)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords implements kgo.PoolRecords.
func (p *pools) PutRecords(s []kgo.Record) {
	if cap(s) <= maxPooledRecords {
		p.records.Put(&s)
	}
}
