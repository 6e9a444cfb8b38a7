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
