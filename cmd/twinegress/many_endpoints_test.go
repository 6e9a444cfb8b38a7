package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/server/api"
)

// As many endpoints as an instance is made for: it starts, lists them, changes
// them, and an event goes to the few that asked for its type and to no other.
func TestManyEndpoints(t *testing.T) {
	const total, crowd, pageSize, partitions, each = 10_000, 10_000 - 3, 4000, 4, 40
	w := newWorldFor(t, partitions, emulator.Config{
		Hubs: []emulator.Hub{{Name: "crowd"}, {Name: "kept"}, {Name: "deleted"}, {Name: "changed"}, {Name: "created"}}, TrackIDs: true,
	})
	at := func(hub, eventType string) endpoints.Endpoint {
		return w.amqp(hub, endpoints.TypeEventHub, hub, []string{eventType})
	}
	set := []endpoints.Endpoint{at("kept", "UdfCustom"), at("deleted", "UdfCustom"), at("changed", "SensorChange")}
	for i := range crowd {
		e := at("crowd", "SensorChange")
		e.Name, e.SecondaryConnectionString = fmt.Sprintf("one of the crowd, %d", i), "" // half as much to read and to write
		set = append(set, e)
	}
	r := w.start(withAPI(w.config()), set...)
	eventually(t, "it is ready", func() bool {
		status, _ := get(t, "http://"+r.OpsAddress()+"/readyz", "")
		return status == http.StatusOK
	})

	whole := r.list("")
	byName := make(map[string]string, total)
	for _, e := range whole {
		byName[e.Name] = e.ID
	}
	if len(whole) != total || len(byName) != total {
		t.Fatalf("listed %d endpoints of %d names, want %d", len(whole), len(byName), total)
	}
	var paged []api.Endpoint
	for skip := 0; skip < total; skip += pageSize {
		page := r.list(fmt.Sprintf("?$top=%d&$skip=%d", pageSize, skip))
		if want := min(pageSize, total-skip); len(page) != want {
			t.Errorf("the page from %d on has %d endpoints, want %d", skip, len(page), want)
		}
		paged = append(paged, page...)
	}
	if !slices.Equal(ids(paged), ids(whole)) {
		t.Errorf("the pages together are not the whole list: %d endpoints, or in another order", len(paged))
	}

	arrived := func(want map[string]int64) {
		t.Helper()
		for _, hub := range w.services.Stats().Entities {
			if n := want[hub.Name]; hub.Count != n || hub.Distinct != n {
				t.Errorf("the hub %s has %d events, %d different ones, want %d", hub.Name, hub.Count, hub.Distinct, n)
			}
		}
	}
	var sent int64 // to each partition
	send := func() {
		t.Helper()
		for i := range each {
			record := value(fmt.Sprintf(`{"id":"%d","subject":"s","eventType":"UdfCustom","data":{}}`, i))
			record.Partition = int32(i % partitions)
			w.produce(record)
		}
		sent += each / partitions
		// Not settled, which asks 10,000 endpoints every time: what is
		// committed has its outcome at all of them.
		for p := range int32(partitions) {
			eventually(t, fmt.Sprintf("partition %d is committed", p), func() bool { return w.committed(p) == sent })
		}
	}
	send()
	arrived(map[string]int64{"kept": each, "deleted": each})

	if status, reply := r.manage(http.MethodPut, "/endpoints/"+byName["changed"], entry(at("changed", "UdfCustom"))); status != http.StatusNoContent {
		t.Fatalf("put: %d %s", status, reply)
	}
	if status, reply := r.manage(http.MethodDelete, "/endpoints/"+byName["deleted"], nil); status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", status, reply)
	}
	created := r.create(at("created", "UdfCustom"))
	// Changes take effect in their order, and a new endpoint together with its
	// routes: once it is there, events go where they are to go now.
	eventually(t, "the last change is in force", func() bool { _, ok := r.Pipeline.Health(created); return ok })
	send()
	arrived(map[string]int64{"kept": 2 * each, "deleted": each, "changed": each, "created": each})

	want := []string{byName["kept"], byName["changed"], created}
	slices.Sort(want)
	if got := ids(r.list("?eventTypes=UdfCustom")); !slices.Equal(got, want) {
		t.Errorf("after the changes %v are listed for UdfCustom, want %v: the kept, the changed and the created one", got, want)
	}
	st := r.Pipeline.Status()
	if len(st.Endpoints) != total {
		t.Errorf("after one was deleted and one created there are %d endpoints, want %d", len(st.Endpoints), total)
	}
	equation(t, st)
	for _, e := range st.Endpoints {
		if e.Path == "crowd" && e.Routed != 0 {
			t.Errorf("%d events were routed to %s, which asked for none of them", e.Routed, e.ID)
		}
	}
}

// list gives the endpoints that the Management API lists.
func (r *running) list(query string) (listed []api.Endpoint) {
	r.t.Helper()
	status, reply := r.manage(http.MethodGet, "/endpoints"+query, nil)
	if err := json.Unmarshal([]byte(reply), &listed); err != nil || status != http.StatusOK {
		r.t.Fatalf("list: %d %.200s", status, reply)
	}
	return listed
}

func ids(listed []api.Endpoint) []string {
	all := make([]string, len(listed))
	for i, e := range listed {
		all[i] = e.ID
	}
	return all
}
