package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// demoSpan is what rates and latencies are measured over: long enough to be
// read, short enough to show a change as it happens.
const demoSpan = 3 * time.Second

// demoSample is the state at one moment.
type demoSample struct {
	at        time.Time
	produced  int64
	snapshots []sinks.Snapshot
}

// demoWindow keeps the samples of the last demoSpan.
type demoWindow struct{ samples []demoSample }

// add takes a sample and tells what has happened since the oldest one.
func (w *demoWindow) add(now demoSample) demoFrame {
	// One that is older than the span stays, so that the span is covered.
	for len(w.samples) > 1 && now.at.Sub(w.samples[1].at) >= demoSpan {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
	f := demoFrame{produced: now.produced}
	var then demoSample
	if len(w.samples) > 0 {
		then = w.samples[0]
		f.rateIn = perSecond(now.produced-then.produced, now.at.Sub(then.at))
	}
	for _, snap := range now.snapshots {
		f.rows = append(f.rows, rowOf(snap, then, now.at))
	}
	// As they are set up: ids, by which snapshots come, mean nothing to a reader.
	slices.SortStableFunc(f.rows, func(a, b demoRow) int { return demoRank(a.name) - demoRank(b.name) })
	w.samples = append(w.samples, now)
	return f
}

func demoRank(name string) int {
	for i, e := range demoEndpoints {
		if e.Name == name {
			return i
		}
	}
	return len(demoEndpoints)
}

// demoFrame is what the views show of one moment.
type demoFrame struct {
	uptime   time.Duration
	produced int64
	rateIn   float64
	lag      int64
	story    []string // nil without one
	rows     []demoRow
	notice   string
}

func (f *demoFrame) delivered() (n uint64) {
	for _, r := range f.rows {
		n += r.delivered
	}
	return n
}

type demoRow struct {
	name, typ string
	state     sinks.State
	rate      float64
	delivered uint64
	dropped   uint64
	reasons   string // of the drops: backoff 12, unreachable 5
	pending   int
	holdsBack bool
	secondary bool   // the key in use
	p50, p99  string // of the span
	lastError string
	until     time.Time
}

func rowOf(snap sinks.Snapshot, then demoSample, now time.Time) demoRow {
	r := demoRow{
		name: snap.Endpoint.Name, typ: string(snap.Endpoint.Type), state: snap.State,
		delivered: snap.Counts.Delivered, dropped: snap.Counts.DroppedTotal(), reasons: reasonsOf(&snap.Counts),
		pending: snap.Counts.Pending, holdsBack: snap.HoldsBack, secondary: usesSecondary(&snap), lastError: snap.LastError, until: snap.BackOffUntil,
	}
	var old sinks.Counts // none yet, if there was no such endpoint
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
	r.p50, r.p99 = latencyText(latency.Quantile(.5)), latencyText(latency.Quantile(.99))
	return r
}

// usesSecondary reports that the secondary key is in use. While neither works,
// none is.
func usesSecondary(snap *sinks.Snapshot) bool {
	return snap.Key == sinks.Secondary && snap.State != sinks.StateBackingOff && snap.State != sinks.StateProbing
}

func reasonsOf(c *sinks.Counts) string {
	var parts []string
	for reason, n := range c.Dropped {
		if n > 0 {
			parts = append(parts, event.Reason(reason).String()+" "+grouped(n))
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

// latencyText is a latency in at most five characters. Kafka's timestamps are
// whole milliseconds, so nothing finer is known.
func latencyText(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Millisecond:
		return "<1ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	default:
		return strconv.FormatInt(int64(d.Minutes()), 10) + "min"
	}
}

// grouped writes 1234567 as 1,234,567.
func grouped[N int | int64 | uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rounded writes a rate: what comes after the point matters only to a slow one.
func rounded(rate float64) string {
	if rate > 0 && rate < 10 {
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
	return grouped(int64(rate + .5))
}

// clockOf writes an uptime as 1:05 or 2:03:04.
func clockOf(d time.Duration) string {
	s := int(d.Seconds())
	two := func(n int) string { return strconv.Itoa(100 + n)[1:] }
	if s < 3600 {
		return strconv.Itoa(s/60) + ":" + two(s%60)
	}
	return strconv.Itoa(s/3600) + ":" + two(s/60%60) + ":" + two(s%60)
}
