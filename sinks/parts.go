package sinks

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

// parts are the parts of an endpoint's service that may fail one by one: the
// partitions of an event hub. One that fails backs off by itself, with a breaker
// of its own that the successes of others don't close. All others have the
// endpoint's breaker in common.
//
// An error doesn't tell whether the part fails or the whole: a lost link and a
// time-out look alike either way. What else was sent meanwhile tells it. One part
// backs off alone; if another one fails too, and nothing was sent since the first
// one's trouble began, it is the whole.
type parts struct {
	apart atomic.Pointer[partSet] // nil: none. It is read for every run of events

	// Under the backoff's mutex, and so are changes of apart:
	answered time.Time // when the latest try that the service answered was begun
	// all means that the endpoint backs off because part after part failed. Those
	// are the suspects, by index, with the beginning of their trouble: if anything
	// is sent before they work, it's they who failed. A part that isn't among them
	// is tried once, without waiting: what fails may well have most of the events,
	// and take each probe.
	all        bool
	suspects   map[int]time.Time
	suspectsOf int // parts in all
}

// partSet is immutable, but for what is in its parts.
type partSet struct {
	of    int // parts in all
	parts map[int]*part
}

// part backs off by itself.
type part struct {
	index, of int
	breaker   *breaker.Breaker
	refusal   *Error    // of what comes while it backs off
	since     time.Time // when its trouble began

	lastErr    string // under the backoff's mutex
	lastReason event.Reason

	// Under the ledger's mutex:
	off   time.Time                // when it began to back off
	lost  [event.NumReasons]uint64 // dropped since then
	entry *entry
}

// of returns the part that takes the events of a Kafka partition, if it backs off
// by itself, otherwise nil.
func (p *parts) of(partition int32) *part {
	set := p.apart.Load()
	if set == nil {
		return nil
	}
	return set.parts[int(partition)%set.of]
}

// restWorks reports whether the service answered a try that was begun after the
// part's trouble began. Answers to tries from before say nothing: they may have
// come just before an outage.
func (p *parts) restWorks(part *part) bool { return p.answered.After(part.since) }

// unproven returns a part since whose trouble nothing works; nil if there is none.
func (p *parts) unproven() *part {
	if set := p.apart.Load(); set != nil {
		for _, part := range set.parts {
			if !p.restWorks(part) {
				return part
			}
		}
	}
	return nil
}

// add makes the part that failed back off by itself, as of now, and returns it;
// or nil if the failure is the whole endpoint's.
func (p *parts) add(partition int32, e *Error, b *breaker.Breaker) *part {
	added := &part{
		index: int(partition) % e.Parts, of: e.Parts, breaker: b, since: e.since,
		refusal: &Error{Reason: event.Backoff, Parts: e.Parts, Err: errBackingOff.Err},
	}
	if since, ok := p.suspects[added.index]; ok && p.suspectsOf == added.of {
		added.since = since
	}
	if !p.restWorks(added) && p.unproven() != nil {
		return nil
	}
	set := &partSet{of: added.of, parts: map[int]*part{added.index: added}}
	// A hub that has more partitions than before, or fewer, is another one.
	if old := p.apart.Load(); old != nil && old.of == set.of {
		maps.Copy(set.parts, old.parts)
		set.parts[added.index] = added
	}
	p.apart.Store(set)
	return added
}

// remove makes a part one with the others again, and reports whether it was apart.
func (p *parts) remove(gone *part) bool {
	old := p.apart.Load()
	switch {
	case old == nil || old.parts[gone.index] != gone:
		return false
	case len(old.parts) == 1:
		p.apart.Store(nil)
	default:
		set := &partSet{of: old.of, parts: maps.Clone(old.parts)}
		delete(set.parts, gone.index)
		p.apart.Store(set)
	}
	return true
}

// join says that with the part that takes a Kafka partition the whole failed.
func (p *parts) join(partition int32, e *Error) {
	if p.suspectsOf != e.Parts {
		p.suspects, p.suspectsOf = make(map[int]time.Time), e.Parts
	}
	p.all = true
	for part := p.unproven(); part != nil; part = p.unproven() {
		p.suspect(part.index, part.since)
		p.remove(part)
	}
	p.suspect(int(partition)%e.Parts, e.since)
}

func (p *parts) suspect(index int, since time.Time) {
	if _, ok := p.suspects[index]; !ok {
		p.suspects[index] = since
	}
}

// isFresh reports whether the part that takes a Kafka partition has not failed
// though all are said to.
func (p *parts) isFresh(partition int32) bool {
	if !p.all {
		return false
	}
	_, is := p.suspects[int(partition)%p.suspectsOf]
	return !is
}

// acquit says that the part that takes a Kafka partition works.
func (p *parts) acquit(partition int32) {
	if len(p.suspects) > 0 {
		delete(p.suspects, int(partition)%p.suspectsOf)
	}
}

func (p *parts) reset() {
	p.apart.Store(nil)
	p.all = false
	clear(p.suspects)
}

// report sets what h says of the parts that back off by themselves: while the rest
// works the endpoint is degraded; while nothing does, as far as is known, it backs
// off.
func (p *parts) report(h *Health) {
	set := p.apart.Load()
	if set == nil {
		return
	}
	h.State = StateDegraded
	h.PartitionsBackingOff = slices.Sorted(maps.Keys(set.parts))
	for _, i := range h.PartitionsBackingOff {
		part := set.parts[i]
		state, until := part.breaker.State()
		if h.BackOffUntil.IsZero() || until.Before(h.BackOffUntil) {
			h.BackOffUntil, h.Reason = until, part.lastReason.String()
			h.LastError = fmt.Sprintf("%s (partition %d)", part.lastErr, i)
		}
		switch {
		case p.restWorks(part):
		case state == breaker.Probing:
			h.State = StateProbing
		default:
			h.State = StateBackingOff
		}
	}
}
