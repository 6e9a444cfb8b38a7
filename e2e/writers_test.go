package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"twinegress/e2e/env"
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
func (w *writer) rounds(body env.Endpoint, round func(name string, body env.Endpoint, last bool)) {
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
func (w *writer) change(name string, body env.Endpoint, last bool) {
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
func (w *writer) contend(name string, body env.Endpoint, last bool) {
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
func (w *writer) create(name string, body env.Endpoint) (id string, there bool) {
	a, ok := w.ask(http.MethodPost, "/endpoints", body.With("name", name).JSON())
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

func (w *writer) update(name, id string, body env.Endpoint) {
	body = body.With("name", name).With("filter", fmt.Sprintf("AS_NUMBER($body.Value) > %d", rand.IntN(1000)))
	switch a, ok := w.ask(http.MethodPut, "/endpoints/"+id, body.JSON()); {
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

// conflicts reports whether it is a 409 for this field.
func (a answer) conflicts(field string) bool {
	type detail struct{ Field string }
	var e struct {
		Error struct{ Details []detail }
	}
	if a.status != http.StatusConflict || json.Unmarshal(a.body, &e) != nil {
		return false
	}
	return slices.Contains(e.Error.Details, detail{field})
}

// ask makes a request, again and again while the copy is down or says that it
// can't; false if there was no answer.
func (w *writer) ask(method, path string, body []byte) (answer, bool) {
	ctx, cancel := context.WithTimeout(w.ctx, env.Timeout)
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
				w.t.Errorf("%s %s at %s: no answer within %v: %v %d %s", method, path, w.at.name, env.Timeout, err, a.status, a.body)
			}
			return answer{}, false
		}
	}
}

// listed is an endpoint as a copy lists it.
type listed struct {
	etag   string
	device bool
}

// table returns the endpoints that a copy lists, by name.
func (r *replica) table() map[string]listed {
	r.t.Helper()
	list := r.list("")
	table := make(map[string]listed, len(list))
	for _, e := range list {
		a, err := r.get(&r.api, "/endpoints/"+e.ID)
		if err != nil || a.status != http.StatusOK {
			r.t.Fatalf("endpoint %s at %s: %v %d", e.ID, r.name, err, a.status)
		}
		table[e.Name] = listed{etag: a.etag, device: e.EventTypes[0] == "DeviceMessage"}
	}
	if len(table) != len(list) {
		r.t.Errorf("%s lists %d endpoints of %d names", r.name, len(list), len(table))
	}
	return table
}
