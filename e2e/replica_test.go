package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"twinegress/e2e/env"
	"twinegress/pipeline"
	"twinegress/server/api"
)

// replica is one copy of twinegress: a process, and the one after it when it
// is started again.
type replica struct {
	*process
	h           *harness
	environment []string
	args        []string
	program     string // "" is the one that is tested

	mu       sync.Mutex
	api, ops string // URLs; they change when the copy is started again
}

// replica describes a copy; start starts it.
func (h *harness) replica(name string, more env.Settings) *replica {
	settings := env.Settings{"ingest.protocol": h.protocol}
	maps.Copy(settings, more)
	return &replica{h: h, process: &process{t: h.T, name: name}, environment: h.variables(settings), args: []string{"run"}}
}

// run starts a copy and returns when it is ready.
func (h *harness) run(name string, more env.Settings) *replica {
	h.T.Helper()
	r := h.replica(name, more)
	r.start()
	r.awaitReady()
	return r
}

func (r *replica) start() {
	r.t.Helper()
	if r.program != "" {
		r.process = startProgram(r.t, r.program, r.name, r.environment, r.args...)
		return
	}
	r.process = start(r.t, r.name, r.environment, r.args...)
}

// awaitRunning blocks until the copy serves, and has loaded its endpoints.
func (r *replica) awaitRunning() {
	r.t.Helper()
	line := ""
	env.Eventually(r.t, r.name+" runs", func() bool {
		select {
		case <-r.ended:
			r.t.Fatalf("%s ended while starting:\n%s", r.name, r.log.Tail(20))
		default:
		}
		line = r.log.Line(`"twinegress runs"`)
		return line != ""
	})
	var entry struct{ API, Ops string }
	unmarshal(r.t, line, &entry)
	r.mu.Lock()
	r.api, r.ops = "http://"+entry.API+api.Base, "http://"+entry.Ops
	r.mu.Unlock()
	env.Eventually(r.t, r.name+" has its endpoints", func() bool {
		a, err := r.get(&r.api, "/endpoints?$top=1")
		return err == nil && a.status == http.StatusOK
	})
}

// address returns a URL below the Management API's, or below the one of
// metrics and health.
func (r *replica) address(of *string, path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *of + path
}

// awaitReady blocks until the copy has joined the group.
func (r *replica) awaitReady() {
	r.t.Helper()
	r.awaitRunning()
	env.Eventually(r.t, r.name+" is ready", func() bool {
		a, err := r.get(&r.ops, "/readyz")
		return err == nil && a.status == http.StatusOK
	})
}

// logged reports whether one line of the process' log has all of these words.
func (r *replica) logged(words ...string) bool { return r.log.Line(words...) != "" }

// answer is what a copy answers.
type answer struct {
	status int
	etag   string // what of it is the configuration, which is the same at every copy
	body   []byte
	unsure bool // the same request was sent before, and may have taken effect
}

const requestTimeout = 20 * time.Second

// transport keeps no connection: on a kept one that turns out to be closed,
// net/http sends a PUT or a DELETE again by itself, and nobody knows.
var transport = &http.Transport{DisableKeepAlives: true}

// request makes one request.
func (r *replica) request(ctx context.Context, method, url string, body []byte) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	request.Header.Set("Authorization", "Bearer "+env.Token)
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	a.status = response.StatusCode
	a.etag, _, _ = strings.Cut(response.Header.Get("ETag"), ".")
	a.body, err = io.ReadAll(response.Body)
	return a, err
}

// get makes one GET with a limit of its own.
func (r *replica) get(of *string, path string) (answer, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), requestTimeout)
	defer cancel()
	return r.request(ctx, http.MethodGet, r.address(of, path), nil)
}

// call makes a request of the Management API.
func (r *replica) call(ctx context.Context, method, path string, body []byte) (answer, error) {
	return r.request(ctx, method, r.address(&r.api, path), body)
}

// manage makes a request that the Management API must answer with a status.
func (r *replica) manage(want int, method, path string, body []byte) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), requestTimeout)
	defer cancel()
	a, err := r.call(ctx, method, path, body)
	if err != nil || a.status != want {
		r.t.Fatalf("%s %s at %s: %v, %d, want %d: %.500s", method, path, r.name, err, a.status, want, a.body)
	}
	return string(a.body)
}

// create creates an endpoint and returns its id.
func (r *replica) create(e env.Endpoint) (id string) {
	r.t.Helper()
	unmarshal(r.t, r.manage(http.StatusCreated, http.MethodPost, "/endpoints", e.JSON()), &id)
	return id
}

// list returns the endpoints that the Management API lists.
func (r *replica) list(query string) (listed []api.Endpoint) {
	r.t.Helper()
	unmarshal(r.t, r.manage(http.StatusOK, http.MethodGet, "/endpoints"+query, nil), &listed)
	return listed
}

// endpoint returns an endpoint as the Management API shows it.
func (r *replica) endpoint(id string) (e api.Endpoint) {
	r.t.Helper()
	unmarshal(r.t, r.manage(http.StatusOK, http.MethodGet, "/endpoints/"+id, nil), &e)
	return e
}

// metrics returns what /metrics serves.
func (r *replica) metrics() string {
	r.t.Helper()
	a, err := r.get(&r.ops, "/metrics")
	if err != nil || a.status != http.StatusOK {
		r.t.Fatalf("metrics: %v, %d", err, a.status)
	}
	return string(a.body)
}

// status returns the copy's status; the zero one if it doesn't answer.
func (r *replica) status() (st pipeline.Status) {
	if a, err := r.get(&r.api, "/status"); err == nil && a.status == http.StatusOK {
		if err := json.Unmarshal(a.body, &st); err != nil {
			r.t.Errorf("%s's status: %v", r.name, err)
		}
	}
	return st
}

// at returns the status of the endpoint at a path.
func (r *replica) at(path string) (found pipeline.EndpointStatus) {
	for _, e := range r.status().Endpoints {
		if e.Path == path {
			return e
		}
	}
	return found
}

// idsByPath returns the endpoints' ids.
func idsByPath(st pipeline.Status) map[string]string {
	ids := make(map[string]string)
	for _, e := range st.Endpoints {
		ids[e.Path] = e.ID
	}
	return ids
}

// dropped is the sum over all reasons.
func dropped(e pipeline.EndpointStatus) (sum uint64) {
	for _, n := range e.Dropped {
		sum += n
	}
	return sum
}

// settled blocks until the copy, alone in its group, has read so many records
// since its start, and each event has its outcome.
func (r *replica) settled(records int) pipeline.Status {
	r.t.Helper()
	return r.h.AwaitSettled(records, r.status)
}

// number returns the number of the line in a text that has this form.
func (r *replica) number(text, form string) (n float64) {
	r.t.Helper()
	for line := range strings.Lines(text) {
		if _, err := fmt.Sscanf(line, form, &n); err == nil {
			return n
		}
	}
	r.t.Fatalf("no line is %s:\n%s", form, text)
	return 0
}

// cpu is the processor time that the process has taken so far, in seconds.
func (r *replica) cpu() float64 { return r.number(r.metrics(), "process_cpu_seconds_total %g") }

// peakMemory is the highest resident size so far, in bytes.
func (r *replica) peakMemory() int {
	r.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	r.h.Must(err)
	return int(r.number(string(status), "VmHWM: %g kB")) << 10
}
