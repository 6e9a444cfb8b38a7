package endpoints

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

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
	// OverflowBlock holds back the intake until there is room: nothing is
	// lost, and everything else waits too. The default.
	OverflowBlock Overflow = "block"
	// OverflowDrop gives this endpoint's events up instead, and counts them.
	OverflowDrop Overflow = "drop"
)

// Authentication says how an endpoint's service knows who sends.
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
// came out of a [Store] shares that slice with others. The
// connection strings are the user's own bytes, in the clear; everything that
// prints an Endpoint masks them.
type Endpoint struct {
	// ID is a UUID in its canonical form. It labels metrics and dead letters
	// and must therefore survive restarts: see Prepare.
	ID string
	// Name is optional and, without an explicit ID, what the ID is made of.
	Name string
	Type Type
	// EventTypes is never empty and holds no repeats.
	EventTypes []string
	// ConnectionString is the primary: for EventHub and ServiceBus what
	// ParseConnectionString reads, for EventGrid the bare key.
	ConnectionString string
	// SecondaryConnectionString is optional: what to try once the primary's
	// key is refused. It names the same place.
	SecondaryConnectionString string
	// Path is the hub's or the Service Bus topic's name; for EventGrid the
	// topic's host name.
	Path           string
	Authentication Authentication
	Body           Body
	Ordering       Ordering
	Overflow       Overflow
	// Filter is the source of an expression that an event must satisfy besides
	// its type. Empty: there is none.
	Filter string
	// LastUpdated is when the endpoint came to be as it is, in UTC. It is no
	// part of the endpoint's identity, and its store's alone to set.
	LastUpdated time.Time
}

// EventTypes returns the five event types that an endpoint can subscribe to.
func EventTypes() []string {
	return []string{TopologyOperation, UdfCustom, SensorChange, SpaceChange, DeviceMessage}
}

// Types returns the three endpoint types.
func Types() []Type { return []Type{TypeEventHub, TypeServiceBus, TypeEventGrid} }

// Host is where the endpoint lives, with the port if one is given: the host of
// the primary connection string, or the path of an Event Grid topic. It is
// empty for an endpoint that isn't valid.
func (e Endpoint) Host() string {
	if e.Type == TypeEventGrid {
		return strings.ToLower(e.Path)
	}
	cs, faults := e.parse(e.ConnectionString)
	if len(faults) > 0 {
		return ""
	}
	return cs.Host
}

// parse reads one of the connection strings of an EventHub or a ServiceBus: what
// is right of it, and everything that is wrong.
func (e Endpoint) parse(s string) (cs ConnectionString, faults []string) {
	if e.Authentication == AuthenticationIdentity {
		return parseKeyless(s)
	}
	return parseKeyed(s)
}

// Equal reports whether two endpoints mean the same: everything but
// LastUpdated, and the order of their event types.
func (e Endpoint) Equal(o Endpoint) bool {
	if len(e.EventTypes) != len(o.EventTypes) {
		return false
	}
	for _, t := range e.EventTypes {
		if !slices.Contains(o.EventTypes, t) {
			return false
		}
	}
	return e.ID == o.ID && e.Name == o.Name && e.Type == o.Type &&
		e.ConnectionString == o.ConnectionString &&
		e.SecondaryConnectionString == o.SecondaryConnectionString &&
		e.Path == o.Path && e.Authentication == o.Authentication && e.Body == o.Body &&
		e.Ordering == o.Ordering && e.Overflow == o.Overflow && e.Filter == o.Filter
}

// ETag is a strong entity tag, with its quotes: it changes with everything
// that a user can change, the secrets included, and is the same in every copy
// of the process. LastUpdated has no part in it.
//
// Nobody learns a key from it: it is a hash, cut short, and a key is far too
// random to be guessed at.
func (e Endpoint) ETag() string {
	e = e.canonical()
	h := sha256.New()
	for _, s := range append([]string{
		e.ID, e.Name, string(e.Type), e.ConnectionString, e.SecondaryConnectionString, e.Path,
		string(e.Authentication), string(e.Body), string(e.Ordering), string(e.Overflow), e.Filter,
	}, e.EventTypes...) {
		// With its length before it, no two lists make the same bytes.
		_, _ = fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// identical is Equal, and the order of the event types is the same too.
func (e Endpoint) identical(o Endpoint) bool {
	return slices.Equal(e.EventTypes, o.EventTypes) && e.Equal(o)
}

// Clone returns a copy that shares nothing with e.
func (e Endpoint) Clone() Endpoint {
	e.EventTypes = slices.Clone(e.EventTypes)
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

// canonical returns e with canonical spellings and defaults filled in. A value
// that matches nothing stays as it is, for the validation to name.
func (e Endpoint) canonical() Endpoint {
	e = e.Clone()
	// White space around a pasted value, a secret file's final newline above
	// all, is never part of it.
	for _, s := range []*string{&e.ID, &e.Name, &e.ConnectionString, &e.SecondaryConnectionString, &e.Path} {
		*s = strings.TrimSpace(*s)
	}
	// Not before a filter: errors in it name the column.
	e.Filter = strings.TrimRightFunc(e.Filter, unicode.IsSpace)
	e.ID = strings.ToLower(e.ID)
	e.Type = fold(e.Type, Types()...)
	for i, t := range e.EventTypes {
		e.EventTypes[i] = fold(t, EventTypes()...)
	}
	e.Authentication = fold(orDefault(e.Authentication, AuthenticationKey), AuthenticationKey, AuthenticationIdentity)
	e.Body = fold(orDefault(e.Body, BodyEnvelope), BodyEnvelope, BodyData)
	e.Ordering = fold(orDefault(e.Ordering, OrderingPartition), OrderingPartition, OrderingNone)
	e.Overflow = fold(orDefault(e.Overflow, OverflowBlock), OverflowBlock, OverflowDrop)
	return e
}

// fold returns the canonical value that s spells, or s.
func fold[S ~string](s S, canonical ...S) S {
	for _, c := range canonical {
		// Without regard to ASCII's case: EqualFold takes an ſ for an s as well.
		if t := strings.TrimSpace(string(s)); len(t) == len(c) && strings.EqualFold(t, string(c)) {
			return c
		}
	}
	return s
}

func orDefault[S ~string](s, def S) S {
	if s == "" {
		return def
	}
	return s
}
