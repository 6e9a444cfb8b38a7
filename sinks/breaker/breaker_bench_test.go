package breaker

import (
	"testing"
	"time"
)

// BenchmarkBlocked is what each run of events asks, whatever the state.
func BenchmarkBlocked(b *testing.B) {
	now := time.Unix(1000, 0)
	for name, open := range map[string]bool{"closed": false, "open": true} {
		b.Run(name, func(b *testing.B) {
			breaker := New(time.Second, time.Minute, func() float64 { return 0 })
			if open {
				permit, _ := breaker.Acquire(now)
				breaker.Failure(permit, now, 0)
			}
			b.ReportAllocs()
			for b.Loop() {
				if breaker.Blocked(now) != open {
					b.Fatal("the wrong state")
				}
			}
		})
	}
}

// BenchmarkBatch is what each batch of a healthy endpoint asks and reports,
// from eight lanes at once.
func BenchmarkBatch(b *testing.B) {
	breaker := New(time.Second, time.Minute, func() float64 { return 0 })
	now := time.Unix(1000, 0)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			permit, ok := breaker.Acquire(now)
			if !ok || breaker.Success(permit) {
				b.Error("the breaker opened")
				return
			}
		}
	})
}
