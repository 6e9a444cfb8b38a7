package endpoints_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

const plainHub = `{"type":"EventHub","eventTypes":["TopologyOperation"],"path":"other","connectionString":"` + storetest.Conn1 + `"}`

// fields are those of a body, or what is changed in one: nil leaves a field out.
type fields map[string]any

const (
	keyed     = storetest.Conn1
	keyed2    = storetest.Conn2
	namespace = "Endpoint=sb://ns.servicebus.windows.net/"
	deviceHub = ";EntityPath=new"
)

// The good bodies, one of each kind of endpoint.
var (
	hub = fields{
		"type": "EventHub", "eventTypes": []string{"TopologyOperation"}, "path": "new",
		"connectionString": keyed, "secondaryConnectionString": keyed2,
	}
	device = hub.with(fields{
		"eventTypes": []string{"DeviceMessage"}, "connectionString": keyed + deviceHub, "secondaryConnectionString": keyed2 + deviceHub,
	})
	bus  = hub.with(fields{"type": "ServiceBus"})
	grid = hub.with(fields{
		"type": "EventGrid", "path": "new.westus-1.eventgrid.azure.net", "connectionString": storetest.Key1, "secondaryConnectionString": storetest.Key2,
	})
	byIdentity     = fields{"authentication": "identityBased", "connectionString": namespace, "secondaryConnectionString": nil}
	identityHub    = hub.with(byIdentity)
	identityDevice = device.with(byIdentity).with(fields{"connectionString": namespace + deviceHub})
	identityBus    = bus.with(byIdentity)
	identityGrid   = grid.with(byIdentity).with(fields{"connectionString": nil})
)

// with is a copy of f with some fields changed.
func (f fields) with(changes fields) fields {
	all := make(fields, len(f)+len(changes))
	for _, some := range []fields{f, changes} {
		for name, value := range some {
			if value == nil {
				delete(all, name)
				continue
			}
			all[name] = value
		}
	}
	return all
}

func (f fields) body(t testing.TB) string {
	t.Helper()
	b, err := json.Marshal(f)
	storetest.Must(t, err)
	return string(b)
}

// violation is a body that is refused.
type violation struct {
	name    string
	good    fields
	changes fields
	text    string   // the whole body, for what fields can't say
	beside  fields   // what is there already, and makes the body a conflict
	want    []string // field: a part of what is said about it; no other field
}

// requests are the two that a body comes with, by the endpoint that is stored.
var requests = map[string]endpoints.Endpoint{
	"POST": {},
	"PUT":  storetest.Hub("changes", func(e *endpoints.Endpoint) { e.ID = "11111111-1111-4111-8111-111111111111" }),
}

// refuse decodes the body, and returns what is wrong with it.
func (v violation) refuse(t *testing.T, stored endpoints.Endpoint) endpoints.ValidationErrors {
	t.Helper()
	body := v.text
	if body == "" {
		body = v.good.with(v.changes).body(t)
	}
	e, err := endpoints.Decode([]byte(body), stored, endpoints.Options{})
	other := "" // the id of the one that it is in conflict with
	if v.beside != nil && err == nil {
		before, prepareErr := endpoints.DecodeSet([]byte("["+v.beside.body(t)+"]"), nil, endpoints.Options{})
		storetest.Must(t, prepareErr)
		other = before[0].ID
		// The new one is at fault wherever it stands.
		_, err = endpoints.Revise(before, append([]endpoints.Endpoint{e}, before...), endpoints.Options{}, time.Now())
	}
	wrong, ok := errors.AsType[endpoints.ValidationErrors](err)
	if !ok || wrong.Conflict() != (v.beside != nil) {
		t.Fatalf("%v, want violations, a conflict %t", err, v.beside != nil)
	}
	for _, one := range wrong {
		if !strings.Contains(one.Message, other) {
			t.Errorf("%s, want it to name %s", one, other)
		}
	}
	storetest.NoSecret(t, "an error", err.Error())
	return wrong
}

// check compares what was said with what is wrong.
func (v violation) check(t *testing.T, all endpoints.ValidationErrors) {
	t.Helper()
	said := make(map[string]string) // all that is said of a field
	for _, one := range all {
		said[one.Field] += one.Message + "\n"
	}
	wanted := make(map[string]bool)
	for _, want := range v.want {
		field, message, _ := strings.Cut(want, ": ")
		wanted[field] = true
		if text, there := said[field]; !there || !strings.Contains(text, message) {
			t.Errorf("%s: %q is not said: %v", field, message, all)
		}
	}
	for field, text := range said {
		if !wanted[field] {
			t.Errorf("%s is blamed, too: %s", field, text)
		}
	}
}

// Every rule about an endpoint holds for one that is created and for one that
// is changed.
func TestViolations(t *testing.T) {
	for request, stored := range requests {
		t.Run(request, func(t *testing.T) {
			for name, good := range map[string]fields{
				"hub": hub, "device": device, "bus": bus, "grid": grid,
				"identityHub": identityHub, "identityDevice": identityDevice, "identityBus": identityBus, "identityGrid": identityGrid,
				"optional fields": hub.with(fields{
					"name": "n", "body": "Data", "ordering": "NONE", "overflow": "drop", "authentication": "KeyBased",
					"recovery": "CATCHUP", "enabled": false, "startAt": " Now ",
					"filter": "$body.x > 1", "secondaryConnectionString": json.RawMessage("null"),
				}),
				"read-only fields, whatever they hold": hub.with(fields{
					"id": 7, "lastUpdatedUtc": "2020-01-01T00:00:00Z", "status": "Ready", "properties": fields{"a": "b"},
					"seekTo": "nowhere", "seekAt": 5,
				}),
				"pascal case": hub.with(fields{"type": nil, "Type": "eventhub", "path": nil, "Path": "new"}),
			} {
				e, err := endpoints.Decode([]byte(good.body(t)), stored, endpoints.Options{})
				if err != nil || e.ID != stored.ID || !e.LastUpdated.IsZero() || !strings.HasPrefix(e.Path, "new") {
					t.Errorf("good %s: %s with id %q, %v", name, e, e.ID, err)
				}
			}
			for _, v := range violations() {
				t.Run(v.name, func(t *testing.T) { v.check(t, v.refuse(t, stored)) })
			}
		})
	}
}
