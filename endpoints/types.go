package endpoints

import "slices"

// Type is the kind of service behind an endpoint.
type Type string

// The three types of endpoint, in their canonical spelling.
const (
	TypeEventHub   Type = "EventHub"
	TypeServiceBus Type = "ServiceBus"
	TypeEventGrid  Type = "EventGrid"
)

// The five event types, in their canonical spelling.
const (
	TopologyOperation = "TopologyOperation"
	UdfCustom         = "UdfCustom"
	SensorChange      = "SensorChange"
	SpaceChange       = "SpaceChange"
	DeviceMessage     = "DeviceMessage"
)

// typeRules are what a type of endpoint allows, and what its fields mean.
type typeRules struct {
	Type
	// amqp means that connectionString names the namespace, and path an entity in
	// it. Otherwise connectionString is a bare key, and path is the host.
	amqp   bool
	path   string // what path is, in the message that it is missing
	device bool   // DeviceMessage may be its event type
	data   bool   // body may be data
	none   bool   // ordering may be none
	// others is the prefix of Azure's domains of other types' services: see
	// checkIdentityHost.
	others string
}

// rulesByType is everything that differs by type, outside of the sinks.
var rulesByType = []typeRules{
	{
		Type: TypeEventHub, amqp: true, device: true, data: true, none: true,
		path: "the name of the event hub", others: "eventgrid.",
	},
	{
		Type: TypeServiceBus, amqp: true, data: true,
		path: "the name of the Service Bus topic", others: "eventgrid.",
	},
	{
		Type: TypeEventGrid,
		path: "the topic's host name, such as mytopic.westus-1.eventgrid.azure.net", others: "servicebus.",
	},
}

// rules returns the rules of a type. Those of an unknown type allow everything:
// only the type itself is reported.
func (t Type) rules() *typeRules {
	for i := range rulesByType {
		if rulesByType[i].Type == t {
			return &rulesByType[i]
		}
	}
	return &unknownRules
}

var unknownRules = func() typeRules {
	r := rulesByType[0]
	r.Type = ""
	return r
}()

// AMQP reports whether events go to the service over AMQP, as messages with
// properties of their own.
func (t Type) AMQP() bool { return t.rules().amqp }

// Types returns the three endpoint types.
func Types() []Type {
	all := make([]Type, len(rulesByType))
	for i, r := range rulesByType {
		all[i] = r.Type
	}
	return all
}

// EventTypes returns the five event types that an endpoint can subscribe to.
func EventTypes() []string { return slices.Clone(eventTypesField.allowed) }
