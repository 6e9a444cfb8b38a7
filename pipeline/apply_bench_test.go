package pipeline

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"twinegress/endpoints"
)

// BenchmarkApply is what a change costs an instance of 10,000 endpoints: how
// long it takes, how long a chunk has to wait for its routes meanwhile, and how
// much memory an idle endpoint takes.
func BenchmarkApply(b *testing.B) {
	const many = 10_000
	p := bare()
	set := make([]endpoints.Endpoint, many)
	for i := range set {
		set[i] = endpoint(fmt.Sprint(i), endpoints.SensorChange)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, start := heap(), time.Now()
	p.router.apply(set)
	b.Logf("%d new endpoints: %v, %d bytes each", many, time.Since(start).Round(time.Millisecond), (heap()-before)/many)

	var longest time.Duration
	var applied atomic.Bool
	var holding sync.WaitGroup
	holding.Go(func() {
		for !applied.Load() {
			at := time.Now()
			routes := p.router.acquire()
			longest = max(longest, time.Since(at))
			routes.users.Done()
			time.Sleep(100 * time.Microsecond)
		}
	})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := endpoints.Clone(set)
		next[i%many].Filter = fmt.Sprintf("type = 'SensorChange' AND $body.Value > %d", i)
		p.router.apply(next)
	}
	applied.Store(true)
	holding.Wait()
	b.ReportMetric(float64(longest.Microseconds()), "longest-hold-µs")
	p.router.background.Wait()
}
