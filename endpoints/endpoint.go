package endpoints

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Body says what of an event a message carries.
type Body string

const (
	// BodyEnvelope sends the whole event. The default.
	BodyEnvelope Body = "envelope"
	// BodyData sends only the event's data, as the v1 service did to Event
	// Hubs and Service Bus.
	BodyData Body = "data"
)

// Ordering says whether the order of a Kafka partition is kept.
type Ordering string

const (
	// OrderingPartition keeps the order of each Kafka partition. The default.
	OrderingPartition Ordering = "partition"
	// OrderingNone leaves the balancing to the service.
	OrderingNone Ordering = "none"
)

// Overflow says what happens when an endpoint is slower than its events.
type Overflow string

const (
	// OverflowBlock blocks the intake until there is room: nothing is lost, and
	// every other endpoint waits too. The default.
	OverflowBlock Overflow = "block"
	// OverflowDrop drops this endpoint's events instead, and counts them.
	OverflowDrop Overflow = "drop"
)

// Recovery says what becomes of the events that an endpoint can't take when they
// come: while it backs off, is paused, or is slower than its events.
type Recovery string

const (
	// RecoveryDrop drops the events of a back-off and a pause, as the v1 service
	// did, and leaves those of a slow endpoint to its Overflow. The default.
	RecoveryDrop Recovery = "drop"
	// RecoveryCatchUp reads them from Kafka again once the endpoint can take them.
	RecoveryCatchUp Recovery = "catchUp"
)

// Authentication says how a sender authenticates at an endpoint's service.
type Authentication string

const (
	// AuthenticationKey is by the keys of the connection strings. The default.
	AuthenticationKey Authentication = "keyBased"
	// AuthenticationIdentity is by this process's own identity at Entra ID:
	// there is no key to keep, to leak or to rotate.
	AuthenticationIdentity Authentication = "identityBased"
)

// Endpoint is one destination, as a user configured it.
//
// It is a value: copy it, but see [Endpoint.Clone] for its slice; one that
// came out of a [Store] shares that slice with others. The connection strings
// are the user's own, in the clear; everything that prints an Endpoint masks
// them.
//
// A field is declared here, and compared in sameOthers: decoding, encoding,
// defaults, masking, encryption, the ETag, [Diff] and the API's resource follow
// from the tags. Further rules about values are in validate.go.
//
//   - json, enum, default, readOnly, doc, example, …: as in the OpenAPI
//     document. An enum's values match without regard to case; a field that is
//     readOnly is the store's to set, and ignored in a body.
//   - endpoint:"secret": masked wherever an endpoint is shown, and encrypted
//     where it is stored.
//   - endpoint:"routing": selects events, or says how they are queued. A change of
//     any other field needs a new connection.
//   - endpoint:"sparse": left out of the ETag while it is the default. A field that
//     is new in a version has it, or else every ETag changed with the upgrade of a
//     copy. (Stores leave out every default: a version that doesn't know a field
//     reads what they wrote until somebody uses it.)
type Endpoint struct {
	// ID is a UUID in its canonical form. It labels metrics and dead letters
	// and must therefore survive restarts: see Prepare.
	ID string `json:"id" format:"uuid" readOnly:"true"`
	// Name is optional and, without an explicit ID, what the ID is made of.
	Name string `json:"name,omitempty" endpoint:"routing" maxLength:"128" doc:"Yours to choose; no other endpoint may have it"`
	Type Type   `json:"type" enum:"EventHub,ServiceBus,EventGrid"`
	// EventTypes is never empty and holds no repeats.
	EventTypes []string `json:"eventTypes" endpoint:"routing" minItems:"1" uniqueItems:"true" enum:"TopologyOperation,UdfCustom,SensorChange,SpaceChange,DeviceMessage" doc:"DeviceMessage only with EventHub, alone, and on one endpoint at most"`
	// ConnectionString is the primary: for EventHub and ServiceBus what
	// ParseConnectionString reads, for EventGrid the bare key.
	ConnectionString string `json:"connectionString,omitempty" endpoint:"secret" doc:"With EventGrid the topic's key, by itself" example:"Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=POLICY;SharedAccessKey=KEY"`
	// SecondaryConnectionString is optional: what to try once the primary's
	// key is refused. It names the same host.
	SecondaryConnectionString string `json:"secondaryConnectionString,omitempty" endpoint:"secret" doc:"The same place with another key, which is tried once the primary is refused"`
	// Path is the hub's or the Service Bus topic's name; for EventGrid the
	// topic's host name.
	Path           string         `json:"path" doc:"The event hub's or the Service Bus topic's name; with EventGrid the topic's host name" example:"EVENT_HUB"`
	Authentication Authentication `json:"authentication,omitempty" enum:"keyBased,identityBased" default:"keyBased" doc:"By the keys of the connection strings, or by this process's own identity"`
	Body           Body           `json:"body,omitempty" enum:"envelope,data" default:"envelope" doc:"What of an event a message carries: all of it, or its data, as the v1 service sent"`
	Ordering       Ordering       `json:"ordering,omitempty" enum:"partition,none" default:"partition" doc:"Whether the order of each Kafka partition is kept"`
	Overflow       Overflow       `json:"overflow,omitempty" endpoint:"routing" enum:"block,drop" default:"block" doc:"What happens when the endpoint is slower than its events: everything waits, or its events are dropped"`
	// Filter is the source of an expression that an event must satisfy besides
	// its type. Empty: there is none.
	Filter   string   `json:"filter,omitempty" endpoint:"routing" doc:"What an event must satisfy besides its type, such as: type = 'SensorChange' AND AS_NUMBER($body.Value) > 25"`
	Recovery Recovery `json:"recovery,omitempty" endpoint:"routing,sparse" enum:"drop,catchUp" default:"drop" doc:"What becomes of events that the endpoint can't take, in a back-off for instance: they are dropped, or read from Kafka again once it can. With catchUp, overflow has no effect"`
	// Enabled is a pointer so that an endpoint which doesn't mention it is enabled:
	// see Disabled. It is never nil in a set of a Store.
	Enabled *bool `json:"enabled,omitempty" endpoint:"routing,sparse" default:"true" doc:"false pauses the endpoint. With recovery catchUp it goes on where it was, with drop its events are dropped meanwhile"`
	// StartAt is where the endpoint started when it was created: StartNow, Earliest
	// or a time.
	StartAt string `json:"startAt,omitempty" endpoint:"routing,sparse" default:"now" doc:"Where a new endpoint starts: now, earliest (everything that Kafka still has), or a time such as 2026-01-31T08:00:00Z. It can't be changed afterwards: a seek moves an endpoint"`
	// SeekTo and SeekAt are the last seek that was ordered: where it leads to, which is
	// Earliest, Latest, Cancel or a time, and when it was ordered. Together they
	// identify it: who owns a partition applies each seek once there.
	SeekTo string `json:"seekTo,omitempty" readOnly:"true" endpoint:"routing,sparse" doc:"Where the last seek leads to: earliest, latest, cancel or a time"`
	SeekAt string `json:"seekAt,omitempty" readOnly:"true" endpoint:"routing,sparse" doc:"When that seek was ordered; 1970 where it follows from startAt in the endpoints file"`
	// LastUpdated is when the endpoint came to be as it is, in UTC. It is no
	// part of the endpoint's identity, and its store's alone to set.
	LastUpdated time.Time `json:"lastUpdatedUtc" readOnly:"true"`
}

// Host returns where the endpoint lives, with the port if one is given: the
// host of the primary connection string, or the path of an Event Grid topic. It
// is empty for an endpoint that isn't valid.
func (e Endpoint) Host() string {
	if !e.Type.rules().amqp {
		return strings.ToLower(e.Path)
	}
	cs, faults := e.parse(e.ConnectionString)
	if len(faults) > 0 {
		return ""
	}
	return cs.Host
}

// hostField returns the field that has the host.
func (e Endpoint) hostField() string {
	if e.Type.rules().amqp {
		return "connectionString"
	}
	return "path"
}

// parse parses one of the connection strings of an EventHub or a ServiceBus, and
// returns its valid parts and everything that is wrong.
func (e Endpoint) parse(s string) (cs ConnectionString, faults []string) {
	if e.Authentication == AuthenticationIdentity {
		return parseKeyless(s)
	}
	return parseKeyed(s)
}

// boundTo returns the host that an endpoint's keys may be sent to, or "" if the
// connection strings contain it. It is encrypted with the keys: a user who can
// write to a store, but has no key of the ring, must not be able to have a secret
// sent elsewhere. The endpoint needn't be canonical.
func (e Endpoint) boundTo() string {
	if !Type(fold(string(e.Type), typeField.allowed)).AMQP() {
		return strings.ToLower(strings.TrimSpace(e.Path))
	}
	return ""
}

// String returns one line for people, without secrets.
func (e Endpoint) String() string {
	name := e.ID
	if e.Name != "" {
		name = e.Name + " (" + e.ID + ")"
	}
	return fmt.Sprintf("%s %s %s/%s %s", e.Type, name, e.Host(), e.Path, strings.Join(e.EventTypes, ","))
}

// Disabled reports whether the endpoint is paused: enabled is false.
func (e Endpoint) Disabled() bool { return e.Enabled != nil && !*e.Enabled }

// Clone returns a copy that shares nothing with e.
func (e Endpoint) Clone() Endpoint {
	e.EventTypes = slices.Clone(e.EventTypes)
	if e.Enabled != nil {
		e.Enabled = new(*e.Enabled)
	}
	return e
}

// Clone returns a deep copy of a set, so that its receiver may keep and change it.
func Clone(eps []Endpoint) []Endpoint {
	out := make([]Endpoint, len(eps))
	for i, e := range eps {
		out[i] = e.Clone()
	}
	return out
}
