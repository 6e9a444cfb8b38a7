package pipeline

import (
	"fmt"
	"testing"

	"twinegress/endpoints"
	"twinegress/sinks"
)

// BenchmarkBriefs is what a copy of 10,000 idle endpoints does to find out, every
// 1.5 s, what it has to say of them.
func BenchmarkBriefs(b *testing.B) {
	const many = 10_000
	p := bare()
	set := make([]endpoints.Endpoint, many)
	for i := range set {
		set[i] = endpoint(fmt.Sprintf("%05d", many-i), endpoints.SensorChange)
	}
	p.router.apply(set)
	b.ReportAllocs()
	for b.Loop() {
		n, last := 0, ""
		p.Briefs(func(brief *sinks.Brief, _ CatchUp) {
			n++
			if id := brief.Endpoint.ID; id <= last {
				b.Fatalf("%s comes after %s", id, last)
			}
			last = brief.Endpoint.ID
		})
		if n != many {
			b.Fatal(n)
		}
	}
}
