package endpoints

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"twinegress/endpoints/filter"
)

// Options are an operator's decisions about what an endpoint may be.
type Options struct {
	// AllowDevelopmentEmulator accepts UseDevelopmentEmulator=true, with which
	// the SDKs speak plain text to any host. Off in production.
	AllowDevelopmentEmulator bool
	// IdentityDomains are where an identityBased endpoint may be: at these
	// hosts, or anywhere below them. Nil: AzureDomains.
	IdentityDomains []string
}

// maxConnectionString is far more than any has, and keeps an endpoint within
// what a Kafka record takes.
const maxConnectionString = 8192

// Validate reports everything that is wrong with one endpoint, whatever the
// spelling of its values, as ValidationErrors; or nil. An ID may be absent.
func (e Endpoint) Validate(o Options) error {
	return e.canonical().violations(o).err()
}

// Prepare makes a set fit for use: canonical spellings, defaults and an id for
// every endpoint, all of it valid. Or it reports everything that is wrong, as
// ValidationErrors. It leaves eps alone.
//
// An endpoint without an id gets one that is the same after every restart and
// in every copy of the process: made of its name, else of its type, host and
// path, and its rank among those that agree in all three.
func Prepare(eps []Endpoint, o Options) ([]Endpoint, error) {
	return prepare(eps, make([]ValidationErrors, len(eps)), o)
}

// prepare is Prepare for endpoints of which something is known to be wrong
// already: what a decoder said about a field replaces what validation would.
func prepare(eps []Endpoint, known []ValidationErrors, o Options) ([]Endpoint, error) {
	out := make([]Endpoint, len(eps))
	for i, e := range eps {
		out[i] = e.canonical()
	}
	// Validation comes first, so that a faulty id is reported as the user's
	// and never overwritten.
	var all ValidationErrors
	for i, e := range out {
		for _, v := range known[i].and(e.violations(o)) {
			v.Endpoint = label(i, e)
			all = append(all, v)
		}
	}
	assignIDs(out)
	all = append(all, setViolations(out, func(int) bool { return true }, label)...)
	if err := all.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// label names an endpoint of a set so that its user finds it in the file.
func label(i int, e Endpoint) string {
	if e.Name == "" {
		return fmt.Sprintf("endpoints[%d]", i)
	}
	return fmt.Sprintf("endpoints[%d] (%s)", i, quotable(e.Name))
}

// violations of one canonical endpoint. One function a field, so that a
// mistake in one doesn't hide that in another.
func (e Endpoint) violations(o Options) ValidationErrors {
	var v ValidationErrors
	if e.ID != "" {
		// uuid.Parse takes three more forms; ids are compared as strings.
		if _, err := uuid.Parse(e.ID); err != nil || len(e.ID) != 36 {
			v.add("id", "must be a UUID such as 0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d, or be left out")
		}
	}
	if len(e.Name) > 128 || strings.ContainsFunc(e.Name, isControl) {
		v.add("name", "must have at most 128 characters and no control characters")
	}
	oneOf(&v, "type", e.Type, Types()...)
	oneOf(&v, "authentication", e.Authentication, AuthenticationKey, AuthenticationIdentity)
	if e.Authentication == AuthenticationIdentity && e.SecondaryConnectionString != "" {
		v.add("secondaryConnectionString", "has no place beside identityBased: there is no second key to try")
	}
	oneOf(&v, "body", e.Body, BodyEnvelope, BodyData)
	oneOf(&v, "ordering", e.Ordering, OrderingPartition, OrderingNone)
	oneOf(&v, "overflow", e.Overflow, OverflowBlock, OverflowDrop)
	if e.Ordering == OrderingNone && (e.Type == TypeServiceBus || e.Type == TypeEventGrid) {
		v.add("ordering", "none is only possible with type EventHub, whose partitions it is about")
	}
	e.checkEventTypes(&v)
	e.checkFilter(&v)
	e.checkPath(&v)
	if e.Authentication == AuthenticationIdentity {
		e.checkIdentityHost(&v, o)
	}
	switch e.Type {
	case TypeEventGrid:
		if e.Authentication == AuthenticationIdentity {
			if e.ConnectionString != "" {
				v.add("connectionString", "has no place beside identityBased: for EventGrid it is a key, and path says where the topic is")
			}
		} else {
			e.checkKeys(&v)
		}
		if e.Body == BodyData {
			v.add("body", "data is not possible with type EventGrid, which takes whole events only")
		}
	case TypeEventHub, TypeServiceBus:
		e.checkConnectionStrings(&v, o)
	default: // the type is reported; what follows from it can't be said
		if e.ConnectionString == "" {
			v.add("connectionString", "is required")
		}
	}
	return v
}

func (e Endpoint) checkEventTypes(v *ValidationErrors) {
	if len(e.EventTypes) == 0 {
		v.add("eventTypes", "is required: one or more of "+strings.Join(EventTypes(), ", "))
	}
	reported := map[string]bool{}
	for i, t := range e.EventTypes {
		switch {
		case reported[t]:
		case !slices.Contains(EventTypes(), t):
			reported[t] = true
			v.add("eventTypes", "unknown event type"+quoted(t)+"; allowed are "+strings.Join(EventTypes(), ", "))
		case slices.Contains(e.EventTypes[:i], t):
			reported[t] = true
			v.add("eventTypes", t+" is listed more than once")
		}
	}
	if !slices.Contains(e.EventTypes, DeviceMessage) {
		return
	}
	if e.Type == TypeServiceBus || e.Type == TypeEventGrid {
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
	switch {
	case e.Path == "" && e.Type == TypeEventGrid:
		v.add("path", "is required: the topic's host name, such as mytopic.westus-1.eventgrid.azure.net")
	case e.Path == "" && e.Type == TypeServiceBus:
		v.add("path", "is required: the name of the Service Bus topic")
	case e.Path == "":
		v.add("path", "is required: the name of the event hub")
	case e.Type == TypeEventGrid:
		if strings.ContainsAny(e.Path, "/?#@") {
			v.add("path", "must be the topic's host name alone, without https:// and without /api/events")
		} else if err := checkHost(strings.ToLower(e.Path)); err != nil {
			v.add("path", "must be the topic's host name, such as mytopic.westus-1.eventgrid.azure.net: "+err.Error())
		}
	case e.Type == TypeEventHub || e.Type == TypeServiceBus:
		if err := checkEntity(e.Path); err != nil {
			v.add("path", err.Error())
		}
	}
}

// checkKeys is for Event Grid, where connectionString is the bare key.
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

// checkConnectionStrings is for EventHub and ServiceBus.
func (e Endpoint) checkConnectionStrings(v *ValidationErrors, o Options) {
	primary, ok1 := e.checkConnectionString(v, o, "connectionString", e.ConnectionString)
	if e.SecondaryConnectionString == "" || e.Authentication == AuthenticationIdentity {
		return
	}
	secondary, ok2 := e.checkConnectionString(v, o, "secondaryConnectionString", e.SecondaryConnectionString)
	if !ok1 || !ok2 {
		return
	}
	// Failover sends the very same batch with the other key: to another place,
	// it would split a stream in two without anyone noticing.
	if primary.Host != secondary.Host {
		v.add("secondaryConnectionString", fmt.Sprintf(
			"must name the same namespace as connectionString: %s is not %s", secondary.Host, primary.Host))
	}
	// With a path, each was compared to it already.
	if e.Path == "" && primary.EntityPath != "" && secondary.EntityPath != "" && primary.EntityPath != secondary.EntityPath {
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
	case cs.EntityPath != "" && e.Path != "" && cs.EntityPath != e.Path:
		v.add(field, "EntityPath must be the same as path")
	}
	return cs, len(faults) == 0
}

// setViolations is what only a set can get wrong. Every endpoint has its id. Of
// two that are in conflict the one that is new is at fault; of two of the same
// kind, the later one.
func setViolations(eps []Endpoint, isNew func(i int) bool, label func(int, Endpoint) string) ValidationErrors {
	var v ValidationErrors
	firstDevice, firstWith := -1, make(map[string]int, len(eps))
	named := make(map[string]int)
	conflict := func(i, with int, field, before, after string) {
		v = append(v, Violation{
			Endpoint: label(i, eps[i]), Field: field,
			Message: before + label(with, eps[with]) + after, Conflict: true,
		})
	}
	order := make([]int, 0, len(eps))
	for _, pass := range []bool{false, true} {
		for i := range eps {
			if isNew(i) == pass {
				order = append(order, i)
			}
		}
	}
	for _, i := range order {
		e := eps[i]
		if slices.Contains(e.EventTypes, DeviceMessage) {
			if firstDevice >= 0 {
				conflict(i, firstDevice, "eventTypes", "only one endpoint may take DeviceMessage, and ", " does")
			} else {
				firstDevice = i
			}
		}
		if first, taken := named[e.Name]; taken {
			conflict(i, first, "name", "is already that of ", "")
			continue // the id was made of it, or copied along with it
		}
		if e.Name != "" {
			named[e.Name] = i
		}
		if first, taken := firstWith[e.ID]; taken {
			conflict(i, first, "id", "is already that of ", "")
			continue
		}
		firstWith[e.ID] = i
	}
	return v
}

// idSpace is the namespace of ids made of names and places. Never change it:
// every derived id, and with it every metric's label, would change.
var idSpace = uuid.MustParse("5b0a1bd4-4f0c-5d0e-9c39-7f2f4d1f6a11")

func assignIDs(eps []Endpoint) {
	explicit := make(map[string]bool, len(eps))
	for _, e := range eps {
		explicit[e.ID] = true
	}
	rank := map[string]int{}
	for i, e := range eps {
		if e.ID != "" {
			continue
		}
		of := "name\x00" + e.Name
		if e.Name == "" {
			of = strings.Join([]string{"place", string(e.Type), e.Host(), e.Path}, "\x00")
		}
		// An id of this kind may have been written down, as a store does when
		// it writes its file, and its endpoint renamed or moved since.
		for eps[i].ID == "" || explicit[eps[i].ID] {
			// A zero byte can't be part of any of the pieces, so no two
			// different tuples make the same string.
			ranked := of
			if e.Name == "" || rank[of] > 0 {
				ranked = fmt.Sprintf("%s\x00%d", of, rank[of])
			}
			rank[of]++
			eps[i].ID = uuid.NewSHA1(idSpace, []byte(ranked)).String()
		}
	}
}

func oneOf[S ~string](v *ValidationErrors, field string, value S, allowed ...S) {
	if slices.Contains(allowed, value) {
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	list := strings.Join(names, ", ")
	if value == "" {
		v.add(field, "is required: one of "+list)
		return
	}
	v.add(field, "unknown value"+quoted(string(value))+"; allowed are "+list)
}

// quoted is ` "s"` for a word, and nothing for anything else: whoever puts a
// value into the wrong field may have put a key there.
func quoted(s string) string {
	if q := quotable(s); q == s && s != "" {
		return ` "` + s + `"`
	}
	return ""
}

// quotable returns s if it is a short word or some of them, else a stand-in.
func quotable(s string) string {
	if len(s) > 32 || strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-_. ", r) }) {
		return "…"
	}
	return s
}

var errNotString = errors.New("must be a string")
