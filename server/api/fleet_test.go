package api

import (
	"slices"
	"strings"
	"testing"

	"twinegress/pipeline/fleet"
)

// Which endpoints a client asks for, of three: one fails, and one that is ready has
// a trouble.
func TestFleetEndpoints(t *testing.T) {
	r := newEnv(t)
	for query, want := range map[string][]string{
		"": {hubID, gridID, noID}, "?endpoints=all": {hubID, gridID, noID}, "?endpoints=trouble": {hubID, gridID}, "?endpoints=none": {},
	} {
		w := r.do(call{method: "GET", path: Base + "/fleet" + query})
		report := decode[fleet.Report](t, w)
		got := []string{}
		for _, e := range report.Endpoints {
			got = append(got, e.ID)
		}
		if w.Code != 200 || !slices.Equal(got, want) || len(report.Copies) != 2 || len(report.Troubles) != 1 {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
	if w := r.do(call{method: "GET", path: Base + "/fleet?endpoints=some"}); w.Code != 400 || !strings.Contains(w.Body.String(), "endpoints") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// While the endpoints are not loaded yet, whoever asks about them is told so, not that
// there are none; how this copy is can be asked.
func TestEndpointsThatAreNotLoaded(t *testing.T) {
	why := "waiting for Kafka for 7s: no broker answers"
	r := newEnv(t, func(o *Options) { o.Unloaded = func() string { return why } })
	about := []call{
		{method: "GET", path: Base + "/endpoints"},
		{method: "POST", path: Base + "/endpoints", body: "{}"},
		{method: "PUT", path: Base + "/endpoints/" + hubID, body: "{}"},
		{method: "DELETE", path: Base + "/endpoints/" + hubID},
		{method: "GET", path: Base + "/endpoints/" + hubID + "/log"},
		{method: "POST", path: Base + "/endpoints/" + hubID + "/retry"},
		{method: "GET", path: Base + "/endpoints/" + hubID + "/tap"},
		{method: "GET", path: Base + "/deadletters?endpoint=changes"},
	}
	for _, c := range about {
		if w := r.do(c); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "the endpoints are not loaded yet: "+why) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	for _, path := range []string{Base + "/status", Base + "/fleet", "/docs"} {
		if w := r.do(call{method: "GET", path: path}); w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	why = ""
	if w := r.do(about[0]); w.Code != 200 {
		t.Errorf("once they are: %d %s", w.Code, w.Body)
	}
}

// An endpoint that is stored, and doesn't run yet, is not said to be none.
func TestEndpointThatDoesNotRun(t *testing.T) {
	r := newEnv(t)
	for _, of := range []string{"/status", "/log"} {
		for id, want := range map[string]int{hubID: 200, gridID: 503, noID: 404} {
			if w := r.do(call{method: "GET", path: Base + "/endpoints/" + id + of}); w.Code != want {
				t.Errorf("%s of %s: %d %s, want %d", of, id, w.Code, w.Body, want)
			}
		}
	}
}
