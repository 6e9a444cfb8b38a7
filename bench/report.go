package bench

import (
	"bytes"
	"os"
	"slices"
	"time"
)

// Report is what was measured.
type Report struct {
	Header  Header    `json:"header"`
	Results []*Result `json:"results"`
}

// Header says where and how.
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
	Pairs         int       `json:"pairs"`
	Partitions    int       `json:"partitions"`
}

// Result is one scenario's.
type Result struct {
	Scenario   string  `json:"scenario"`
	About      string  `json:"about"`
	Events     int64   `json:"events"`
	EventBytes float64 `json:"eventBytes"` // mean
	Sides      [2]Side `json:"sides"`
	// Ratios of the first side to the second, pair by pair.
	CPURatio  Values `json:"cpuRatio"`
	RateRatio Values `json:"rateRatio"`
}

// Side is what one of the two was measured at, run by run. What is per event
// is without the start and the stop of the process.
type Side struct {
	Label       string           `json:"label"`
	StartCPU    float64          `json:"startCpuMs"` // of the start and the stop, median
	Rate        Values           `json:"eventsPerSecond"`
	CPU         Values           `json:"cpuMicrosPerEvent"`
	System      Values           `json:"systemCpuMicrosPerEvent"`
	Mallocs     Values           `json:"allocsPerEvent"`
	Allocated   Values           `json:"bytesPerEvent"`
	GC          Values           `json:"gcShare"` // of the process's CPU
	PeakRSS     Values           `json:"peakRssBytes"`
	BatchEvents Values           `json:"eventsPerBatch"`
	Utilisation Values           `json:"utilisation"` // of one core, from first to last outcome
	BrokerCPU   Values           `json:"brokerCpuMicrosPerEvent"`
	ServicesCPU Values           `json:"servicesCpuMicrosPerEvent"`
	OthersUtil  Values           `json:"othersUtilisation"` // of one core: broker and services
	Dropped     map[string]int64 `json:"dropped"`           // of all runs, by reason
	starts      []Sample
	samples     []Sample
}

// Values are one figure's, run by run.
type Values struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Each   []float64 `json:"each"`
}

func valuesOf(each []float64) Values {
	sorted := slices.Sorted(slices.Values(each))
	if len(sorted) == 0 {
		return Values{}
	}
	n := len(sorted)
	return Values{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Each: each}
}

// compute turns the samples into figures.
func (r *Result) compute() {
	for i := range r.Sides {
		r.Sides[i].compute()
	}
	a, b := &r.Sides[0], &r.Sides[1]
	r.CPURatio = ratio(a.CPU, b.CPU)
	r.RateRatio = ratio(a.Rate, b.Rate)
}

func ratio(a, b Values) Values {
	each := make([]float64, len(a.Each))
	for i := range each {
		each[i] = a.Each[i] / b.Each[i]
	}
	return valuesOf(each)
}

func (s *Side) compute() {
	start := func(of func(Sample) float64) float64 {
		each := make([]float64, 0, len(s.starts))
		for _, sample := range s.starts {
			each = append(each, of(sample))
		}
		return valuesOf(each).Median
	}
	all := func(of func(Sample) float64) Values {
		each := make([]float64, 0, len(s.samples))
		for _, sample := range s.samples {
			each = append(each, of(sample))
		}
		return valuesOf(each)
	}
	startEvents := start(func(x Sample) float64 { return float64(x.Events) })
	perEvent := func(of func(Sample) float64) Values {
		atStart := start(of)
		return all(func(x Sample) float64 { return (of(x) - atStart) / (float64(x.Events) - startEvents) })
	}
	cpu := func(x Sample) float64 { return x.cpu().Seconds() }
	startCPU := start(cpu)
	others := func(x Sample) float64 { return (x.Broker + x.Services).Seconds() }
	startOthers := start(others)

	s.StartCPU = startCPU * 1e3
	s.Rate = all(func(x Sample) float64 { return float64(x.Events) / x.Elapsed.Seconds() })
	s.CPU = perEvent(func(x Sample) float64 { return cpu(x) * 1e6 })
	s.System = perEvent(func(x Sample) float64 { return x.System.Seconds() * 1e6 })
	s.Mallocs = perEvent(func(x Sample) float64 { return x.Mallocs })
	s.Allocated = perEvent(func(x Sample) float64 { return x.Allocated })
	s.GC = all(func(x Sample) float64 { return x.GCSeconds / cpu(x) })
	s.PeakRSS = all(func(x Sample) float64 { return float64(x.PeakRSS) })
	s.BatchEvents = all(func(x Sample) float64 { return float64(x.Deliveries) / max(float64(x.Batches), 1) })
	s.Utilisation = all(func(x Sample) float64 { return (cpu(x) - startCPU) / x.Elapsed.Seconds() })
	s.BrokerCPU = perEvent(func(x Sample) float64 { return x.Broker.Seconds() * 1e6 })
	s.ServicesCPU = perEvent(func(x Sample) float64 { return x.Services.Seconds() * 1e6 })
	s.OthersUtil = all(func(x Sample) float64 { return (others(x) - startOthers) / x.Elapsed.Seconds() })
	s.Dropped = make(map[string]int64)
	for _, sample := range s.samples {
		for reason, n := range sample.Dropped {
			s.Dropped[reason] += n
		}
	}
}

// cpuModel is what the processor calls itself, where that can be read.
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
