package pipeline

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/stages/match"
)

// BenchmarkPrepare is a chunk's way through prepare, per event: decode,
// classify, look up. What it costs beyond "no filter" is what filters cost.
func BenchmarkPrepare(b *testing.B) {
	sample, err := os.ReadFile("../stages/testdata/events/event_SensorChange.json")
	if err != nil {
		b.Fatal(err)
	}
	value := []byte(strings.NewReplacer("\n", "", "  ", "").Replace(string(sample)))
	c := event.NewChunk(topic, 0, 256, 256*len(value), func(*event.Chunk) {})
	for i := range 256 {
		c.Add(int64(i), 0, 0, nil, value)
	}
	for _, bench := range []struct {
		name   string
		filter func(i int) string
		n      int
	}{
		{"no filter", func(int) string { return "" }, 1},
		{"one filter", func(int) string { return "$body.Value = 'False'" }, 1},
		{"100 filters", func(i int) string { return fmt.Sprintf("$body.Value = '%d' OR AS_NUMBER($body.Level) > %d", i, i) }, 100},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := new(Pipeline)
			p.jobs.New = func() any { return new(job) }
			var given []match.Route[sinks.Target]
			for i := range int32(bench.n) {
				e := endpoint("a", endpoints.SensorChange)
				e.Filter = bench.filter(int(i))
				given = append(given, p.route(sinks.Target{Sender: new(sinks.Sender), Slot: i}, e))
			}
			table := match.NewTable(given)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%256 > 0 {
					continue // an iteration is an event
				}
				c.Events = c.Events[:0]
				j := p.prepare(c, table)
				j.reset()
				p.jobs.Put(j)
			}
		})
	}
}
