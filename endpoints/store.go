package endpoints

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Store is where the endpoints are kept. A set that it hands out is valid and
// canonical, and shared with everyone else who got it: nobody may change it.
// Whoever wants to takes a [Clone] first.
type Store interface {
	// Load reads the set from where it is kept and puts it in force. It comes
	// first, before every other method.
	Load(ctx context.Context) ([]Endpoint, error)

	// Current is the set in force: what was loaded, or the latest good change
	// since. It costs nothing, and takes nothing away from Watch.
	Current() []Endpoint

	// Watch delivers the whole set after every change of it, beginning with
	// any change since the last Load, until ctx ends; then it returns nil.
	// apply is called from one goroutine, one call at a time; changes that
	// happen meanwhile are delivered as one. An error is one that keeps the
	// store from watching at all: a bad change isn't.
	//
	// One Watch at a time.
	Watch(ctx context.Context, apply func([]Endpoint)) error

	// Change is the one way to write. It gives edit the set as it is at that
	// moment wherever it is kept, edit's own to change, and takes what it
	// returns: the whole next set, in which an endpoint without an id gets a
	// new one. When Change returns it, the next set is durable, it is Current,
	// and Watch delivers it, here and in every other process on the same
	// store. Times are the store's: what edit does to LastUpdated is ignored.
	//
	// edit is called again, with a newer set, if another writer came first; so
	// it must work from what it is given only. It must not call the store.
	//
	// Nothing has changed if Change fails, unless the error says otherwise. It
	// is edit's own error as it is; ValidationErrors if the next set isn't
	// valid; ErrReadOnly if this store can't be written at all; ErrUnknown if
	// the store stopped answering at the one moment where it can't be told.
	Change(ctx context.Context, edit func(set []Endpoint) ([]Endpoint, error)) ([]Endpoint, error)
}

// ErrReadOnly is wrapped, with the reason, by the error of a Change that can't
// succeed, however often it is tried.
var ErrReadOnly = errors.New("the endpoints can't be changed here")

// ErrUnknown is wrapped by the error of a Change that may have taken effect
// and may not: look before trying again.
var ErrUnknown = errors.New("it is not known whether the change took effect")

// Revise makes a set fit for use that an edit made of the set before: what a
// store's Change does between reading and writing. Ids are kept, and an
// endpoint without one gets a random one: unlike in a file, there is nothing
// that it would have to be derived from, and a deleted endpoint's id must not
// come back for another. What is wrong comes back as ValidationErrors.
//
// It looks at what changed only; what is as it was is known to be right.
func Revise(before, after []Endpoint, o Options, now time.Time) ([]Endpoint, error) {
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
			all = append(all, v)
		}
		e.LastUpdated = now.UTC()
		if old := was[e.ID]; old != nil && e.Equal(*old) {
			e.LastUpdated = old.LastUpdated
		}
		next[i] = e
	}
	if err := append(all, setViolations(next, func(i int) bool { return changed[i] }, labelByID)...).err(); err != nil {
		return nil, err
	}
	return next, nil
}

// labelByID names an endpoint for a user who doesn't see the set as a list.
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

// Stamp gives every endpoint that was read in next its LastUpdated: what came
// with it if that is news, else that of its equal in prev, else otherwise.
func Stamp(next, prev []Endpoint, otherwise time.Time) {
	was, now := byID(prev), time.Now()
	for i, e := range next {
		old := was[e.ID]
		switch {
		case (old == nil || e.LastUpdated.After(old.LastUpdated)) && !e.LastUpdated.IsZero() && !e.LastUpdated.After(now):
			// Another process changed it, then.
		case old != nil && old.Equal(e):
			next[i].LastUpdated = old.LastUpdated
		default:
			// New; or changed by hand, and the time left as it was.
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
