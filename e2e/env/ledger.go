package env

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"twinegress/internal/emulator"
)

// Ledger is what the receivers saw: at each entity, for each Kafka partition,
// every event in the order of its arrival. An event is known by its place in
// Kafka, which its message id is. (Event Grid's events have no message id;
// those of Event have an id of the same form.)
//
// Their producer writes each partition without a gap, so the next event that
// arrives for the first time has to be the next offset.
type Ledger struct {
	begun time.Time
	topic string
	hubs  map[string]int // partitions

	mu       sync.Mutex
	entities map[string]map[int32]*receipts
}

// receipts are one partition's arrivals at one entity.
type receipts struct {
	next      int64           // all before it have arrived
	arrivals  []arrival       // since the last Take
	missing   map[int64]bool  // passed over: lost, or about to arrive out of order
	reordered int             // first arrivals behind a later one
	misplaced int             // in another hub partition than p mod n
	first     []time.Duration // when offset first arrived, by offset
}

type arrival struct {
	offset int64
	repeat bool
}

func newLedger(topic string, hubs []emulator.Hub) *Ledger {
	l := &Ledger{begun: time.Now(), topic: topic, hubs: make(map[string]int), entities: make(map[string]map[int32]*receipts)}
	for _, h := range hubs {
		if h.Partitions > 0 { // else it is the emulator's default
			l.hubs[h.Name] = h.Partitions
		}
	}
	return l
}

// Now is a moment on the ledger's clock.
func (l *Ledger) Now() time.Duration { return time.Since(l.begun) }

// arrived is the services' report of a message, in order for each entity.
func (l *Ledger) arrived(entity string, partition int, what []byte) {
	id, topic := string(what), l.topic
	if entity == "grid" {
		var event struct{ ID string }
		if json.Unmarshal(what, &event) != nil {
			return
		}
		id, topic = event.ID, "load"
	}
	place := strings.Split(id, "/")
	if len(place) != 3 || place[0] != topic {
		return // of an array, or not made by Event
	}
	p, err1 := strconv.ParseInt(place[1], 10, 32)
	offset, err2 := strconv.ParseInt(place[2], 10, 64)
	if err1 != nil || err2 != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(entity, int32(p))
	r.add(offset, time.Since(l.begun))
	if n, ok := l.hubs[entity]; ok && partition != int(p)%n {
		r.misplaced++
	}
}

// of returns a partition's receipts. The caller holds the lock.
func (l *Ledger) of(entity string, p int32) *receipts {
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

func (r *receipts) add(offset int64, at time.Duration) {
	repeat := false
	switch {
	case offset >= r.next:
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

// Complete returns the offset before which everything has arrived.
func (l *Ledger) Complete(entity string, p int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(entity, p)
	done := r.next
	for o := range r.missing {
		done = min(done, o)
	}
	return done
}

// Count returns how many different events have arrived at an entity.
func (l *Ledger) Count(entity string) (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.entities[entity] {
		n += r.next - int64(len(r.missing))
	}
	return n
}

// Summary is what one stretch of time came to at one entity.
type Summary struct {
	Arrivals, Repeats int
	Reordered, Lost   int
	Misplaced         int // at a hub: in another partition than p mod n
	// Behind are repeats of events that were committed before the stretch began.
	Behind int
	// Most is how often one event was repeated at most.
	Most int
}

// Add adds another summary.
func (s *Summary) Add(o Summary) {
	s.Arrivals += o.Arrivals
	s.Repeats += o.Repeats
	s.Reordered += o.Reordered
	s.Lost += o.Lost
	s.Misplaced += o.Misplaced
	s.Behind += o.Behind
	s.Most = max(s.Most, o.Most)
}

// Take sums up an entity's arrivals since the last Take; committed are the
// group's offsets as they were then.
func (l *Ledger) Take(entity string, committed map[int32]int64) (s Summary) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, r := range l.entities[entity] {
		times := make(map[int64]int)
		for _, a := range r.arrivals {
			if !a.repeat {
				continue
			}
			s.Repeats++
			times[a.offset]++
			s.Most = max(s.Most, times[a.offset])
			if a.offset < committed[p] {
				s.Behind++
			}
		}
		s.Arrivals += len(r.arrivals)
		s.Reordered += r.reordered
		s.Lost += len(r.missing)
		s.Misplaced += r.misplaced
		r.arrivals, r.reordered, r.misplaced = r.arrivals[:0], 0, 0
	}
	return s
}

// FirstArrival returns when an event first arrived.
func (l *Ledger) FirstArrival(entity string, p int32, offset int64) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.of(entity, p)
	if offset >= r.next || r.missing[offset] {
		return 0, false
	}
	return r.first[offset], true
}

// LongestGap returns the longest time without a first arrival in any partition,
// since a moment.
func (l *Ledger) LongestGap(entity string, since time.Duration) (gap time.Duration, of int32) {
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
