package ingest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

// BenchmarkCutSettle is what a chunk costs between the fetch and the mark.
func BenchmarkCutSettle(b *testing.B) {
	c := config.Default().Ingest
	c.Brokers, c.Topics, c.Group = []string{"127.0.0.1:1"}, []string{topic}, "g"
	s := newSourceOf(b, c, zap.NewNop())
	defer s.member.client.Close()
	const partitions = 8
	fetched := make([]kgo.FetchTopicPartition, partitions)
	for p := range fetched {
		records := make([]*kgo.Record, chunkRecords)
		for i := range records {
			records[i] = &kgo.Record{Value: make([]byte, 500), Timestamp: time.Unix(0, 0)}
		}
		fetched[p] = kgo.FetchTopicPartition{Topic: topic, FetchPartition: kgo.FetchPartition{Partition: int32(p), Records: records}}
		s.partitions.assigned(b.Context(), s.member.client, map[string][]int32{topic: {int32(p)}})
	}
	var offset int64
	b.ReportAllocs()
	for b.Loop() { // a chunk of each partition
		for p := range fetched {
			for i, r := range fetched[p].Records {
				r.Offset = offset + int64(i)
			}
			s.poller.cut(fetched[p])
		}
		offset += chunkRecords
		for range fetched {
			p, chunk := s.scheduler.next(b.Context())
			if !p.dispatch() {
				b.Fatal("not dispatched")
			}
			chunk.Settle(1)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/partitions, "ns/chunk")
}
