package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
)

// messages are what entities have recorded, sorted, with all that matters of
// each: entity, partition, message id without the topic, content type,
// properties, body.
func (h *harness) messages(entities ...string) []string {
	h.T.Helper()
	var all []string
	for _, entity := range entities {
		for _, m := range h.Services.Messages(entity) {
			properties, err := json.Marshal(m.Properties)
			h.Must(err)
			all = append(all, fmt.Sprintf("%s %s|%s|%s|%s|%s", entity, m.Partition,
				strings.TrimPrefix(m.MessageID, h.Topic+"/"), m.ContentType, properties, m.Body))
		}
	}
	slices.Sort(all)
	return all
}

// same compares lists of which the order doesn't matter.
func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// forms are records of every form that an event has, for four partitions:
// enveloped, with white space, in an array, traced, a device's own bytes, none at all.
func (h *harness) forms() []*kgo.Record {
	sample := h.Samples()
	return []*kgo.Record{
		{Partition: 0, Value: []byte(sample["SensorChange"])},
		{Partition: 1, Value: []byte(" " + sample["SpaceChange"] + "\n")},
		{Partition: 2, Value: []byte(sample["TopologyOperation"]), Headers: env.Headers("traceparent", "00-ab-cd-01")},
		{Partition: 2, Value: []byte(sample["UdfCustom"])},
		{Partition: 2, Key: []byte("k"), Value: []byte(sample["UdfCustom_zero_eventTime"])},
		{Partition: 0, Value: []byte("[" + sample["SensorChange"] + ",\n" + sample["SpaceChange"] + "]")},
		{Partition: 3, Value: []byte{0xff, 0, 1}, Headers: env.Headers(
			"DigitalTwins-Telemetry", "1.0", "DigitalTwins-SensorHardwareId", "00FF-CO2", "Type", "spoofed",
			"content-type", "application/cbor", "binary", "\xfe", "index", "not ours")},
		{Partition: 3, Value: []byte{}, Headers: env.Headers("DigitalTwins-Telemetry", "")},
		{Partition: 3, Value: []byte(strings.Replace(sample["SensorChange"], `"eventType": "SensorChange"`, `"eventType": "DeviceMessage"`, 1))},
	}
}

// Every documented sample lands on exactly the endpoints that asked for it,
// byte for byte, with the properties that the v1 service's consumers know.
func samples(h *harness) {
	data := h.ServiceBus("UdfCustom").With("name", "data").With("body", "data")
	h.SetEndpoints(h.Hub("SensorChange", "SpaceChange", "TopologyOperation", "UdfCustom"),
		h.ServiceBus("SensorChange", "TopologyOperation"), h.Grid("SpaceChange", "UdfCustom"), h.Devices(), data)
	records := h.forms()
	h.Produce(records...)
	r := h.run("one", nil)
	r.settled(len(records))

	const sensor, space, udf, zero, topology = "60bf5336-2929-45b4-bb4c-b45699dfe95f", "42522e10-b1aa-42ff-a5e7-7181788ffc4b",
		"568fd394-380b-46fa-925a-ebb96f658cce", "32162f00-a8f1-4d37-aee2-9312aabba0fd", "00000000-0000-0000-0000-000000000000"
	sample := h.Samples()
	enveloped := func(place, correlation, subject, typ, more, body string) string {
		return fmt.Sprintf(`%s|application/json|{"ContentType":"application/json","CorrelationId":%q,"Subject":%q,"Type":%q%s}|%s`,
			place, correlation, subject, typ, more, body)
	}
	sensorAt := func(place string) string {
		return enveloped(place, sensor, "SensorChange", "SensorChange", "", sample["SensorChange"])
	}
	spaceAt := func(place string) string {
		return enveloped(place, space, "SpaceChange", "SpaceChange", "", sample["SpaceChange"])
	}
	topologyAt := func(place string) string {
		return enveloped(place, topology, "ExtendedPropertyKey", "TopologyOperation", `,"traceparent":"00-ab-cd-01"`, sample["TopologyOperation"])
	}
	udfAt := func(place, correlation, body string) string {
		return enveloped(place, correlation, "UdfCustom", "UdfCustom", "", body)
	}
	dataOf := func(event string) string {
		var e struct{ Data json.RawMessage }
		unmarshal(h.T, event, &e)
		return string(e.Data)
	}
	same(h.T, "messages", h.messages("hub", "topic", "devices"), []string{
		sensorAt("hub 0|0/0"), sensorAt("hub 0|0/1/0"), spaceAt("hub 0|0/1/1"), spaceAt("hub 1|1/0"), topologyAt("hub 2|2/0"),
		udfAt("hub 2|2/1", udf, sample["UdfCustom"]), udfAt("hub 2|2/2", zero, sample["UdfCustom_zero_eventTime"]),
		sensorAt("topic 0|0/0"), sensorAt("topic 0|0/1/0"), topologyAt("topic 0|2/0"),
		udfAt("topic 0|2/1", udf, dataOf(sample["UdfCustom"])), udfAt("topic 0|2/2", zero, dataOf(sample["UdfCustom_zero_eventTime"])),
		`devices 1|3/0|application/cbor|{"ContentType":"application/cbor","DigitalTwins-SensorHardwareId":"00FF-CO2",` +
			`"DigitalTwins-Telemetry":"1.0","Type":"DeviceMessage","binary":"/g==","index":"not ours"}|` + "\xff\x00\x01",
		`devices 1|3/1|application/octet-stream|{"ContentType":"application/octet-stream","DigitalTwins-Telemetry":"","Type":"DeviceMessage"}|`,
		enveloped("devices 1|3/2", sensor, "SensorChange", "DeviceMessage", "", string(records[8].Value)),
	})
	// Event Grid: the same bytes, but for `topic`, which only the service may set.
	topicMember := regexp.MustCompile(`,\s*"topic": "[^"]*"`)
	var got, want []string
	for _, name := range []string{"SpaceChange", "SpaceChange", "UdfCustom", "UdfCustom_zero_eventTime"} {
		want = append(want, topicMember.ReplaceAllString(sample[name], ""))
	}
	for _, m := range h.Services.Messages("grid") {
		got = append(got, string(m.Body))
	}
	same(h.T, "grid", got, want)
	r.stop()
}

// Bad records between good ones: the good ones arrive, each bad one is in the
// dead-letter topic as it came, and the offsets move past all of them. The
// dead-letter topic takes what the ingest topic takes, and a little more.
func badInput(h *harness) {
	r := h.run("one", nil)
	good := h.Samples()["SensorChange"]
	huge := `{"id":"h","subject":"s","eventType":"SensorChange","data":"` + strings.Repeat("x", 2<<20) + `"}`
	largest := bytes.Repeat([]byte("?"), 4<<20-1000)
	records := []*kgo.Record{
		env.Value(good),
		{Key: []byte("k"), Value: []byte("\x00garbage\xff"), Headers: env.Headers("own", "kept")},
		env.Value(good),
		env.Value(good[:len(good)/2]),
		env.Value(`{"eventType":"Nope"}`),
		env.Value(good),
		env.Value(huge),
		env.Value(good),
		{Value: []byte{}},
		{Value: nil},
		env.Value(`[` + good + `,{"eventType":"Nope"},` + good + `]`),
		{Value: largest},
		env.Value(good),
	}
	h.Produce(records...)
	st := r.settled(len(records))
	if got := fmt.Sprint(st.Ingest.Rejected); got != "map[undecodable:5 unknown_type:2]" {
		h.T.Errorf("rejected %s", got)
	}
	ids := idsByPath(st)
	for _, e := range st.Endpoints {
		if e.Routed != 8 || e.Delivered != 7 || e.Dropped["too_large"] != 1 {
			h.T.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
		if n := h.Count(e.Path); n != 7 {
			h.T.Errorf("%s has %d messages, want the 7 good ones", e.Path, n)
		}
	}
	r.stop()
	if at := h.Committed()[0]; at != int64(len(records)) {
		h.T.Errorf("committed offset %d, want %d", at, len(records))
	}

	var got []string
	for _, l := range h.Records(h.DeadLetters, 9) {
		headers := env.HeadersOf(l)
		kind := "value"
		if l.Value == nil {
			kind = "tombstone"
		}
		got = append(got, fmt.Sprintf("%s %s/%s index=%s endpoint=%s own=%s key=%s %s %.20q", headers["reason"], headers["partition"],
			headers["offset"], headers["index"], headers["endpoint"], headers["own"], l.Key, kind, l.Value))
		if headers["detail"] == "" || headers["time"] == "" || headers["topic"] != h.Topic {
			h.T.Errorf("headers %v lack a detail, the time, or the topic", headers)
		}
		offset, _ := strconv.Atoi(headers["offset"])
		if headers["index"] == "" && !bytes.Equal(l.Value, records[offset].Value) {
			h.T.Errorf("offset %d: the value is not as it came: %.40q", offset, l.Value)
		}
	}
	same(h.T, "dead letters", got, []string{
		`undecodable 0/1 index= endpoint= own=kept key=k value "\x00garbage\xff"`,
		fmt.Sprintf(`undecodable 0/3 index= endpoint= own= key= value %.20q`, good),
		`unknown_type 0/4 index= endpoint= own= key= value "{\"eventType\":\"Nope\"}"`,
		`too_large 0/6 index= endpoint=` + ids["hub"] + ` own= key= value "{\"id\":\"h\",\"subject\":"`,
		`too_large 0/6 index= endpoint=` + ids["topic"] + ` own= key= value "{\"id\":\"h\",\"subject\":"`,
		`undecodable 0/8 index= endpoint= own= key= value ""`,
		`undecodable 0/9 index= endpoint= own= key= tombstone ""`,
		`unknown_type 0/10 index=1 endpoint= own= key= value "{\"eventType\":\"Nope\"}"`,
		fmt.Sprintf(`undecodable 0/11 index= endpoint= own= key= value %.20q`, largest),
	})
	configs, err := h.Admin.DescribeTopicConfigs(h.Context(), h.DeadLetters)
	h.Must(err)
	for _, c := range configs[0].Configs {
		if c.Key == "max.message.bytes" && c.MaybeValue() != strconv.Itoa(4<<20+64<<10) {
			h.T.Errorf("the dead-letter topic takes %s", c.MaybeValue())
		}
	}
}

// Events of one Kafka partition arrive in their order, each once, at every kind
// of endpoint; at an event hub all in hub partition p mod n. A producer may
// compress them with any codec.
func order(h *harness) {
	const each = 3000
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"), h.Grid("SensorChange"))
	r := h.run("one", nil)
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for _, codec := range codecs {
		client := h.NewClient(kgo.ProducerBatchCompression(codec))
		h.Must(client.ProduceSync(h.Context(), h.Events(each)...).FirstErr())
	}
	r.settled(len(codecs) * each)
	h.arrivedOnce(len(codecs)*each, "hub", "topic", "grid")
}

// What can be seen from outside: health, metrics, and the status with a token.
func outside(h *harness) {
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SpaceChange"))
	r := h.run("one", nil)
	if a, err := r.get(&r.ops, "/healthz"); err != nil || a.status != http.StatusOK {
		h.T.Errorf("/healthz is %d, %v", a.status, err)
	}
	sample := h.Samples()
	h.Produce(env.Value(sample["SensorChange"]), env.Value(sample["SensorChange"]), env.Value(sample["UdfCustom"]), env.Value("{"))
	st := r.settled(4)
	unauthorized, err := http.Get(r.address(&r.api, "/status"))
	h.Must(err)
	defer unauthorized.Body.Close()
	if unauthorized.StatusCode != http.StatusUnauthorized {
		h.T.Errorf("status without a token is %d, want 401", unauthorized.StatusCode)
	}
	if in := st.Ingest; in.Records != 4 || in.Events != 3 || in.Unrouted != 1 || !in.CaughtUp() {
		h.T.Errorf("ingest %+v", in)
	}
	id := ""
	for _, e := range st.Endpoints {
		if len(e.Dropped) != 10 {
			h.T.Errorf("%s: reasons %v, want all 10", e.Path, e.Dropped)
		}
		want := "provisioning 0 0 0 primary"
		if e.Path == "hub" {
			want, id = "ready 2 2 0 primary", e.ID
		}
		if got := fmt.Sprint(e.State, " ", e.Routed, " ", e.Delivered, " ", e.Pending, " ", e.Key); got != want {
			h.T.Errorf("%s: %s, want %s", e.Path, got, want)
		}
	}
	metrics := r.metrics()
	for _, line := range []string{
		`ingest_records_total 4`,
		`ingest_lag_records 0`,
		`events_total{event_type="SensorChange"} 2`,
		`events_total{event_type="UdfCustom"} 1`,
		`events_unrouted_total 1`,
		`events_rejected_total{reason="undecodable"} 1`,
		`endpoint_routed_events_total{endpoint="ID"} 2`,
		`endpoint_events_total{endpoint="ID",outcome="delivered",reason=""} 2`,
		`endpoint_pending_events{endpoint="ID"} 0`,
		`endpoint_state{endpoint="ID",state="ready"} 1`,
		`endpoint_send_seconds_count{endpoint="ID"} 1`,
		`routing_latency_seconds_count{endpoint_type="EventHub"} 2`,
	} {
		if line = strings.Replace(line, "ID", id, 1); !strings.Contains(metrics, "\ntwinegress_"+line+"\n") {
			h.T.Errorf("the metrics lack %s", line)
		}
	}
	if strings.Contains(metrics, "SharedAccessKey=") {
		h.T.Error("the metrics show a secret")
	}
}

// Each endpoint gets what its filter lets through, on all three services, and
// a new filter in the endpoints file works at once, over the same connections.
func filters(h *harness) {
	reading := func(id int, value string) *kgo.Record {
		return &kgo.Record{Partition: int32(id % 4), Value: fmt.Appendf(nil, `{"id":"%d","subject":"s","eventType":"SensorChange",`+
			`"eventTime":"2026-01-01T00:00:00Z","dataVersion":"1","data":{"Value":%s}}`, id, value)}
	}
	raw := func(value string) *kgo.Record {
		return &kgo.Record{Value: []byte(value), Headers: env.Headers("DigitalTwins-Telemetry", "")}
	}
	hub, topic, grid := h.Hub("SensorChange"), h.ServiceBus("SensorChange", "SpaceChange"), h.Grid("SensorChange")
	devices := h.Devices().With("filter", "type = 'DeviceMessage' AND NOT $body != null")
	h.SetEndpoints(hub.With("filter", "$body.Value > 20"), topic.With("filter", "type = 'SpaceChange' OR AS_NUMBER($body.Value) > 20"),
		grid.With("filter", "id = '3' AND type = 'SensorChange'"), devices)
	r := h.run("one", nil)
	h.Produce(reading(1, "10"), reading(2, "21"), reading(3, `"30"`), reading(4, "null"), raw(`{"data":1}`), raw("bytes"),
		env.Value(`{"id":"5","eventType":"DeviceMessage","data":1}`),
		env.Value(`[{"id":"6","subject":"s","eventType":"SpaceChange"},{"id":"7","subject":"s","eventType":"SensorChange","data":{"Value":22}}]`))
	st := r.settled(8)
	if st.Ingest.Unrouted != 3 { // 1, 4, and 5
		h.T.Errorf("%d unrouted, want 3", st.Ingest.Unrouted)
	}
	id := regexp.MustCompile(`^\{"id": ?"(\d)".*`)
	passed := func(want map[string]string) {
		h.T.Helper()
		for entity, want := range want {
			var got []string
			for _, m := range h.Services.Messages(entity) {
				got = append(got, id.ReplaceAllString(string(m.Body), "$1"))
			}
			slices.Sort(got)
			if got := strings.Join(got, " "); got != want {
				h.T.Errorf("%s got %s, want %s", entity, got, want)
			}
		}
	}
	passed(map[string]string{"hub": "2 7", "topic": "2 3 6 7", "grid": "3", "devices": `bytes {"data":1}`})
	links := func() (n int) {
		for _, e := range h.Services.Stats().Entities {
			n += e.Links
		}
		return n
	}
	before := links()

	// A new endpoint is seen together with the routes of its set; a changed one
	// may be seen before them.
	marker := h.Hub("TopologyOperation").With("name", "marker")
	h.SetEndpoints(hub.With("filter", "$body.Value <= 20"), topic, grid.With("filter", "false"), devices, marker)
	env.Eventually(h.T, "the change is in force", func() bool { return len(r.status().Endpoints) == 5 })
	h.Produce(reading(8, "10"), reading(9, "21"))
	st = r.settled(10)
	passed(map[string]string{"hub": "2 7 8", "topic": "2 3 6 7 8 9", "grid": "3"})
	if after := links(); after != before {
		h.T.Errorf("%d links to the services, %d before the change: a filter is no part of the connection", after, before)
	}
	for _, e := range st.Endpoints {
		if e.Routed != e.Delivered || e.State != "ready" && e.Routed > 0 {
			h.T.Errorf("%s after the change: %+v", e.Path, e)
		}
	}
}
