package deadletter

import (
	"context"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"twinegress/internal/event"
)

// BenchmarkPut measures a dropped event with deadLetter.backoff, from Put until
// it is stored, at full speed against an embedded broker on the same processors.
// "waiting" is the maximum of Waiting.
func BenchmarkPut(b *testing.B) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	topic, err := Open(b.Context(), name, nil, connect(k), zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	const perChunk = 256
	value := make([]byte, 500)
	most, to := int64(0), recipient("568fd394-380b-46fa-925a-ebb96f658cce")
	b.ReportAllocs()
	for b.Loop() {
		c := event.NewChunk("twins", 0, perChunk, perChunk*len(value), func(c *event.Chunk) { c.Free() })
		for i := range perChunk {
			c.Add(int64(i), 0, 0, nil, value)
		}
		c.Hold(perChunk)
		for i := range c.Records {
			c.Events = append(c.Events, event.Event{Chunk: c, Record: &c.Records[i], Index: event.NoIndex, Body: c.Records[i].Value})
		}
		for i := range c.Events {
			topic.Put(&c.Events[i], event.Backoff, "unreachable: dial tcp: connection refused", to)
		}
		c.Settle(1)
		for topic.Status().Waiting > 100_000 { // about what ingest.maxInFlightBytes lets in
			runtime.Gosched()
		}
		most = max(most, topic.Status().Waiting)
	}
	if err := topic.Close(context.Background()); err != nil {
		b.Error(err)
	}
	b.ReportMetric(perChunk*float64(b.N)/b.Elapsed().Seconds(), "letters/s")
	b.ReportMetric(float64(most), "waiting")
}
