package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/endpoints"
	"twinegress/internal/certtest"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/server/api"
)

func TestEndpointsFromTheShell(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 1})
	h.SetEndpoints()
	cfg := load(h, nil)
	cfg.API.Tokens = append(cfg.API.Tokens, config.Token{Name: "viewer", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("viewer"))), Role: config.RoleRead})
	cfg.API.TLS = config.ServerTLS{CertFile: h.Dir + "/api.pem", KeyFile: h.Dir + "/api.key"}
	certtest.Write(t, cfg.API.TLS.CertFile, cfg.API.TLS.KeyFile)
	r := start(h, app.Options{Config: cfg})
	server := "https://" + r.APIAddress()
	t.Setenv(serverVariable, server)
	t.Setenv(tokenVariable, env.Token)
	s := shell{t: t}
	tls := func(args ...string) []string {
		return append(append([]string{"endpoints"}, args...), "--ca-file", cfg.API.TLS.CertFile)
	}

	if out := s.ok("", tls("list")...); out != "no endpoints\n" {
		t.Errorf("empty list %q", out)
	}
	hub := h.Hub("SensorChange")
	out, remark, _, err := s.run(string(hub.JSON()), tls("create")...)
	id := strings.TrimSpace(out)
	if err != nil || remark != "created hub ("+id+", EventHub hub)\n" {
		t.Fatalf("%v, create remarks %q", err, remark)
	}
	var created struct{ ID, ETag string }
	if err := json.Unmarshal([]byte(s.ok("", tls("create", "--file", h.Write("topic.json", h.ServiceBus("SpaceChange").JSON()), "--output", "json")...)), &created); err != nil || created.ETag == "" {
		t.Fatal(created, err)
	}
	list := s.ok("", tls("list")...)
	for _, want := range []string{"NAME ", "STATE ", "DROP 15M", "hub      provisioning "} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}
	if one := s.ok("", tls("list", "--wide", "--types", "EventHub", "--event-types", "SensorChange,UdfCustom")...); !strings.Contains(one, id) || strings.Contains(one, created.ID) {
		t.Errorf("selection\n%s", one)
	}

	// As JSON, an endpoint can be changed and sent back, by its name too.
	text := s.ok("", tls("get", "hub", "--output", "json")...)
	var e api.Endpoint
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.ID != id || !strings.Contains(text, "SharedAccessKey=***") {
		t.Fatalf("%v %s", err, text)
	}
	shown := s.ok("", tls("get", id)...)
	_, etag, _ := strings.Cut(shown, "etag")
	etag = strings.TrimSpace(etag)
	if !strings.Contains(shown, "SharedAccessKey=***") || etag == "" {
		t.Fatalf("get\n%s", shown)
	}
	changed := strings.Replace(text, `"SensorChange"`, `"SensorChange","UdfCustom"`, 1)
	if out := s.ok(changed, tls("update", id, "--etag", etag)...); out != "updated hub ("+id+", EventHub hub): eventTypes\n" {
		t.Errorf("update says %q", out)
	}
	if out := s.ok(changed, tls("update", "hub")...); !strings.HasPrefix(out, "nothing to change: hub (") {
		t.Errorf("the same once more: %q", out)
	}
	if _, code, err := s.command(changed, tls("update", id, "--etag", etag)...); code != exitFailed || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("the old ETag: %d %v", code, err)
	}
	if stored := r.Store.Current(); !slices.ContainsFunc(stored, func(e endpoints.Endpoint) bool { return e.ID == id && len(e.EventTypes) == 2 }) {
		t.Errorf("the update changed nothing: %v", stored)
	}
	if out := s.ok("", tls("retry", id[:shortID])...); !strings.HasPrefix(out, "a back-off of hub ("+id) {
		t.Errorf("retry says %q", out)
	}

	complete := s.ok("", "__complete", "endpoints", "--ca-file", cfg.API.TLS.CertFile, "delete", "")
	if !strings.Contains(complete, "hub\tEventHub hub hub") {
		t.Errorf("completion\n%s", complete)
	}

	for name, tt := range map[string]struct {
		in   string
		args []string
		code int
		says string
	}{
		"all that is wrong":   {`{"type":"x"}`, tls("create"), exitFailed, "the endpoint is not valid (POST " + server + api.Base + "/endpoints)\n  type: unknown value"},
		"nothing to read":     {" ", tls("create"), exitUsage, "standard input is empty"},
		"no such file":        {"", tls("create", "--file", "nope.json"), exitUsage, "--file"},
		"unknown name":        {"", tls("get", "nope"), exitFailed, "no endpoint has that id or name; there are: "},
		"mistyped name":       {"", tls("delete", "hbu"), exitFailed, "hbu: no endpoint has that id or name; did you mean hub " + id + "?"},
		"what was asked":      {"", tls("get", "9f1c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"), exitFailed, "(GET " + server + api.Base + "/endpoints/9f1c1c1e"},
		"token as in headers": {`{}`, tls("create", "--token-file", h.Write("header", []byte("\"Bearer "+env.Token+"\"\r\n"))), exitFailed, "type: is required"},
		"mistyped field":      {`{"tpye":"EventHub"}`, tls("create"), exitFailed, "did you mean type?"},
		"unknown id":          {"", tls("delete", "9f1c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"), exitFailed, "there is no endpoint with the id 9f1c"},
		"which one":           {"", tls("delete"), exitUsage, "0 endpoints given, one is needed"},
		"unknown token":       {"", tls("list", "--token-file", h.Write("nope", []byte("nope"))), exitFailed, "--token-file, or TWINEGRESS_TOKEN"},
		"read only":           {"", tls("delete", id, "--token-file", h.Write("viewer", []byte("viewer\n"))), exitFailed, "a token with the role write is required"},
		"untrusted":           {"", []string{"endpoints", "list"}, exitFailed, "certificate"},
		"no server":           {"", tls("list", "--server", "http://127.0.0.1:1"), exitFailed, "can't be reached"},
		"another server":      {"", tls("list", "--server", "http://"+r.OpsAddress()), exitFailed, "is it the Management API"},
		"server is no URL":    {"", tls("list", "--server", "localhost:8080"), exitUsage, "--server: must be a URL"},
		"order":               {"", tls("list", "--sort", "size"), exitUsage, "must be one of state, name"},
		"watch as JSON":       {"", tls("list", "--watch", "--output", "json"), exitUsage, "--watch shows"},
		"output":              {"", tls("list", "--output", "text"), exitUsage, "must be table or json"},
		"unknown event types": {"", tls("list", "--event-types", "x"), exitFailed, "eventTypes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, code, err := shell{t: t}.command(tt.in, tt.args...)
			if err == nil || code != tt.code || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("exit code %d, want %d, %v, want %q", code, tt.code, err, tt.says)
			}
		})
	}
	if out := s.ok("", tls("delete", created.ID)...); !strings.HasPrefix(out, "deleted topic (") {
		t.Errorf("delete says %q", out)
	}
	s.ok("", tls("delete", "hub", "--server", server+api.Base+"/")...)
	if out := s.ok("", tls("list")...); out != "no endpoints\n" {
		t.Errorf("after delete %q", out)
	}
	t.Setenv(tokenVariable, "")
	if _, code, err := s.command("", tls("list")...); code != exitUsage || !strings.Contains(err.Error(), "a token is required") {
		t.Errorf("no token: %d %v", code, err)
	}
}

// Each endpoint is tried with each key, and nothing is sent.
func TestCheck(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 2})
	cfg := load(h, nil)
	wrong := h.ServiceBus("SpaceChange").With("name", "wrong")
	wrong["secondaryConnectionString"] = strings.Replace(wrong.Text("secondaryConnectionString"), "SharedAccessKey=", "SharedAccessKey=AAAA", 1)
	missing := h.AMQP("EventHub", "missing", "UdfCustom")
	wrongGrid := h.Grid("UdfCustom").With("name", "wrong grid").With("secondaryConnectionString", "AAAA")
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"), h.Grid("SensorChange"), wrong, missing, wrongGrid)
	certtest.Write(t, h.Dir+"/api.pem", h.Dir+"/api.key")
	base := `
ingest: {brokers: ["` + h.Brokers[0] + `"], topics: [` + h.Topic + `]}
endpoints: {file: "` + cfg.Endpoints.File + `", allowDevelopmentEmulator: true}
send: {caFile: "` + cfg.Send.CAFile + `", timeout: 5s}
`
	file := h.Write("twinegress.yaml", []byte(base))
	s := shell{t: t}
	out, code, err := s.command("", "check", "--config", file)
	for _, want := range []string{
		"ok      kafka       ", "ok      endpoints   ", "ok ingest topic " + h.Topic + " Read", "ok ingest group twinegress Read",
		"ok dead letters topic twinegress-deadletter Write the topic is not there yet: run creates it",
		"ok positions topic twinegress-positions Read the topic is not there yet", "ok positions topic twinegress-positions Write the topic is not there yet",
		"ok positions group twinegress.* Read", "ok positions group twinegress.* Delete",
		"ok      hub         EventHub    hub", "ok      topic       ServiceBus  topic", "ok      grid        EventGrid   ",
		"ok      wrong       ServiceBus  topic                                   primary", "FAILED  wrong       ServiceBus", "FAILED  missing     EventHub", "FAILED  wrong grid  EventGrid",
	} {
		if !strings.Contains(collapse(out), collapse(want)) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if code != exitFailed || err == nil || err.Error() != "4 of 29 checks failed" {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
	if n := h.Services.Stats().Count(); n != 0 {
		t.Errorf("%d events were sent", n)
	}

	out, code, _ = s.command("", "check", "--config", file, "--output", "json",
		"--set", "ingest.topics=nope", "--set", "api.tls.certFile="+h.Dir+"/api.pem", "--set", "api.tls.keyFile="+h.Dir+"/api.key",
		"--set", "api.oidc.issuer=https://127.0.0.1:1", "--set", "api.oidc.audience=a")
	var report app.CheckReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitFailed || report.OK {
		t.Fatalf("%d %v %s", code, err, out)
	}
	results := make(map[string]string)
	for _, c := range report.Checks {
		if c.OK != (c.Error == "") {
			t.Errorf("%+v", c)
		}
		what := strings.TrimSpace(c.What + " " + c.Name + " " + c.Key)
		if c.What == "right" {
			what += " on the " + c.Type
		}
		results[what] = c.Error
	}
	for what, want := range map[string]string{
		"kafka": "", "right ingest Read on the topic": "UNKNOWN_TOPIC_OR_PARTITION", "right ingest Read on the group": "", "api.tls": "", "api.oidc": "connection refused", "endpoints": "",
		"endpoint hub primary": "", "endpoint hub secondary": "", "endpoint wrong primary": "", "endpoint wrong secondary": "unauthorized",
		"endpoint missing primary": "404", "endpoint wrong grid secondary": "401", "endpoint grid primary": "",
	} {
		if got, there := results[what]; !there || !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}

	// Nobody there: told for each, and soon.
	h.SetFault(emulator.Fault{Down: true}, emulator.Namespace)
	out, code, _ = s.command("", "check", "--config", file)
	if code != exitFailed || strings.Count(out, "connection refused") != 8 {
		t.Errorf("%d\n%s", code, out)
	}
	// All that is wrong with the endpoints, each by itself.
	h.Write("endpoints.json", []byte(`[{"type":"EventHub","path":"a"},{"nope":1}]`))
	out, code, _ = s.command("", "check", "--config", file)
	if code != exitFailed || !strings.Contains(out, "endpoints[0]: eventTypes:") || !strings.Contains(out, "endpoints[1]: nope: unknown field") {
		t.Errorf("%d\n%s", code, out)
	}
	if _, code, _ := s.command("", "check", "--config", file, "--set", "send.attempts=0"); code != exitUsage {
		t.Errorf("a bad configuration: %d", code)
	}
}

// collapse makes a table's columns independent of their width.
func collapse(s string) string { return strings.Join(strings.Fields(s), " ") }
