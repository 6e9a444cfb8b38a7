package main

import "time"

// figure is an input of the model and its origin.
type figure struct {
	value  float64
	unit   string
	what   string
	origin string
}

const (
	measured = "`twinegress bench`, on one core (AMD EPYC), without TLS on AMQP; scenario "
	quotas   = "Microsoft, [Event Hubs quotas](https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas)"
	units    = "Microsoft, [Event Hubs scalability](https://learn.microsoft.com/azure/event-hubs/event-hubs-scalability)"
	busTiers = "Microsoft, [Service Bus Premium](https://learn.microsoft.com/azure/service-bus-messaging/service-bus-premium-messaging)"
	gridDocs = "Microsoft, [Event Grid quotas](https://learn.microsoft.com/azure/event-grid/quotas-limits)"
	ours     = "the program's own: "
)

// The size and the cost of an event.
var (
	eventBytes  = &figure{527, "B", "an event on the topic", "the generated building of bench/feed, plain; `twinegress bench` prints it"}
	recordBytes = &figure{48, "B", "its key and Kafka's framing", "bench/feed's keys (36 B), Kafka's record format"}
	amqpBytes   = &figure{744, "B", "the same as an AMQP message", "TestFigures encodes the feed's events"}
	gridBytes   = &figure{483, "B", "the same in Event Grid's array, without `topic`", "TestFigures"}
	headerShare = &figure{0.04, "", "TLS records, TCP and IP headers, as a share", "54 B of headers in 1,448 B of payload, 22 B in 16 KiB"}

	lz4  = &figure{4.3, "", "the same topic with lz4 is smaller by", "a real Kafka 4.4: 8,125 events in the fetch that holds 1,875 uncompressed"}
	zstd = &figure{8.5, "", "… with zstd", "an estimate: BenchmarkBacklog before partitions took turns, fitted"}

	intakeCPU = &figure{0.83, "µs", "CPU of an event: poll, decode, classify, dispatch, commit", measured + "discard"}
	hubCPU    = &figure{2.84, "µs", "… and Event Hubs: encode and send, 1,330 a batch", measured + "eventhubs"}
	busCPU    = &figure{2.45, "µs", "… and Service Bus, 1,320 a batch", measured + "servicebus"}
	gridCPU   = &figure{0.83, "µs", "… and Event Grid, 1,740 a request, HTTPS", measured + "eventgrid"}
	sendCPU   = &figure{120, "µs", "CPU of a send, whatever is in it", "Event Hubs with batches of 100 and 10: 5.2 and 16 µs an event; for Event Grid assumed to be the same"}
	tlsCPU    = &figure{0.55, "ns/B", "CPU of encrypting, once on the way in and once out", "BenchmarkEncrypt, AES-128-GCM in records of 16 KiB"}
)

// The limits of the program.
var (
	lanes         = &figure{8, "", "lanes of an endpoint on a copy: sends in flight at most", ours + "internal/event"}
	batchEvents   = &figure{2000, "", "events of a batch", ours + "batch.maxEvents"}
	batchBytes    = &figure{1 << 20, "B", "bytes of a batch", "what Event Hubs, Service Bus Premium and Event Grid take in one"}
	laneBatches   = &figure{4, "", "full batches that wait in a lane", ours + "sinks/lane.go"}
	busyJitter    = &figure{0.2, "", "taken off such a wait at most, at random", ours + "sinks/sender.go"}
	linger        = &figure{5, "ms", "a batch waits for more", ours + "batch.linger"}
	chunkEvents   = &figure{256, "", "records of a chunk", ours + "stages/ingest"}
	inFlightBytes = &figure{64 << 20, "B", "in flight on a copy", ours + "ingest.maxInFlightBytes"}
	heldBytes     = &figure{819, "B", "what an event counts there", ours + "the event, its key, and 256 B (internal/event)"}
)

// The limits of the services.
var (
	tuEvents     = &figure{1000, "/s", "events that an Event Hubs throughput unit takes", units}
	tuBytes      = &figure{1e6, "B/s", "bytes that it takes", units}
	tuMax        = &figure{40, "", "throughput units of a Standard namespace", quotas}
	puBytes      = &figure{5e6, "B/s", "bytes that an Event Hubs Premium processing unit takes: 5 to 10 MB/s; the lower", units}
	puMax        = &figure{16, "", "processing units of a Premium namespace", quotas}
	hubStandard  = &figure{32, "", "partitions of a hub, Standard", quotas}
	hubPremium   = &figure{100, "", "partitions of a hub, Premium", quotas}
	muBytes      = &figure{4e6, "B/s", "bytes that a Service Bus Premium messaging unit takes, in Microsoft's benchmark", "Microsoft, [Service Bus performance](https://learn.microsoft.com/azure/service-bus-messaging/service-bus-performance-improvements)"}
	muMax        = &figure{16, "", "messaging units of a namespace (64 with four partitions)", busTiers}
	gridEvents   = &figure{5000, "/s", "events that an Event Grid topic takes", gridDocs}
	gridTopBytes = &figure{5e6, "B/s", "bytes that it takes", gridDocs}
	gridTopics   = &figure{100, "", "custom topics of a subscription in a region", gridDocs}
	budget       = &figure{1, "s", "of its limit a service lets through at once", "an assumption: the limits are given per second"}
	hubBusy      = &figure{4, "s", "Event Hubs asks to wait when it is over its units", "its answer: \"server-busy … wait 4 seconds\""}
)

// The choices of the plan.
var (
	copyCores = &figure{2, "", "cores of a copy", "a choice: at 20 ms, an endpoint's eight lanes carry about what two cores do"}
	busyShare = &figure{0.7, "", "of the cores that are planned to be busy", "a choice: what is left carries a rebalance, a catch-up, a lost node"}
	nicBits   = &figure{10e9, "bit/s", "network of a node, copy or broker", "a choice"}
	replicas  = &figure{3, "", "copies of a record on the brokers", "a choice: what production topics have"}
	latency   = &figure{20, "ms", "from sending a batch to its acknowledgement", "an assumption: measure yours with twinegress_send_latency_seconds"}
)

// figures are all figures, in the order of the page.
var figures = []*figure{
	eventBytes, recordBytes, amqpBytes, gridBytes, headerShare, lz4, zstd,
	intakeCPU, hubCPU, busCPU, gridCPU, sendCPU, tlsCPU,
	lanes, batchEvents, batchBytes, laneBatches, busyJitter, linger, chunkEvents, inFlightBytes, heldBytes,
	tuEvents, tuBytes, tuMax, puBytes, puMax, hubStandard, hubPremium,
	muBytes, muMax, gridEvents, gridTopBytes, gridTopics, budget, hubBusy,
	copyCores, busyShare, nicBits, replicas, latency,
}

// kind is a type of endpoint in the model.
type kind struct {
	name      string
	wireBytes *figure // of an event
	perEvent  *figure // CPU, measured with batches of atBatch events
	atBatch   float64
	encrypted bool // TLS was part of the measurement
	busy      time.Duration
}

var (
	eventHubs  = kind{"Event Hubs", amqpBytes, hubCPU, 1330, false, seconds(hubBusy.value)}
	serviceBus = kind{"Service Bus", amqpBytes, busCPU, 1320, false, 2 * time.Second}
	eventGrid  = kind{"Event Grid", gridBytes, gridCPU, 1740, true, time.Second}
)

// eventCPU returns the CPU of an event in a batch in the sink, without its share
// of sendCPU; the measurement includes both.
func (k kind) eventCPU() time.Duration {
	µs := k.perEvent.value - sendCPU.value/k.atBatch
	if !k.encrypted {
		µs += tlsCPU.value * k.wireBytes.value / 1000
	}
	return time.Duration(µs * 1000)
}

// intake returns the CPU of an event before the sink, with TLS to the brokers.
func intake() time.Duration {
	return time.Duration(intakeCPU.value*1000 + tlsCPU.value*(eventBytes.value+recordBytes.value))
}

// cpu returns the CPU of an event in total, with full batches.
func (k kind) cpu() time.Duration {
	return intake() + k.eventCPU() + time.Duration(sendCPU.value*1000/float64(k.batch()))
}

// fullBatch returns the number of events from which a lane doesn't linger.
func fullBatch() int { return int(min(batchEvents.value, batchBytes.value/eventBytes.value)) }

// batch returns the number of events of a batch that the service accepts.
func (k kind) batch() int {
	return int(min(batchEvents.value, batchBytes.value/k.wireBytes.value))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
