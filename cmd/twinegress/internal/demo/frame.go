package demo

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// span is the time over which rates and latencies are measured: long enough for
// a stable number, short enough to show a change.
const span = 3 * time.Second

// sample is the state at one time.
type sample struct {
	at            time.Duration // since the feed began
	produced, lag int64
	endpoints     []sinks.Snapshot
}

// frame is the content of the views at one time.
type frame struct {
	sample
	rateIn float64
	rows   []row
	story  []string // nil without a story
	notice string
}

// row is an endpoint, with what was measured over the span.
type row struct {
	sinks.Snapshot
	rate     float64
	p50, p99 string
}

// window holds the samples of the last span.
type window struct{ samples []sample }

// add adds a sample and returns the frame of the changes since the oldest one.
func (w *window) add(now sample) frame {
	// One sample older than the span stays, so that the span is covered.
	for len(w.samples) > 1 && now.at-w.samples[1].at >= span {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
	w.samples = append(w.samples, now)
	then := w.samples[0]
	f := frame{sample: now, rateIn: perSecond(now.produced-then.produced, now.at-then.at)}
	for _, snap := range now.endpoints {
		var old sinks.Counts // zero for a new endpoint
		for i := range then.endpoints {
			if then.endpoints[i].Endpoint.ID == snap.Endpoint.ID {
				old = then.endpoints[i].Counts
			}
		}
		latency := snap.Counts.Latency
		latency.Sub(&old.Latency)
		f.rows = append(f.rows, row{
			Snapshot: snap, rate: perSecond(int64(snap.Counts.Delivered-old.Delivered), now.at-then.at),
			p50: term.Latency(latency.Quantile(.5)), p99: term.Latency(latency.Quantile(.99)),
		})
	}
	// In the order of the set; snapshots are in the order of ids.
	slices.SortStableFunc(f.rows, func(a, b row) int { return cmp.Compare(rank(a.Endpoint.Name), rank(b.Endpoint.Name)) })
	return f
}

// rank returns the place of an endpoint in the set. One that a user added is last.
func rank(name string) uint {
	return uint(slices.IndexFunc(demoSet, func(e endpoints.Endpoint) bool { return e.Name == name }))
}

// usesSecondary reports whether the secondary key is in use. While both are
// refused, neither is.
func (r *row) usesSecondary() bool {
	return r.Key == sinks.Secondary && r.State != sinks.StateBackingOff && r.State != sinks.StateProbing
}

// backlog returns how many offsets the endpoint has to catch up on.
func (r *row) backlog() (n int64) {
	for _, p := range r.Positions {
		n += max(0, p.Dispatched-p.Cursor)
	}
	return n
}

// reasons formats the drops: backoff 12, unreachable 5.
func (r *row) reasons() string {
	var parts []string
	for reason, n := range r.Counts.Dropped {
		if n > 0 {
			parts = append(parts, event.Reason(reason).String()+" "+term.Grouped(n))
		}
	}
	return strings.Join(parts, ", ")
}

func perSecond(n int64, over time.Duration) float64 {
	if over <= 0 {
		return 0
	}
	return float64(n) / over.Seconds()
}
