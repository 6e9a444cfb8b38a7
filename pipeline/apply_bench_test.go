package pipeline

import (
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/endpoints"
	"twinegress/sinks"
)

// BenchmarkApply is what a change costs an instance of 10,000 endpoints: how
// long it takes, how long a chunk has to wait for its routes meanwhile, and how
// much memory an idle endpoint takes.
func BenchmarkApply(b *testing.B) {
	const many = 10_000
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.WarnLevel))
	p := New(Options{
		Sender: senderOptions, ShutdownTimeout: time.Minute, Log: log,
		Open: map[endpoints.Type]sinks.Open{endpoints.TypeEventHub: func(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return sink(nil), nil }},
	})
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
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b.Context().Err() == nil {
			at := time.Now()
			routes := p.router.acquire()
			longest = max(longest, time.Since(at))
			routes.users.Done()
			select {
			case <-time.After(100 * time.Microsecond):
			case <-done:
			}
			if p.loaded.Load() {
				return
			}
		}
	}()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := endpoints.Clone(set)
		next[i%many].Filter = fmt.Sprintf("type = 'SensorChange' AND $body.Value > %d", i)
		p.router.apply(next)
	}
	p.loaded.Store(true)
	<-done
	b.ReportMetric(float64(longest.Microseconds()), "longest-hold-µs")
	p.router.background.Wait()
}
