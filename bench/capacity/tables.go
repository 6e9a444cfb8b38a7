package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// tables returns the page's tables by the names in their marks.
func tables() map[string]string {
	return map[string]string{
		"figures":    figuresTable(),
		"costs":      costsTable(),
		"latency":    latencyTable(),
		"load":       loadTable(),
		"partitions": partitionsTable(),
		"runs":       runsTable(),
		"throttle":   throttleTable(),
		"sizing":     sizingTable(),
		"services":   servicesTable(),
		"limits":     limitsTable(),
	}
}

type table struct{ b strings.Builder }

func newTable(heads ...string) *table {
	t := new(table)
	t.row(heads...)
	for i := range heads {
		heads[i] = "---"
	}
	t.row(heads...)
	return t
}

func (t *table) row(cells ...string) { fmt.Fprintf(&t.b, "| %s |\n", strings.Join(cells, " | ")) }
func (t *table) String() string      { return t.b.String() }

// number formats a number with three significant figures and commas.
func number(x float64) string {
	if x != 0 && math.Abs(x) < 100 {
		return strconv.FormatFloat(x, 'g', 3, 64)
	}
	if unit := math.Pow(10, math.Floor(math.Log10(max(1, x)))-2); unit > 1 {
		x = math.Round(x/unit) * unit
	}
	s := strconv.FormatInt(int64(math.Round(x)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func percent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}

func micro(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Microsecond)) }

func figuresTable() string {
	t := newTable("What", "Figure", "From")
	for _, f := range figures {
		value := number(f.value)
		if f.value == batchBytes.value || f.value == inFlightBytes.value {
			value = strconv.Itoa(int(f.value)>>20) + " Mi"
		}
		t.row(f.what, strings.TrimSpace(value+" "+f.unit), f.origin)
	}
	return t.String()
}

func costsTable() string {
	t := newTable("Events to", "CPU µs an event", "events/s a core", "with cores "+percent(busyShare.value)+" busy", "bytes out an event")
	row := func(name string, cpu time.Duration, bytes float64) {
		t.row(name, micro(cpu), number(1/cpu.Seconds()), number(busyShare.value/cpu.Seconds()), number(bytes*(1+headerShare.value)))
	}
	row("nobody", intake(), 0)
	all, bytes := intake(), 0.0
	for _, k := range []kind{eventHubs, serviceBus, eventGrid} {
		row(k.name, k.cpu(), k.wireBytes.value)
		all += k.cpu() - intake()
		bytes += k.wireBytes.value
	}
	row("one of each", all, bytes)
	return t.String()
}

// aBacklog returns a scenario of a copy with a backlog without end.
func aBacklog(k kind, cores int, partitions []int, ms float64, run int) scenario {
	return scenario{
		kind: k, copies: 1, cores: cores, partitions: [][]int{partitions}, latency: milliseconds(ms), run: run,
		warmUp: 3 * time.Second, duration: 5 * time.Second,
	}
}

func backlog(k kind, cores int, partitions []int, ms float64, run int) outcome {
	return simulate(aBacklog(k, cores, partitions, ms, run))
}

func upTo(n int) []int { return spread(1, n)[0] }

func latencyTable() string {
	cores := []int{1, 2, 4, 8}
	t := newTable("Latency of a send", "1 core", "2 cores", "4 cores", "8 cores", "sends in flight, of 8")
	for _, ms := range []float64{2, 5, 10, 20, 50, 100} {
		cells := make([]string, len(cores)+2)
		cells[0] = fmt.Sprintf("%.0f ms", ms)
		for i, c := range cores {
			o := backlog(eventHubs, c, upTo(8), ms, 0)
			cells[i+1] = fmt.Sprintf("%s (%s)", number(o.rate), percent(o.busy))
			cells[len(cells)-1] = fmt.Sprintf("%.1f", o.inFlight)
		}
		t.row(cells...)
	}
	return t.String()
}

func loadTable() string {
	t := newTable("Events a second", "events a send", "cores busy", "p50", "p99", "intake waits")
	for _, rate := range []float64{100, 1000, 10_000, 50_000, 100_000, 200_000, 250_000, 300_000} {
		o := simulate(scenario{
			kind: eventHubs, copies: 1, cores: 2, partitions: spread(1, 8), rate: rate, latency: milliseconds(latency.value),
			warmUp: time.Second, duration: 3 * time.Second,
		})
		t.row(number(rate), number(o.batch), percent(o.busy), short(o.p50), short(o.p99), percent(o.heldBack))
	}
	return t.String()
}

func partitionsTable() string {
	t := newTable("The copy's partitions", "of the hub", "lanes in use", "events a send", "events a second")
	for _, tt := range []struct {
		partitions []int
		hub        int
	}{
		{upTo(1), 32},
		{upTo(2), 32},
		{upTo(4), 32},
		{upTo(8), 32},
		{[]int{8, 17, 23, 32, 41, 47, 56, 57}, 32},
		{upTo(16), 8},
		{upTo(16), 32},
		{[]int{3, 9, 12, 14, 17, 22, 25, 30, 33, 36, 41, 47, 50, 52, 59, 62}, 8},
	} {
		used := map[int]bool{}
		given := assign(tt.partitions)
		for _, p := range tt.partitions {
			used[given[p]] = true
		}
		last := len(tt.partitions) - 1
		name := strings.Trim(strings.ReplaceAll(fmt.Sprint(tt.partitions), " ", ", "), "[]")
		if last > 0 && tt.partitions[last] == last {
			name = fmt.Sprintf("0 to %d", last)
		}
		s := aBacklog(eventHubs, 4, tt.partitions, latency.value, 0)
		s.hub = tt.hub
		o := simulate(s)
		t.row(name, strconv.Itoa(tt.hub), strconv.Itoa(len(used)), number(o.batch), number(o.rate))
	}
	return t.String()
}

// fetched returns the number of events of one partition in a fetch: a mebibyte
// compressed, four uncompressed (stages/ingest/fetchsize.go).
func fetched(ratio float64) int {
	return int(min(ratio*(1<<20), 4<<20) / (eventBytes.value + recordBytes.value))
}

// measuredRuns are measurements of the program, with the broker and the emulated
// service in the same process, on 2 cores for all three, and the service's replies
// delayed by ms: BenchmarkBacklog in cmd/twinegress.
var measuredRuns = []struct {
	name   string
	ratio  float64
	ms     float64
	actual float64
}{
	{"uncompressed", 1, 20, 363_000},
	{"uncompressed", 1, 50, 186_000},
	{"lz4", lz4.value, 20, 357_000},
	{"lz4", lz4.value, 50, 184_000},
	{"zstd", zstd.value, 20, 221_000},
	{"zstd", zstd.value, 50, 161_000},
}

func runsTable() string {
	t := newTable("The topic", "events in a row", "latency of a send", "simulated events/s", "measured")
	for _, m := range measuredRuns {
		o := backlog(eventHubs, 2, upTo(8), m.ms, fetched(m.ratio))
		t.row(m.name, number(float64(fetched(m.ratio))), fmt.Sprintf("%.0f ms", m.ms), number(o.rate), number(m.actual))
	}
	return t.String()
}

func throttleTable() string {
	limit := min(tuEvents.value, tuBytes.value/amqpBytes.value) * tuMax.value
	t := newTable("Copies", "events a second", "delivered", "sends refused", "intake waits", "p99", fmt.Sprintf("delivered, if only %.1f s go at once", budget.value/10))
	for _, tt := range []struct {
		copies int
		rate   float64
	}{{1, 0.5 * limit}, {1, 0.9 * limit}, {1, limit}, {1, 1.5 * limit}, {2, 1.5 * limit}, {4, 1.5 * limit}, {4, 4 * limit}} {
		s := scenario{
			kind: eventHubs, copies: tt.copies, cores: 2, partitions: spread(tt.copies, 16/tt.copies), rate: tt.rate,
			latency: milliseconds(latency.value), limit: limit, budget: budget.value,
			fetch: 10 * time.Millisecond, warmUp: 12 * time.Second, duration: 40 * time.Second,
		}
		o := simulate(s)
		s.budget /= 10
		strict := simulate(s)
		p99 := short(o.p99)
		if o.rate < 0.98*tt.rate {
			p99 = "grows"
		}
		t.row(strconv.Itoa(tt.copies), number(tt.rate), number(o.rate), percent(o.throttled), percent(o.heldBack), p99, number(strict.rate))
	}
	return t.String()
}

var rates = []float64{10_000, 100_000, 1_000_000, 10_000_000}

func sizingTable() string {
	t := newTable("Events a second to", "", "cores", "copies", "because of", "Kafka partitions", "Mbit/s out a copy", "brokers, by network")
	for _, k := range []kind{eventHubs, serviceBus, eventGrid} {
		for _, r := range rates {
			p := planFor(k, r)
			t.row(k.name, number(r), number(p.cores), number(float64(p.copies)), p.bound, number(float64(p.partitions)), number(p.out/1e6), number(float64(p.brokers)))
		}
	}
	return t.String()
}

func servicesTable() string {
	t := newTable("Events a second", "Event Hubs Standard", "Event Hubs Premium", "Service Bus Premium", "Event Grid")
	of := func(units int, unit string, of int, many string) string {
		return fmt.Sprintf("%s %s: %s %s", number(float64(units)), unit, number(float64(of)), many)
	}
	for _, r := range rates {
		n := needsFor(r)
		t.row(number(r), of(n.tus, "TU", n.standard, "namespaces"), of(n.pus, "PU", n.premium, "namespaces"),
			of(n.mus, "MU", n.namespaces, "namespaces"), of(n.topics, "topics", n.subs, "subscriptions"))
	}
	return strings.ReplaceAll(strings.ReplaceAll(t.String(), ": 1 namespaces", ": 1 namespace"), ": 1 subscriptions", ": 1 subscription")
}

func limitsTable() string {
	t := newTable("Events a second", "What is full", "What then")
	for _, l := range limits() {
		t.row(number(l.rate), l.what, l.grows)
	}
	return t.String()
}
