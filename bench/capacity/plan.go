package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// laneRate is what the lanes of a copy with plenty of cores carry.
var laneRate = map[string]float64{}

// copyRate is what a copy delivers to one endpoint: what its lanes carry, or
// what the share of its cores that is planned to be busy does.
func copyRate(k kind) (perLanes, perCores float64) {
	if laneRate[k.name] == 0 {
		laneRate[k.name] = simulate(scenario{
			kind: k, copies: 1, cores: 16, partitions: spread(1, 8), latency: milliseconds(latency.value),
			warmUp: time.Second, duration: 4 * time.Second,
		}).rate
	}
	return laneRate[k.name], copyCores.value * busyShare.value / k.cpu().Seconds()
}

// plan is what a rate takes, all to one endpoint.
type plan struct {
	rate       float64
	cores      float64
	copies     int
	bound      string // what says how many copies
	partitions int
	out        float64 // bit/s of a copy to the service
	brokers    int     // by their network alone, uncompressed
}

func planFor(k kind, rate float64) plan {
	perLanes, perCores := copyRate(k)
	p := plan{rate: rate, cores: rate * k.cpu().Seconds() / busyShare.value}
	if byLanes := math.Ceil(rate / perLanes); byLanes > math.Ceil(rate/perCores) {
		p.copies, p.bound = int(byLanes), "lanes"
	} else {
		p.copies, p.bound = int(math.Ceil(rate/perCores)), "cores"
	}
	p.partitions = p.copies * int(lanes.value)
	p.out = rate * wire(k) / float64(p.copies)
	// Each record comes in on every broker that keeps it, and goes out to the
	// others and to us.
	topic := rate * (eventBytes.value + recordBytes.value) * (1 + headerShare.value) * 8
	p.brokers = max(int(replicas.value), int(math.Ceil(topic*replicas.value/(nicBits.value*busyShare.value))))
	return p
}

// wire is the bits of an event on its way to the service.
func wire(k kind) float64 { return k.wireBytes.value * (1 + headerShare.value) * 8 }

// needs are the units of a service that a rate takes.
type needs struct {
	tus, standard   int // Event Hubs Standard: units, namespaces
	pus, premium    int // Event Hubs Premium
	mus, namespaces int // Service Bus Premium
	topics, subs    int // Event Grid: topics, and subscriptions or regions
}

func needsFor(rate float64) needs {
	up := func(x float64) int { return int(math.Ceil(x - 1e-9)) }
	var n needs
	n.tus = up(max(rate/tuEvents.value, rate*amqpBytes.value/tuBytes.value))
	n.standard = up(float64(n.tus) / tuMax.value)
	n.pus = up(rate * amqpBytes.value / puBytes.value)
	n.premium = up(float64(n.pus) / puMax.value)
	n.mus = up(rate * amqpBytes.value / muBytes.value)
	n.namespaces = up(float64(n.mus) / muMax.value)
	n.topics = up(max(rate/gridEvents.value, rate*gridBytes.value/gridTopBytes.value))
	n.subs = up(float64(n.topics) / gridTopics.value)
	return n
}

// limit is a rate at which something breaks, all to one endpoint of one kind.
type limit struct {
	rate  float64
	what  string
	grows string // what to do then
}

func limits() []limit {
	hubLanes, hubCores := copyRate(eventHubs)
	onePartition := simulate(scenario{
		kind: eventHubs, copies: 1, cores: int(copyCores.value), partitions: spread(1, 1), latency: milliseconds(latency.value),
		warmUp: time.Second, duration: 4 * time.Second,
	}).rate
	all := []limit{
		{gridEvents.value, "an Event Grid topic", "more topics, each with a filter of its own"},
		{min(tuEvents.value, tuBytes.value/amqpBytes.value) * tuMax.value, fmt.Sprintf("an Event Hubs Standard namespace of %.0f units", tuMax.value), "Premium, Dedicated, or more namespaces"},
		{muBytes.value * muMax.value / amqpBytes.value, fmt.Sprintf("a Service Bus Premium namespace of %.0f units", muMax.value), "four partitions (64 units), or more namespaces"},
		{puBytes.value * puMax.value / amqpBytes.value, fmt.Sprintf("an Event Hubs Premium namespace of %.0f units", puMax.value), "Dedicated, or more namespaces"},
		{onePartition, fmt.Sprintf("one Kafka partition: one lane, one send in flight at %.0f ms", latency.value), "more partitions"},
		{hubCores, fmt.Sprintf("the cores of one copy (%.0f, %.0f %% busy)", copyCores.value, 100*busyShare.value), "more copies"},
		{hubLanes, fmt.Sprintf("the eight lanes of one copy at %.0f ms", latency.value), "more copies"},
		{nicBits.value * busyShare.value / wire(eventHubs), "the network of one node", "more nodes"},
		{nicBits.value * busyShare.value * replicas.value / ((eventBytes.value + recordBytes.value) * (1 + headerShare.value) * 8 * replicas.value), "the network of three brokers, uncompressed", "compression, more brokers"},
		{hubStandard.value * onePartition, fmt.Sprintf("a topic of %.0f partitions, the most that a Standard hub has one for one", hubStandard.value), "more partitions: several share one of the hub's"},
	}
	slices.SortStableFunc(all, func(a, b limit) int { return cmp.Compare(a.rate, b.rate) })
	return all
}

// spread gives each copy the same number of partitions, on as many lanes.
func spread(copies, each int) [][]int {
	out := make([][]int, copies)
	for c := range out {
		for i := range each {
			out[c] = append(out[c], c*each+i)
		}
	}
	return out
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
