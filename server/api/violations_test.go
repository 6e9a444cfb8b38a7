package api

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
)

// fields are those of a body, or what is changed in one: nil leaves a field out.
type fields map[string]any

const (
	keyed     = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + key1
	keyed2    = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=" + key2
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
		"type": "EventGrid", "path": "new.westus-1.eventgrid.azure.net", "connectionString": key1, "secondaryConnectionString": key2,
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
	if err != nil {
		t.Fatal(err)
	}
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

func (v violation) status() int {
	if v.beside != nil {
		return 409
	}
	return 400
}

// refuse sends the body to an API of its own, and gives what it says.
func (v violation) refuse(t *testing.T, op operation) *httptest.ResponseRecorder {
	t.Helper()
	r := newRig(t)
	if v.beside != nil {
		if w := r.do(call{method: "POST", path: "/endpoints", body: v.beside.body(t)}); w.Code != 201 {
			t.Fatalf("%s: what is there already: %s", v.name, w.Body)
		}
	}
	c := call{method: op.method, path: op.path, body: v.text}
	if v.text == "" {
		c.body = v.good.with(v.changes).body(t)
	}
	return r.do(c)
}

// check compares what was said with what is wrong.
func (v violation) check(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code != v.status() {
		t.Fatalf("status %d, want %d: %s", w.Code, v.status(), w.Body)
	}
	e := errorOf(t, w)
	said := make(map[string]string) // all that is said of a field
	for _, d := range e.Details {
		said[d.Field] += d.Message + "\n"
		if !strings.Contains(e.Message, d.Message) {
			t.Errorf("%q is not in the message %q", d.Message, e.Message)
		}
	}
	wanted := make(map[string]bool)
	for _, want := range v.want {
		field, message, _ := strings.Cut(want, ": ")
		wanted[field] = true
		if text, there := said[field]; !there || !strings.Contains(text, message) {
			t.Errorf("%s: %q is not said: %s", field, message, w.Body)
		}
	}
	for field, text := range said {
		if !wanted[field] {
			t.Errorf("%s is blamed, too: %s", field, text)
		}
	}
}

// bodied are the operations that take an endpoint.
func bodied() (ops []operation) {
	for _, op := range contract {
		if op.body {
			ops = append(ops, op)
		}
	}
	return ops
}

// Every rule about an endpoint holds for one that is created and for one that
// is changed.
func TestViolations(t *testing.T) {
	documented := documentedStatuses(t)
	for _, op := range bodied() {
		t.Run(op.method+strings.ReplaceAll(op.path, "/", "_"), func(t *testing.T) {
			for name, good := range map[string]fields{
				"hub": hub, "device": device, "bus": bus, "grid": grid,
				"identityHub": identityHub, "identityDevice": identityDevice, "identityBus": identityBus, "identityGrid": identityGrid,
			} {
				t.Run("good "+name, func(t *testing.T) {
					if w := newRig(t).do(call{method: op.method, path: op.path, body: good.body(t)}); w.Code != op.ok {
						t.Errorf("status %d, want %d: %s", w.Code, op.ok, w.Body)
					}
				})
			}
			for _, v := range violations() {
				t.Run(v.name, func(t *testing.T) {
					v.check(t, v.refuse(t, op))
				})
				if !documented[op.id][v.status()] {
					t.Errorf("status %d is not in the OpenAPI document of %s", v.status(), op.id)
				}
			}
		})
	}
}
