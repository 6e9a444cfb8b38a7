// Package gctuner sets the garbage collector's memory limit by the live heap.
//
// By default the collector runs whenever the heap has doubled. That is too often
// while little is in flight: with a live heap of 20 MiB and hundreds of megabytes
// a second passing through, it takes a tenth of the CPU to keep the process at
// 40 MiB, for no use. It is too seldom when much is in flight: with all of
// maxInFlightBytes and the SDKs' batches alive, twice that is too much memory.
//
// So the heap may grow to eleven times the live heap, but only within a memory
// limit, which a busy process reaches. A fixed limit is not enough: the live heap
// depends on the number of endpoints, and with a limit below it the collector
// runs all the time. The limit follows the live heap.
package gctuner

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// percent is the growth while the live heap is small and the limit far.
	percent = 1000
	// overhead is the memory that the limit includes besides the live heap:
	// stacks, the collector's own memory, spans that are half empty.
	overhead = 32 << 20
	// Of what can have pointers the growth is halved from enough bytes on: memory is
	// scarcer then than the collector's CPU. Less than half would be too dear where
	// thousands of endpoints are alive.
	enough = 80 << 20
	// plenty is the most that the heap grows for what can have none: the bytes of
	// events. The collector doesn't look into them, so running more often is cheap.
	plenty = 32 << 20
)

// Start sets the memory limit to floor bytes, or to growth percent over the live
// heap if that is more, until stop is called; of a growth that is large less will
// do. It never exceeds a limit that was set before (GOMEMLIMIT), and does nothing if
// the environment has GOGC. It runs at the end of each of the collector's cycles and
// has no goroutine of its own.
func Start(floor uint64, growth int) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	t := &tuner{
		floor: floor, growth: uint64(growth),
		gogc: debug.SetGCPercent(percent), limit: debug.SetMemoryLimit(-1),
		live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}},
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

// cycle sets the limit for the next cycle and registers itself for that cycle's
// end, when the sentinel is found to be unreachable.
func (t *tuner) cycle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	metrics.Read(t.live)
	// Setting it stops the world for a moment, so small changes are skipped.
	want := min(limitFor(t.live[0].Value.Uint64(), t.live[1].Value.Uint64(), t.floor, t.growth), t.limit)
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

// sentinel isn't empty, so that each has an address of its own, and has a
// pointer, so that it shares no block with other small objects.
type sentinel struct{ _ *byte }

// limitFor returns the limit for a live heap, of which so many bytes can have
// pointers.
func limitFor(live, scanned, floor, growth uint64) int64 {
	full := min(live, scanned) / 100 * growth
	grown := max(min(full, enough), full/2, min(live/100*growth, plenty))
	return int64(max(floor, live+grown+overhead))
}
