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

func sampleValue(b *testing.B) []byte {
	b.Helper()
	sample, err := os.ReadFile("../stages/testdata/events/event_SensorChange.json")
	if err != nil {
		b.Fatal(err)
	}
	return []byte(strings.NewReplacer("\n", "", "  ", "").Replace(string(sample)))
}

// BenchmarkPrepare is per event: decode, classify, look up, group. What it costs
// beyond "no filter" is what filters cost.
func BenchmarkPrepare(b *testing.B) {
	value := sampleValue(b)
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
			p := New(Options{})
			var given []match.Route[sinks.Slot]
			for i := range bench.n {
				e := endpoint("a", endpoints.SensorChange)
				e.Filter = bench.filter(i)
				given = append(given, p.router.route(sinks.Slot(i), e))
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

// BenchmarkDispatch is per chunk of 256 events, from decoding to the outcome:
// each event is for every endpoint, and their services take everything at once.
func BenchmarkDispatch(b *testing.B) {
	value := sampleValue(b)
	for _, many := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(many, " endpoints"), func(b *testing.B) {
			p := bare()
			p.options.Sender.MaxEvents = 2000
			set := make([]endpoints.Endpoint, many)
			for i := range set {
				set[i] = endpoint(fmt.Sprint(i), endpoints.SensorChange)
			}
			p.router.apply(set)
			b.ReportAllocs()
			for b.Loop() {
				r := p.router.acquire()
				c := event.NewChunk(topic, 0, 256, 256*len(value), (*event.Chunk).Free)
				for i := range int64(256) {
					c.Add(i, 0, 0, nil, value)
				}
				p.dispatch(c, p.prepare(c, r.table), r)
				r.users.Done()
			}
			p.router.apply(nil)
			p.router.background.Wait()
		})
	}
}
