package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// laneRate is the rate of the lanes of a copy with enough cores, by kind.
var laneRate = map[string]float64{}

// copyRate returns the rate at which a copy delivers to one endpoint: that of its
// lanes, and that of the planned busy share of its cores.
func copyRate(k kind) (perLanes, perCores float64) {
	if laneRate[k.name] == 0 {
		laneRate[k.name] = simulate(scenario{
			kind: k, copies: 1, cores: 16, partitions: spread(1, 8), latency: milliseconds(latency.value),
			warmUp: time.Second, duration: 4 * time.Second,
		}).rate
	}
	return laneRate[k.name], copyCores.value * busyShare.value / k.cpu().Seconds()
}

// plan is the resources for a rate, all to one endpoint.
type plan struct {
	rate       float64
	cores      float64
	copies     int
	bound      string // what limits a copy
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
	// Each record is received by every broker that stores it, and sent to the other
	// brokers and to twinegress.
	topic := rate * (eventBytes.value + recordBytes.value) * (1 + headerShare.value) * 8
	p.brokers = max(int(replicas.value), int(math.Ceil(topic*replicas.value/(nicBits.value*busyShare.value))))
	return p
}

// wire returns the bits of an event on the network to the service.
func wire(k kind) float64 { return k.wireBytes.value * (1 + headerShare.value) * 8 }

// needs are the units of the services for a rate.
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

// limit is the highest rate that something allows, all to one endpoint of one kind.
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

// spread returns the same number of partitions for each copy, on as many lanes.
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
