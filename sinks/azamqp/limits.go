package azamqp

import (
	"sync"

	"twinegress/endpoints"
)

const (
	// smallestLimit is that of the smallest tier for a batch. One that is no
	// larger was refused for another cause.
	smallestLimit = 256 << 10
	// maxLimits bounds what is remembered, of endpoints that may be gone.
	maxLimits = 1000
)

// BatchLimits are the limits of batches that refusals taught. A link tells how
// large a message may be, and an entity may take batches only up to less, without
// a word of it. Such a refusal ends the link and with it the sink, so what it
// taught is kept beside the sinks: otherwise each connection would begin with
// refused batches.
type BatchLimits struct {
	mu    sync.Mutex
	bytes map[string]uint64
}

func entityOf(e endpoints.Endpoint, host string) string { return host + "/" + e.Path }

// Of returns the limit of an entity's batches, in bytes; 0 is as the link tells.
func (l *BatchLimits) Of(e endpoints.Endpoint, host string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes[entityOf(e, host)]
}

// Refused notes that a batch was refused for its size. The next ones are half as
// large, at least.
func (l *BatchLimits) Refused(e endpoints.Endpoint, host string, size uint64) {
	if size <= smallestLimit {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes == nil || len(l.bytes) >= maxLimits {
		l.bytes = make(map[string]uint64)
	}
	entity, limit := entityOf(e, host), max(size/2, smallestLimit)
	if known := l.bytes[entity]; known == 0 || limit < known {
		l.bytes[entity] = limit
	}
}
