package demo

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/internal/metrics"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// report is the result of a demo: the pipeline's status, with the counts of each
// endpoint's emulated service. docs/demo-report.md describes it; change both.
type report struct {
	OK              bool     `json:"ok"`
	Problems        []string `json:"problems"`
	Fault           string   `json:"fault,omitempty"` // the scenario
	Produced        int64    `json:"produced"`
	ElapsedSeconds  float64  `json:"elapsedSeconds"`
	EventsPerSecond float64  `json:"eventsPerSecond"`
	Latency         latency  `json:"latency"`
	DeadLetters     int64    `json:"deadLetters"`
	pipeline.Status
	Endpoints []endpointReport `json:"endpoints"` // replaces the status's

	story string // of the fault, for the text
}

type latency struct {
	P50Ms float64 `json:"p50Ms"`
	P99Ms float64 `json:"p99Ms"`
}

type endpointReport struct {
	Name string `json:"name"`
	pipeline.EndpointStatus
	Latency latency       `json:"latency"`
	Service serviceCounts `json:"service"`
}

// serviceCounts are the counts of an emulated service. Distinct and Repeats are
// nil without message ids: Event Grid has none, and a demo without an end keeps
// none.
type serviceCounts struct {
	Count    int64  `json:"count"`
	Distinct *int64 `json:"distinct"`
	Repeats  *int64 `json:"repeats"`
	Refused  int64  `json:"refused"`
	Bytes    int64  `json:"bytes"`
}

// report compares the pipeline's counts with the services'. before is the status
// before the stop, which clears the consumer's part of it.
func (d *demo) report(before pipeline.Status, settled bool, feedErr error) *report {
	r := &report{Problems: []string{}, Produced: d.acked.Load(), Status: d.app.Pipeline.Status()}
	r.DeadLetters = d.parts.deadLetters()
	if d.story != nil {
		r.Fault = d.story.Name
		r.story = d.story.title() + ":\n" + d.story.faultHeadline
	}
	r.Ready, r.NotReady = before.Ready, before.NotReady
	r.Ingest.Lag, r.Ingest.LagAt, r.Ingest.Partitions = before.Ingest.Lag, before.Ingest.LagAt, before.Ingest.Partitions
	r.ElapsedSeconds = d.ended.Sub(d.started).Round(time.Millisecond).Seconds()
	r.EventsPerSecond = math.Round(perSecond(r.Produced, d.ended.Sub(d.started)))
	stats := d.parts.services.Stats()
	var all metrics.Histogram
	for i, snap := range d.app.Pipeline.Snapshots() {
		e := endpointReport{Name: snap.Endpoint.Name, EndpointStatus: r.Status.Endpoints[i], Latency: latencyOf(&snap.Counts.Latency)}
		e.State = before.Endpoints[i].State // after the stop, all are stopped
		e.Service = serviceOf(stats.Entity(e.Name), d.tracked())
		all.Add(&snap.Counts.Latency)
		r.Endpoints = append(r.Endpoints, e)
	}
	slices.SortStableFunc(r.Endpoints, func(a, b endpointReport) int { return cmp.Compare(rank(a.Name), rank(b.Name)) })
	r.Latency = latencyOf(&all)
	if feedErr != nil {
		r.problem("%v", feedErr)
	}
	if !settled {
		r.problem("gave up waiting for the last outcomes")
	}
	r.check()
	return r
}

func latencyOf(h *metrics.Histogram) latency {
	ms := func(q float64) float64 { return float64(h.Quantile(q)) / float64(time.Millisecond) }
	return latency{P50Ms: ms(.5), P99Ms: ms(.99)}
}

func serviceOf(e emulator.EntityStats, tracked bool) serviceCounts {
	s := serviceCounts{Count: e.Count, Refused: e.Refused, Bytes: e.Bytes}
	if tracked && e.Kind != emulator.KindEventGrid {
		distinct := e.Distinct + e.WithoutID
		repeats := e.Count - distinct
		s.Distinct, s.Repeats = &distinct, &repeats
	}
	return s
}

// stored returns how many events the service has: distinct ones, if known.
func (s serviceCounts) stored() int64 {
	if s.Distinct != nil {
		return *s.Distinct
	}
	return s.Count
}

func (r *report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// check adds a problem for each pair of counts that disagree.
func (r *report) check() {
	var rejected uint64
	for reason, n := range r.Ingest.Rejected {
		if rejected += n; n > 0 {
			r.problem("%s of the feed's events were set aside as %s", term.Grouped(n), reason)
		}
	}
	if got := r.Ingest.Events + rejected; got < uint64(r.Produced) {
		r.problem("%s events were produced, and only %s were read", term.Grouped(r.Produced), term.Grouped(got))
	}
	setAside := rejected
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		dropped := e.dropped()
		setAside += e.Dropped[event.Rejected.String()] + e.Dropped[event.TooLarge.String()]
		if sum := e.Delivered + dropped + e.Deferred + uint64(e.Pending); e.Routed != sum {
			r.problem("%s: routed %s, but delivered %s + dropped %s + deferred %s + pending %s = %s", e.Name, term.Grouped(e.Routed),
				term.Grouped(e.Delivered), term.Grouped(dropped), term.Grouped(e.Deferred), term.Grouped(e.Pending), term.Grouped(sum))
		}
		if e.Backlog > 0 {
			r.problem("%s: has not caught up on %s offsets", e.Name, term.Grouped(e.Backlog))
		}
		if e.Pending > 0 {
			r.problem("%s: %s events have no outcome", e.Name, term.Grouped(e.Pending))
		}
		// The service may have stored a dropped event, if the acknowledgement was
		// lost, so it may have as many more; and any number more where repeats
		// can't be distinguished.
		got := e.Service.stored()
		if got < int64(e.Delivered) || e.Service.Distinct != nil && got > int64(e.Delivered+dropped) {
			r.problem("%s: delivered %s, but the service counted %s", e.Name, term.Grouped(e.Delivered), term.Grouped(got))
		}
	}
	if r.DeadLetters < int64(setAside) { // more are duplicates
		r.problem("%s events were set aside, but the dead-letter topic has %s", term.Grouped(setAside), term.Grouped(r.DeadLetters))
	}
	r.OK = len(r.Problems) == 0
}

func (e *endpointReport) dropped() (n uint64) {
	for _, d := range e.Dropped {
		n += d
	}
	return n
}

// err returns an error if the counts disagree.
func (r *report) err() error {
	if r.OK {
		return nil
	}
	return errors.New("the counts disagree: " + strings.Join(r.Problems, "; "))
}

// print writes the report as text.
func (r *report) print(w io.Writer) error {
	var b strings.Builder
	var deliveries uint64
	for _, e := range r.Endpoints {
		deliveries += e.Delivered
	}
	fmt.Fprintf(&b, "\n%s events in %.1f s (%s/s), %s deliveries, latency p50 %s p99 %s\n\n", term.Grouped(r.Produced), r.ElapsedSeconds,
		term.Rate(r.EventsPerSecond), term.Grouped(deliveries), inMillis(r.Latency.P50Ms), inMillis(r.Latency.P99Ms))
	if r.story != "" {
		fmt.Fprintf(&b, "%s\n\n", r.story)
	}
	if slices.ContainsFunc(r.Endpoints, func(e endpointReport) bool { return e.Deferred > 0 }) {
		r.equation(&b)
	} else {
		r.table(&b)
	}
	b.WriteByte('\n')
	for i := range r.Endpoints {
		r.Endpoints[i].remark(&b)
	}
	if r.DeadLetters > 0 {
		fmt.Fprintf(&b, "dead letters: %s\n", term.Grouped(r.DeadLetters))
	}
	if r.OK {
		b.WriteString("OK: every event has its outcome, and each service counted what was delivered.\n")
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "NOT OK: %s\n", p)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table writes a line per endpoint.
func (r *report) table(b *strings.Builder) {
	const row = "%-16s %9s = %9s + %7s + %7s %9s %5s %5s\n" // 80 columns
	fmt.Fprintf(b, row, "ENDPOINT", "ROUTED", "DELIVERED", "DROPPED", "PENDING", "SERVICE", "P50", "P99")
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		fmt.Fprintf(b, row, e.Name, term.Grouped(e.Routed), term.Grouped(e.Delivered), term.Grouped(e.dropped()), term.Grouped(e.Pending),
			term.Grouped(e.Service.Count), inMillis(e.Latency.P50Ms), inMillis(e.Latency.P99Ms))
	}
}

// equation is table where an endpoint was behind. There is no room for latencies then.
func (r *report) equation(b *strings.Builder) {
	const row = "%-16s %9s = %9s + %8s + %7s + %7s %9s\n" // 80 columns
	fmt.Fprintf(b, row, "ENDPOINT", "ROUTED", "DELIVERED", "DEFERRED", "DROPPED", "PENDING", "SERVICE")
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		fmt.Fprintf(b, row, e.Name, term.Grouped(e.Routed), term.Grouped(e.Delivered), term.Grouped(e.Deferred), term.Grouped(e.dropped()),
			term.Grouped(e.Pending), term.Grouped(e.Service.Count))
	}
}

// remark writes the facts that have no column.
func (e *endpointReport) remark(b *strings.Builder) {
	if n := e.Service.Repeats; n != nil && *n > 0 {
		fmt.Fprintf(b, "%s: %s of what the service got were repeats (delivery is at least once)\n", e.Name, term.Grouped(*n))
	}
	if n := e.Service.stored() - int64(e.Delivered); n > 0 {
		why := "their acknowledgement was lost"
		if e.Service.Repeats == nil {
			why = "repeats, or " + why
		}
		fmt.Fprintf(b, "%s: the service got %s more than were delivered: %s\n", e.Name, term.Grouped(n), why)
	}
	if e.Deferred > 0 {
		fmt.Fprintf(b, "%s: %s were deferred while it was behind, and routed again as it caught up\n", e.Name, term.Grouped(e.Deferred))
	}
	if e.Key == sinks.Secondary.String() && e.State == sinks.StateReady {
		fmt.Fprintf(b, "%s: uses its secondary key\n", e.Name)
	}
	var reasons []string
	for reason, n := range e.Dropped {
		if n > 0 {
			reasons = append(reasons, reason+" "+term.Grouped(n))
		}
	}
	if len(reasons) > 0 {
		slices.Sort(reasons)
		fmt.Fprintf(b, "%s: dropped: %s\n", e.Name, strings.Join(reasons, ", "))
	}
}

func inMillis(ms float64) string { return term.Latency(time.Duration(ms * float64(time.Millisecond))) }
