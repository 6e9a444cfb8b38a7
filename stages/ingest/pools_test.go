package ingest

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What was handed out stays as it is while the client's memory goes round:
// every record of many polls is held to the end and then read.
func TestChunksOutliveTheFetch(t *testing.T) {
	const records = 5_000
	for name, codec := range map[string]kgo.CompressionCodec{
		"uncompressed": kgo.NoCompression(),
		"gzip":         kgo.GzipCompression(),
		"snappy":       kgo.SnappyCompression(),
		"lz4":          kgo.Lz4Compression(),
		"zstd":         kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 1)
			producer, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...),
				kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(16<<10))
			if err != nil {
				t.Fatal(err)
			}
			defer producer.Close()
			text := func(offset int64) string { return fmt.Sprintf("%d-%0100d", offset, offset) }
			for offset := range int64(records) {
				producer.Produce(t.Context(), &kgo.Record{
					Topic: topic, Key: []byte("k" + text(offset)), Value: []byte("v" + text(offset)),
					Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("h" + text(offset))}},
				}, nil)
			}
			if err := producer.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := consume(t, ingestConfig(k), false)
			eventually(t, "everything is read", func() bool { return s.count() == records })
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, c := range s.held {
				for i := range c.Records {
					r := &c.Records[i]
					got := fmt.Sprintf("%s %s %s", r.Key, r.Value, r.Headers[0].Value)
					if want := fmt.Sprintf("k%[1]s v%[1]s h%[1]s", text(r.Offset)); got != want {
						t.Fatalf("offset %d holds %s", r.Offset, got)
					}
				}
			}
		})
	}
}
