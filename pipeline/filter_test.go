package pipeline

import (
	"fmt"
	"testing"
	"time"

	"twinegress/endpoints"
)

// What a filter keeps from an endpoint was never routed to it; a change of the
// filter is a change of the table and of nothing else.
func TestFilters(t *testing.T) {
	value := func(n string) string { return `{"eventType":"SensorChange","data":{"Value":` + n + `}}` }
	a, b := endpoint("a", endpoints.SensorChange), endpoint("b", endpoints.SensorChange, endpoints.SpaceChange)
	a.Filter, b.Filter = "$body.Value > 10", "type = 'SpaceChange' OR $body.Value = 20"
	st := store{set: []endpoints.Endpoint{a, b}, changes: make(chan []endpoints.Endpoint)}
	r := run(t, 10*time.Second, st, nil, value("5"), value("15"), value("20"), value(`"20"`), `{"eventType":"SpaceChange"}`)
	routed := func(wantUnrouted uint64, want string) {
		t.Helper()
		var got string
		eventually(t, "every event has its outcome: "+want, func() bool {
			st := r.Status()
			balanced(t, st)
			got = ""
			for _, e := range st.Endpoints {
				got += fmt.Sprint(e.ID, " ", e.Routed, " ", e.Delivered, "; ")
			}
			return st.Ingest.Lag == 0 && st.Ingest.Unrouted == wantUnrouted && got == want
		})
	}
	routed(2, "a 2 2; b 2 2; ")

	opened := r.opened.Load()
	a.Filter, b.Filter = "false", ""
	for range 2 { // the second is taken when the first is applied
		st.changes <- []endpoints.Endpoint{a, b}
	}
	produce(t, r.broker, value("15"), value("16"))
	routed(2, "a 2 2; b 4 4; ")
	if n := r.opened.Load(); n != opened {
		t.Errorf("%d sinks were opened, %d before the change: a filter is no part of the connection", n, opened)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}
