package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/pipeline"
	"twinegress/pipeline/fleet"
	"twinegress/pipeline/letters"
	"twinegress/sinks"
	"twinegress/sinks/discard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	writer  = "token of the writer"
	reader  = "token of the reader"
	watcher = "token of who may see events"

	hubID  = "11111111-1111-4111-8111-111111111111"
	gridID = "22222222-2222-4222-8222-222222222222"
	noID   = "99999999-9999-4999-8999-999999999999"
)

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// env is an API on a store in memory, with two endpoints in it.
type env struct {
	t       testing.TB
	handler http.Handler
	store   *endpoints.MemoryStore
	logs    *observer.ObservedLogs
	state   atomic.Pointer[sinks.Health] // of the hub
	retried atomic.Int32

	mu      sync.Mutex
	hub     *sinks.Sender // nil until it is needed
	taps    []*sinks.Tap  // of it, that were begun
	options Options

	backlog   int64
	seeking   bool
	preview   Preview
	noPreview error

	asked      []string // of dead letters, and of positions
	unreadable error
	reading    chan context.Context
}

func newEnv(t testing.TB, change ...func(*Options)) *env {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &env{t: t, logs: logs}
	r.state.Store(&sinks.Health{State: sinks.StateReady})
	store, err := endpoints.NewMemoryStore([]endpoints.Endpoint{
		storetest.Hub("changes", func(e *endpoints.Endpoint) { e.ID, e.EventTypes = hubID, []string{"SensorChange", "SpaceChange"} }),
		storetest.Grid("", func(e *endpoints.Endpoint) { e.ID, e.EventTypes = gridID, []string{"UdfCustom"} }),
	}, endpoints.Options{})
	storetest.Must(t, err)
	r.store = store
	r.options = Options{
		Config: config.API{
			Tokens: []config.Token{
				{Name: "ops", SHA256: strings.ToUpper(hash(writer)), Role: config.RoleWrite},
				{Name: "viewer", SHA256: hash(reader), Role: config.RoleRead},
				{Name: "watcher", SHA256: hash(watcher), Role: config.RoleRead, Events: true},
			},
			RateLimit: 1000,
		},
		Store:     store,
		Pipeline:  r,
		Letters:   r,
		Fleet:     r,
		Positions: r,
		Log:       zap.New(core),
	}
	for _, c := range change {
		c(&r.options)
	}
	r.handler = New(r.options)
	return r
}

// The env is its own Pipeline, in which only the hub runs, and its own Fleet of three
// copies.

func (r *env) Status() pipeline.Status {
	return pipeline.Status{Ingest: pipeline.IngestStatus{Records: 7}}
}

func (r *env) EndpointStatus(id string) (pipeline.EndpointStatus, bool) {
	return pipeline.EndpointStatus{Routed: 3}, id == hubID
}

func (r *env) EndpointLog(id string) ([]pipeline.LogEntry, bool) {
	return []pipeline.LogEntry{{What: "backing_off", Reason: "unauthorized", Times: 3, Seconds: 12.5}}, id == hubID
}

func (r *env) Health(id string) (sinks.Health, bool) { return *r.state.Load(), id == hubID }

func (r *env) Report() *fleet.Report {
	status := func(id string) pipeline.EndpointStatus { return pipeline.EndpointStatus{ID: id} }
	ready, failing, named := fleet.EndpointSums{EndpointStatus: status(noID)}, fleet.EndpointSums{EndpointStatus: status(hubID)}, fleet.EndpointSums{EndpointStatus: status(gridID)}
	ready.State, failing.State, named.State = sinks.StateReady, sinks.StateBackingOff, sinks.StateReady
	return &fleet.Report{
		Copies: []fleet.Copy{{ID: "a", Self: true}, {ID: "b", Stale: true}}, States: map[sinks.State]int{sinks.StateReady: 2, sinks.StateBackingOff: 1},
		Endpoints: []fleet.EndpointSums{failing, named, ready}, Troubles: []fleet.Trouble{{Endpoint: gridID}},
	}
}

func (r *env) Retry(_ context.Context, _ string) (int, string) {
	return int(r.retried.Add(1)) + 2, "why"
}

func (r *env) ID() string { return "copy-1" }

func (r *env) Tap(id string, perSecond int) (*sinks.Tap, bool) {
	if id != hubID {
		return nil, false
	}
	t := r.sender().Tap(perSecond, func(_ endpoints.Endpoint, ev *event.Event) sinks.Message {
		return sinks.Message{ID: "id", ContentType: "application/json", Body: ev.Body}
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taps = append(r.taps, t)
	return t, true
}

// sender is the hub's; it takes everything.
func (r *env) sender() *sinks.Sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hub == nil {
		r.hub = sinks.NewSender(r.store.Current()[0], sinks.Options{MaxEvents: 100, Timeout: time.Second, Attempts: 1, BackoffInitial: time.Second, BackoffMax: time.Second},
			discard.Open, nil, zap.NewNop())
		r.t.Cleanup(func() {
			if r.hub != nil { // a test may have closed it
				storetest.Must(r.t, r.hub.Close(context.Background()))
			}
		})
	}
	return r.hub
}

// List, Count and Show make the env its own dead-letter topic, of one letter.

func (r *env) List(_ context.Context, s letters.Selection, most int, b letters.Bounds) (letters.List, error) {
	r.asked = append(r.asked, fmt.Sprint(s, most, b))
	return letters.List{Letters: []letters.Letter{{Reason: "backoff", Endpoint: letters.Endpoint{ID: hubID}}}}, r.unreadable
}

func (r *env) Count(_ context.Context, s letters.Selection, b letters.Bounds) (letters.Count, error) {
	r.asked = append(r.asked, fmt.Sprint(s, b))
	return letters.Count{Letters: 3, Groups: []letters.Group{{Reason: "backoff", Endpoint: letters.Endpoint{ID: hubID}, Letters: 3}}}, r.unreadable
}

func (r *env) Show(ctx context.Context, partition int32, offset int64, most int, _ letters.Bounds) (*letters.Whole, error) {
	if r.reading != nil {
		r.reading <- ctx
	}
	if partition != 0 || offset != 7 {
		return nil, fmt.Errorf("%w: partition 0 has one", letters.ErrNone)
	}
	value := strings.Repeat("v", most)
	return &letters.Whole{Letter: letters.Letter{Offset: 7}, Content: letters.Content{Value: &value, ValueCut: true}}, r.unreadable
}

// Preview and Backlog make the env its own Positions.

func (r *env) Preview(_ context.Context, to string) (Preview, error) {
	r.asked = append(r.asked, to)
	return r.preview, r.noPreview
}

func (r *env) Backlog(id string) (int64, bool) { return r.backlog, r.seeking && id == hubID }

// call is one request; what isn't said is as a client does it right.
type call struct {
	method, path, body string
	token              string // "" is the writer's, "-" none
	from               string // "" is the same address for all
	header             map[string]string
	lines              []string // of If-Match
}

func (r *env) do(c call) *httptest.ResponseRecorder {
	r.t.Helper()
	request := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)).WithContext(context.Background())
	request.RemoteAddr = cmp.Or(c.from, request.RemoteAddr)
	switch c.token {
	case "":
		request.Header.Set("Authorization", "Bearer "+writer)
	case "-":
	default:
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, value := range c.header {
		if value == "" {
			request.Header.Del(name)
			continue
		}
		request.Header.Set(name, value)
	}
	for _, line := range c.lines {
		request.Header.Add("If-Match", line)
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, request)
	r.check(w)
	return w
}

// check looks at what every reply has in common.
func (r *env) check(w *httptest.ResponseRecorder) {
	r.t.Helper()
	if len(w.Header().Get(requestIDHeader)) != 36 {
		r.t.Errorf("request id %q", w.Header().Get(requestIDHeader))
	}
	for _, key := range []string{storetest.Key1, storetest.Key2, writer, reader} {
		if strings.Contains(w.Body.String(), key) {
			r.t.Errorf("a secret shows: %s", w.Body)
		}
	}
	if w.Code < 400 {
		return
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		r.t.Errorf("status %d, content type %q", w.Code, got)
	}
	e := errorOf(r.t, w)
	if e.Code != strings.ReplaceAll(http.StatusText(w.Code), " ", "") || e.Message == "" {
		r.t.Errorf("status %d, error %+v", w.Code, e)
	}
	if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
		r.t.Errorf("status %d with WWW-Authenticate %q", w.Code, w.Header().Values("WWW-Authenticate"))
	}
	if w.Code == 401 && w.Header().Get("Connection") != "close" {
		r.t.Errorf("status %d, and the connection is kept", w.Code)
	}
	if (w.Code == 429 || w.Code == 503) != (w.Header().Get("Retry-After") != "") {
		r.t.Errorf("status %d with Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}

type errorBody struct {
	Code, Message string
	Details       []Detail
}

func errorOf(t testing.TB, w *httptest.ResponseRecorder) errorBody {
	t.Helper()
	return decode[struct{ Error errorBody }](t, w).Error
}

func decode[T any](t testing.TB, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return v
}

// failing is a store that can't be written.
type failing struct {
	endpoints.Store
	err error
}

func (f failing) Change(context.Context, func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	return nil, f.err
}
