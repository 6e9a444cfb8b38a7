package demo

import (
	"slices"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// span is the time over which rates and latencies are measured: long enough for
// a stable number, short enough to show a change.
const span = 3 * time.Second

// sample is the state at one time.
type sample struct {
	at        time.Time
	produced  int64
	snapshots []sinks.Snapshot
}

// window holds the samples of the last span.
type window struct{ samples []sample }

// add adds a sample and returns the frame of the changes since the oldest one.
func (w *window) add(now sample) frame {
	// One sample older than the span stays, so that the span is covered.
	for len(w.samples) > 1 && now.at.Sub(w.samples[1].at) >= span {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
	f := frame{produced: now.produced}
	var then sample
	if len(w.samples) > 0 {
		then = w.samples[0]
		f.rateIn = perSecond(now.produced-then.produced, now.at.Sub(then.at))
	}
	for _, snap := range now.snapshots {
		f.rows = append(f.rows, rowOf(snap, then, now.at))
	}
	// In the order of the set; snapshots are in the order of ids.
	slices.SortStableFunc(f.rows, func(a, b row) int { return rank(a.name) - rank(b.name) })
	w.samples = append(w.samples, now)
	return f
}

func rank(name string) int {
	for i, e := range demoSet {
		if e.Name == name {
			return i
		}
	}
	return len(demoSet)
}

// frame is the content of the views at one time.
type frame struct {
	uptime   time.Duration
	produced int64
	rateIn   float64
	lag      int64
	story    []string // nil without a story
	rows     []row
	notice   string
}

func (f *frame) delivered() (n uint64) {
	for _, r := range f.rows {
		n += r.delivered
	}
	return n
}

type row struct {
	name, typ string
	state     sinks.State
	rate      float64
	delivered uint64
	dropped   uint64
	reasons   string // of drops: backoff 12, unreachable 5
	pending   int
	holdsBack bool
	secondary bool   // the key in use
	p50, p99  string // of the span
	lastError string
	until     time.Time
}

func rowOf(snap sinks.Snapshot, then sample, now time.Time) row {
	r := row{
		name: snap.Endpoint.Name, typ: string(snap.Endpoint.Type), state: snap.State,
		delivered: snap.Counts.Delivered, dropped: snap.Counts.DroppedTotal(), reasons: reasonsOf(&snap.Counts),
		pending: snap.Counts.Pending, holdsBack: snap.HoldsBack, secondary: usesSecondary(&snap), lastError: snap.LastError, until: snap.BackOffUntil,
	}
	var old sinks.Counts // zero for a new endpoint
	for i := range then.snapshots {
		if then.snapshots[i].Endpoint.ID == snap.Endpoint.ID {
			old = then.snapshots[i].Counts
		}
	}
	if !then.at.IsZero() {
		r.rate = perSecond(int64(snap.Counts.Delivered-old.Delivered), now.Sub(then.at))
	}
	latency := snap.Counts.Latency
	latency.Sub(&old.Latency)
	r.p50, r.p99 = term.Latency(latency.Quantile(.5)), term.Latency(latency.Quantile(.99))
	return r
}

// usesSecondary reports whether the secondary key is in use. While both are
// refused, neither is.
func usesSecondary(snap *sinks.Snapshot) bool {
	return snap.Key == sinks.Secondary && snap.State != sinks.StateBackingOff && snap.State != sinks.StateProbing
}

func reasonsOf(c *sinks.Counts) string {
	var parts []string
	for reason, n := range c.Dropped {
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
