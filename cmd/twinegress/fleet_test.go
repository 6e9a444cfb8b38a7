package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"twinegress/cmd/twinegress/internal/fleetview"
	"twinegress/pipeline/fleet"
)

// What a command reads of a fleet is what the server writes: same names, same shapes.
func TestFleetIsTheServers(t *testing.T) {
	var same func(where string, reads, writes reflect.Type)
	same = func(where string, reads, writes reflect.Type) {
		for reads.Kind() == reflect.Pointer {
			reads = reads.Elem()
		}
		for writes.Kind() == reflect.Pointer {
			writes = writes.Elem()
		}
		switch {
		case reads == reflect.TypeFor[time.Time](), writes == reflect.TypeFor[time.Time]():
			if reads != writes {
				t.Errorf("%s is a %v, and the server's a %v", where, reads, writes)
			}
		case reads.Kind() == reflect.Struct && writes.Kind() == reflect.Struct:
			fields := jsonFields(writes)
			for name, field := range jsonFields(reads) {
				if of, ok := fields[name]; ok {
					same(where+"."+name, field, of)
				} else {
					t.Errorf("%s.%s: the server has no such field", where, name)
				}
			}
		case reads.Kind() == reflect.Slice, reads.Kind() == reflect.Map && writes.Kind() == reflect.Map:
			same(where+"[]", reads.Elem(), writes.Elem())
		case reads.Kind() == reflect.Map: // windows: each of a struct's fields
			for name, of := range jsonFields(writes) {
				same(where+"."+name, reads.Elem(), of)
			}
		case number(reads) != number(writes) || !number(reads) && reads.Kind() != writes.Kind():
			t.Errorf("%s is a %v, and the server's a %v", where, reads, writes)
		}
	}
	same("fleet", reflect.TypeFor[fleetview.Fleet](), reflect.TypeFor[fleet.Report]())
}

func number(t reflect.Type) bool { return t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64 }

// jsonFields returns the types of a struct's fields by their names in JSON.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			fields[name] = f.Type
		}
	}
	return fields
}

// fleetServer answers with one fleet after the other, then with failures.
func fleetServer(t *testing.T, paths map[string]any, fails *atomic.Bool) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := paths[strings.TrimPrefix(r.URL.Path, "/management/api/v1.0")]
		switch {
		case fails != nil && fails.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_ = json.NewEncoder(w).Encode(body)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv(serverVariable, server.URL)
	t.Setenv(tokenVariable, "token")
}

func TestStatusOfTheFleet(t *testing.T) {
	ready := true
	well := fleetview.Fleet{
		At: time.Now(), Copies: []fleetview.Copy{{Instance: "a", Ready: &ready}},
		Endpoints: []fleetview.Endpoint{{ID: "1", Name: "hub", State: "ready", Routed: 3, Delivered: 3}},
	}
	ill := well
	ill.Troubles = []fleetview.Trouble{{Severity: "critical", What: "no broker answers", Action: "look at Kafka"}}
	old := map[string]any{"instance": "a", "endpoints": []any{map[string]any{"id": "1", "name": "hub", "state": "backing_off", "lastError": "refused"}}}
	for name, tt := range map[string]struct {
		paths map[string]any
		args  string
		code  int
		says  []string
	}{
		"well":             {map[string]any{"/fleet": well}, "status --check", 0, []string{"no troubles\n", "hub", "routed 3 = delivered 3 + dropped 0 + pending 0"}},
		"ill":              {map[string]any{"/fleet": ill}, "status", 0, []string{"1 trouble\n", "CRITICAL  no broker answers\n", "To do: look at Kafka"}},
		"ill, checked":     {map[string]any{"/fleet": ill}, "status --check", exitFailed, []string{"CRITICAL", "twinegress: 1 trouble\n"}},
		"ill, as JSON":     {map[string]any{"/fleet": ill}, "status --check --output json", exitFailed, []string{`"what": "no broker answers"`}},
		"no fleet":         {map[string]any{"/status": old}, "status --check", exitFailed, []string{"the server has no fleet", "hub:", "backing_off", "refused"}},
		"no fleet, JSON":   {map[string]any{"/status": old}, "status --output json", 0, []string{`"notice": "the server has no fleet`}},
		"something else":   {map[string]any{}, "status", exitFailed, []string{"404", "/management/api/v1.0/status"}},
		"no answer at all": {nil, "top --server http://127.0.0.1:1", exitFailed, []string{"can't be reached"}},
	} {
		t.Run(name, func(t *testing.T) {
			fleetServer(t, tt.paths, nil)
			all, code := shell{t}.all("", strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.says {
				if !strings.Contains(all, want) {
					t.Errorf("%q is not in\n%s", want, all)
				}
			}
		})
	}
}

// A live view goes on when the server doesn't, and says since when; q ends it.
func TestWatch(t *testing.T) {
	fails := new(atomic.Bool)
	fleetServer(t, map[string]any{"/fleet": fleetview.Fleet{At: time.Now(), Endpoints: []fleetview.Endpoint{{ID: "1", State: "ready"}}}}, fails)
	client, err := new(apiFlags).client()
	if err != nil {
		t.Fatal(err)
	}
	keys := make(chan byte, 2)
	var sorts []string
	err = client.watch(t.Context(), live{sort: "state", keys: keys, redraw: true, show: func(f *fleetview.Frame) {
		switch sorts = append(sorts, f.Sort); {
		case len(sorts) == 1:
			if f.Failed != nil || len(f.Fleet.Endpoints) != 1 {
				t.Errorf("the first frame: %v %+v", f.Failed, f.Fleet)
			}
			keys <- 's'
			fails.Store(true)
		case f.Failed != nil:
			if !strings.Contains(f.Text(), "NO ANSWER") || f.Since.IsZero() {
				t.Errorf("it doesn't say that it is old: %s", f.Text())
			}
			keys <- 'q'
		}
	}})
	if err != nil || sorts[len(sorts)-1] != "name" {
		t.Errorf("%v, sorted by %v", err, sorts)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fails.Store(false)
	if err := client.watch(ctx, live{sort: "state", show: func(*fleetview.Frame) { cancel() }}); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	if err := client.watch(t.Context(), live{sort: "state", show: func(*fleetview.Frame) {}, closed: func() bool { return true }}); err != nil {
		t.Errorf("a closed output: %v", err)
	}
}
