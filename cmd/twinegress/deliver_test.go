package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
)

// Every documented sample lands on exactly the endpoints that asked for it,
// byte for byte, with the properties that the v1 service's consumers know.
func TestSamplesLandWhereTheyWereAskedFor(t *testing.T) {
	w := newWorld(t, 4)
	data := w.amqp("data", endpoints.TypeServiceBus, "topic", []string{"UdfCustom"})
	data.Body = endpoints.BodyData
	r := w.start(w.config(),
		w.hub("SensorChange", "SpaceChange", "TopologyOperation", "UdfCustom"),
		w.topic("SensorChange", "TopologyOperation"),
		w.grid("SpaceChange", "UdfCustom"),
		w.devices(), data,
	)
	sample := samples(t)
	envelope := strings.Replace(sample["SensorChange"], `"eventType": "SensorChange"`, `"eventType": "DeviceMessage"`, 1)
	array := "[" + sample["SensorChange"] + ",\n" + sample["SpaceChange"] + "]"
	raw := &kgo.Record{Partition: 3, Value: []byte{0xff, 0, 1}, Headers: []kgo.RecordHeader{
		{Key: "DigitalTwins-Telemetry", Value: []byte("1.0")},
		{Key: "DigitalTwins-SensorHardwareId", Value: []byte("00FF-CO2")},
		{Key: "Type", Value: []byte("spoofed")},
		{Key: "content-type", Value: []byte("application/cbor")},
		{Key: "binary", Value: []byte{0xfe}},
	}}
	empty := &kgo.Record{Partition: 3, Value: []byte{}, Headers: []kgo.RecordHeader{{Key: "DigitalTwins-Telemetry"}}}
	traced := &kgo.Record{Partition: 2, Value: []byte(sample["TopologyOperation"]), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-ab-cd-01")}}}
	w.produce(
		&kgo.Record{Partition: 0, Value: []byte(sample["SensorChange"])},
		&kgo.Record{Partition: 1, Value: []byte(" " + sample["SpaceChange"] + "\n")},
		traced,
		&kgo.Record{Partition: 2, Value: []byte(sample["UdfCustom"])},
		&kgo.Record{Partition: 2, Value: []byte(sample["UdfCustom_zero_eventTime"])},
		&kgo.Record{Partition: 0, Value: []byte(array)},
		raw, empty,
		&kgo.Record{Partition: 3, Value: []byte(envelope)},
	)
	r.settled(9)

	jsonProps := func(typ, correlation, subject string) string {
		return fmt.Sprintf(`{"ContentType":"application/json","CorrelationId":%q,"Subject":%q,"Type":%q}`, correlation, subject, typ)
	}
	const sensor, space, udf, zero, topology = "60bf5336-2929-45b4-bb4c-b45699dfe95f", "42522e10-b1aa-42ff-a5e7-7181788ffc4b",
		"568fd394-380b-46fa-925a-ebb96f658cce", "32162f00-a8f1-4d37-aee2-9312aabba0fd", "00000000-0000-0000-0000-000000000000"
	dataOf := func(event string) string {
		var e struct{ Data json.RawMessage }
		if err := json.Unmarshal([]byte(event), &e); err != nil {
			t.Fatal(err)
		}
		return string(e.Data)
	}
	topologyProps := `{"ContentType":"application/json","CorrelationId":"` + topology + `","Subject":"ExtendedPropertyKey","Type":"TopologyOperation","traceparent":"00-ab-cd-01"}`
	// partition | message id | content type | properties | body
	want := map[string][]string{
		"hub": {
			"0|" + ingestTopic + "/0/0|application/json|" + jsonProps("SensorChange", sensor, "SensorChange") + "|" + sample["SensorChange"],
			"0|" + ingestTopic + "/0/1/0|application/json|" + jsonProps("SensorChange", sensor, "SensorChange") + "|" + sample["SensorChange"],
			"0|" + ingestTopic + "/0/1/1|application/json|" + jsonProps("SpaceChange", space, "SpaceChange") + "|" + sample["SpaceChange"],
			"1|" + ingestTopic + "/1/0|application/json|" + jsonProps("SpaceChange", space, "SpaceChange") + "|" + sample["SpaceChange"],
			"2|" + ingestTopic + "/2/0|application/json|" + topologyProps + "|" + sample["TopologyOperation"],
			"2|" + ingestTopic + "/2/1|application/json|" + jsonProps("UdfCustom", udf, "UdfCustom") + "|" + sample["UdfCustom"],
			"2|" + ingestTopic + "/2/2|application/json|" + jsonProps("UdfCustom", zero, "UdfCustom") + "|" + sample["UdfCustom_zero_eventTime"],
		},
		"topic": {
			"0|" + ingestTopic + "/0/0|application/json|" + jsonProps("SensorChange", sensor, "SensorChange") + "|" + sample["SensorChange"],
			"0|" + ingestTopic + "/0/1/0|application/json|" + jsonProps("SensorChange", sensor, "SensorChange") + "|" + sample["SensorChange"],
			"0|" + ingestTopic + "/2/0|application/json|" + topologyProps + "|" + sample["TopologyOperation"],
			"0|" + ingestTopic + "/2/1|application/json|" + jsonProps("UdfCustom", udf, "UdfCustom") + "|" + dataOf(sample["UdfCustom"]),
			"0|" + ingestTopic + "/2/2|application/json|" + jsonProps("UdfCustom", zero, "UdfCustom") + "|" + dataOf(sample["UdfCustom_zero_eventTime"]),
		},
		"devices": {
			"1|" + ingestTopic + `/3/0|application/cbor|{"ContentType":"application/cbor","DigitalTwins-SensorHardwareId":"00FF-CO2","DigitalTwins-Telemetry":"1.0","Type":"DeviceMessage","binary":"/g=="}|` + "\xff\x00\x01",
			"1|" + ingestTopic + `/3/1|application/octet-stream|{"ContentType":"application/octet-stream","DigitalTwins-Telemetry":"","Type":"DeviceMessage"}|`,
			"1|" + ingestTopic + "/3/2|application/json|" + jsonProps("DeviceMessage", sensor, "SensorChange") + "|" + envelope,
		},
	}
	for entity, want := range want {
		var got []string
		for _, m := range w.services.Messages(entity) {
			properties, err := json.Marshal(m.Properties)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s|%s|%s|%s|%s", m.Partition, m.MessageID, m.ContentType, properties, m.Body))
		}
		slices.Sort(got)
		if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
			t.Errorf("%s got:\n%s\nwant:\n%s", entity, g, w)
		}
	}

	// Event Grid: the same bytes, but for `topic`, which only the service may set.
	topicMember := regexp.MustCompile(`,\s*"topic": "[^"]*"`)
	var gotGrid, wantGrid []string
	for _, name := range []string{"SpaceChange", "SpaceChange", "UdfCustom", "UdfCustom_zero_eventTime"} {
		wantGrid = append(wantGrid, topicMember.ReplaceAllString(sample[name], ""))
	}
	for _, m := range w.services.Messages("grid") {
		gotGrid = append(gotGrid, string(m.Body))
	}
	slices.Sort(gotGrid)
	slices.Sort(wantGrid)
	if g, w := strings.Join(gotGrid, "\n"), strings.Join(wantGrid, "\n"); g != w {
		t.Errorf("grid got:\n%s\nwant:\n%s", g, w)
	}
}

// Bad records between good ones: the good ones arrive, each bad one is in the
// dead-letter topic as it came, and the offsets move past all of them.
func TestBadInputIsSetAside(t *testing.T) {
	w := newWorld(t, 1)
	r := w.start(w.config(), w.hub("SensorChange"), w.topic("SensorChange"))
	good := samples(t)["SensorChange"]
	huge := `{"id":"h","subject":"s","eventType":"SensorChange","data":"` + strings.Repeat("x", 2<<20) + `"}`
	header := kgo.RecordHeader{Key: "own", Value: []byte("kept")}
	records := []*kgo.Record{
		value(good),
		{Key: []byte("k"), Value: []byte("\x00garbage\xff"), Headers: []kgo.RecordHeader{header}},
		value(good),
		value(good[:len(good)/2]),
		value(`{"eventType":"Nope"}`),
		value(good),
		value(huge),
		value(good),
		{Value: []byte{}},
		{Value: nil},
		value(`[` + good + `,{"eventType":"Nope"},` + good + `]`),
		value(good),
	}
	w.produce(records...)
	r.settled(len(records))
	st := r.Pipeline.Status()
	if got := fmt.Sprint(st.Ingest.Rejected); got != "map[undecodable:4 unknown_type:2]" {
		t.Errorf("rejected %s", got)
	}
	ids := make(map[string]string)
	for _, e := range st.Endpoints {
		ids[e.Path] = e.ID
		if e.Routed != 8 || e.Delivered != 7 || e.Dropped["too_large"] != 1 {
			t.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
		if n := w.services.Stats().Entity(e.Path).Count; n != 7 {
			t.Errorf("%s has %d messages, want the 7 good ones", e.Path, n)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if at := w.committed(0); at != int64(len(records)) {
		t.Errorf("committed offset %d, want %d", at, len(records))
	}

	var got []string
	for _, l := range w.deadLetters(8) {
		h := headersOf(l)
		kind := "value"
		if l.Value == nil {
			kind = "tombstone"
		}
		got = append(got, fmt.Sprintf("%s %s/%s/%s index=%s endpoint=%s own=%s key=%s %s %.20q", h["reason"], h["topic"], h["partition"],
			h["offset"], h["index"], h["endpoint"], h["own"], l.Key, kind, l.Value))
		if h["detail"] == "" || h["time"] == "" {
			t.Errorf("headers %v lack a detail or the time", h)
		}
		offset, _ := strconv.Atoi(h["offset"])
		if h["index"] == "" && string(l.Value) != string(records[offset].Value) {
			t.Errorf("offset %d: the value is not as it came: %.40q", offset, l.Value)
		}
	}
	want := []string{
		`undecodable ` + ingestTopic + `/0/1 index= endpoint= own=kept key=k value "\x00garbage\xff"`,
		fmt.Sprintf(`undecodable `+ingestTopic+`/0/3 index= endpoint= own= key= value %.20q`, good),
		`unknown_type ` + ingestTopic + `/0/4 index= endpoint= own= key= value "{\"eventType\":\"Nope\"}"`,
		`too_large ` + ingestTopic + `/0/6 index= endpoint=` + ids["hub"] + ` own= key= value "{\"id\":\"h\",\"subject\":"`,
		`too_large ` + ingestTopic + `/0/6 index= endpoint=` + ids["topic"] + ` own= key= value "{\"id\":\"h\",\"subject\":"`,
		`undecodable ` + ingestTopic + `/0/8 index= endpoint= own= key= value ""`,
		`undecodable ` + ingestTopic + `/0/9 index= endpoint= own= key= tombstone ""`,
		`unknown_type ` + ingestTopic + `/0/10 index=1 endpoint= own= key= value "{\"eventType\":\"Nope\"}"`,
	}
	slices.Sort(got)
	slices.Sort(want)
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("dead letters:\n%s\nwant:\n%s", g, w)
	}
}

// numbered makes n events that carry their place in their partition.
func numbered(n int, partitions int32) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		p := int32(i) % partitions
		records[i] = &kgo.Record{Partition: p, Value: fmt.Appendf(nil,
			`{"id":"%d","subject":"SensorChange","eventType":"SensorChange","eventTime":"2026-01-01T00:00:00Z","dataVersion":"1","data":{"p":%d,"n":%d}}`, i, p, i/int(partitions))}
	}
	return records
}

// place reads back what numbered wrote.
func place(t testing.TB, m emulator.Message) (partition, n int) {
	t.Helper()
	var e struct{ Data struct{ P, N int } }
	if err := json.Unmarshal(m.Body, &e); err != nil {
		t.Fatal(err)
	}
	return e.Data.P, e.Data.N
}

// Events of one Kafka partition arrive in their order, at every kind of
// endpoint; at an event hub all in hub partition p mod n.
func TestOrderOfEachPartition(t *testing.T) {
	const partitions, total = 6, 30_000
	w := newWorld(t, partitions)
	r := w.start(w.config(), w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange"))
	w.produce(numbered(total, partitions)...)
	r.settled(total)
	for _, entity := range []string{"hub", "topic", "grid"} {
		messages := w.services.Messages(entity)
		if len(messages) != total {
			t.Errorf("%s has %d messages, want %d", entity, len(messages), total)
		}
		next := make(map[int]int)
		for _, m := range messages {
			p, n := place(t, m)
			if entity == "hub" && m.Partition != strconv.Itoa(p%4) {
				t.Fatalf("Kafka partition %d is in hub partition %s, want %d", p, m.Partition, p%4)
			}
			if n != next[p] {
				t.Fatalf("%s: partition %d has event %d where %d was next", entity, p, n, next[p])
			}
			next[p]++
		}
	}
}

// What can be seen from outside: health, metrics, and the status with a token.
func TestSeenFromOutside(t *testing.T) {
	w := newWorld(t, 2)
	cfg := w.config()
	sum := sha256.Sum256([]byte("a token"))
	cfg.API.Tokens = []config.Token{{Name: "ops", SHA256: hex.EncodeToString(sum[:]), Role: config.RoleRead}}
	r := w.start(cfg, w.hub("SensorChange"), w.topic("SpaceChange"))
	ops, api := "http://"+r.OpsAddress(), "http://"+r.APIAddress()+"/management/api/v1.0/status"
	eventually(t, "/readyz is 200", func() bool {
		code, _ := get(t, ops+"/readyz", "")
		return code == 200
	})
	if code, _ := get(t, ops+"/healthz", ""); code != 200 {
		t.Errorf("/healthz is %d", code)
	}
	sample := samples(t)
	w.produce(value(sample["SensorChange"]), value(sample["SensorChange"]), value(sample["UdfCustom"]), value("{"))
	r.settled(4)

	if code, _ := get(t, api, ""); code != 401 {
		t.Errorf("status without a token is %d, want 401", code)
	}
	code, body := get(t, api, "a token")
	var st struct {
		Ingest    struct{ Records, Events, Unrouted, Lag int }
		Endpoints []struct {
			ID, Path, State, Key       string
			Routed, Delivered, Pending int
			Dropped                    map[string]int
		}
	}
	if err := json.Unmarshal([]byte(body), &st); err != nil || code != 200 {
		t.Fatalf("status %d: %v\n%s", code, err, body)
	}
	if st.Ingest.Records != 4 || st.Ingest.Events != 3 || st.Ingest.Unrouted != 1 {
		t.Errorf("ingest %+v", st.Ingest)
	}
	hubID := ""
	for _, e := range st.Endpoints {
		if len(e.Dropped) != 8 {
			t.Errorf("%s: reasons %v, want all 8", e.Path, e.Dropped)
		}
		want := "provisioning 0 0 0 primary"
		if e.Path == "hub" {
			want, hubID = "ready 2 2 0 primary", e.ID
		}
		if got := fmt.Sprint(e.State, " ", e.Routed, " ", e.Delivered, " ", e.Pending, " ", e.Key); got != want {
			t.Errorf("%s: %s, want %s", e.Path, got, want)
		}
	}

	_, metrics := get(t, ops+"/metrics", "")
	for _, line := range []string{
		`twinegress_ingest_records_total 4`,
		`twinegress_ingest_lag_records 0`,
		`twinegress_events_total{event_type="SensorChange"} 2`,
		`twinegress_events_total{event_type="UdfCustom"} 1`,
		`twinegress_events_unrouted_total 1`,
		`twinegress_events_rejected_total{reason="undecodable"} 1`,
		`twinegress_endpoint_routed_events_total{endpoint="` + hubID + `",endpoint_type="EventHub"} 2`,
		`twinegress_endpoint_events_total{endpoint="` + hubID + `",endpoint_type="EventHub",outcome="delivered",reason=""} 2`,
		`twinegress_endpoint_events_total{endpoint="` + hubID + `",endpoint_type="EventHub",outcome="dropped",reason="backoff"} 0`,
		`twinegress_endpoint_pending_events{endpoint="` + hubID + `",endpoint_type="EventHub"} 0`,
		`twinegress_endpoint_state{endpoint="` + hubID + `",state="ready"} 1`,
		`twinegress_endpoint_state{endpoint="` + hubID + `",state="backing_off"} 0`,
		`twinegress_endpoint_backoff_seconds{endpoint="` + hubID + `"} 0`,
		`twinegress_endpoint_batch_events_sum{endpoint="` + hubID + `"} 2`,
		`twinegress_routing_latency_seconds_count{endpoint_type="EventHub"} 2`,
	} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	for _, secret := range []string{w.hub().ConnectionString, "SharedAccessKey="} {
		if strings.Contains(metrics+body, secret) {
			t.Error("a secret can be seen from outside")
		}
	}
}
