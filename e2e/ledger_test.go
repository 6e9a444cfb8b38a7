//go:build integration

package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ledger is what the receivers saw: at each entity, for each Kafka partition,
// every event in the order of its arrival. An event is known by its place in
// Kafka, which its message id is. (Event Grid's events have no message id;
// load gives them one of the same form.)
//
// Their producer writes each partition without a gap, so the next event that
// arrives for the first time has to be the next offset.
type ledger struct {
	begun time.Time

	mu       sync.Mutex
	entities map[string]map[int32]*receipts
}

// receipts are one partition's arrivals at one entity.
type receipts struct {
	next      int64           // all before it have arrived
	arrivals  []arrival       // since the last reset
	missing   map[int64]bool  // passed over: lost, or about to arrive out of order
	reordered int             // first arrivals behind a later one
	first     []time.Duration // when offset first arrived, by offset
}

type arrival struct {
	offset int64
	repeat bool
}

func newLedger() *ledger {
	return &ledger{begun: time.Now(), entities: make(map[string]map[int32]*receipts)}
}

// now is a moment on the ledger's clock.
func (l *ledger) now() time.Duration { return time.Since(l.begun) }

// arrived is the services' report of a message, in order for each entity.
func (l *ledger) arrived(entity string, _ int, what []byte) {
	id := string(what)
	if entity == "grid" {
		var event struct{ ID string }
		if json.Unmarshal(what, &event) != nil {
			return
		}
		id = event.ID
	}
	place := strings.Split(id, "/")
	if len(place) != 3 {
		return // of an array, or not of the load's
	}
	p, err1 := strconv.ParseInt(place[1], 10, 32)
	offset, err2 := strconv.ParseInt(place[2], 10, 64)
	if err1 != nil || err2 != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(entity, int32(p)).note(offset, time.Since(l.begun))
}

// of gives a partition's receipts. The caller holds the lock.
func (l *ledger) of(entity string, p int32) *receipts {
	if l.entities[entity] == nil {
		l.entities[entity] = make(map[int32]*receipts)
	}
	r := l.entities[entity][p]
	if r == nil {
		r = &receipts{missing: make(map[int64]bool)}
		l.entities[entity][p] = r
	}
	return r
}

func (r *receipts) note(offset int64, at time.Duration) {
	repeat := false
	switch {
	case offset == r.next:
		r.first = append(r.first, at)
		r.next++
	case offset > r.next:
		for ; r.next < offset; r.next++ {
			r.missing[r.next] = true
			r.first = append(r.first, 0)
		}
		r.first = append(r.first, at)
		r.next++
	case r.missing[offset]:
		delete(r.missing, offset)
		r.first[offset] = at
		r.reordered++
	default:
		repeat = true
	}
	r.arrivals = append(r.arrivals, arrival{offset, repeat})
}

// complete gives the offset before which everything has arrived.
func (l *ledger) complete(entity string, p int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(entity, p)
	done := r.next
	for o := range r.missing {
		done = min(done, o)
	}
	return done
}

// count gives how many different events have arrived at an entity.
func (l *ledger) count(entity string) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.entities[entity] {
		n += r.next - int64(len(r.missing))
	}
	return n
}

// summary is what one stretch of time came to at one entity.
type summary struct {
	arrivals, repeats int
	reordered, lost   int
	// behind are repeats of events that were committed before the stretch began.
	behind int
	// most is how often one event was repeated at most.
	most int
}

func (s *summary) add(o summary) {
	s.arrivals += o.arrivals
	s.repeats += o.repeats
	s.reordered += o.reordered
	s.lost += o.lost
	s.behind += o.behind
	s.most = max(s.most, o.most)
}

// take sums up an entity's arrivals since the last take; committed are the
// group's offsets as they were then.
func (l *ledger) take(entity string, committed map[int32]int64) (s summary) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, r := range l.entities[entity] {
		times := make(map[int64]int)
		for _, a := range r.arrivals {
			if !a.repeat {
				continue
			}
			s.repeats++
			times[a.offset]++
			s.most = max(s.most, times[a.offset])
			if a.offset < committed[p] {
				s.behind++
			}
		}
		s.arrivals += len(r.arrivals)
		s.reordered += r.reordered
		s.lost += len(r.missing)
		r.arrivals, r.reordered = r.arrivals[:0], 0
	}
	return s
}

// firstArrival tells when an event first arrived.
func (l *ledger) firstArrival(entity string, p int32, offset int64) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(entity, p)
	if offset >= r.next || r.missing[offset] {
		return 0, false
	}
	return r.first[offset], true
}

// longestGap gives the longest time without a first arrival in any partition,
// since a moment.
func (l *ledger) longestGap(entity string, since time.Duration) (gap time.Duration, of int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, r := range l.entities[entity] {
		last := since
		for _, at := range r.first {
			if at <= since {
				continue
			}
			if at-last > gap {
				gap, of = at-last, p
			}
			last = at
		}
	}
	return gap, of
}
