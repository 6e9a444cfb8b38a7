package api

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"twinegress/endpoints/storetest"
	"twinegress/sinks"
)

const newHub = `{"type":"EventHub","eventTypes":["TopologyOperation"],"path":"other",` +
	`"connectionString":"` + storetest.Conn1 + `"}`

// operation is one of the API, with a request that succeeds.
type operation struct {
	id           string // as in the OpenAPI document
	method, path string
	ok           int
	body         bool // takes an endpoint
	write        bool
	byID         bool
	conditional  bool // takes If-Match
	events       bool // needs the right to see them
	query        string
	sends        string // a body that is no endpoint
}

var contract = []operation{
	{id: "createEndpoint", method: "POST", path: Base + "/endpoints", ok: 201, body: true, write: true},
	{id: "createEndpoint", method: "POST", path: "/endpoints", ok: 201, body: true, write: true},
	{id: "listEndpoints", method: "GET", path: Base + "/endpoints", ok: 200},
	{id: "getEndpoint", method: "GET", path: Base + "/endpoints/" + hubID, ok: 200, byID: true},
	{id: "updateEndpoint", method: "PUT", path: Base + "/endpoints/" + hubID, ok: 204, body: true, write: true, byID: true, conditional: true},
	{id: "deleteEndpoint", method: "DELETE", path: Base + "/endpoints/" + hubID, ok: 204, write: true, byID: true, conditional: true},
	{id: "retryEndpoint", method: "POST", path: Base + "/endpoints/" + hubID + "/retry", ok: 200, write: true, byID: true},
	{id: "seekEndpoint", method: "POST", path: Base + "/endpoints/" + hubID + "/seek", ok: 202, write: true, byID: true, sends: `{"to":"earliest"}`},
	{id: "seekEndpoint", method: "POST", path: Base + "/endpoints/" + hubID + "/seek", ok: 200, write: true, byID: true, sends: `{"to":"earliest"}`, query: "?dryRun=true"},
	{id: "getStatus", method: "GET", path: Base + "/status", ok: 200},
	{id: "getFleet", method: "GET", path: Base + "/fleet", ok: 200},
	{id: "getEndpointLog", method: "GET", path: Base + "/endpoints/" + hubID + "/log", ok: 200, byID: true},
	{id: "listDeadLetters", method: "GET", path: Base + "/deadletters", ok: 200},
	{id: "countDeadLetters", method: "GET", path: Base + "/deadletters/count", ok: 200},
	{id: "getDeadLetter", method: "GET", path: Base + "/deadletters/0/7", ok: 200, events: true},
	{id: "getEndpointStatus", method: "GET", path: Base + "/endpoints/" + hubID + "/status", ok: 200, byID: true},
	{id: "tapEndpoint", method: "GET", path: Base + "/endpoints/" + hubID + "/tap", ok: 200, byID: true, events: true, query: "?for=1ms"},
}

// call is the operation's request that succeeds.
func (o operation) call() call {
	c := call{method: o.method, path: o.path, body: o.sends}
	if o.body {
		c.body = newHub
	}
	if o.events {
		c.token = watcher
	}
	return c
}

// Every operation against everything that a request can be.
func TestContract(t *testing.T) {
	documented := documentedStatuses(t)
	for _, op := range contract {
		t.Run(op.method+" "+strings.ReplaceAll(op.path+op.query, "/", "_"), func(t *testing.T) {
			// run sends one request to an API of its own.
			run := func(name string, change func(*env, *call), want int, and ...func(*testing.T, *httptest.ResponseRecorder)) {
				t.Run(name, func(t *testing.T) {
					r := newEnv(t)
					c := op.call()
					if change != nil {
						change(r, &c)
					}
					c.path += op.query
					w := r.do(c)
					if w.Code != want {
						t.Fatalf("status %d, want %d: %s", w.Code, want, w.Body)
					}
					if !documented[op.id][w.Code] {
						t.Errorf("status %d is not in the OpenAPI document of %s", w.Code, op.id)
					}
					for _, check := range and {
						check(t, w)
					}
				})
			}
			header := func(name, value string) func(*env, *call) {
				return func(_ *env, c *call) { c.header = map[string]string{name: value} }
			}
			body := func(text string) func(*env, *call) { return func(_ *env, c *call) { c.body = text } }
			either := func(yes bool, status int) int {
				if yes {
					return status
				}
				return op.ok
			}

			run("ok", nil, op.ok)
			run("slash at the end", func(_ *env, c *call) { c.path += "/" }, op.ok)
			run("no token", func(_ *env, c *call) { c.token = "-" }, 401)
			run("unknown token", func(_ *env, c *call) { c.token = "nope" }, 401)
			run("read-only token", func(_ *env, c *call) { c.token = reader }, either(op.write || op.events, 403))
			run("a token that may change", func(_ *env, c *call) { c.token = writer }, either(op.events, 403))
			run("a token that may see events", func(_ *env, c *call) { c.token = watcher }, either(op.write, 403))
			run("from another site", header("Sec-Fetch-Site", "cross-site"), either(op.write, 403))
			if op.byID {
				run("wrong id", func(_ *env, c *call) { c.path = strings.Replace(c.path, hubID, noID, 1) }, 404)
				run("no id", func(_ *env, c *call) { c.path = strings.Replace(c.path, hubID, "nope", 1) }, 404)
				run("id in upper case", func(_ *env, c *call) { c.path = strings.Replace(c.path, hubID, strings.ToUpper(hubID), 1) }, op.ok)
			}
			if op.conditional {
				run("stale ETag", header("If-Match", `"0123456789abcdef.x"`), 412)
				run("weak ETag", func(r *env, c *call) { c.header = map[string]string{"If-Match": "W/" + r.tag()} }, 412)
				run("current ETag", func(r *env, c *call) { c.header = map[string]string{"If-Match": r.tag()} }, op.ok)
				run("one of some ETags", func(r *env, c *call) { c.header = map[string]string{"If-Match": `"x", ` + r.tag()} }, op.ok)
				run("any ETag", header("If-Match", "*"), op.ok)
				run("empty If-Match", func(_ *env, c *call) { c.lines = []string{""} }, 400)
				run("If-Match of commas", func(_ *env, c *call) { c.lines = []string{" ,", ","} }, 400)
				run("the current ETag in the second line", func(r *env, c *call) { c.lines = []string{`"x"`, r.tag()} }, op.ok)
				run("an empty line, and the current ETag", func(r *env, c *call) { c.lines = []string{"", r.tag()} }, op.ok)
				run("stale ETags in two lines", func(_ *env, c *call) { c.lines = []string{`"x"`, `"y"`} }, 412)
				run("ETag from before a back-off", func(r *env, c *call) {
					c.header = map[string]string{"If-Match": r.tag()}
					r.state.Store(&sinks.Health{State: sinks.StateBackingOff, Reason: "unreachable"})
				}, op.ok)
			}
			if !op.body {
				return
			}
			run("oversized", body(newHub[:1]+strings.Repeat(" ", maxBody)+newHub[1:]), 413)
			run("as large as may be", body(newHub+strings.Repeat(" ", maxBody-len(newHub))), op.ok)
			run("malformed JSON", body(newHub[:len(newHub)-1]+",}"), 400, details(": is not valid JSON: line 1, column"))
			run("no body", func(_ *env, c *call) {
				c.body, c.header = "", map[string]string{"Content-Type": "application/json"}
			}, 400)
			run("form", header("Content-Type", "application/x-www-form-urlencoded"), 415)
			run("text", header("Content-Type", "text/plain"), 415)
			run("Latin 1", header("Content-Type", "application/json; charset=iso-8859-1"), 415)
			run("content type that is none", header("Content-Type", ";"), 415)
			run("compressed", header("Content-Encoding", "gzip"), 415)
			run("no content type", header("Content-Type", ""), op.ok)
			run("with a charset", header("Content-Type", "Application/JSON; charset=UTF-8"), op.ok)
			run("PascalCase keys", body(pascal.Replace(newHub)), op.ok)
			run("what was read", body(newHub[:1]+`"id":"x","status":5,"properties":{"a":"b"},"lastUpdatedUtc":"never",`+newHub[1:]), op.ok)
			// What all can be wrong with an endpoint is for the tests of package endpoints.
			run("many violations", body(`{"type":"x","eventTypes":["y"],"path":"","z":1,"connectionString":"`+storetest.Key1+`"}`), 400,
				details("type: unknown value", "eventTypes: unknown event type", "path: is required: the name of the event hub", "z: unknown field"))
			run("a mask for a key", body(strings.NewReplacer("//ns", "//evil", storetest.Key1, "***").Replace(newHub)), 400,
				details("connectionString: is masked, and can stand for the stored key only"))
			device := strings.NewReplacer("TopologyOperation", "DeviceMessage", storetest.Key1, storetest.Key1+`;EntityPath=other","name":"taken`).Replace(newHub)
			beside := func(text string) func(*env, *call) {
				return func(r *env, c *call) {
					r.do(call{method: "POST", path: "/endpoints", body: device})
					c.body = text
				}
			}
			run("conflicts", beside(device), 409,
				details("name: is already that of endpoint taken (", "eventTypes: only one endpoint may take DeviceMessage, and endpoint taken ("))
			run("a conflict, and a violation", beside(strings.Replace(device, `"path":"other"`, `"path":" "`, 1)), 400, details("path: is required"))
		})
	}
}

var pascal = strings.NewReplacer(`"type":"EventHub"`, `"Type":"eventhub"`, `"eventTypes":["Topology`, `"EventTypes":["TOPOLOGY`, `"path"`, `"Path"`,
	`"connectionString"`, `"ConnectionString"`)

// details compares a reply's details with a list of fields, each with a part of
// what is said about it.
func details(want ...string) func(*testing.T, *httptest.ResponseRecorder) {
	return func(t *testing.T, w *httptest.ResponseRecorder) {
		e := errorOf(t, w)
		if len(e.Details) != len(want) {
			t.Errorf("%d details, want %d: %s", len(e.Details), len(want), w.Body)
		}
		for _, one := range want {
			field, message, _ := strings.Cut(one, ": ")
			if !slices.ContainsFunc(e.Details, func(d Detail) bool {
				return d.Field == field && strings.Contains(d.Message, message) && strings.Contains(e.Message, d.Message)
			}) {
				t.Errorf("%s: %q is not said: %s", field, message, w.Body)
			}
		}
	}
}

// tag is the hub's ETag.
func (r *env) tag() string {
	r.t.Helper()
	return r.do(call{method: "GET", path: Base + "/endpoints/" + hubID}).Header().Get("ETag")
}

// documentedStatuses are those of each operation in the OpenAPI document.
func documentedStatuses(t *testing.T) map[string]map[int]bool {
	t.Helper()
	w := newEnv(t).do(call{method: "GET", path: "/openapi.json"})
	document := decode[struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
		}
	}](t, w)
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %q", document.OpenAPI)
	}
	all := make(map[string]map[int]bool)
	for _, path := range document.Paths {
		for _, op := range path {
			all[op.OperationID] = make(map[int]bool)
			for status := range op.Responses {
				var code int
				if _, err := fmt.Sscan(status, &code); err != nil {
					t.Errorf("%s: status %s", op.OperationID, status)
				}
				all[op.OperationID][code] = true
			}
		}
	}
	for _, op := range contract {
		if all[op.id] == nil {
			t.Errorf("%s is not in the OpenAPI document", op.id)
		}
	}
	return all
}

// What is no operation.
func TestNoOperation(t *testing.T) {
	r := newEnv(t)
	for _, tt := range []struct {
		method, path, token string
		status              int
		allow               string
	}{
		{"GET", "/nope", "", 404, ""},
		{"GET", "/nope", "-", 401, ""},
		{"GET", "/", "", 404, ""},
		{"GET", "/endpoints", "", 405, "POST"},
		{"PATCH", Base + "/endpoints/" + hubID, "", 405, "GET, PUT, DELETE, HEAD"},
		{"DELETE", Base + "/endpoints", "", 405, "GET, POST, HEAD"},
		{"PUT", Base + "/endpoints", "", 405, "GET, POST, HEAD"},
		{"GET", Base + "/endpoints/" + hubID + "/retry", "", 405, "POST"},
		{"GET", Base + "/endpoints/" + hubID + "/seek", "", 405, "POST"},
		{"POST", Base + "/status", "", 405, "GET, HEAD"},
		{"POST", Base + "/status", reader, 403, ""},
		{"GET", "/openapi.json", "-", 401, ""},
		{"GET", "/docs", "-", 401, ""},
		{"GET", "/docs/swagger-ui.css", "-", 401, ""},
	} {
		w := r.do(call{method: tt.method, path: tt.path, token: tt.token})
		if w.Code != tt.status || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q, want %d, %q: %s", tt.method, tt.path, w.Code, w.Header().Get("Allow"), tt.status, tt.allow, w.Body)
		}
	}
}
