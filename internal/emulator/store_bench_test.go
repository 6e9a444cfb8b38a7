package emulator

import (
	"bytes"
	"fmt"
	"testing"

	oracle "github.com/Azure/go-amqp"

	"twinegress/internal/emulator/amqp"
)

// BenchmarkStore measures what an entity adds to the server's cost, per message of a batch of 1,000.
func BenchmarkStore(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  Config
	}{{"count", Config{}}, {"ids", Config{TrackIDs: true}}, {"record", Config{Record: 100000}}} {
		b.Run(c.name, func(b *testing.B) {
			e := newEntity(&c.cfg, "hub", KindEventHub, 4, 1<<20, nil)
			var batches [][]byte
			for k := range 20 {
				out := &oracle.Message{Format: amqp.BatchFormat}
				for i := range 1000 {
					m := &oracle.Message{
						Properties: &oracle.MessageProperties{MessageID: fmt.Sprintf("digitaltwins-events/%d/%d", k, i)},
						Data:       [][]byte{bytes.Repeat([]byte("x"), 500)},
					}
					enc, err := m.MarshalBinary()
					if err != nil {
						b.Fatal(err)
					}
					out.Data = append(out.Data, enc)
				}
				enc, err := out.MarshalBinary()
				if err != nil {
					b.Fatal(err)
				}
				batches = append(batches, enc)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += 1000 {
				if err := e.store(-1, amqp.BatchFormat, batches[n/1000%20]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGrid measures checking one event of about 500 bytes.
func BenchmarkGrid(b *testing.B) {
	one := `{"id":"1","subject":"Space","eventType":"SpaceChange","eventTime":"2026-01-02T03:04:05Z","data":{"a":"` +
		string(bytes.Repeat([]byte("x"), 300)) + `","b":[1,2,{"c":null}]},"dataVersion":"1.0"}`
	body := []byte("[" + one)
	for range 99 {
		body = append(body, ","+one...)
	}
	body = append(body, ']')
	g := &gridTopic{entity: newEntity(&Config{}, "grid", KindEventGrid, 1, GridMaxBytes, nil)}
	b.ReportAllocs()
	for n := 0; n < b.N; n += 100 {
		if err := g.storeEvents(nil, body); err != nil {
			b.Fatal(err)
		}
	}
}
