package app

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"

	"twinegress/internal/gctuner"
)

// LimitMemory sets Go's memory limit to nine tenths of the container's memory, so
// that the collector runs more often before the kernel kills the process. The
// rest is for memory that the limit doesn't count. GOMEMLIMIT takes precedence.
func LimitMemory(log *zap.Logger) {
	limit, err := memlimit.Set()
	switch {
	case err != nil: // usually outside of a container
		log.Debug("no limit of the container's memory was found", zap.Error(err))
	case limit < math.MaxInt64:
		log.Debug("memory is limited", zap.Int64("bytes", limit))
	}
}

// These trade the garbage collector's CPU time for memory: docs/performance.md.
const (
	heapFloor  = 192 << 20
	heapGrowth = 70 // percent
)

// TuneGC makes the garbage collector run less often while memory allows, until
// stop is called.
func TuneGC() (stop func()) { return gctuner.Start(heapFloor, heapGrowth) }
