package api

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"twinegress/endpoints"
)

const (
	// maxBodies bounds the bodies of the requests that are served at one time, in
	// bytes: reading and decoding one takes several times its size. A usual body has
	// 1 KiB.
	maxBodies = 16 << 20
	// maxListed bounds the endpoints in the lists that are served at one time: a
	// list is in memory, about 1 KiB an endpoint, until its client has read it. It is
	// five of the largest lists.
	maxListed = 5 * endpoints.MaxEndpoints
	// loadTimeout is how long a request waits for others.
	loadTimeout = 5 * time.Second
)

// load bounds the memory of the requests that are served at one time. Rates don't: a
// hundred requests a second are little, and a hundred bodies of 1 MiB much.
type load struct {
	bodies, lists *semaphore.Weighted
}

func newLoad() *load {
	return &load{semaphore.NewWeighted(maxBodies), semaphore.NewWeighted(maxListed)}
}

// acquire blocks until there is room for a request, and returns what makes room
// again after the reply, or the reply that refuses it. listed is how many endpoints
// are in the reply.
func (l *load) acquire(r *http.Request, listed int) (release func(), _ *Error) {
	ctx, cancel := context.WithTimeout(r.Context(), loadTimeout)
	defer cancel()
	body := r.ContentLength
	if body < 0 || body > maxBody { // not known, or more than is read
		body = maxBody
	}
	list := min(int64(listed), maxListed)
	if !take(ctx, l.bodies, body) {
		return nil, overloaded()
	}
	if !take(ctx, l.lists, list) {
		l.bodies.Release(body)
		return nil, overloaded()
	}
	return func() {
		l.lists.Release(list)
		l.bodies.Release(body)
	}, nil
}

// take reports whether n of a semaphore could be had. What takes nothing waits for
// nobody.
func take(ctx context.Context, s *semaphore.Weighted, n int64) bool {
	return n == 0 || s.Acquire(ctx, n) == nil
}

func overloaded() *Error {
	return failure(http.StatusServiceUnavailable, "too many large requests are served at this moment").with("Retry-After", "5")
}
