package app

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"

	"twinegress/internal/gctuner"
)

// LimitMemory makes nine tenths of the container's memory Go's own limit, so
// that the collector works harder before the kernel kills the process. The
// rest is for what the limit doesn't count. GOMEMLIMIT wins, if it is set.
func LimitMemory(log *zap.Logger) {
	limit, err := memlimit.Set()
	switch {
	case err != nil: // outside of a container as a rule
		log.Debug("no limit of the container's memory was found", zap.Error(err))
	case limit < math.MaxInt64:
		log.Info("memory is limited", zap.Int64("bytes", limit))
	}
}

// The garbage collector's share of the CPU against memory: see docs/performance.md.
const (
	heapFloor  = 192 << 20
	heapGrowth = 70 // percent
)

// TuneGC makes the garbage collector run as seldom as memory allows, until
// stop is called.
func TuneGC() (stop func()) { return gctuner.Start(heapFloor, heapGrowth) }
