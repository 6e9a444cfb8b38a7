package catchup

import (
	"math"
	"runtime/metrics"
	"time"

	"twinegress/internal/cputime"
)

// delays measures how long goroutines that could run wait for a processor.
type delays struct {
	sample [1]metrics.Sample
	counts []uint64 // as of the last look
}

// high returns how long one in a hundred has waited since the last call; 0: not known.
func (d *delays) high() time.Duration {
	d.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(d.sample[:])
	if d.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	h := d.sample[0].Value.Float64Histogram()
	known := len(d.counts) == len(h.Counts)
	if !known {
		d.counts = make([]uint64, len(h.Counts))
	}
	total, above := uint64(0), uint64(0)
	for i, n := range h.Counts {
		total += n - d.counts[i]
	}
	high := 0.0
	for i := len(h.Counts) - 1; i >= 0; i-- {
		if above += h.Counts[i] - d.counts[i]; above > total/100 {
			high = h.Buckets[i]
			break
		}
	}
	copy(d.counts, h.Counts)
	if !known || math.IsInf(high, 0) {
		return 0
	}
	return time.Duration(high * float64(time.Second))
}

// load returns what else this copy does. The caller holds mu.
func (r *Reader) load() Load {
	status := r.o.Source.Status()
	l := Load{Records: status.Records, Full: r.o.Source.Full(), Lag: -1, CPU: -1, Delay: r.delays.high()}
	if status.Lag != nil {
		l.Lag = *status.Lag
	}
	if cpu, known := cputime.Process(); known {
		l.CPU = cpu
	}
	return l
}
