package endpoints

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"twinegress/endpoints/filter"
)

// Options are the operator's limits on endpoints.
type Options struct {
	// AllowDevelopmentEmulator accepts UseDevelopmentEmulator=true, with which
	// the SDKs speak plain text to any host. It is off in production.
	AllowDevelopmentEmulator bool
	// IdentityDomains are the hosts of identityBased endpoints, and the domains
	// above them. Nil means those of Azure's clouds.
	IdentityDomains []string
	// CheckHost returns an error if no endpoint may be at host or host:port, as far
	// as its name tells. Nil means anywhere. What the name resolves to is checked
	// when it is connected to.
	CheckHost func(host string) error
}

// maxConnectionString bounds a connection string. It is far longer than any, and
// keeps an endpoint within a Kafka record's size.
const maxConnectionString = 8192

// violations returns what is wrong with one canonical endpoint. Each field is
// checked by itself, so that a mistake in one doesn't hide that in another.
func (e Endpoint) violations(o Options) ValidationErrors {
	var v ValidationErrors
	rules := e.Type.rules()
	if e.ID != "" {
		// uuid.Parse accepts three more forms, but ids are compared as strings.
		if _, err := uuid.Parse(e.ID); err != nil || len(e.ID) != 36 {
			v.add("id", "must be a UUID such as 0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d, or be left out")
		}
	}
	if len(e.Name) > 128 || strings.ContainsFunc(e.Name, isHidden) {
		v.add("name", "must have at most 128 characters, and none that can't be seen")
	}
	for i := range texts {
		texts[i].checkEnum(&v, &e)
		// A rule about two fields follows the first one's.
		if texts[i].name == "authentication" && e.Authentication == AuthenticationIdentity && e.SecondaryConnectionString != "" {
			v.add("secondaryConnectionString", "has no place beside identityBased: there is no second key to try")
		}
	}
	if e.Ordering == OrderingNone && !rules.none {
		v.add("ordering", "none is only possible with type EventHub, whose partitions it is about")
	}
	e.checkEventTypes(&v)
	e.checkFilter(&v)
	e.checkPositions(&v)
	e.checkPath(&v)
	if e.Authentication == AuthenticationIdentity {
		e.checkIdentityHost(&v, o)
	}
	if host := e.Host(); host != "" && o.CheckHost != nil && rules != &unknownRules {
		if err := o.CheckHost(host); err != nil {
			v.add(e.hostField(), err.Error())
		}
	}
	switch {
	case rules == &unknownRules: // reported above; the type's own rules aren't known
		if e.ConnectionString == "" {
			v.add("connectionString", "is required")
		}
	case rules.amqp:
		e.checkConnectionStrings(&v, o)
	case e.Authentication != AuthenticationIdentity:
		e.checkKeys(&v)
	case e.ConnectionString != "":
		v.add("connectionString", "has no place beside identityBased: for EventGrid it is a key, and path says where the topic is")
	}
	if e.Body == BodyData && !rules.data {
		v.add("body", "data is not possible with type EventGrid, which takes whole events only")
	}
	return v
}

func (e Endpoint) checkEventTypes(v *ValidationErrors) {
	if len(e.EventTypes) == 0 {
		v.add("eventTypes", "is required: one or more of "+eventTypesField.list())
	}
	reported := map[string]bool{}
	for i, t := range e.EventTypes {
		switch {
		case reported[t]:
		case !slices.Contains(eventTypesField.allowed, t):
			reported[t] = true
			v.add("eventTypes", "unknown event type"+quoted(t)+"; allowed are "+eventTypesField.list())
		case slices.Contains(e.EventTypes[:i], t):
			reported[t] = true
			v.add("eventTypes", t+" is listed more than once")
		}
	}
	if !slices.Contains(e.EventTypes, DeviceMessage) {
		return
	}
	if !e.Type.rules().device {
		v.add("eventTypes", "DeviceMessage is only possible with type EventHub")
	}
	if slices.ContainsFunc(e.EventTypes, func(t string) bool { return t != DeviceMessage }) {
		v.add("eventTypes", "DeviceMessage must be alone: give the other event types an endpoint of their own")
	}
}

func (e Endpoint) checkFilter(v *ValidationErrors) {
	if e.Filter == "" {
		return
	}
	if _, err := filter.Parse(e.Filter); err != nil {
		v.add("filter", err.Error())
	}
}

func (e Endpoint) checkPath(v *ValidationErrors) {
	switch rules := e.Type.rules(); {
	case e.Path == "":
		v.add("path", "is required: "+rules.path)
	case rules == &unknownRules:
	case rules.amqp:
		if err := checkEntity(e.Path); err != nil {
			v.add("path", err.Error())
		}
	case strings.ContainsAny(e.Path, "/?#@"):
		v.add("path", "must be the topic's host name alone, without https:// and without /api/events")
	default:
		if err := checkHost(strings.ToLower(e.Path)); err != nil {
			v.add("path", "must be the topic's host name, such as mytopic.westus-1.eventgrid.azure.net: "+err.Error())
		}
	}
}

// checkKeys checks the keys of Event Grid, which are bare.
func (e Endpoint) checkKeys(v *ValidationErrors) {
	for _, f := range []struct {
		field, key string
		required   bool
	}{
		{"connectionString", e.ConnectionString, true},
		{"secondaryConnectionString", e.SecondaryConnectionString, false},
	} {
		if f.key == "" {
			if f.required {
				v.add(f.field, "is required: the topic's access key, by itself")
			}
			continue
		}
		if len(f.key) > maxConnectionString {
			v.add(f.field, fmt.Sprintf("must have at most %d characters", maxConnectionString))
		} else if err := checkKey(f.key); err != nil {
			v.add(f.field, "for EventGrid this is the topic's access key, by itself: it "+err.Error())
		}
	}
}

// checkConnectionStrings checks those of EventHub and ServiceBus.
func (e Endpoint) checkConnectionStrings(v *ValidationErrors, o Options) {
	primary, ok1 := e.checkConnectionString(v, o, "connectionString", e.ConnectionString)
	if e.SecondaryConnectionString == "" || e.Authentication == AuthenticationIdentity {
		return
	}
	secondary, ok2 := e.checkConnectionString(v, o, "secondaryConnectionString", e.SecondaryConnectionString)
	if !ok1 || !ok2 {
		return
	}
	// Failover sends the same batch with the other key: at another host, it would
	// split the stream in two unnoticed.
	if primary.Host != secondary.Host {
		v.add("secondaryConnectionString", fmt.Sprintf(
			"must name the same namespace as connectionString: %s is not %s", secondary.Host, primary.Host))
	}
	// With a path, each has been compared with it.
	if e.Path == "" && primary.EntityPath != "" && secondary.EntityPath != "" && !strings.EqualFold(primary.EntityPath, secondary.EntityPath) {
		v.add("secondaryConnectionString", "must name the same EntityPath as connectionString")
	}
}

func (e Endpoint) checkConnectionString(v *ValidationErrors, o Options, field, s string) (ConnectionString, bool) {
	if len(s) > maxConnectionString {
		v.add(field, fmt.Sprintf("must have at most %d characters", maxConnectionString))
		return ConnectionString{}, false
	}
	if s == "" {
		form := "Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…"
		if e.Authentication == AuthenticationIdentity {
			form = "Endpoint=sb://NAMESPACE/, without keys"
		}
		v.add(field, "is required: "+form)
		return ConnectionString{}, false
	}
	cs, faults := e.parse(s)
	if len(faults) > 0 {
		v.add(field, "is not a connection string: "+strings.Join(faults, "; "))
	}
	if cs.UseDevelopmentEmulator && !o.AllowDevelopmentEmulator {
		v.add(field, "UseDevelopmentEmulator=true turns encryption off and is not allowed here; "+
			"the operator can allow it with endpoints.allowDevelopmentEmulator")
	}
	switch {
	case cs.faultyEntity:
	case cs.EntityPath == "" && slices.Contains(e.EventTypes, DeviceMessage):
		v.add(field, "EntityPath is mandatory for DeviceMessage, and must be the same as path")
	case cs.EntityPath != "" && e.Path != "" && !strings.EqualFold(cs.EntityPath, e.Path): // Azure's names of entities have no case
		v.add(field, "EntityPath must be the same as path, but for upper and lower case")
	}
	return cs, len(faults) == 0
}

// checkEnum adds a violation if the field is an enumeration without this value.
func (f *field) checkEnum(v *ValidationErrors, e *Endpoint) {
	value := f.of(e).String()
	if f.allowed == nil || slices.Contains(f.allowed, value) {
		return
	}
	if value == "" {
		v.add(f.name, "is required: one of "+f.list())
		return
	}
	v.add(f.name, "unknown value"+quoted(value)+"; allowed are "+f.list())
}

// list returns the allowed values, for a message.
func (f *field) list() string { return strings.Join(f.allowed, ", ") }

// quoted returns ` "s"` for a word, and "" for anything else, which may be a key
// in the wrong field.
func quoted(s string) string {
	if q := quotable(s); q == s && s != "" {
		return ` "` + s + `"`
	}
	return ""
}

// quotable returns s if it is one or more short words, else a stand-in.
func quotable(s string) string {
	if len(s) > 32 || strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-_. ", r) }) {
		return "…"
	}
	return s
}
