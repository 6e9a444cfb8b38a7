package api

import "testing"

// A log says which copy it is of, by the id that the fleet has for it.
func TestEndpointLog(t *testing.T) {
	r := newEnv(t)
	w := r.do(call{method: "GET", path: Base + "/endpoints/" + hubID + "/log"})
	if log := decode[Log](t, w); w.Code != 200 || len(log.Entries) != 1 || log.Entries[0].Copy != r.ID() || log.Entries[0].Times != 3 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
