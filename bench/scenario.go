package bench

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
)

// Scenario is a load to measure, and on which sides. It has a field per parameter,
// of which a scenario sets few.
type Scenario struct {
	Name        string
	About       string
	Payload     string // one of Payloads
	Compression string // none, lz4, zstd
	Events      int    // of each run
	Pairs       int    // at most

	targets []target
	discard bool          // all sinks of `run` are the discard sink
	delay   time.Duration // until a service replies
	sides   []side        // two alternate, and the ratio is the first's to the second's

	// hostile: there are bombs among the events, and a bound of the memory.
	hostile bool
	// live: the events are produced while the process runs and is warm, rather
	// than before it starts.
	live bool
	rate float64       // events a second, live; 0 is as fast as possible
	half bool          // rate is half of the rate that this scenario reaches if it isn't live
	idle time.Duration // how long the idle process is measured, before the events
	// long is how long events are produced, live; there are always some to read,
	// and the topic's retention is short. Events is not used then.
	long time.Duration
}

// side is one of the programs or configurations that are compared.
type side struct {
	Label string
	floor bool
	few   bool            // only the first four endpoints
	fault *emulator.Fault // of the last endpoint
}

var (
	runAlone        = []side{{Label: "run"}}
	runAgainstFloor = []side{{Label: "run"}, {Label: "floor", floor: true}}
)

func oneIsDown(label string, fault emulator.Fault) []side {
	return []side{{Label: label, fault: &fault}, {Label: "healthy"}}
}

// target is an endpoint of a scenario, with the name of its hub or topic.
type target struct {
	Name  string
	Type  endpoints.Type
	Types []string
	// Catches is set of an endpoint with `recovery: catchUp`, whose service is away for
	// a while. It is the last one, and the only one of its type.
	Catches bool
}

// of returns the endpoints of one side.
func (s *Scenario) of(sd side) []target {
	if sd.few {
		return s.targets[:4]
	}
	return s.targets
}

// healthy returns the endpoints of one side whose events must all arrive.
func (s *Scenario) healthy(sd side) []target {
	all := s.of(sd)
	if s.down() || s.away() {
		return all[:len(all)-1] // on both sides, so that both have the same
	}
	return all
}

// retention returns the bytes that a live topic keeps of a partition.
func (s *Scenario) retention() int {
	switch {
	case s.away():
		return 0
	case s.long > 0:
		return longRetention
	case s.live:
		return liveRetention
	default:
		return 0
	}
}

// down reports whether an endpoint of one side is down.
func (s *Scenario) down() bool {
	return slices.ContainsFunc(s.sides, func(sd side) bool { return sd.fault != nil })
}

var (
	// twinTypes are the event types that any endpoint may have.
	twinTypes = []string{endpoints.SensorChange, endpoints.SpaceChange, endpoints.TopologyOperation, endpoints.UdfCustom}
	// documentedTypes are those of the service's own examples.
	documentedTypes = []string{endpoints.SensorChange, endpoints.SpaceChange, endpoints.TopologyOperation}

	oneHub   = []target{takesAll("hub", endpoints.TypeEventHub)}
	oneTopic = []target{takesAll("topic", endpoints.TypeServiceBus)}
	oneGrid  = []target{takesAll("grid", endpoints.TypeEventGrid)}
	oneSink  = []target{takesAll("discard", endpoints.TypeEventHub)}
	four     = []target{
		takesAll("hub", endpoints.TypeEventHub),
		takesAll("topic", endpoints.TypeServiceBus),
		takesAll("grid", endpoints.TypeEventGrid),
		takesAll("fourth", endpoints.TypeServiceBus),
	}
	lastCatchesUp = []target{
		takesAll("topic", endpoints.TypeServiceBus),
		takesAll("second", endpoints.TypeServiceBus),
		takesAll("grid", endpoints.TypeEventGrid),
		{Name: "hub", Type: endpoints.TypeEventHub, Types: twinTypes, Catches: true},
	}
)

// takesAll is an endpoint for every event but DeviceMessages.
func takesAll(name string, kind endpoints.Type) target {
	return target{Name: name, Type: kind, Types: twinTypes}
}

// thousand returns 1,000 endpoints, of which only the first gets SensorChanges.
func thousand() []target {
	targets := []target{{Name: "0", Type: endpoints.TypeEventHub, Types: []string{endpoints.SensorChange}}}
	for i := 1; i < 1000; i++ {
		targets = append(targets, target{Name: strconv.Itoa(i), Type: endpoints.TypeEventHub, Types: []string{twinTypes[1+i%3]}})
	}
	return targets
}

func eight() (targets []target) {
	for i := range 4 {
		targets = append(targets, takesAll("hub"+strconv.Itoa(i), endpoints.TypeEventHub))
	}
	for i := range 2 {
		targets = append(targets,
			takesAll("topic"+strconv.Itoa(i), endpoints.TypeServiceBus),
			takesAll("grid"+strconv.Itoa(i), endpoints.TypeEventGrid))
	}
	return targets
}

// Default are the scenarios of a call without names.
var Default = []string{"decode", "discard", "eventhubs", "servicebus", "eventgrid", "mixed"}

// All is the name, in a call, for all scenarios but the long ones.
const All = "all"

// Scenarios are all scenarios, in the order of the list.
var Scenarios = []Scenario{
	{
		Name: "decode", About: "no endpoint: polled, decoded, classified, committed",
		Events: 1_000_000, discard: true, sides: runAgainstFloor,
	},
	{
		Name: "discard", About: "one endpoint whose sink takes everything at once",
		Events: 1_000_000, discard: true, targets: oneSink, sides: runAgainstFloor,
	},
	{
		Name: "eventhubs", About: "one event hub of 8 partitions",
		Events: 600_000, targets: oneHub, sides: runAgainstFloor,
	},
	{
		Name: "servicebus", About: "one Service Bus topic",
		Events: 600_000, targets: oneTopic, sides: runAgainstFloor,
	},
	{
		Name: "eventgrid", About: "one Event Grid topic",
		Events: 1_000_000, targets: oneGrid, sides: runAgainstFloor,
	},
	{
		Name: "mixed", About: "the service's four documented endpoints, DeviceMessages among the events",
		Payload: payloadFeed, Events: 200_000, sides: runAgainstFloor,
		targets: []target{
			{Name: "hub", Type: endpoints.TypeEventHub, Types: documentedTypes},
			{Name: "devices", Type: endpoints.TypeEventHub, Types: []string{endpoints.DeviceMessage}},
			{Name: "topic", Type: endpoints.TypeServiceBus, Types: documentedTypes},
			{Name: "grid", Type: endpoints.TypeEventGrid, Types: documentedTypes},
		},
	},
	{
		Name: "fanout", About: "every event to 8 endpoints: 4 hubs, 2 Service Bus and 2 Event Grid topics",
		Events: 50_000, targets: eight(), sides: runAgainstFloor,
	},
	{
		Name: "thousand", About: "1,000 endpoints, one of which gets the events, against 4 of which one does; discarded",
		Payload: payloadSensor, Events: 1_000_000, discard: true, targets: thousand(),
		sides: []side{{Label: "1,000"}, {Label: "4", few: true}},
	},
	{
		Name: "dead", About: "one of four endpoints isn't there: what the other three get, against all healthy",
		Events: 100_000, live: true, targets: four, sides: oneIsDown("dead", emulator.Fault{Refuse: "amqp:not-found"}),
	},
	{
		Name: "hang", About: "one of four endpoints never answers: what the other three get, against all healthy",
		Events: 100_000, live: true, targets: four, sides: oneIsDown("hang", emulator.Fault{NeverSettle: true}),
	},
	{
		Name: "catchup-endpoint", About: "one of four endpoints goes away at half of the highest rate, for so many events, and catches up",
		Events: 100_000, Pairs: 1, live: true, half: true, targets: lastCatchesUp, sides: stretches,
	},
	{
		Name: "latency", About: "one event hub that takes 10 ms to answer",
		Events: 300_000, targets: oneHub, delay: 10 * time.Millisecond, sides: runAgainstFloor,
	},
	{
		Name: "half", About: "one event hub, at half of the rate that `run` reaches: latency",
		Events: 1_000_000, Pairs: 3, live: true, half: true, targets: oneHub, sides: runAlone,
	},
	{
		Name: "half10ms", About: "the same with a hub that takes 10 ms to answer",
		Events: 1_000_000, Pairs: 3, live: true, half: true, targets: oneHub, delay: 10 * time.Millisecond, sides: runAlone,
	},
	{
		Name: "small", About: "100 events a second: latency, and idle CPU before",
		Events: 500, Pairs: 3, live: true, rate: 100, idle: 5 * time.Second, targets: oneHub, sides: runAlone,
	},
	{
		Name: "catchup", About: "an hour's backlog at 1,000 events a second",
		Events: 3_600_000, Pairs: 1, targets: oneHub, sides: runAlone,
	},
	{
		Name: "soak", About: "ten minutes at full load: memory",
		Pairs: 1, live: true, long: 10 * time.Minute, targets: oneHub, sides: runAlone,
	},
	{
		Name: "payload300", About: "one event hub, events of 300 B",
		Payload: "300", Events: 300_000, targets: oneHub, sides: runAgainstFloor,
	},
	{
		Name: "payload4k", About: "one event hub, events of 4 KiB",
		Payload: "4096", Events: 100_000, targets: oneHub, sides: runAgainstFloor,
	},
	{
		Name: "lz4", About: "discard, from a topic compressed with lz4",
		Compression: "lz4", Events: 1_000_000, discard: true, targets: oneSink, sides: runAgainstFloor,
	},
	{
		Name: "zstd", About: "discard, from a topic compressed with zstd",
		Compression: "zstd", Events: 1_000_000, discard: true, targets: oneSink, sides: runAgainstFloor,
	},
	{
		Name: "hostile", About: "discard, with batches among the events that take much memory: at most 300 MiB",
		Events: 200_000, Pairs: 1, hostile: true, discard: true, targets: oneSink, sides: runAlone,
	},
}

// Select returns the scenarios with these names.
func Select(names []string) ([]Scenario, error) {
	if len(names) == 0 {
		names = Default
	}
	var chosen []Scenario
	for _, name := range names {
		if name == All {
			for _, s := range Scenarios {
				if s.long == 0 {
					chosen = append(chosen, s)
				}
			}
			continue
		}
		i := slices.IndexFunc(Scenarios, func(s Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %s", name)
		}
		chosen = append(chosen, Scenarios[i])
	}
	return chosen, nil
}

// Check returns the errors of the options.
func Check(o Options) error {
	var errs []error
	if o.Payload != "" && !slices.Contains(Payloads, o.Payload) {
		errs = append(errs, fmt.Errorf("payload %s: must be one of %s", o.Payload, strings.Join(Payloads, ", ")))
	}
	if _, ok := codecs[o.Compression]; o.Compression != "" && !ok {
		errs = append(errs, fmt.Errorf("compression %s: must be none, lz4 or zstd", o.Compression))
	}
	if o.Pairs < 1 {
		errs = append(errs, fmt.Errorf("pairs %d: must be at least 1", o.Pairs))
	}
	if o.Events < 0 || o.Events > 0 && o.Events < 2*startEvents {
		errs = append(errs, fmt.Errorf("events %d: must be at least %d, or next to nothing is measured", o.Events, 2*startEvents))
	}
	return errors.Join(errs...)
}

// maxRateTime bounds how long events arrive at a scenario's own rate.
const maxRateTime = 30 * time.Second

// adapt applies the options that replace the scenario's own.
func (s *Scenario) adapt(o Options) {
	if o.Events > 0 {
		s.Events = o.Events
		if s.rate > 0 {
			s.Events = min(o.Events, int(s.rate*maxRateTime.Seconds()))
		}
	}
	s.Payload = cmp.Or(o.Payload, s.Payload, payloadTwins)
	s.Compression = cmp.Or(o.Compression, s.Compression, "none")
	if s.Pairs == 0 || o.Pairs < s.Pairs {
		s.Pairs = o.Pairs
	}
}
