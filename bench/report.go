package bench

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// reportFormat is the version of the JSON. It changes with incompatible changes.
const reportFormat = 1

// Report is the results of a run. docs/bench-report.schema.json is its schema.
type Report struct {
	Format  int       `json:"format"`
	Header  Header    `json:"header"`
	Results []*Result `json:"results"`
}

// Header describes the machine and the configuration of the run.
type Header struct {
	Time          time.Time `json:"time"`
	Version       string    `json:"version"`
	Go            string    `json:"go"`
	Platform      string    `json:"platform"`
	CPU           string    `json:"cpu"`
	Cores         int       `json:"cores"`
	MeasuredCores []int     `json:"measuredCores"` // none: not pinned
	OtherCores    []int     `json:"otherCores"`
	MaxProcs      int       `json:"maxProcs"` // of the measured process
	Environment   []string  `json:"environment"`
	Partitions    int       `json:"partitions"`
}

// Result is the result of one scenario.
type Result struct {
	Scenario    string  `json:"scenario"`
	About       string  `json:"about"`
	Payload     string  `json:"payload"`
	Compression string  `json:"compression"`
	EventBytes  float64 `json:"eventBytes"` // mean
	Live        bool    `json:"live"`       // the events arrived while the process ran
	Rate        float64 `json:"rate"`       // of their arrival, events a second; 0: as fast as possible
	Sides       []*Side `json:"sides"`
	// CatchUp is of a scenario in which an endpoint catches up, whose sides are the
	// others before, while its service is away, and after it; nil of another.
	CatchUp *CatchUp `json:"catchUp,omitempty"`
	// Ratios of the first side to the second, pair by pair; without values if there is no second.
	CPURatio  Values `json:"cpuRatio"`
	RateRatio Values `json:"rateRatio"`
}

// Side is the figures of one side, run by run. It has a field for each figure of
// the report.
type Side struct {
	Label string `json:"label"`
	// Events of one run. There are more Outcomes if several endpoints get an event.
	Events     int64   `json:"events"`
	Outcomes   int64   `json:"outcomes"`
	StartCPU   float64 `json:"startCpuMs"` // of the start and the stop; excluded below
	Rate       Values  `json:"eventsPerSecond"`
	CPU        Values  `json:"cpuMicrosPerEvent"`
	System     Values  `json:"systemCpuMicrosPerEvent"` // of the CPU; no values when live
	Mallocs    Values  `json:"allocsPerEvent"`
	Allocated  Values  `json:"bytesPerEvent"`
	GC         Values  `json:"gcShare"` // of the process's CPU
	PeakRSS    Values  `json:"peakRssBytes"`
	Batch      Values  `json:"eventsPerBatch"`
	Busy       Values  `json:"busy"`       // cores, of the process
	OthersBusy Values  `json:"othersBusy"` // cores, of broker and services
	Broker     Values  `json:"brokerCpuMicrosPerEvent"`
	Services   Values  `json:"servicesCpuMicrosPerEvent"`
	// Of events that arrive at a rate: from just before they are sent to Kafka to the outcome.
	P50     Values `json:"latencyP50Seconds"`
	P99     Values `json:"latencyP99Seconds"`
	P999    Values `json:"latencyP999Seconds"`
	SendP50 Values `json:"sendP50Seconds"` // from a complete batch to the service's reply
	SendP99 Values `json:"sendP99Seconds"`
	// The cores that the process, and broker and services, could have used in
	// addition on average: threads that were ready to run and waited for one.
	Waited       Values `json:"waitedCores"`
	OthersWaited Values `json:"othersWaitedCores"`
	IdleCPU      Values `json:"idleCores"`
	// RSS is the first run's, second by second.
	RSS     []int64          `json:"rssBytes"`
	Dropped map[string]int64 `json:"dropped"` // in all runs, by reason

	starts, samples []sample
}

// Values are the values of one figure, run by run.
type Values struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Each   []float64 `json:"each"`
}

// valuesOf returns the values that were measured, without NaN and infinity.
func valuesOf(each []float64) Values {
	each = slices.DeleteFunc(each, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	n := len(each)
	if n == 0 {
		return Values{Each: []float64{}}
	}
	sorted := slices.Sorted(slices.Values(each))
	return Values{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Each: each}
}

// has reports whether the figure was measured.
func (v Values) has() bool { return len(v.Each) > 0 }

func newResult(s *Scenario) *Result {
	r := &Result{Scenario: s.Name, About: s.About, Payload: s.Payload, Compression: s.Compression, Live: s.live}
	for _, sd := range s.sides {
		r.Sides = append(r.Sides, &Side{Label: sd.Label})
	}
	return r
}

// compute computes the figures of the samples.
func (r *Result) compute() error {
	for _, s := range r.Sides {
		if len(s.samples) == 0 {
			return errors.New("bench: nothing was measured")
		}
		s.compute(r)
	}
	if r.CatchUp != nil {
		r.CatchUp.compute()
	}
	r.CPURatio, r.RateRatio = valuesOf(nil), valuesOf(nil)
	if len(r.Sides) == 2 {
		r.CPURatio = ratio(r.Sides[0].CPU, r.Sides[1].CPU)
		r.RateRatio = ratio(r.Sides[0].Rate, r.Sides[1].Rate)
	}
	return nil
}

func ratio(a, b Values) Values {
	each := make([]float64, min(len(a.Each), len(b.Each)))
	for i := range each {
		each[i] = a.Each[i] / b.Each[i]
	}
	return valuesOf(each)
}

// figure returns a figure of a sample.
type figure func(*sample) float64

func over(samples []sample, f figure) Values {
	each := make([]float64, 0, len(samples))
	for i := range samples {
		each = append(each, f(&samples[i]))
	}
	return valuesOf(each)
}

func (s *Side) compute(r *Result) {
	// A cost per event excludes the cost of the same process with next to no
	// events. A live process was warm before: nothing is subtracted.
	perEvent := func(f figure) Values {
		atStart := over(s.starts, f).Median
		startRecords := over(s.starts, func(x *sample) float64 { return float64(x.records) }).Median
		return over(s.samples, func(x *sample) float64 { return (f(x) - atStart) / (float64(x.records) - startRecords) })
	}
	busy := func(f figure) Values {
		atStart := over(s.starts, f).Median
		return over(s.samples, func(x *sample) float64 { return max(0, f(x)-atStart) / x.elapsed.Seconds() })
	}
	cpu := func(x *sample) float64 { return x.cpu.Seconds() }
	others := func(x *sample) float64 { return (x.brokerCPU + x.servicesCPU).Seconds() }

	s.Events, s.Outcomes = s.samples[0].records, s.samples[0].deliveries
	for _, n := range s.samples[0].dropped {
		s.Outcomes += n
	}
	s.StartCPU = over(s.starts, cpu).Median * 1e3
	s.Rate = over(s.samples, func(x *sample) float64 { return float64(x.records) / x.elapsed.Seconds() })
	s.CPU = perEvent(func(x *sample) float64 { return cpu(x) * 1e6 })
	s.System = valuesOf(nil)
	if !r.Live {
		s.System = perEvent(func(x *sample) float64 { return x.system.Seconds() * 1e6 })
	}
	s.Mallocs = perEvent(func(x *sample) float64 { return x.Mallocs })
	s.Allocated = perEvent(func(x *sample) float64 { return x.Allocated })
	s.GC = over(s.samples, func(x *sample) float64 { return x.GCSeconds / cpu(x) })
	s.PeakRSS = over(s.samples, func(x *sample) float64 { return float64(x.peakRSS) })
	s.Batch = over(s.samples, func(x *sample) float64 { return float64(x.deliveries) / float64(x.batches) })
	s.Busy, s.OthersBusy = busy(cpu), busy(others)
	s.Broker = perEvent(func(x *sample) float64 { return x.brokerCPU.Seconds() * 1e6 })
	s.Services = perEvent(func(x *sample) float64 { return x.servicesCPU.Seconds() * 1e6 })

	// Without a rate events wait for each other.
	atRate := func(known bool, f figure) Values {
		if r.Rate == 0 || !known {
			return valuesOf(nil)
		}
		return over(s.samples, f)
	}
	s.P50 = atRate(true, func(x *sample) float64 { return x.latency.quantile(0.5) })
	s.P99 = atRate(true, func(x *sample) float64 { return x.latency.quantile(0.99) })
	s.P999 = atRate(true, func(x *sample) float64 { return x.latency.quantile(0.999) })
	s.SendP50 = atRate(true, func(x *sample) float64 { return x.sends.quantile(0.5) })
	s.SendP99 = atRate(true, func(x *sample) float64 { return x.sends.quantile(0.99) })
	waits := s.samples[0].waited > 0 // otherwise the kernel doesn't count it
	s.Waited = atRate(waits, func(x *sample) float64 { return x.waited.Seconds() / x.elapsed.Seconds() })
	s.OthersWaited = atRate(waits, func(x *sample) float64 { return x.othersWaited.Seconds() / x.elapsed.Seconds() })
	s.IdleCPU = atRate(s.samples[0].idleCPU > 0, func(x *sample) float64 { return x.idleCPU })
	s.RSS = append([]int64{}, s.samples[0].rss...)
	s.Dropped = make(map[string]int64)
	for i := range s.samples {
		for reason, n := range s.samples[i].dropped {
			s.Dropped[reason] += n
		}
	}
}

// cpuModel returns the processor's name, "unknown" if it can't be read.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range bytes.Lines(info) {
		if name, value, found := bytes.Cut(line, []byte(":")); found && bytes.HasPrefix(name, []byte("model name")) {
			return string(bytes.TrimSpace(value))
		}
	}
	return "unknown"
}

func (h *Header) where() string {
	if len(h.MeasuredCores) == 0 {
		return "not pinned"
	}
	return fmt.Sprintf("measured process on core %v, broker, services and harness on %v", h.MeasuredCores, h.OtherCores)
}
