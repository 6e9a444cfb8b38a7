package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
	"twinegress/endpoints/storetest"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
	"twinegress/server/api"
)

// routed blocks until a copy routes to so many endpoints.
func (r *replica) routed(endpoints int) {
	r.t.Helper()
	env.Eventually(r.t, fmt.Sprintf("%s routes to %d endpoints", r.name, endpoints), func() bool {
		return len(r.status().Endpoints) == endpoints
	})
}

var documentedKeys = emulator.KeyPair{Primary: "cHJpbWFyeQ==", Secondary: "c2Vjb25kYXJ5"}

// documentedServices are those of the documented bodies.
func documentedServices(c *emulator.Config) {
	c.AMQPTLS, c.Keys = true, documentedKeys
	c.EventGridTopics = []emulator.GridTopic{{Name: "grid", Keys: &documentedKeys}}
}

// The four documented bodies, sent with curl as the egress page writes them,
// create four endpoints, and events flow to each within a second.
func documentedBodies(h *harness) {
	curl, err := exec.LookPath("curl")
	if err != nil && os.Getenv("CI") != "" {
		h.T.Fatal("CI has to have curl, which the egress page says to use")
	}
	if err != nil {
		h.T.Skip("SKIPPED: curl, which the egress page says to use, is not installed; CI has it")
	}
	h.SetEndpoints()
	r := h.run("one", nil)
	event := env.Value(h.Samples()["SensorChange"])
	body := func(file, entity string) []byte {
		b, err := os.ReadFile(filepath.Join(h.Root(), "endpoints/testdata/samples", file+".json"))
		h.Must(err)
		filled := strings.NewReplacer(
			"YOUR_NAMESPACE.servicebus.windows.net", h.Services.AMQPAddr(),
			"YOUR_TOPIC_NAME.westus-1.eventgrid.azure.net", h.Services.EventGridHost("grid"),
			"YOUR_EVENT_HUB_NAME", entity, "YOUR_TOPIC_NAME", entity,
			"YOUR_PRIMARY_KEY", documentedKeys.Primary, "YOUR_SECONDARY_KEY", documentedKeys.Secondary,
		).Replace(string(b))
		if strings.Contains(filled, "YOUR_") {
			h.T.Fatalf("a placeholder is left: %s", filled)
		}
		return []byte(filled)
	}
	for _, tt := range []struct {
		file, entity string
		record       *kgo.Record
	}{
		{"eventhub", "hub", event},
		{"servicebus", "topic", event},
		{"eventgrid", "grid", event},
		{"eventhub-devicemessage", "devices", &kgo.Record{Value: []byte{1, 2, 3}, Headers: env.Headers("DigitalTwins-Telemetry", "1.0")}},
	} {
		out, err := exec.CommandContext(h.T.Context(), curl, "--silent", "--show-error", "--fail-with-body", "--max-time", "20",
			"--request", "POST", r.address(&r.api, "/endpoints"), "--header", "Authorization: Bearer "+env.Token,
			"--header", "Content-Type: application/json", "--data", "@"+h.Write(tt.file+".json", body(tt.file, tt.entity))).CombinedOutput()
		created := time.Now()
		var id string
		if err != nil || json.Unmarshal(out, &id) != nil {
			h.T.Fatalf("%s: %v: %s", tt.file, err, out)
		}
		env.Eventually(h.T, "an event reached "+tt.entity, func() bool {
			h.Produce(tt.record)
			return h.Count(tt.entity) > 0
		})
		if took := time.Since(created); took > time.Second {
			h.T.Errorf("%s: the first event came %v after the endpoint, not within a second", tt.file, took)
		}
		env.Eventually(h.T, tt.file+" is Ready", func() bool { return r.endpoint(id).Status == api.StatusReady })
	}
	if reply := r.manage(http.StatusOK, http.MethodGet, "/endpoints", nil); strings.Count(reply, `"id"`) != 4 ||
		strings.Contains(reply, documentedKeys.Primary) || strings.Contains(reply, documentedKeys.Secondary) {
		h.T.Errorf("list: %s", reply)
	}
	// A second endpoint for DeviceMessage is a conflict.
	r.manage(http.StatusConflict, http.MethodPost, "/endpoints", body("eventhub-devicemessage", "devices"))
}

// New keys end a back-off at once, however long it was to be; so does retry.
func endsOfBackOff(h *harness) {
	h.SetEndpoints()
	r := h.run("one", env.Settings{"backoff.initial": "10m", "backoff.max": "10m"})
	good := h.ServiceBus("SensorChange")
	bad := good.With("secondaryConnectionString", "").
		With("connectionString", strings.Replace(good.Text("connectionString"), "SharedAccessKey=", "SharedAccessKey=AAAA", 1))
	id := r.create(bad)
	produced := func() { h.Produce(h.Events(1)...) }
	failed := func() bool {
		produced()
		return r.endpoint(id).Status == api.StatusFailed
	}
	env.Eventually(h.T, "the endpoint backs off", failed)
	e := r.endpoint(id)
	until, err := time.Parse(time.RFC3339, e.Properties["backOffUntil"])
	if e.Properties["reason"] != "unauthorized" || !strings.Contains(e.Properties["lastError"], "401") || err != nil || time.Until(until) < time.Minute {
		h.T.Errorf("properties %v", e.Properties)
	}
	arrives := func(after string) {
		h.T.Helper()
		before, changed := h.Count("topic"), time.Now()
		env.Eventually(h.T, "an event arrives after "+after, func() bool {
			produced()
			return h.Count("topic") > before
		})
		if took := time.Since(changed); took > time.Second {
			h.T.Errorf("an event arrived %v after %s, not within a second", took, after)
		}
	}
	r.manage(http.StatusNoContent, http.MethodPut, "/endpoints/"+id, good.JSON())
	arrives("the new key")
	h.refuse("topic")
	env.Eventually(h.T, "the endpoint backs off again", failed)
	h.Repair("topic")
	r.manage(http.StatusOK, http.MethodPost, "/endpoints/"+id+"/retry", nil)
	// Ready if what waited was sent meanwhile.
	if e := r.endpoint(id); e.Status != api.StatusProvisioning && e.Status != api.StatusReady || len(e.Properties) != 0 {
		h.T.Errorf("after retry: %s %v", e.Status, e.Properties)
	}
	arrives("retry")
}

// What is queued when an endpoint is deleted still arrives.
func deleteDrains(h *harness) {
	const total = 500
	h.SetEndpoints()
	r := h.run("one", nil)
	id := r.create(h.Hub("SensorChange"))
	r.routed(1)
	h.SetFault(emulator.Fault{Delay: emulator.Duration(500 * time.Millisecond)}, "hub")
	h.Produce(h.Events(total)...)
	env.Eventually(h.T, "all are routed", func() bool { return r.at("hub").Routed == total })
	if r.at("hub").Pending == 0 {
		h.T.Fatal("nothing is pending any more: the test proves nothing")
	}
	r.manage(http.StatusNoContent, http.MethodDelete, "/endpoints/"+id, nil)
	var last pipeline.EndpointStatus
	env.Eventually(h.T, "the endpoint is gone", func() bool {
		e := r.at("hub")
		if e.ID != "" {
			last = e
		}
		return e.ID == ""
	})
	if last.State != "deleting" && last.State != "stopped" {
		h.T.Errorf("the last that was seen of it: %+v", last)
	}
	h.arrivedOnce(total, "hub")
	r.manage(http.StatusNotFound, http.MethodGet, "/endpoints/"+id+"/status", nil)
	r.settled(total)
}

// manyEndpointsServices are hubs without a record of their messages.
func manyEndpointsServices(c *emulator.Config) {
	c.Hubs, c.Record = []emulator.Hub{{Name: "crowd"}, {Name: "kept"}, {Name: "deleted"}, {Name: "changed"}, {Name: "created"}}, 0
}

// As many endpoints as an instance is made for: it starts, lists them, changes
// them, and an event goes to the few that asked for its type and to no other.
func manyEndpoints(h *harness) {
	const total, pageSize, each = 10_000, 4000, 40
	at := func(hub, eventType string) env.Endpoint { return h.AMQP("EventHub", hub, eventType) }
	set := []env.Endpoint{at("kept", "UdfCustom"), at("deleted", "UdfCustom"), at("changed", "SensorChange")}
	crowd := at("crowd", "SensorChange").With("secondaryConnectionString", "") // half as much to read and to write
	for i := len(set); i < total; i++ {
		set = append(set, crowd.With("name", fmt.Sprintf("one of the crowd, %d", i)))
	}
	h.SetEndpoints(set...)
	r := h.run("one", nil)
	ids := func(listed []api.Endpoint) []string {
		all := make([]string, len(listed))
		for i, e := range listed {
			all[i] = e.ID
		}
		return all
	}
	whole := r.list("")
	byName := make(map[string]string, total)
	for _, e := range whole {
		byName[e.Name] = e.ID
	}
	if len(whole) != total || len(byName) != total {
		h.T.Fatalf("listed %d endpoints of %d names, want %d", len(whole), len(byName), total)
	}
	var paged []api.Endpoint
	for skip := 0; skip < total; skip += pageSize {
		page := r.list(fmt.Sprintf("?$top=%d&$skip=%d", pageSize, skip))
		if want := min(pageSize, total-skip); len(page) != want {
			h.T.Errorf("the page from %d on has %d endpoints, want %d", skip, len(page), want)
		}
		paged = append(paged, page...)
	}
	if !slices.Equal(ids(paged), ids(whole)) {
		h.T.Errorf("the pages together are not the whole list: %d endpoints, or in another order", len(paged))
	}

	send := func(want map[string]int) {
		h.T.Helper()
		for i := range each {
			record := env.Value(fmt.Sprintf(`{"id":"%d","subject":"s","eventType":"UdfCustom","data":{}}`, i))
			record.Partition = int32(i % 4)
			h.Produce(record)
		}
		h.AwaitCommitted() // and so has its outcome at all of them
		for _, hub := range h.Services.Stats().Entities {
			if n := int64(want[hub.Name]); hub.Count != n || hub.Distinct != n {
				h.T.Errorf("the hub %s has %d events, %d different ones, want %d", hub.Name, hub.Count, hub.Distinct, n)
			}
		}
	}
	send(map[string]int{"kept": each, "deleted": each})
	r.manage(http.StatusNoContent, http.MethodPut, "/endpoints/"+byName["changed"], at("changed", "UdfCustom").JSON())
	r.manage(http.StatusNoContent, http.MethodDelete, "/endpoints/"+byName["deleted"], nil)
	created := r.create(at("created", "UdfCustom"))
	// Changes take effect in their order, and a new endpoint together with its
	// routes: once it is there, events go where they are to go now.
	env.Eventually(h.T, "the last change is in force", func() bool {
		a, err := r.get(&r.api, "/endpoints/"+created+"/status")
		return err == nil && a.status == http.StatusOK
	})
	send(map[string]int{"kept": 2 * each, "deleted": each, "changed": each, "created": each})

	want := []string{byName["kept"], byName["changed"], created}
	slices.Sort(want)
	if got := ids(r.list("?eventTypes=UdfCustom")); !slices.Equal(got, want) {
		h.T.Errorf("after the changes %v are listed for UdfCustom, want %v: the kept, the changed and the created one", got, want)
	}
	st := r.status()
	if len(st.Endpoints) != total {
		h.T.Errorf("after one was deleted and one created there are %d endpoints, want %d", len(st.Endpoints), total)
	}
	h.equation(st)
	for _, e := range st.Endpoints {
		if e.Path == "crowd" && e.Routed != 0 {
			h.T.Errorf("%d events were routed to %s, which asked for none of them", e.Routed, e.ID)
		}
	}
}

// inTopic are the settings of copies with their endpoints in a topic.
func (h *harness) inTopic() env.Settings {
	h.T.Helper()
	return env.Settings{
		"endpoints.store": "kafka", "endpoints.topic": h.Topic + "-endpoints",
		"endpoints.secretsKeyFile": h.Write("secrets.key", []byte(storetest.AgeKey(h.T))),
	}
}

// Two copies with the endpoints in a topic: what one is told, both do, soon.
func endpointsInTopic(h *harness) {
	settings := h.inTopic()
	a, b := h.run("one", settings), h.run("two", settings)
	follow := func(n int) {
		h.T.Helper()
		begun := time.Now()
		a.routed(n)
		b.routed(n)
		if took := time.Since(begun); took > 3*time.Second {
			h.T.Errorf("the copies took %s to follow", took)
		}
	}
	id := a.create(h.Hub("SensorChange"))
	follow(1)
	// The other one has it as well, and knows what it must not have twice.
	b.manage(http.StatusConflict, http.MethodPost, "/endpoints", h.Hub("SpaceChange").JSON())
	h.Produce(h.Events(8)...)
	h.AwaitCommitted()
	h.arrivedOnce(8, "hub")
	b.manage(http.StatusNoContent, http.MethodDelete, "/endpoints/"+id, nil)
	follow(0)
}

// Two copies with the endpoints in a topic. Many writers change them
// through the API of both, and the copies are killed by turns. What was
// acknowledged is so in the end, at every copy, and nothing else is; and there
// is never more than one endpoint for DeviceMessage.
func endpointsThroughKills(h *harness) {
	writers, rivals, kills := 10, 3, 4 // writers at each copy, of which rivals want DeviceMessage
	if realKafka {
		writers, rivals, kills = 50, 4, 16
	}
	settings := h.inTopic()
	copies := []*replica{h.run("one", settings), h.run("two", settings)}
	b := newBook(h.T)
	var wg sync.WaitGroup
	defer wg.Wait() // where the test fails before its end, too
	defer b.cancel()
	for _, r := range copies {
		for i := range writers {
			wr := &writer{book: b, at: r, name: fmt.Sprintf("%s-%d", r.name, i)}
			if i < rivals {
				wg.Go(func() { wr.rounds(h.Devices(), wr.contend) })
			} else {
				wg.Go(func() { wr.rounds(h.Hub("SensorChange"), wr.change) })
			}
		}
	}
	flows := func(r *replica) {
		h.T.Helper()
		before := b.acknowledged(r)
		env.Eventually(h.T, r.name+" acknowledges changes", func() bool { return b.acknowledged(r) >= before+writers })
	}
	for i := range kills {
		r := copies[i%len(copies)]
		flows(r)
		<-time.After(rand.N(500 * time.Millisecond)) // wherever in a change that is
		r.kill()
		r.start()
		r.awaitRunning()
	}
	for _, r := range copies {
		flows(r)
	}
	close(b.last)
	wg.Wait()
	h.T.Logf("%d kills: %s", kills, b)
	if b.cutOff == 0 || b.refused == 0 {
		h.T.Errorf("%d requests were cut off, %d rivals refused: the test proves nothing", b.cutOff, b.refused)
	}

	// One more copy has only what is in the topic; and once it has made a
	// change of its own, all of that.
	third := h.replica("three", settings)
	third.start()
	third.awaitRunning()
	(&writer{book: b, at: third, name: "last"}).create("last", h.Hub("SensorChange"))
	table := third.table()
	b.compare(table)
	for _, r := range copies {
		var other map[string]listed
		env.Eventually(h.T, r.name+" lists as many endpoints as three", func() bool { other = r.table(); return len(other) == len(table) })
		if !maps.Equal(other, table) {
			h.T.Errorf("%s and three differ:\n%v\n%v", r.name, other, table)
		}
	}
}
