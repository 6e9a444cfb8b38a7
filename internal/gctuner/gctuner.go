// Package gctuner decides when the garbage collector runs.
//
// Left alone, the collector runs whenever the heap has doubled. That is too
// often while little is in flight: with 20 MiB alive and hundreds of megabytes
// a second going through, it takes a tenth of the CPU to keep the process at
// 40 MiB, which nobody asked for. And it is too seldom when much is in flight:
// all of maxInFlightBytes and the SDKs' batches alive, twice that is more
// memory than the process should be seen with.
//
// So the heap may grow to eleven times of what is alive, but only within a
// memory limit, which is what a busy process comes to. A fixed limit would not
// do: what is alive depends on the number of endpoints, and a limit below it
// makes the collector run without end. The limit moves with what is alive.
package gctuner

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// percent applies where the limit doesn't: while little is alive.
	percent = 1000
	// overhead is what the limit counts besides the heap: stacks, the
	// collector's own memory, spans that are half empty.
	overhead = 32 << 20
)

// Start lets the process have floor bytes of memory, or as much as what is
// alive asks for: growth percent over it, until stop is called. A limit that
// was set already (GOMEMLIMIT) is never passed, and the environment's GOGC
// wins: then Start does nothing. It works at the end of each of the collector's
// cycles and has no goroutine of its own.
func Start(floor uint64, growth int) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	t := &tuner{
		floor: floor, growth: uint64(growth),
		gogc: debug.SetGCPercent(percent), limit: debug.SetMemoryLimit(-1),
		live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}},
	}
	t.cycle()
	return t.stop
}

type tuner struct {
	floor, growth uint64
	gogc          int   // before
	limit         int64 // before
	live          []metrics.Sample

	mu      sync.Mutex
	current int64
	stopped bool
}

// cycle sets the limit for the next cycle, and waits for its end: what nobody
// refers to is found then.
func (t *tuner) cycle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	metrics.Read(t.live)
	// Setting it stops the world for a moment, so small changes are let be.
	want := min(limitFor(t.live[0].Value.Uint64(), t.floor, t.growth), t.limit)
	if want < t.current/20*19 || want > t.current/20*21 {
		t.current = want
		debug.SetMemoryLimit(want)
	}
	runtime.AddCleanup(new(sentinel), (*tuner).cycle, t)
}

func (t *tuner) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	debug.SetGCPercent(t.gogc)
	debug.SetMemoryLimit(t.limit)
}

// sentinel isn't empty, or all of them would be one, and holds a pointer, or
// it would share a block with other small objects.
type sentinel struct{ _ *byte }

func limitFor(live, floor, growth uint64) int64 {
	return int64(max(floor, live+live/100*growth+overhead))
}
