package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/sinks"
)

// What v1's clients rely on, and what they get besides.
func TestCreateGetUpdateDelete(t *testing.T) {
	r := newEnv(t)
	w := r.do(call{method: "POST", path: Base + "/endpoints", body: newHub})
	id := decode[string](t, w)
	location := w.Header().Get("Location")
	if len(id) != 36 || location != Base+"/endpoints/"+id || strings.TrimSpace(w.Body.String()) != `"`+id+`"` {
		t.Fatalf("id %q, Location %q, body %s", id, location, w.Body)
	}
	tag := w.Header().Get("ETag")

	w = r.do(call{method: "GET", path: location})
	if w.Header().Get("ETag") != tag {
		t.Errorf("ETag %s of GET, %s of POST", w.Header().Get("ETag"), tag)
	}
	got := decode[map[string]any](t, w)
	if at, err := time.Parse(time.RFC3339, got["lastUpdatedUtc"].(string)); err != nil || time.Since(at) > time.Minute {
		t.Errorf("lastUpdatedUtc %v", got["lastUpdatedUtc"])
	}
	delete(got, "lastUpdatedUtc")
	want := map[string]any{
		"id": id, "type": "EventHub", "eventTypes": []any{"TopologyOperation"}, "path": "other",
		"connectionString": strings.Replace(storetest.Conn1, storetest.Key1, "***", 1),
		"authentication":   "keyBased", "body": "envelope", "ordering": "partition", "overflow": "block",
		"recovery": "drop", "enabled": true, "startAt": "now",
		"status": "Provisioning", "properties": map[string]any{},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	// What was read is sent back with one field changed: the key stays.
	body := strings.Replace(w.Body.String(), "TopologyOperation", "UdfCustom", 1)
	w = r.do(call{method: "PUT", path: location, body: body, header: map[string]string{"If-Match": tag}})
	if w.Code != 204 || w.Body.Len() != 0 || w.Header().Get("ETag") == tag {
		t.Fatalf("%d, ETag %s, %s", w.Code, w.Header().Get("ETag"), w.Body)
	}
	e := r.stored(id)
	if e.ConnectionString != storetest.Conn1 || e.EventTypes[0] != "UdfCustom" {
		t.Errorf("stored: %s %v", e.ConnectionString, e.EventTypes)
	}
	if w := r.do(call{method: "PUT", path: location, body: body, header: map[string]string{"If-Match": tag}}); w.Code != 412 {
		t.Errorf("the old ETag again: %d", w.Code)
	}
	if w := r.do(call{method: "DELETE", path: location}); w.Code != 204 {
		t.Errorf("DELETE: %d", w.Code)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if w := r.do(call{method: method, path: location}); w.Code != 404 {
			t.Errorf("%s after DELETE: %d", method, w.Code)
		}
	}
	if w := r.do(call{method: "PUT", path: location, body: body}); w.Code != 404 {
		t.Errorf("PUT after DELETE: %d", w.Code)
	}
}

func (r *env) stored(id string) endpoints.Endpoint {
	r.t.Helper()
	set := r.store.Current()
	i := slices.IndexFunc(set, func(e endpoints.Endpoint) bool { return e.ID == id })
	if i < 0 {
		r.t.Fatalf("%s is not stored", id)
	}
	return set[i]
}

// The resource has every field that an endpoint has, its keys masked, and how
// the endpoint is doing.
func TestResource(t *testing.T) {
	r := newEnv(t)
	e := r.stored(hubID)
	e.Filter, e.LastUpdated = "type = 'x'", time.Now()
	shown, _ := (&operations{r.options}).resource(e)
	var want, got map[string]any
	for v, to := range map[any]*map[string]any{&e: &want, &shown: &got} {
		text, err := json.Marshal(v)
		storetest.Must(t, err)
		storetest.Must(t, json.Unmarshal(text, to))
	}
	want["status"], want["properties"] = "Ready", map[string]any{}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestStatusOfEndpoint(t *testing.T) {
	r := newEnv(t)
	get := func(header map[string]string) *httptest.ResponseRecorder {
		return r.do(call{method: "GET", path: Base + "/endpoints/" + hubID, header: header})
	}
	w := get(nil)
	if one := decode[Endpoint](t, w); one.Status != "Ready" || len(one.Properties) != 0 {
		t.Errorf("%+v", one)
	}
	tag := w.Header().Get("ETag")
	if w := get(map[string]string{"If-None-Match": `"x", W/` + tag}); w.Code != 304 || w.Body.Len() != 0 || w.Header().Get("ETag") != tag {
		t.Errorf("not changed: %d, ETag %q, %s", w.Code, w.Header().Get("ETag"), w.Body)
	}
	until := time.Date(2026, 1, 31, 8, 0, 0, 5, time.FixedZone("", 3600))
	r.state.Store(&sinks.Health{State: sinks.StateBackingOff, Reason: "unauthorized", LastError: "both keys are refused", BackOffUntil: until})
	w = get(map[string]string{"If-None-Match": tag})
	want := map[string]string{"reason": "unauthorized", "lastError": "both keys are refused", "backOffUntil": "2026-01-31T07:00:00Z"}
	if one := decode[Endpoint](t, w); one.Status != "Failed" || fmt.Sprint(one.Properties) != fmt.Sprint(want) {
		t.Errorf("%+v", one)
	}
	r.state.Store(&sinks.Health{State: sinks.StateDegraded, Reason: "unreachable", LastError: "detached (partition 2)", BackOffUntil: until})
	w = get(map[string]string{"If-None-Match": w.Header().Get("ETag")})
	want = map[string]string{"state": "degraded", "reason": "unreachable", "lastError": "detached (partition 2)", "backOffUntil": "2026-01-31T07:00:00Z"}
	if one := decode[Endpoint](t, w); one.Status != "Ready" || fmt.Sprint(one.Properties) != fmt.Sprint(want) {
		t.Errorf("%+v", one)
	}
	r.state.Store(&sinks.Health{State: sinks.StateBehind, BehindSince: until})
	w = get(map[string]string{"If-None-Match": w.Header().Get("ETag")})
	want = map[string]string{"state": "behind", "behindSince": "2026-01-31T07:00:00Z"}
	if one := decode[Endpoint](t, w); one.Status != "Ready" || fmt.Sprint(one.Properties) != fmt.Sprint(want) {
		t.Errorf("%+v", one)
	}
	r.state.Store(&sinks.Health{State: sinks.StateBehind, BehindSince: until.Add(time.Hour)})
	if w = get(map[string]string{"If-None-Match": w.Header().Get("ETag")}); w.Code != 200 {
		t.Errorf("behind anew: %d", w.Code)
	}
	e := r.stored(hubID)
	e.Enabled = new(false)
	for state, want := range map[sinks.State]string{sinks.StateBackingOff: StatusStopped, sinks.StateReady: StatusStopped, sinks.StateDeleting: StatusDeleting} {
		r.state.Store(&sinks.Health{State: state})
		if shown, _ := (&operations{r.options}).resource(e); shown.Status != want {
			t.Errorf("not enabled, %s: %s, want %s", state, shown.Status, want)
		}
	}
	e.ID = noID // doesn't run
	if shown, _ := (&operations{r.options}).resource(e); shown.Status != StatusStopped {
		t.Errorf("not enabled, not running: %s", shown.Status)
	}
	if w := get(map[string]string{"If-None-Match": "*"}); w.Code != 304 {
		t.Errorf("any: %d", w.Code)
	}
	if w := r.do(call{method: "POST", path: Base + "/endpoints/" + hubID + "/retry"}); w.Code != 200 || r.retried.Load() != 1 || w.Body.String() != `{"copies":3,"notice":"why"}`+"\n" {
		t.Errorf("retry: %d %s, %d calls", w.Code, w.Body, r.retried.Load())
	}
	if w := r.do(call{method: "GET", path: Base + "/status"}); !strings.Contains(w.Body.String(), `"records":7`) {
		t.Errorf("status %s", w.Body)
	}
	if w := r.do(call{method: "GET", path: Base + "/endpoints/" + strings.ToUpper(hubID) + "/status"}); !strings.Contains(w.Body.String(), `"routed":3`) {
		t.Errorf("status of the endpoint %s", w.Body)
	}
}

func TestList(t *testing.T) {
	r := newEnv(t)
	old := time.Now().Add(-time.Hour).UTC()
	r.do(call{method: "PUT", path: Base + "/endpoints/" + gridID, body: `{"type":"EventGrid","eventTypes":["UdfCustom"],"path":"topic.westus-1.eventgrid.azure.net","connectionString":"***"}`})
	changed := r.stored(gridID).LastUpdated
	after := changed.Add(time.Nanosecond)
	for query, want := range map[string][]string{
		"":                                        {hubID, gridID},
		"types=EventHub":                          {hubID},
		"types=eventhub,EVENTGRID":                {hubID, gridID},
		"types=EventHub&types=EventGrid":          {hubID, gridID},
		"Types=EventGrid":                         {gridID},
		"types=ServiceBus":                        {},
		"types=":                                  {hubID, gridID},
		"eventTypes=SpaceChange":                  {hubID},
		"eventTypes=spacechange,UdfCustom":        {hubID, gridID},
		"eventTypes=DeviceMessage":                {},
		"types=EventHub&eventTypes=UdfCustom":     {},
		"timeUpdated=" + old.Format(time.RFC3339): {hubID, gridID},
		"timeUpdated=" + url.QueryEscape(changed.Format(time.RFC3339Nano)):             {gridID},
		"timeUpdated=" + changed.In(time.FixedZone("", 7200)).Format(time.RFC3339Nano): {gridID},
		"timeUpdated=" + url.QueryEscape(after.Format(time.RFC3339Nano)):               {},
		"timeUpdated=" + old.Format("2006-01-02T15:04:05.0000000"):                     {hubID, gridID},
		"timeUpdated=2000-01-01": {hubID, gridID},
		"timeUpdated=" + after.Format("2006-01-02T15:04:05.999999999"): {},
		"$top=1":                 {hubID},
		"%24top=1":               {hubID},
		"$top=1&$skip=1":         {gridID},
		"$top=9":                 {hubID, gridID},
		"$top=0":                 {},
		"$skip=2":                {},
		"$skip=99&$top=1":        {},
		"$Top=1&types=EventGrid": {gridID},
	} {
		w := r.do(call{method: "GET", path: Base + "/endpoints?" + query})
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), "[") {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
			continue
		}
		ids := []string{}
		for _, e := range decode[[]Endpoint](t, w) {
			ids = append(ids, e.ID)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%s: %v, want %v", query, ids, want)
		}
	}
	for query, fields := range map[string][]string{
		"types=Queue":                            {"types"},
		"type=EventHub":                          {"type"},
		"eventTypes=a,b":                         {"eventTypes", "eventTypes"},
		"timeUpdated=tomorrow":                   {"timeUpdated"},
		"types=EventGrid;eventTypes=UdfCustom":   {""},
		"$top=%zz":                               {""},
		"$top=-1&$skip=x&types=Queue&colour=red": {"$skip", "$top", "colour", "types"},
	} {
		w := r.do(call{method: "GET", path: Base + "/endpoints?" + query})
		var got []string
		for _, d := range errorOf(t, w).Details {
			got = append(got, d.Field)
		}
		if w.Code != 400 || !slices.Equal(got, fields) {
			t.Errorf("%s: %d %v, want %v", query, w.Code, got, fields)
		}
	}
}

// The links lead to every endpoint once.
func TestPages(t *testing.T) {
	r := newEnv(t)
	for range 5 {
		r.do(call{method: "POST", path: "/endpoints", body: newHub})
	}
	var ids []string
	pages := 0
	for next := Base + "/endpoints?$top=3&types=EventHub"; next != ""; pages++ {
		w := r.do(call{method: "GET", path: next})
		for _, e := range decode[[]Endpoint](t, w) {
			ids = append(ids, e.ID)
		}
		link, rel, _ := strings.Cut(w.Header().Get("Link"), ">; ")
		if next = strings.TrimPrefix(link, "<"); next != "" && rel != `rel="next"` {
			t.Errorf("Link %q", w.Header().Get("Link"))
		}
	}
	if len(ids) != 6 || pages != 2 || !slices.IsSorted(ids) || len(slices.Compact(ids)) != 6 {
		t.Errorf("%d pages: %v", pages, ids)
	}
}

// Who changed what, and nothing else, is in the log at its usual level.
func TestAudit(t *testing.T) {
	r := newEnv(t)
	client := map[string]string{clientRequestIDHeader: "mine\n" + strings.Repeat("x", 200)}
	w := r.do(call{method: "POST", path: "/endpoints", body: newHub, header: client})
	id := decode[string](t, w)
	if got := w.Header().Get(clientRequestIDHeader); got != "mine"+strings.Repeat("x", 124) {
		t.Errorf("echoed %q", got)
	}
	path := Base + "/endpoints/" + id
	put := strings.Replace(newHub, storetest.Key1, storetest.Key2, 1)
	r.do(call{method: "PUT", path: path, body: strings.Replace(put, "other", "another", 1)})
	r.do(call{method: "PUT", path: path, body: `{}`})
	r.do(call{method: "DELETE", path: path, token: reader})
	r.do(call{method: "POST", path: Base + "/endpoints/" + hubID + "/retry"})
	r.do(call{method: "DELETE", path: path})
	want := []string{"endpoint created <nil>", "endpoint changed [connectionString path]", "endpoint's back-off ended <nil>", "endpoint deleted <nil>"}
	var got []string
	for _, entry := range r.logs.All() {
		fields := entry.ContextMap()
		storetest.NoSecret(t, "a log line", fmt.Sprint(entry.Message, fields))
		if entry.Level < zap.InfoLevel {
			if entry.Message != "request" || fields["status"] == nil || fields["requestId"] == "" {
				t.Errorf("%s %v", entry.Message, fields)
			}
			continue
		}
		got = append(got, fmt.Sprint(entry.Message, " ", fields["fields"]))
		if fields["who"] != "ops" || len(fields["requestId"].(string)) != 36 || fields["audit"] != true {
			t.Errorf("%s: %v", entry.Message, fields)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("audit %q, want %q", got, want)
	}
}

// A body that ends too early is a 400.
func TestCutOffBody(t *testing.T) {
	r := newEnv(t)
	request := httptest.NewRequest(http.MethodPost, Base+"/endpoints", io.MultiReader(strings.NewReader(`{"type":`), iotest.ErrReader(io.ErrUnexpectedEOF)))
	request.Header.Set("Authorization", "Bearer "+writer)
	request.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, request)
	if e := errorOf(t, w); w.Code != 400 || !strings.Contains(e.Message, "can't be read to its end") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestStoreErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		status int
		says   string
	}{
		"read only": {fmt.Errorf("%w: endpoints.json is mounted read-only", endpoints.ErrReadOnly), 403, "mounted read-only"},
		"unknown":   {fmt.Errorf("%w: no answer", endpoints.ErrUnknown), 503, "not known whether the change took effect"},
		"other":     {fmt.Errorf("disk full"), 503, "disk full"},
	} {
		r := newEnv(t, func(o *Options) { o.Store = failing{o.Store, tt.err} })
		for _, c := range []call{
			{method: "POST", path: "/endpoints", body: newHub},
			{method: "PUT", path: Base + "/endpoints/" + hubID, body: newHub},
			{method: "DELETE", path: Base + "/endpoints/" + hubID},
		} {
			if w := r.do(c); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("%s: %s: %d %s", name, c.method, w.Code, w.Body)
			}
		}
	}
}
