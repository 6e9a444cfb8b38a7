package emulator_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"twinegress/internal/emulator"
)

const goodEvent = `{"id":"1","subject":"Space","eventType":"SpaceChange","eventTime":"2026-01-02T03:04:05Z","data":{"a":[1,{"b":null}]},"dataVersion":"1.0"}`

// grid posts to the Event Grid topic "grid".
type grid struct {
	t *testing.T
	e *emulator.Emulator
	c *http.Client
}

func newGrid(t *testing.T, e *emulator.Emulator) grid {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(e.CAPEM()) {
		t.Fatal("no certificate in CAPEM")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return grid{t, e, &http.Client{Transport: tr, Timeout: 3 * time.Second}}
}

func (g grid) post(body string, change ...func(*http.Request)) (*http.Response, error) {
	g.t.Helper()
	u := "https://" + g.e.EventGridHost("grid") + "/api/events?api-version=2018-01-01"
	r, err := http.NewRequestWithContext(g.t.Context(), http.MethodPost, u, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("aeg-sas-key", g.e.EventGridKey("grid", emulator.Primary))
	for _, fn := range change {
		fn(r)
	}
	resp, err := g.c.Do(r)
	if err != nil {
		return nil, err
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK && !json.Valid(b) {
		g.t.Errorf("status %d with the body %q", resp.StatusCode, b)
	}
	return resp, nil
}

func (g grid) status(body string, change ...func(*http.Request)) int {
	g.t.Helper()
	resp, err := g.post(body, change...)
	if err != nil {
		g.t.Error(err)
		return 0
	}
	return resp.StatusCode
}

func TestGridRules(t *testing.T) {
	e := start(t)
	g := newGrid(t, e)
	without := func(field string) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(goodEvent), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, field)
		b, _ := json.Marshal([]any{m})
		return string(b)
	}
	with := func(more string) string { return "[" + strings.Replace(goodEvent, `{"id"`, "{"+more+`,"id"`, 1) + "]" }
	for name, c := range map[string]struct {
		body string
		want int
	}{
		"one":                    {"[" + goodEvent + "]", 200},
		"two, with white space":  {" [ " + goodEvent + " ,\n" + goodEvent + "] ", 200},
		"none":                   {"[]", 200},
		"no data":                {without("data"), 200},
		"not an array":           {goodEvent, 400},
		"not JSON":               {"[" + goodEvent, 400},
		"more behind":            {"[" + goodEvent + "]x", 400},
		"array of texts":         {`["a"]`, 400},
		"empty":                  {"", 400},
		"no id":                  {without("id"), 400},
		"no subject":             {without("subject"), 400},
		"no eventType":           {without("eventType"), 400},
		"no eventTime":           {without("eventTime"), 400},
		"no dataVersion":         {without("dataVersion"), 400},
		"empty id":               {strings.Replace("["+goodEvent+"]", `"id":"1"`, `"id":""`, 1), 400},
		"time that is none":      {strings.Replace("["+goodEvent+"]", "2026-01-02T03:04:05Z", "soon", 1), 400},
		"time zero":              {strings.Replace("["+goodEvent+"]", "2026-01-02T03:04:05Z", "0001-01-01T00:00:00Z", 1), 200},
		"time without zone":      {strings.Replace("["+goodEvent+"]", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.12", 1), 200},
		"topic":                  {with(`"topic":"/subscriptions/x"`), 400},
		"topic null":             {with(`"topic":null`), 400},
		"metadataVersion 1":      {with(`"metadataVersion":"1"`), 200},
		"metadataVersion 2":      {with(`"metadataVersion":"2"`), 400},
		"metadataVersion number": {with(`"metadataVersion":1`), 400},
		"unknown property":       {with(`"color":"red"`), 400},
		"escaped property":       {with(`"t\u006fpic":"x"`), 400},
		"one bad of two":         {"[" + goodEvent + "," + strings.Trim(with(`"topic":"x"`), "[]") + "]", 400},
		"1 MB":                   {"[" + goodEvent + "]" + strings.Repeat(" ", 1<<20-len(goodEvent)-2), 200},
		"over 1 MB":              {"[" + goodEvent + "]" + strings.Repeat(" ", 1<<20-len(goodEvent)-1), 413},
	} {
		if got := g.status(c.body); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	st := e.Stats().Entity("grid")
	if st.Count != 8 || st.Batches != 8 || st.Refused != 20 {
		t.Errorf("stats %+v", st)
	}
	if m := e.Messages("grid"); len(m) != 8 || string(m[len(m)-1].Body) == "" {
		t.Errorf("%d messages", len(m))
	}
}

func TestGridRecords(t *testing.T) {
	e := start(t)
	g := newGrid(t, e)
	second := strings.Replace(goodEvent, `"id":"1"`, `"id":"2"`, 1)
	if got := g.status("[" + goodEvent + "," + second + "]"); got != 200 {
		t.Fatal(got)
	}
	m := e.Messages("grid")
	if len(m) != 2 || string(m[0].Body) != goodEvent || string(m[1].Body) != second || m[1].Sequence != 1 {
		t.Errorf("recorded %+v", m)
	}
	if s := e.Stats().Entity("grid"); s.Count != 2 || s.Bytes != int64(2*len(goodEvent)) || s.Batches != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestGridAuth(t *testing.T) {
	e := start(t, func(c *emulator.Config) { c.BearerToken = "entra" })
	g := newGrid(t, e)
	body := "[" + goodEvent + "]"
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Del("aeg-sas-key"); r.Header.Set(name, value) }
	}
	token := func(expires time.Time) string {
		key, _ := base64.StdEncoding.DecodeString(e.EventGridKey("grid", emulator.Secondary))
		text := "r=" + url.QueryEscape("https://grid/api/events") + "&e=" + url.QueryEscape(expires.UTC().Format("1/2/2006 3:04:05 PM"))
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return text + "&s=" + url.QueryEscape(base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	good := token(time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"secondary":     {header("aeg-sas-key", e.EventGridKey("grid", emulator.Secondary)), 200},
		"wrong key":     {header("aeg-sas-key", "x"), 401},
		"nothing":       {func(r *http.Request) { r.Header.Del("aeg-sas-key") }, 401},
		"bearer":        {header("Authorization", "Bearer entra"), 200},
		"wrong bearer":  {header("Authorization", "Bearer x"), 401},
		"token":         {header("aeg-sas-token", good), 200},
		"token, old":    {header("aeg-sas-token", token(time.Now().Add(-time.Minute))), 401},
		"token, forged": {header("aeg-sas-token", strings.Replace(good, "grid", "Grid", 1)), 401},
		"version":       {func(r *http.Request) { r.URL.RawQuery = "api-version=2017-01-01" }, 400},
		"path":          {func(r *http.Request) { r.URL.Path = "/" }, 404},
	} {
		if got := g.status(body, c.change); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestGridFaults(t *testing.T) {
	e := start(t)
	g := newGrid(t, e)
	body := "[" + goodEvent + "]"
	for name, c := range map[string]struct {
		fault  emulator.Fault
		want   int // 0 is no answer
		stored int64
		retry  string
	}{
		"primary":   {emulator.Fault{RejectKey: "primary"}, 401, 0, ""},
		"secondary": {emulator.Fault{RejectKey: "secondary"}, 200, 1, ""},
		"refuse":    {emulator.Fault{Refuse: "amqp:not-found"}, 404, 0, ""},
		"throttle":  {emulator.Fault{Throttle: 7}, 429, 0, "7"},
		"status":    {emulator.Fault{Status: 503, RetryAfter: 3}, 503, 0, "3"},
		"poison":    {emulator.Fault{Poison: `"b":null`}, 400, 0, ""},
		"well":      {emulator.Fault{Poison: "elsewhere"}, 200, 1, ""},
		"slow":      {emulator.Fault{Delay: emulator.Duration(time.Millisecond)}, 200, 1, ""},
		"cut":       {emulator.Fault{Cut: emulator.CutBefore}, 0, 0, ""},
		"cut after": {emulator.Fault{Cut: emulator.CutAfter}, 0, 1, ""},
		"down":      {emulator.Fault{Down: true}, 0, 0, ""},
	} {
		e.Reset()
		set(t, e, "grid", c.fault)
		status, retry := 0, ""
		if resp, err := g.post(body); err == nil {
			status, retry = resp.StatusCode, resp.Header.Get("Retry-After")
		}
		if status != c.want || retry != c.retry || e.Stats().Entity("grid").Count != c.stored {
			t.Errorf("%s: status %d, Retry-After %q, %d stored", name, status, retry, e.Stats().Entity("grid").Count)
		}
	}
	if err := e.ClearFault("grid"); err != nil {
		t.Fatal(err)
	}
	if got := g.status(body); got != 200 {
		t.Errorf("after the faults: %d", got)
	}
	for _, f := range []emulator.Fault{{Hang: true}, {NeverSettle: true}} {
		g.c.Timeout = 100 * time.Millisecond
		set(t, e, "grid", f)
		var ue *url.Error
		if resp, err := g.post(body); !errors.As(err, &ue) || !ue.Timeout() {
			t.Errorf("%+v: %v, %v", f, resp, err)
		}
	}
}

func TestStatsServer(t *testing.T) {
	e := start(t)
	g := newGrid(t, e)
	if got := g.status("[" + goodEvent + "]"); got != 200 {
		t.Fatal(got)
	}
	call := func(method, path, body string) (int, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+e.StatsAddr()+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Close = true
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	var st emulator.Stats
	code, b := call("GET", "/stats", "")
	if err := json.Unmarshal(b, &st); err != nil || code != 200 || st.Entity("grid").Count != 1 || st.Count() != 1 || len(st.Entities) != 3 {
		t.Errorf("%d %s %v", code, b, err)
	}
	var msgs []struct {
		Body json.RawMessage `json:"body"`
	}
	code, b = call("GET", "/messages?entity=grid&limit=1", "")
	if err := json.Unmarshal(b, &msgs); err != nil || code != 200 || len(msgs) != 1 || !strings.Contains(string(b), `"SpaceChange"`) {
		t.Errorf("%d %s %v", code, b, err)
	}
	if code, b := call("PUT", "/faults?entity=grid", `{"status":503,"times":1,"delay":"5ms"}`); code != 204 {
		t.Errorf("%d %s", code, b)
	}
	if got := g.status("[" + goodEvent + "]"); got != 503 {
		t.Errorf("faulty: %d", got)
	}
	if code, b := call("GET", "/stats", ""); !strings.Contains(string(b), `"delay": "5ms"`) {
		t.Errorf("%d %s", code, b)
	}
	for path, want := range map[string]int{
		"DELETE /faults?entity=grid": 204, "PUT /faults?entity=x": 400, "GET /messages?entity=x": 404,
		"GET /messages?entity=grid&limit=x": 400, "POST /reset": 204, "GET /": 404,
	} {
		method, path, _ := strings.Cut(path, " ")
		if code, b := call(method, path, "{}"); code != want {
			t.Errorf("%s %s: %d %s", method, path, code, b)
		}
	}
	for _, bad := range []string{`{"statuss":1}`, `{"delay":5}`, `{"cut":"x"}`, `x`} {
		if code, b := call("PUT", "/faults?entity=grid", bad); code != 400 {
			t.Errorf("%s: %d %s", bad, code, b)
		}
	}
	if n := e.Stats().Count(); n != 0 {
		t.Errorf("%d messages after the reset", n)
	}
}
