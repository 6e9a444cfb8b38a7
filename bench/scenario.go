package bench

import (
	"fmt"
	"strings"

	"twinegress/endpoints"
)

// Scenario is something to measure.
type Scenario struct {
	Name  string
	About string

	Payload     string // plain, mixed, 300, 4096
	Compression string // none, lz4, zstd
	Events      int
	targets     []target
	discard     bool // the sinks of `run` are the discard sink
	sides       [2]side
}

// side is one of the two that take turns; the ratio is the first's to the second's.
type side struct {
	Label string
	floor bool
}

var runAgainstFloor = [2]side{{Label: "run"}, {Label: "floor", floor: true}}

// target is an endpoint of a scenario. Its name is its hub's or topic's.
type target struct {
	name  string
	typ   endpoints.Type
	types []string
}

// twinTypes are the event types that any endpoint may have.
var twinTypes = []string{endpoints.SensorChange, endpoints.SpaceChange, endpoints.TopologyOperation, endpoints.UdfCustom}

// documentedTypes are those of the service's own examples.
var documentedTypes = []string{endpoints.SensorChange, endpoints.SpaceChange, endpoints.TopologyOperation}

// Scenarios are all there are, in the order they are listed.
var Scenarios = []Scenario{
	{
		Name: "decode", About: "events of no endpoint: polled, decoded, classified, committed",
		Payload: payloadPlain, Events: 1_000_000, discard: true, sides: runAgainstFloor,
	},
	{
		Name: "discard", About: "one endpoint whose sink takes everything at once",
		Payload: payloadPlain, Events: 1_000_000, discard: true, sides: runAgainstFloor,
		targets: []target{{"discard", endpoints.TypeEventHub, twinTypes}},
	},
	{
		Name: "eventhubs", About: "one event hub of 8 partitions",
		Payload: payloadPlain, Events: 300_000, sides: runAgainstFloor,
		targets: []target{{"hub", endpoints.TypeEventHub, twinTypes}},
	},
	{
		Name: "servicebus", About: "one Service Bus topic",
		Payload: payloadPlain, Events: 300_000, sides: runAgainstFloor,
		targets: []target{{"topic", endpoints.TypeServiceBus, twinTypes}},
	},
	{
		Name: "eventgrid", About: "one Event Grid topic",
		Payload: payloadPlain, Events: 300_000, sides: runAgainstFloor,
		targets: []target{{"grid", endpoints.TypeEventGrid, twinTypes}},
	},
	{
		Name: "mixed", About: "the service's four documented endpoints, the whole feed with its DeviceMessages",
		Payload: payloadMixed, Events: 200_000, sides: runAgainstFloor,
		targets: []target{
			{"hub", endpoints.TypeEventHub, documentedTypes},
			{"devices", endpoints.TypeEventHub, []string{endpoints.DeviceMessage}},
			{"topic", endpoints.TypeServiceBus, documentedTypes},
			{"grid", endpoints.TypeEventGrid, documentedTypes},
		},
	},
}

// Select gives the scenarios of these names, or says which there are.
func Select(names []string) ([]Scenario, error) {
	var chosen []Scenario
	var unknown []string
next:
	for _, name := range names {
		for _, s := range Scenarios {
			if s.Name == name {
				chosen = append(chosen, s)
				continue next
			}
		}
		unknown = append(unknown, name)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("there is no scenario %s", strings.Join(unknown, ", "))
	}
	return chosen, nil
}
