package pipeline

import (
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"twinegress/internal/event"
	"twinegress/internal/metrics"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
)

// Descriptions of all metrics. Every label is bounded: endpoint ids, our own
// words, and the five event types; never a value off the wire.
var (
	descRecords  = desc("ingest_records_total", "Kafka records read.")
	descLag      = desc("ingest_lag_records", "Offsets not committed yet, up to the end of this copy's partitions, which is asked for every 5 s; absent while it is not known.")
	descReady    = desc("ready", "1 while this copy is ready, as /readyz says.")
	descMember   = desc("ingest_member", "1 while this copy is a member of the consumer group.")
	descSilence  = desc("ingest_brokers_silent_seconds", "Time since a Kafka broker answered; they are asked every few seconds.")
	descHeld     = desc("ingest_waits_for_endpoints", "1 while nothing is read since there is no endpoint: ingest.waitForEndpoints.")
	descInFlight = desc("ingest_in_flight_bytes", "Bytes of events without an outcome; polling waits while they are over ingest.maxInFlightBytes.")
	descStalled  = desc("ingest_stalled_partitions", "Partitions that are not read on until more of what was read has its outcome.")
	descSkipped  = desc("ingest_skipped_batches_total", "Batches passed over since they take more memory than ingest.limits.batchBytes: their events are not delivered.")
	descEvents   = desc("events_total", "Events decoded and classified, by type.", "event_type")
	descUnrouted = desc("events_unrouted_total", "Events that no endpoint takes, by its event types and its filter.")
	descRejected = desc("events_rejected_total", "Records or array elements set aside in the dead-letter topic before routing.", "reason")
	descWaiting  = desc("dead_letters_waiting", "Dead letters that are not stored yet; their partitions can't commit past them.")
	descCut      = desc("dead_letters_cut_total", "Dead letters that are stored in part only, since the topic refuses the whole.")
	descRetained = desc("ingest_retention_seconds", "How long Kafka keeps an event, by the topic's retention.ms; no series while that is not known, or where there is no end.", "topic")
	descGivenUp  = desc("dead_letters_given_up_total", "Dead letters that can't be stored in any form, by why: what they were for is lost.", "reason")

	descBuild     = desc("build_info", "1: what runs.", "version", "goversion")
	descInfo      = desc("endpoint_info", "1: what the endpoint is called and where it is. The other metrics of an endpoint have its id, which this one joins to the rest.", "endpoint", "name", "endpoint_type", "host", "path")
	descKey       = desc("endpoint_key", "1 while the endpoint is sent to with this key; only the secondary has a series, once it was in use.", "endpoint", "key")
	descRouted    = desc("endpoint_routed_events_total", "Events routed to the endpoint; no series before the first.", "endpoint")
	descOutcomes  = desc("endpoint_events_total", "Outcomes: delivered, or dropped with a reason; a reason has a series once something was dropped for it.", "endpoint", "outcome", "reason")
	descPending   = desc("endpoint_pending_events", "Events without an outcome yet.", "endpoint")
	descState     = desc("endpoint_state", "1 for the state that the endpoint is in; 0 for throttled, if it was that before.", "endpoint", "state")
	descBackoff   = desc("endpoint_backoff_seconds", "Time until the endpoint, or the first of its partitions that back off, is tried again; no series unless one backs off.", "endpoint")
	descHoldsBack = desc("endpoint_holds_back", "1 while others wait for the endpoint: the intake for room in its lanes, or in what may be in flight, half of which waits here; or, without recovery: catchUp, what may be committed, for an event that has waited here for 5 s. No series before the first time.", "endpoint")
	descOldest    = desc("endpoint_oldest_pending_seconds", "For how long the oldest event waits for its outcome; only where that is over a second.", "endpoint")
	descBacklog   = desc("endpoint_backlog_offsets", "Offsets from the endpoint's positions to the shared reading; 0 while it is not behind. No series before it was for the first time.", "endpoint")
	descOldestOf  = desc("endpoint_backlog_age_seconds", "Time since the next event that the endpoint gets from its positions was put into Kafka; no series while that is not known, or it is not behind.", "endpoint")
	descDeferred  = desc("endpoint_deferred_events_total", "Events that left the shared reading for later, with the endpoint; when they are caught up on they are routed anew. No series before the first.", "endpoint")
	descCaughtUp  = desc("endpoint_caught_up_events_total", "Events that the endpoint got from its positions. No series before the first.", "endpoint")
	descLeft      = desc("endpoint_positions_left_total", "Times that the endpoint left the shared reading of a partition. No series before the first.", "endpoint")
	descSend      = desc("endpoint_send_seconds", "Time the sends took, failed ones included, and how many there were; quantiles are by type only. No series while the endpoint backs off or is throttled: there is next to nothing to measure then.", "endpoint")

	descCatchUpRecords    = desc("catchup_records_total", "Kafka records read for endpoints that are behind.")
	descCatchUpInFlight   = desc("catchup_in_flight_bytes", "Bytes of events without an outcome that were read for endpoints that are behind; they are part of twinegress_ingest_in_flight_bytes.")
	descCatchUpWaits      = desc("catchup_waiting", "1 while reading for endpoints that are behind waits for the shared reading, which comes first.")
	descCatchUpRate       = desc("catchup_allowed_records_per_second", "Records a second that may be read for endpoints that are behind: what is idle, and what the shared reading leaves.")
	descCatchUpSkipped    = desc("catchup_skipped_offsets_total", "Offsets passed over for endpoints that are behind, since their batches take more memory than ingest.limits.batchBytes.")
	descPositionsUnlisted = desc("positions_unlisted", "Positions that don't fit into a commit, without positions.topic: they would be lost with this copy.")
	descPositionsWaiting  = desc("positions_waiting_partitions", "Partitions that are not read because the list of who is behind in them can't be.")
	descPositionsFail     = desc("positions_store_failures_total", "Lists of who is behind that could not be stored: their partitions are not committed until they are.")
	descPositionsLost     = desc("positions_lost_total", "Partitions of which it was not known any more who is behind, and from where: what was behind there may have missed events.")

	descLatency     = desc("routing_latency_seconds", "From Kafka's append to the delivery.", "endpoint_type")
	descDropped     = desc("dropped_events_total", "Drops by event type and reason; only what was dropped has a series. Of what expired the type is not known: Unknown.", "endpoint_type", "event_type", "reason")
	descBatch       = desc("batch_events", "Events a send, failed ones included.", "endpoint_type")
	descSendLatency = desc("send_latency_seconds", "Time a send took, failed ones included: of all endpoints of a type, in buckets.", "endpoint_type")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("twinegress_"+name, help, labels, nil)
}

// Describe is prometheus.Collector's.
func (p *Pipeline) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRecords, descLag, descReady, descMember, descSilence, descHeld, descInFlight, descStalled, descSkipped, descEvents, descUnrouted, descRejected, descRetained, descWaiting, descCut, descGivenUp,
		descCatchUpRecords, descCatchUpInFlight, descCatchUpWaits, descCatchUpRate, descCatchUpSkipped,
		descPositionsUnlisted, descPositionsWaiting, descPositionsFail, descPositionsLost,
		descBacklog, descOldestOf, descDeferred, descCaughtUp, descLeft,
		descBuild, descInfo, descKey, descOldest, descRouted, descOutcomes, descDropped, descPending, descState, descBackoff, descHoldsBack, descBatch, descSend, descLatency, descSendLatency,
	} {
		ch <- d
	}
}

// Collect is prometheus.Collector's. It reads the same snapshots as the status,
// so that the two never disagree.
func (p *Pipeline) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	source := p.consumer()
	counter(descRecords, float64(source.Records))
	if source.Lag != nil {
		gauge(descLag, float64(*source.Lag))
	}
	gauge(descReady, oneIf(len(p.NotReady()) == 0))
	gauge(descMember, oneIf(source.Member))
	gauge(descSilence, source.Silence.Seconds())
	gauge(descHeld, oneIf(source.Held))
	gauge(descInFlight, float64(source.InFlight))
	gauge(descStalled, float64(len(source.Stalled)))
	counter(descSkipped, float64(source.Skipped))
	for t := event.TopologyOperation; t < event.NumTypes; t++ {
		counter(descEvents, float64(p.counts.events[t].Load()), t.String())
	}
	counter(descUnrouted, float64(p.counts.unrouted.Load()))
	for _, r := range inputReasons {
		counter(descRejected, float64(p.counts.rejected[r].Load()), r.String())
	}
	letters := p.deadLetters()
	gauge(descWaiting, float64(letters.Waiting))
	counter(descCut, float64(letters.Cut))
	for _, r := range deadletter.GivenUpReasons {
		counter(descGivenUp, float64(letters.GivenUp[r]), r.String())
	}

	p.collectCatchUp(counter, gauge)
	gauge(descBuild, 1, p.options.Version, runtime.Version())
	byType := p.each(func(snap *sinks.Snapshot) { collectEndpoint(ch, snap) })
	for typ, t := range byType {
		ch <- batchHistogram(t, string(typ))
		for et := range event.NumTypes { // of what expired nobody knows the type
			for _, r := range outcomeReasons {
				if n := t.dropped[et][r]; n > 0 {
					counter(descDropped, float64(n), string(typ), et.String(), r.String())
				}
			}
		}
		ch <- fineHistogram(descLatency, &t.latency, string(typ))
		ch <- fineHistogram(descSendLatency, &t.sends, string(typ))
	}
}

// collectEndpoint has series for what happened only, and of a state only while it is
// in force: of thousands of endpoints most have no trouble or all have one, and the
// whole must stay small enough to be scraped. What tells endpoints apart but the id is
// in endpoint_info alone.
func collectEndpoint(ch chan<- prometheus.Metric, snap *sinks.Snapshot) {
	metric := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	e, c := &snap.Endpoint, &snap.Counts
	id, typ := e.ID, string(e.Type)
	metric(descInfo, prometheus.GaugeValue, 1, id, label(e.Name), typ, label(snap.Host), label(e.Path))
	metric(descState, prometheus.GaugeValue, 1, id, string(snap.State))
	// Alerts take the share of time of this one: it has a zero once the endpoint was in it.
	if s := sinks.StateThrottled; s != snap.State && snap.Past.Throttled {
		metric(descState, prometheus.GaugeValue, 0, id, string(s))
	}
	if !snap.BackOffUntil.IsZero() {
		metric(descBackoff, prometheus.GaugeValue, math.Ceil(max(0, time.Until(snap.BackOffUntil)).Seconds()), id)
	}
	if snap.Past.HeldBack {
		metric(descHoldsBack, prometheus.GaugeValue, oneIf(snap.HoldsBack), id)
	}
	if snap.Past.Secondary {
		metric(descKey, prometheus.GaugeValue, oneIf(snap.UsesSecondary()), id, sinks.Secondary.String())
	}
	if snap.OldestPending > time.Second {
		metric(descOldest, prometheus.GaugeValue, snap.OldestPending.Seconds(), id)
	}
	if c.Sends.Count() > 0 && (snap.State == sinks.StateReady || snap.State == sinks.StateDegraded) {
		ch <- prometheus.MustNewConstSummary(descSend, c.Sends.Count(), c.Sends.Sum().Seconds(), nil, id)
	}
	collectBacklog(metric, snap)
	if c.Routed == 0 {
		return
	}
	metric(descRouted, prometheus.CounterValue, float64(c.Routed), id)
	metric(descOutcomes, prometheus.CounterValue, float64(c.Delivered), id, "delivered", "")
	metric(descPending, prometheus.GaugeValue, float64(c.Pending), id)
	if c.Deferred > 0 {
		metric(descDeferred, prometheus.CounterValue, float64(c.Deferred), id)
	}
	for _, r := range outcomeReasons {
		if n := c.Dropped[r]; n > 0 {
			metric(descOutcomes, prometheus.CounterValue, float64(n), id, "dropped", r.String())
		}
	}
}

// collectCatchUp has what reads for endpoints that are behind, all of them together.
func (p *Pipeline) collectCatchUp(counter, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	for topic, d := range p.retention() {
		gauge(descRetained, d.Seconds(), topic)
	}
	reader, positions := p.reading(), p.keeping()
	counter(descCatchUpRecords, float64(reader.Records))
	gauge(descCatchUpInFlight, float64(reader.InFlight))
	gauge(descCatchUpWaits, oneIf(strings.HasPrefix(reader.Waiting, "live"))) // and not for its own rate or memory
	gauge(descCatchUpRate, reader.Rate)
	counter(descCatchUpSkipped, float64(reader.TooLarge))
	gauge(descPositionsUnlisted, float64(positions.Unlisted))
	gauge(descPositionsWaiting, float64(len(positions.Waiting)))
	counter(descPositionsFail, float64(positions.StoreFailures))
	counter(descPositionsLost, float64(positions.Lost))
}

// collectBacklog has nothing of an endpoint that was never behind.
func collectBacklog(metric func(*prometheus.Desc, prometheus.ValueType, float64, ...string), snap *sinks.Snapshot) {
	id, behind := snap.Endpoint.ID, !snap.BehindSince.IsZero()
	if !behind && snap.Left == 0 {
		return
	}
	backlog, oldest := backlogOf(&snap.Health)
	metric(descBacklog, prometheus.GaugeValue, float64(backlog), id)
	if behind && !oldest.IsZero() {
		metric(descOldestOf, prometheus.GaugeValue, max(0, time.Since(oldest)).Seconds(), id)
	}
	if snap.CaughtUp > 0 {
		metric(descCaughtUp, prometheus.CounterValue, float64(snap.CaughtUp), id)
	}
	metric(descLeft, prometheus.CounterValue, float64(snap.Left), id)
}

// longestLabel is more than names and hosts have that people chose.
const longestLabel = 128

// label makes text that a user chose fit for a label: the client library panics at
// what isn't UTF-8.
func label(s string) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) > longestLabel {
		s = strings.ToValidUTF8(s[:longestLabel], "") + "…"
	}
	return s
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// fineHistogram shows four buckets to each power of two, from half a
// millisecond to a minute: there are three of these at most to a metric, and a
// promise of milliseconds can be read off them.
func fineHistogram(d *prometheus.Desc, h *metrics.Histogram, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64)
	for base := 512 * time.Microsecond; base < time.Minute; base *= 2 {
		for quarter := base / 4; quarter <= base; quarter += base / 4 {
			buckets[(base + quarter).Seconds()] = h.AtMost(base + quarter)
		}
	}
	return prometheus.MustNewConstHistogram(d, h.Count(), h.Sum().Seconds(), buckets, labels...)
}

func batchHistogram(t *totals, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64)
	var cumulative uint64
	for i, n := range t.batches {
		cumulative += n
		if i%2 == 0 {
			buckets[math.Exp2(float64(i))] = cumulative
		}
	}
	return prometheus.MustNewConstHistogram(descBatch, cumulative, float64(t.sent), buckets, labels...)
}
