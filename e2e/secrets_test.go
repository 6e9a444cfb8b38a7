package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/e2e/env"
	"twinegress/endpoints/storetest"
	"twinegress/internal/emulator"
)

// everyFault is each kind of failure that the emulator knows.
var everyFault = []emulator.Fault{
	{Down: true},
	{Hang: true},
	{Silent: true},
	{RejectKey: "primary"},
	{RejectKey: "secondary"},
	{RejectKey: "both"},
	{Refuse: "amqp:not-found"},
	{Refuse: "com.microsoft:entity-disabled"},
	{NoCredit: true},
	{Cut: emulator.CutMid},
	{Cut: emulator.CutBefore},
	{Cut: emulator.CutDuring, Every: 2},
	{Cut: emulator.CutAfter},
	{Cut: emulator.CutClose},
	{Detach: "amqp:unauthorized-access", Description: "because"},
	{Detach: "amqp:internal-error"},
	{Detach: "amqp:internal-error", Partitions: []int{0}},
	{Throttle: 1, Times: 1},
	{Outcome: emulator.OutcomeRejected, Condition: "amqp:decode-error"},
	{Outcome: emulator.OutcomeReleased, Times: 3},
	{Outcome: emulator.OutcomeModified, Times: 3},
	{Status: 400},
	{Status: 403},
	{Status: 503, RetryAfter: 1, Times: 1},
	{NeverSettle: true},
	{Delay: emulator.Duration(50e6)},
	{Poison: `"n":3}`},
}

// talkative runs a copy with the settings and the arguments with which most is logged.
func (h *harness) talkative(more env.Settings) *replica {
	settings := env.Settings{"send.timeout": "400ms", "send.attempts": "2", "backoff.initial": "20ms", "backoff.max": "50ms"}
	maps.Copy(settings, more)
	r := h.replica("one", settings)
	r.args = append(r.args, "--log-level", "debug")
	r.start()
	r.awaitReady()
	return r
}

// No key of any endpoint shows in a log (at its most talkative), a metric or a
// reply of the API, whatever happens to the services.
func noSecretShows(h *harness) {
	fields := reflect.TypeFor[emulator.Fault]()
	for i := range fields.NumField() {
		tried := false
		for _, f := range everyFault {
			tried = tried || !reflect.ValueOf(f).Field(i).IsZero()
		}
		if !tried {
			h.T.Errorf("the fault %s is not tried", fields.Field(i).Name)
		}
	}
	set, known := h.SecretEndpoints()
	h.SetEndpoints(set...)
	r := h.talkative(nil)
	listed := r.list("")

	ask := func(when, method, path string, body []byte) int {
		h.T.Helper()
		a, err := r.call(h.Context(), method, path, body)
		h.Must(err)
		known.Check(h.T, when+": "+method+" "+path, string(a.body))
		return a.status
	}
	// look reads all that can be seen from outside, but for the log, which is read at the end.
	look := func(when string) {
		h.T.Helper()
		for _, path := range []string{"/endpoints", "/status", "/endpoints/nope"} {
			ask(when, http.MethodGet, path, nil)
		}
		for _, e := range listed {
			ask(when, http.MethodGet, "/endpoints/"+e.ID, nil)
			ask(when, http.MethodGet, "/endpoints/"+e.ID+"/status", nil)
		}
		known.Check(h.T, when+": metrics", r.metrics())
	}
	look("at the start")
	produced := 0
	for _, f := range everyFault {
		name, err := json.Marshal(f)
		h.Must(err)
		entities, made := []string{"hub", "topic", "grid"}, 0
		if f.Down || f.Hang || f.Silent {
			entities = append(entities, emulator.Namespace)
		}
		for _, entity := range entities {
			if h.Services.SetFault(entity, f) == nil { // some don't exist everywhere
				made++
			}
		}
		if made == 0 {
			h.T.Errorf("%s: no service can have it", name)
		}
		for i := range 12 {
			h.Produce(env.Value(fmt.Sprintf(`{"id":"%d","subject":"s","eventType":"SensorChange","eventTime":"2026-01-01T00:00:00Z","dataVersion":"1","data":{"n":%d}}`, i, i)))
		}
		produced += 12
		r.settled(produced)
		look(string(name))
		h.Repair(entities...)
		for _, e := range listed {
			ask("after "+string(name), http.MethodPost, "/endpoints/"+e.ID+"/retry", nil)
		}
	}
	for _, e := range r.status().Endpoints {
		if e.Delivered == 0 || dropped(e) == 0 {
			h.T.Errorf("%s: delivered %d, dropped %v: the faults did too much or too little", e.Path, e.Delivered, e.Dropped)
		}
	}

	// What is wrong with a body is said without the body.
	key := env.SecretKeys["namespace"].Primary
	for _, body := range []string{
		`{"type":"EventHub","path":"` + key + `","connectionString":"` + key + `"}`,
		`{"type":"` + key + `","eventTypes":["` + key + `"],"` + key + `":1,"body":"` + key + `"}`,
		`{"connectionString":"Endpoint=sb://x;SharedAccessKeyName=` + key + `;SharedAccessKey=a b` + key + `"`,
		`"` + key + `"`, key, `{"filter":"` + key + `"}`, `{"name":"` + key + `",}`, `{"connectionString":["` + key + `"]}`,
	} {
		for method, path := range map[string]string{http.MethodPost: "/endpoints", http.MethodPut: "/endpoints/" + listed[0].ID} {
			if status := ask("a bad body", method, path, []byte(body)); status != http.StatusBadRequest {
				h.T.Errorf("%s: %d", body, status)
			}
		}
	}
	for _, path := range []string{"/endpoints?types=" + url.QueryEscape(key), "/endpoints/" + url.PathEscape(key), "/endpoints?" + url.QueryEscape(key) + "=1"} {
		ask("a bad path", http.MethodGet, path, nil)
	}
	look("after bad requests")
	r.stop()
	known.Check(h.T, "the log", r.log.String())
}

// Nor does one show when the process dies with all its goroutines on the
// screen, as in a panic.
func noSecretInCrash(h *harness) {
	set, known := h.SecretEndpoints()
	h.SetEndpoints(set...)
	h.refuse("topic")
	r := h.run("one", nil)
	h.Produce(h.Events(2000)...)
	env.Eventually(h.T, "events arrive", func() bool { return h.Count("hub") > 0 })
	r.signal(syscall.SIGQUIT)
	r.wait()
	out := r.log.String()
	if !strings.Contains(out, "SIGQUIT") || !strings.Contains(out, "twinegress/sinks.") {
		h.T.Fatalf("no dump of the goroutines: %s", out)
	}
	known.Check(h.T, "the crash", out)
}

// ageKey writes a key file, whose key is a secret as well.
func (h *harness) ageKey(known env.Secrets, name string) string {
	h.T.Helper()
	key := storetest.AgeKey(h.T)
	known["the key "+name] = key
	return h.Write(name, []byte(key))
}

// No secret shows where the endpoints are in a topic: not in the topic, and
// not in what is said about records that can't be read and about brokers that
// fail.
func noSecretAroundTopic(h *harness) {
	set, known := h.SecretEndpoints()
	settings := h.inTopic()
	settings["endpoints.secretsKeyFile"] = h.ageKey(known, "secrets.key")
	topic := settings["endpoints.topic"]
	r := h.talkative(settings)
	var ids []string
	for _, e := range set {
		ids = append(ids, r.create(e))
	}
	records := func(topic string) (all string, last *kgo.Record) {
		for _, record := range h.Records(topic, int(h.Ends(topic)[0])) {
			all += string(record.Value) + "\n"
			if !record.Attrs.IsControl() {
				last = record
			}
		}
		return all, last
	}
	stored, _ := records(topic)
	if n := strings.Count(stored, "connectionString"); n < len(set) {
		h.T.Errorf("the topic has %d connection strings: %s", n, stored)
	}
	known.Check(h.T, "the topic", stored)

	// The record of a copy with another key.
	others := h.inTopic()
	others["endpoints.topic"], others["endpoints.secretsKeyFile"], others["ingest.group"] = topic+"-others", h.ageKey(known, "others.key"), h.Group+"-others"
	other := h.run("other", others)
	other.create(set[1])
	_, sealed := records(others["endpoints.topic"])
	other.stop()

	put := func(key string, value []byte) {
		h.Produce(&kgo.Record{Topic: topic, Key: []byte(key), Value: value})
	}
	const id, conn = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d", "connectionString"
	key, signed := set[0].Text(conn), set[3].Text(conn)
	var replies string
	changes := 0
	change := func() {
		changes++ // what changes nothing isn't written
		e := h.Hub("SensorChange").With("filter", fmt.Sprintf("$body.n != %d", changes))
		a, err := r.call(h.Context(), http.MethodPut, "/endpoints/"+ids[0], e.JSON())
		h.Must(err)
		replies += string(a.body)
	}
	fails := func(request kmsg.Key, err *kerr.Error) func() {
		return func() {
			h.Kafka.Cluster.Fault(kfake.Fault{TopLevel: true, Keys: []kmsg.Key{request}, Err: err})
			change()
		}
	}
	for _, tt := range []struct {
		name    string
		inject  func()
		says    string // in the log, or to who asks for a change
		byFault bool   // of the embedded broker
	}{
		{"half a record", func() { put(id, set[3].JSON()[:200]) }, "is not valid JSON", false},
		{"no endpoint", func() { put(id, []byte(`"`+key+`"`)) }, "must be a JSON object", false},
		{"keys in other fields", func() {
			put(id, []byte(`{"type":"`+key+`","path":"`+signed+`","`+key+`":1,"body":"`+set[2].Text(conn)+`"}`))
		}, "unknown field", false},
		{"a broken connection string", func() { put(id, set[3].With(conn, strings.Replace(signed, "sb://", "", 1)).JSON()) }, "Endpoint must start with sb://", false},
		{"another endpoint than the key says", func() { put(id, set[0].With("id", ids[0]).JSON()) }, "holds another endpoint than its key says", false},
		{"keys in the clear", func() { put(id, set[0].With("id", id).JSON()) }, "in the topic they must be encrypted", false},
		{"the name of another", func() {
			put(id, fmt.Appendf(nil, `{"id":%q,"name":%q,"type":"EventGrid","eventTypes":["SpaceChange"],"authentication":"identityBased","path":"t.westus-1.eventgrid.azure.net"}`, id, set[0].Text("name")))
		}, "can't be beside another", false},
		{"encrypted for others", func() { put(string(sealed.Key), sealed.Value) }, "can't be read", false},
		{"a change while a record can't be read", change, "no endpoint can be changed while this copy can't read", false},
		{"a commit of which nothing is known", func() {
			put(id, nil)
			put(string(sealed.Key), nil)
			env.Eventually(h.T, "the records are gone", func() bool { return len(r.list("")) == len(set) })
			fails(kmsg.EndTxn, kerr.UnknownServerError)()
		}, "may be in the endpoints topic or not", true},
		{"no producer id", fails(kmsg.InitProducerID, kerr.UnknownServerError), "asking for the transactional id", true},
		{"no permission", fails(kmsg.InitProducerID, kerr.TransactionalIDAuthorizationFailed), "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", true},
		{"another copy", fails(kmsg.InitProducerID, kerr.ProducerFenced), "another copy changes the endpoints", true},
		{"a topic that begins anew", func() {
			if _, err := h.Admin.DeleteTopic(h.Context(), topic); err != nil {
				h.T.Fatal(err)
			}
		}, "following the endpoints topic", false},
	} {
		if tt.byFault && h.Kafka == nil {
			continue
		}
		from := len(r.log.String())
		replies = ""
		tt.inject()
		env.Eventually(h.T, tt.name+": somebody is told "+tt.says, func() bool {
			return strings.Contains(r.log.String()[from:]+replies, tt.says)
		})
		known.Check(h.T, tt.name+": list", fmt.Sprint(r.list("")))
		known.Check(h.T, tt.name+": metrics", r.metrics())
		known.Check(h.T, tt.name+": replies", replies)
	}
	r.signal(syscall.SIGTERM)
	r.wait()
	known.Check(h.T, "the log", r.log.String())
}
