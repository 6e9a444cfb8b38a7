//go:build integration

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// book is what the writers of endpoints were told, and so what must come of it.
type book struct {
	t      testing.TB
	ctx    context.Context // of every request
	cancel context.CancelFunc
	last   chan struct{} // closed: each writer has one more round

	mu      sync.Mutex
	etags   map[string]string // what is there, by name; "" where nobody was told the ETag
	deleted map[string]bool
	holder  string // whose DeviceMessage endpoint is there for certain
	changes map[*replica]int
	cutOff  int // requests without an answer, or with a 503: they may have taken effect
	found   int // of these, creations and deletions of which the next answer told that they had
	refused int // DeviceMessage endpoints beside another one
}

func newBook(t testing.TB) *book {
	ctx, cancel := context.WithCancel(t.Context())
	return &book{
		t: t, ctx: ctx, cancel: cancel, last: make(chan struct{}),
		etags: make(map[string]string), deleted: make(map[string]bool), changes: make(map[*replica]int),
	}
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, changes := range b.changes {
		n += changes
	}
	return fmt.Sprintf("%d changes acknowledged, %d requests cut off, of which %d creations and deletions had taken effect; %d DeviceMessage endpoints refused; %d endpoints left",
		n, b.cutOff, b.found, b.refused, len(b.etags))
}

// acknowledged is how many changes a copy has acknowledged.
func (b *book) acknowledged(r *replica) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changes[r]
}

// compare holds a table against what must be in it.
func (b *book) compare(table map[string]listed) {
	b.t.Helper()
	devices := 0
	for name, e := range table {
		etag, expected := b.etags[name]
		switch {
		case b.deleted[name]:
			b.t.Errorf("%s is there, and its deletion was acknowledged", name)
		case !expected:
			b.t.Errorf("%s is there, and nobody was told so", name)
		case etag != "" && e.etag != etag:
			b.t.Errorf("%s has the ETag %s, and %s was acknowledged last", name, e.etag, etag)
		}
		if e.device {
			devices++
		}
	}
	for name := range b.etags {
		if _, there := table[name]; !there {
			b.t.Errorf("%s was acknowledged, and is not there", name)
		}
	}
	if devices != 1 {
		b.t.Errorf("%d endpoints take DeviceMessage, want the 1 of whoever came first in the last round", devices)
	}
}

// writer changes endpoints of its own through the API of one copy.
type writer struct {
	*book
	at   *replica
	name string
}

// rounds makes rounds of changes, each with a name of its own.
func (w *writer) rounds(body endpoint, round func(name string, body endpoint, last bool)) {
	for n := 0; w.ctx.Err() == nil; n++ {
		last := false
		select {
		case <-w.last:
			last = true
		default:
		}
		round(fmt.Sprintf("%s-%d", w.name, n), body, last)
		if last {
			return
		}
	}
}

// change creates, updates and mostly deletes an endpoint.
func (w *writer) change(name string, body endpoint, last bool) {
	id, there := w.create(name, body)
	if !there || id == "" {
		return
	}
	w.update(name, id, body)
	if !last && rand.IntN(4) > 0 {
		w.remove(name, id)
	}
}

// contend tries to create the only DeviceMessage endpoint, and gives it up, but
// for the last round's. Of the last tries of all, one must succeed: if each met
// another's endpoint, whoever gave that up would have tried after it.
func (w *writer) contend(name string, body endpoint, last bool) {
	_, there := w.create(name, body)
	if !there {
		return
	}
	w.mu.Lock()
	if w.holder != "" {
		w.t.Errorf("%s and %s both take DeviceMessage", w.holder, name)
	}
	w.holder = name
	w.mu.Unlock()
	listed := w.devices()
	if len(listed) != 1 || listed[0].Name != name {
		if w.ctx.Err() == nil {
			w.t.Errorf("%v take DeviceMessage, want %s alone", listed, name)
		}
		return
	}
	if last {
		return
	}
	w.mu.Lock()
	w.holder = "" // from here on it may be gone
	w.mu.Unlock()
	w.remove(name, listed[0].ID)
}

// create creates an endpoint, and reports whether it is there. The id is empty
// if that became known by the name being taken when it was tried again.
func (w *writer) create(name string, body endpoint) (id string, there bool) {
	body = maps.Clone(body)
	body["name"] = name
	a, ok := w.ask(http.MethodPost, "/endpoints", body)
	taken := a.conflicts("name")
	switch {
	case !ok:
		return "", false
	case a.status == http.StatusCreated && json.Unmarshal(a.body, &id) == nil:
	case a.unsure && taken:
	case a.conflicts("eventTypes") && !taken:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.refused++
		return "", false
	default:
		w.unexpected(name, "creating", a)
		return "", false
	}
	w.note(func() {
		w.etags[name] = a.etag
		if a.status != http.StatusCreated {
			w.found++
		}
	})
	return id, true
}

func (w *writer) update(name, id string, body endpoint) {
	body = maps.Clone(body)
	body["name"], body["filter"] = name, fmt.Sprintf("AS_NUMBER($body.Value) > %d", rand.IntN(1000))
	switch a, ok := w.ask(http.MethodPut, "/endpoints/"+id, body); {
	case !ok:
	case a.status == http.StatusNoContent: // sent again it comes to the same
		w.note(func() { w.etags[name] = a.etag })
	default:
		w.unexpected(name, "changing", a)
	}
}

func (w *writer) remove(name, id string) {
	switch a, ok := w.ask(http.MethodDelete, "/endpoints/"+id, nil); {
	case !ok:
	case a.status == http.StatusNoContent, a.unsure && a.status == http.StatusNotFound:
		w.note(func() {
			delete(w.etags, name)
			w.deleted[name] = true
			if a.status == http.StatusNotFound {
				w.found++
			}
		})
	default:
		w.unexpected(name, "deleting", a)
	}
}

// note enters a change that was acknowledged.
func (w *writer) note(enter func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	enter()
	w.changes[w.at]++
}

func (w *writer) unexpected(name, doing string, a answer) {
	w.t.Errorf("%s %s at %s (after a request that was cut off: %t): %d %s", doing, name, w.at.name, a.unsure, a.status, a.body)
}

// devices are the endpoints for DeviceMessage, as the writer's copy lists them.
func (w *writer) devices() (listed []struct{ ID, Name string }) {
	a, ok := w.ask(http.MethodGet, "/endpoints?eventTypes=DeviceMessage", nil)
	if !ok {
		return nil
	}
	if err := json.Unmarshal(a.body, &listed); err != nil {
		w.t.Errorf("the list at %s: %v: %s", w.at.name, err, a.body)
	}
	return listed
}

// answer is what a copy answers.
type answer struct {
	status int
	etag   string // what of it is the configuration, which is the same at every copy
	body   []byte
	unsure bool // the same request was sent before, and may have taken effect
}

// conflicts tells whether it is a 409 for this field.
func (a answer) conflicts(field string) bool {
	var e struct {
		Error struct{ Details []struct{ Field string } }
	}
	if a.status != http.StatusConflict || json.Unmarshal(a.body, &e) != nil {
		return false
	}
	for _, d := range e.Error.Details {
		if d.Field == field {
			return true
		}
	}
	return false
}

// ask makes a request, again and again while the copy is down or says that it
// can't; false if there was no answer.
func (w *writer) ask(method, path string, body endpoint) (answer, bool) {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	unsure := false
	for {
		a, err := w.at.call(ctx, method, path, body)
		if err == nil && a.status != http.StatusServiceUnavailable {
			a.unsure = unsure
			return a, true
		}
		dial, ok := errors.AsType[*net.OpError](err)
		if sent := !ok || dial.Op != "dial"; sent && method != http.MethodGet {
			unsure = true
			w.mu.Lock()
			w.cutOff++
			w.mu.Unlock()
		}
		select {
		case <-time.After(20 * time.Millisecond): // it takes longer to start again
		case <-ctx.Done():
			if w.ctx.Err() == nil {
				w.t.Errorf("%s %s at %s: no answer within %v: %v %d %s", method, path, w.at.name, patience, err, a.status, a.body)
			}
			return answer{}, false
		}
	}
}

// changeClient waits for as long as a request's context says. It keeps no
// connection either: on a kept one that turns out to be closed, net/http sends
// a PUT or a DELETE again by itself, and nobody knows.
var changeClient = &http.Client{Transport: httpClient.Transport}

// call makes one request of the Management API.
func (r *replica) call(ctx context.Context, method, path string, body endpoint) (a answer, err error) {
	var content io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return a, err
		}
		content = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, r.management()+path, content)
	if err != nil {
		return a, err
	}
	request.Header.Set("Authorization", "Bearer "+apiToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := changeClient.Do(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	a.status = response.StatusCode
	a.etag, _, _ = strings.Cut(response.Header.Get("ETag"), ".")
	a.body, err = io.ReadAll(response.Body)
	return a, err
}

// listed is an endpoint as a copy lists it.
type listed struct {
	id, etag string
	device   bool
}

// table is the endpoints that a copy lists, by name.
func (r *replica) table() map[string]listed {
	r.w.t.Helper()
	ctx := r.w.ctx()
	get := func(path string) answer {
		r.w.t.Helper()
		a, err := r.call(ctx, http.MethodGet, path, nil)
		if err != nil || a.status != http.StatusOK {
			r.w.t.Fatalf("GET %s at %s: %v %d %s", path, r.name, err, a.status, a.body)
		}
		return a
	}
	var list []struct {
		ID, Name   string
		EventTypes []string
	}
	if err := json.Unmarshal(get("/endpoints").body, &list); err != nil {
		r.w.t.Fatal(err)
	}
	table := make(map[string]listed, len(list))
	for _, e := range list {
		table[e.Name] = listed{id: e.ID, etag: get("/endpoints/" + e.ID).etag, device: e.EventTypes[0] == "DeviceMessage"}
	}
	if len(table) != len(list) {
		r.w.t.Errorf("%s lists %d endpoints of %d names", r.name, len(list), len(table))
	}
	return table
}
