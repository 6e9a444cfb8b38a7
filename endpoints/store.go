package endpoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Store keeps the endpoints. A set that it returns is valid and canonical, and
// shared with other callers: it must not be changed. [Clone] copies one.
type Store interface {
	// Load reads the set from the store and puts it in force. It must be called
	// before every other method.
	Load(ctx context.Context) ([]Endpoint, error)

	// Current returns the set in force: the one that Load returned, or the latest
	// valid change since. It does no I/O, and doesn't affect Watch.
	Current() []Endpoint

	// Watch delivers the whole set after every change of it, beginning with
	// any change since the last Load, until ctx ends; then it returns nil.
	// apply is called from one goroutine, one call at a time; changes that
	// happen meanwhile are delivered as one. An error means that the store can't
	// watch at all: an invalid change is logged, and no error.
	//
	// There must be one Watch at a time.
	Watch(ctx context.Context, apply func([]Endpoint)) error

	// Change writes. It calls edit with a copy of the latest stored set, which
	// edit may change, and stores what edit returns: the whole next set, in which
	// an endpoint without an id gets a new one. When Change returns that set, it
	// is durable, it is Current, and Watch delivers it, here and in every other
	// process on the same store. LastUpdated is set by the store only: what edit
	// does to it is ignored.
	//
	// edit is called again, with a newer set, if another writer was faster; it
	// must depend on its argument only, and must not call the store.
	//
	// If Change returns an error, nothing has changed, except with ErrUnknown:
	// the store stopped answering when the outcome wasn't known. The error of
	// edit is returned as it is. ValidationErrors means that the next set isn't
	// valid, ErrReadOnly that this store can't be written at all.
	Change(ctx context.Context, edit func(set []Endpoint) ([]Endpoint, error)) ([]Endpoint, error)
}

// ErrReadOnly is wrapped, with the reason, by the error of a Change that can't
// succeed, however often it is tried.
var ErrReadOnly = errors.New("the endpoints can't be changed here")

// ErrUnknown is wrapped by the error of a Change that may or may not have taken
// effect: read the set before trying again.
var ErrUnknown = errors.New("it is not known whether the change took effect")

// Revise validates the set that an edit made of the one before, and returns it
// canonical, or what is wrong as ValidationErrors: a store's Change calls it
// between reading and writing. An endpoint without an id gets a random one, not a
// derived one as in a file: a deleted endpoint's id must not come back for
// another.
//
// It validates changed endpoints only: the others were valid before.
func Revise(before, after []Endpoint, o Options, now time.Time) ([]Endpoint, error) {
	if len(after) > MaxEndpoints && len(after) > len(before) {
		return nil, tooMany(len(after))
	}
	was := byID(before)
	next := make([]Endpoint, len(after))
	changed := make([]bool, len(after))
	var all ValidationErrors
	for i, e := range after {
		if old := was[e.ID]; old != nil && identical(&after[i], old) {
			next[i] = *old
			continue
		}
		changed[i] = true
		e = e.canonical()
		if e.ID == "" {
			e.ID = uuid.NewString()
		}
		for _, v := range e.violations(o) {
			v.Endpoint = labelByID(i, e)
			all.append(v)
		}
		e.LastUpdated = now.UTC()
		switch old := was[e.ID]; {
		case old == nil:
			e.orderStart(now.UTC().Format(time.RFC3339Nano))
		case e.Equal(*old):
			e.LastUpdated = old.LastUpdated
		}
		next[i] = e
	}
	all.append(setViolations(next, func(i int) bool { return changed[i] }, labelByID)...)
	if err := all.err(); err != nil {
		return nil, err
	}
	return next, nil
}

// labelByID returns the name of an endpoint for a user of the API, who sees no
// positions.
func labelByID(_ int, e Endpoint) string {
	id := e.ID
	if uuid.Validate(id) != nil {
		id = "…"
	}
	if e.Name == "" {
		return "endpoint " + id
	}
	return fmt.Sprintf("endpoint %s (%s)", quotable(e.Name), id)
}

// Stamp sets LastUpdated of every endpoint in next, which was read from a store:
// the time that was read, if it is newer than in prev; else that of its equal in
// prev; else otherwise.
func Stamp(next, prev []Endpoint, otherwise time.Time) {
	was, now := byID(prev), time.Now()
	for i, e := range next {
		old := was[e.ID]
		var before time.Time
		if old != nil {
			before = old.LastUpdated
		}
		switch {
		case e.LastUpdated.After(before) && !e.LastUpdated.After(now):
			// Another process changed it, and wrote the time.
		case old != nil && old.Equal(e):
			next[i].LastUpdated = old.LastUpdated
		default:
			// New, or changed by hand without a new time.
			next[i].LastUpdated = otherwise.UTC()
		}
	}
}

func byID(set []Endpoint) map[string]*Endpoint {
	m := make(map[string]*Endpoint, len(set))
	for i := range set {
		m[set[i].ID] = &set[i]
	}
	return m
}
