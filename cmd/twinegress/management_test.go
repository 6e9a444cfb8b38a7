package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
	"twinegress/server/api"
)

const apiToken = "the token of the tests"

// withAPI is a configuration whose API takes apiToken.
func withAPI(cfg config.Config) config.Config {
	cfg.API.Tokens = []config.Token{{Name: "tests", SHA256: sha256Hex(apiToken), Role: config.RoleWrite}}
	return cfg
}

func (r *running) url(path string) string { return "http://" + r.APIAddress() + api.Base + path }

// manage makes a request of the Management API.
func (r *running) manage(method, path string, body []byte) (status int, reply string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url(path), bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+apiToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// create creates an endpoint and gives its id.
func (r *running) create(e endpoints.Endpoint) string {
	r.t.Helper()
	status, reply := r.manage(http.MethodPost, "/endpoints", entry(e))
	var id string
	if err := json.Unmarshal([]byte(reply), &id); err != nil || status != http.StatusCreated {
		r.t.Fatalf("create: %d %s", status, reply)
	}
	return id
}

// entry is an endpoint as a POST body has it.
func entry(e endpoints.Endpoint) []byte {
	var entries []json.RawMessage
	if err := json.Unmarshal(file(e), &entries); err != nil {
		panic(err)
	}
	return entries[0]
}

func (r *running) endpoint(id string) (e api.Endpoint) {
	r.t.Helper()
	status, reply := r.manage(http.MethodGet, "/endpoints/"+id, nil)
	if err := json.Unmarshal([]byte(reply), &e); err != nil || status != http.StatusOK {
		r.t.Fatalf("get: %d %s", status, reply)
	}
	return e
}

// The four documented bodies, sent with curl as the egress page writes them,
// create four endpoints, and events flow to each within a second.
func TestDocumentedBodiesWithCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("CI has to have curl, which the egress page says to use")
	}
	if err != nil {
		t.Skip("SKIPPED: curl, which the egress page says to use, is not installed; CI has it")
	}
	keys := emulator.KeyPair{Primary: "cHJpbWFyeQ==", Secondary: "c2Vjb25kYXJ5"}
	w := newWorldFor(t, 2, emulator.Config{
		AMQPTLS: true, Keys: keys, Hubs: []emulator.Hub{{Name: "changes"}, {Name: "devices"}}, Topics: []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid", Keys: &keys}},
	})
	r := w.start(withAPI(w.config()))
	event := samples(t)["SensorChange"]
	for _, tt := range []struct {
		file, entity, path string
		record             *kgo.Record
	}{
		{"eventhub", "changes", "/endpoints", value(event)},
		{"servicebus", "topic", "/endpoints", value(event)},
		{"eventgrid", "grid", "/endpoints", value(event)},
		{"eventhub-devicemessage", "devices", "/endpoints", &kgo.Record{
			Value: []byte{1, 2, 3}, Headers: []kgo.RecordHeader{{Key: "DigitalTwins-Telemetry", Value: []byte("1.0")}},
		}},
	} {
		body, err := os.ReadFile("../../endpoints/testdata/samples/" + tt.file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		filled := strings.NewReplacer(
			"YOUR_NAMESPACE.servicebus.windows.net", w.services.AMQPAddr(),
			"YOUR_TOPIC_NAME.westus-1.eventgrid.azure.net", w.services.EventGridHost("grid"),
			"YOUR_EVENT_HUB_NAME", tt.entity, "YOUR_TOPIC_NAME", tt.entity,
			"YOUR_PRIMARY_KEY", keys.Primary, "YOUR_SECONDARY_KEY", keys.Secondary,
		).Replace(string(body))
		if strings.Contains(filled, "YOUR_") {
			t.Fatalf("a placeholder is left: %s", filled)
		}
		out, err := exec.CommandContext(t.Context(), curl, "--silent", "--show-error", "--fail-with-body", "--max-time", "20",
			"--request", "POST", r.url(tt.path), "--header", "Authorization: Bearer "+apiToken,
			"--header", "Content-Type: application/json", "--data", "@"+w.write(tt.file+".json", []byte(filled))).CombinedOutput()
		created := time.Now()
		var id string
		if err != nil || json.Unmarshal(out, &id) != nil {
			t.Fatalf("%s: %v: %s", tt.file, err, out)
		}
		eventually(t, "an event reached "+tt.entity, func() bool {
			w.produce(tt.record)
			return w.services.Stats().Entity(tt.entity).Count > 0
		})
		took := time.Since(created)
		t.Logf("%s: the first event after %v", tt.file, took)
		if took > time.Second {
			t.Errorf("%s: the first event came %v after the endpoint, not within a second", tt.file, took)
		}
		if e := r.endpoint(id); e.Status != api.StatusReady {
			eventually(t, tt.file+" is Ready", func() bool { return r.endpoint(id).Status == api.StatusReady })
		}
	}
	if status, reply := r.manage(http.MethodGet, "/endpoints", nil); status != 200 || strings.Count(reply, `"id"`) != 4 ||
		strings.Contains(reply, keys.Primary) || strings.Contains(reply, keys.Secondary) {
		t.Errorf("list: %d %s", status, reply)
	}
	// A second endpoint for DeviceMessage is a conflict.
	second, err := os.ReadFile(filepath.Join(w.dir, "eventhub-devicemessage.json"))
	if err != nil {
		t.Fatal(err)
	}
	if status, reply := r.manage(http.MethodPost, "/endpoints", second); status != http.StatusConflict {
		t.Errorf("a second DeviceMessage endpoint: %d %s", status, reply)
	}
}

// While endpoints are created, changed and deleted through the API, under
// load, an endpoint that nobody touches gets every event, once; and the
// equation holds at every moment.
func TestChangesUnderLoad(t *testing.T) {
	const partitions, total, steps = 4, 20_000, 40
	w := newWorld(t, partitions)
	r := w.start(withAPI(w.config()))
	untouched := r.create(w.hub("SensorChange"))
	eventually(t, "the hub is routed to", func() bool { _, ok := r.Pipeline.Health(untouched); return ok })

	var watcher sync.WaitGroup
	done := make(chan struct{})
	watcher.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				equation(t, r.Pipeline.Status())
			}
		}
	})
	records := numbered(total, partitions)
	topic, grid := r.create(w.topic("SensorChange")), ""
	for step := range steps {
		w.produce(records[step*total/steps : (step+1)*total/steps]...)
		change := w.topic("SensorChange")
		if step%2 == 0 {
			change.SecondaryConnectionString = ""
		}
		if status, reply := r.manage(http.MethodPut, "/endpoints/"+topic, entry(change)); status != http.StatusNoContent {
			t.Fatalf("put: %d %s", status, reply)
		}
		if grid == "" {
			grid = r.create(w.grid("SensorChange", "UdfCustom"))
			continue
		}
		if status, reply := r.manage(http.MethodDelete, "/endpoints/"+grid, nil); status != http.StatusNoContent {
			t.Fatalf("delete: %d %s", status, reply)
		}
		grid = ""
	}
	r.settled(total)
	close(done)
	watcher.Wait()
	st, ok := r.Pipeline.EndpointStatus(untouched)
	if !ok || st.Routed != total || st.Delivered != total || st.Pending != 0 {
		t.Errorf("%+v", st)
	}
	if hub := w.services.Stats().Entity("hub"); hub.Count != total || hub.Distinct != total {
		t.Errorf("the hub has %d events, %d different ones, want %d", hub.Count, hub.Distinct, total)
	}
	if st, _ := r.Pipeline.EndpointStatus(topic); st.Routed != st.Delivered || st.Routed == 0 {
		t.Errorf("topic: %+v", st)
	}
}

// New keys end a back-off at once, however long it was to be; so does retry.
func TestNewKeysAndRetryEndABackOff(t *testing.T) {
	w := newWorld(t, 1)
	cfg := withAPI(w.config())
	cfg.Backoff.Initial, cfg.Backoff.Max = 10*time.Minute, 10*time.Minute
	r := w.start(cfg)
	good := w.topic("SensorChange")
	bad := good
	bad.SecondaryConnectionString = ""
	bad.ConnectionString = strings.Replace(bad.ConnectionString, "SharedAccessKey=", "SharedAccessKey=AAAA", 1)
	id := r.create(bad)
	event := samples(t)["SensorChange"]
	failed := func() bool {
		w.produce(value(event))
		return r.endpoint(id).Status == api.StatusFailed
	}
	eventually(t, "the endpoint backs off", failed)
	e := r.endpoint(id)
	until, err := time.Parse(time.RFC3339, e.Properties["backOffUntil"])
	if e.Properties["reason"] != "unauthorized" || !strings.Contains(e.Properties["lastError"], "401") || err != nil || time.Until(until) < time.Minute {
		t.Errorf("properties %v", e.Properties)
	}
	if status, reply := r.manage(http.MethodPut, "/endpoints/"+id, entry(good)); status != http.StatusNoContent {
		t.Fatalf("put: %d %s", status, reply)
	}
	changed := time.Now()
	eventually(t, "an event arrives with the new key", func() bool {
		w.produce(value(event))
		return w.services.Stats().Entity("topic").Count > 0
	})
	if took := time.Since(changed); took > time.Second {
		t.Errorf("it took %v", took)
	}

	if err := w.services.SetFault("topic", emulator.Fault{RejectKey: "both"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoint backs off again", failed)
	if err := w.services.ClearFault("topic"); err != nil {
		t.Fatal(err)
	}
	before := w.services.Stats().Entity("topic").Count
	if status, reply := r.manage(http.MethodPost, "/endpoints/"+id+"/retry", nil); status != http.StatusNoContent {
		t.Fatalf("retry: %d %s", status, reply)
	}
	if e := r.endpoint(id); e.Status != api.StatusProvisioning || len(e.Properties) != 0 {
		t.Errorf("after retry: %s %v", e.Status, e.Properties)
	}
	w.produce(value(event))
	eventually(t, "an event arrives after retry", func() bool { return w.services.Stats().Entity("topic").Count > before })
}

// What is queued when an endpoint is deleted still arrives.
func TestDeleteDrains(t *testing.T) {
	const total = 500
	w := newWorld(t, 4)
	r := w.start(withAPI(w.config()))
	id := r.create(w.hub("SensorChange"))
	eventually(t, "the hub is routed to", func() bool { _, ok := r.Pipeline.Health(id); return ok })
	if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(300 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	w.produce(numbered(total, 4)...)
	eventually(t, "all are routed", func() bool { st, _ := r.Pipeline.EndpointStatus(id); return st.Routed == total })
	if st, _ := r.Pipeline.EndpointStatus(id); st.Pending == 0 {
		t.Fatal("nothing is pending any more: the test proves nothing")
	}
	if status, reply := r.manage(http.MethodDelete, "/endpoints/"+id, nil); status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", status, reply)
	}
	var last atomic.Pointer[pipeline.EndpointStatus]
	eventually(t, "the endpoint is gone", func() bool {
		st, ok := r.Pipeline.EndpointStatus(id)
		if ok {
			last.Store(&st)
		}
		return !ok
	})
	if st := last.Load(); st.State != "deleting" && st.State != "stopped" {
		t.Errorf("the last that was seen of it: %+v", st)
	}
	if hub := w.services.Stats().Entity("hub"); hub.Distinct != total {
		t.Errorf("the hub has %d events, want %d", hub.Distinct, total)
	}
	if status, _ := r.manage(http.MethodGet, "/endpoints/"+id+"/status", nil); status != http.StatusNotFound {
		t.Errorf("status of what is gone: %d", status)
	}
	r.settled(total)
	if st := fmt.Sprint(r.Pipeline.Status().Endpoints); st != "[]" {
		t.Errorf("endpoints %s", st)
	}
}
