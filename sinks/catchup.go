package sinks

import (
	"time"

	"twinegress/internal/event"
)

// This file is what an endpoint's positions are to who keeps and who reads for them.

// Position returns the endpoint's position in a partition, if a commit has to list it.
func (s *Sender) Position(o *event.Ownership) (Position, bool) {
	p := &s.positions
	p.mu.Lock()
	defer p.mu.Unlock()
	pos := p.of[o]
	if pos == nil || !pos.listed() {
		return Position{}, false
	}
	return Position{pos.cursor, pos.resume, pos.since}, true
}

// Restore sets what another ownership's last commit listed, before anything of this
// one is dispatched. Dispatched must be where the shared reading begins: an offset
// beyond it was reached over events that come again.
func (s *Sender) Restore(o *event.Ownership, at Position) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	if p.behind == nil || p.closed {
		return
	}
	p.tracked.Store(true)
	if p.since.IsZero() {
		p.reason = LeftBefore
	}
	pos := p.at(o, min(at.Cursor, o.Dispatched.Load()), at.Since)
	if pos == nil {
		return
	}
	pos.resume = min(at.Resume, o.Dispatched.Load())
	p.note(time.Now())
	if at.Since.Before(p.since) {
		p.since = at.Since // on another copy, or in another process
	}
	p.behind.wake()
}

// Next returns the next offset to give, and whether to: not while the endpoint backs
// off or is paused, its lane is more than half full, or has something left of before
// it left, nor while it is not known what became of the first that it was given.
func (s *Sender) Next(o *event.Ownership, now time.Time) (offset int64, ready bool) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	pos := p.of[o]
	if pos == nil || p.closed || p.paused.Load() {
		return 0, false
	}
	if pos.state == joining {
		if pos.done(o.Handed.Load()) {
			p.drop(o)
		}
		return 0, false
	}
	if s.ledger.backoff.blocked(o.Partition, now) {
		return 0, false
	}
	if pos.state == leaving {
		if s.queue.has(o) {
			return 0, false
		}
		pos.begin(p.readings.Add(1))
	}
	if l := s.queue.lanes[pos.lane].Load(); pos.trying() || l != nil && !l.roomy() {
		return 0, false
	}
	return pos.given, true
}

// RetryAt returns when the endpoint's back-off ends; zero if it isn't in one.
func (s *Sender) RetryAt() time.Time {
	h, _ := s.ledger.backoff.health()
	return h.BackOffUntil
}

// Give puts events of a chunk, which was read for endpoints that are behind, into the
// lane: those at the endpoint's next offset and beyond. next is the offset behind the
// chunk. It returns false if the lane is full, the first that was given has no outcome
// yet, or there is nothing to give any more.
// The chunk is held until they have their outcome.
func (s *Sender) Give(o *event.Ownership, lane int, from *event.Chunk, run []*event.Event, next int64) (taken bool) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	pos := p.of[o]
	if pos == nil || pos.state != behind || p.closed || p.paused.Load() {
		return false
	}
	for len(run) > 0 && run[0].Record.Offset < pos.given {
		run = run[1:]
	}
	if len(run) == 0 {
		pos.pass(next, appended(from))
		return true
	}
	l := s.queue.lane(lane)
	if pos.trying() || !l.roomy() {
		return false
	}
	from.Lane, from.Owned = lane, o
	part := from.Part(run, p.settled)
	pos.track(part, next, appended(from))
	pos.lane = lane
	events := make([]*event.Event, len(part.Events))
	for i := range part.Events {
		events[i] = &part.Events[i]
	}
	part.Hold(len(events) - 1)
	now := time.Now()
	s.ledger.routed(len(events), now)
	l.put(part, events, now) // there was room; only what began before tracked was set may have taken it
	return true
}

// appended returns when the last record of a chunk was.
func appended(c *event.Chunk) time.Time {
	if n := len(c.Records); n > 0 {
		return time.UnixMilli(c.Records[n-1].Timestamp)
	}
	return time.Time{}
}

// settled is called when the events of a chunk that was given have their outcome, or
// were taken back.
func (p *positions) settled(c *event.Chunk) {
	p.mu.Lock()
	if !c.Incomplete {
		p.served += uint64(len(c.Events))
		if pos := p.of[c.Owned]; pos != nil {
			tried := pos.trying()
			pos.resolve(c)
			if pos.state == joining || tried {
				p.behind.wake()
			}
		}
	}
	p.unlock()
	c.FreePart()
}

// answered records that the service has answered an event of a chunk that was given: it
// works, however long the event's dead letter takes.
func (p *positions) answered(c *event.Chunk) {
	p.mu.Lock()
	defer p.unlock()
	if pos := p.of[c.Owned]; pos != nil && pos.reading == c.Reading && !pos.proven {
		pos.proven = true
		p.behind.wake()
	}
}

// Join lets the endpoint join the shared reading, if it was given all that was
// dispatched there.
func (s *Sender) Join(o *event.Ownership) (joined bool) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	pos := p.of[o]
	if pos == nil || pos.state != behind || p.paused.Load() || pos.trying() || pos.given < o.Dispatched.Load() {
		return false
	}
	pos.state = joining
	if pos.done(o.Handed.Load()) {
		p.drop(o)
	}
	return true
}

// Skip passes over offsets that Kafka doesn't have any more, and returns how many.
func (s *Sender) Skip(o *event.Ownership, to int64) (offsets int64) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	pos := p.of[o]
	if pos == nil || pos.state != behind || pos.given >= to {
		return 0
	}
	offsets = to - pos.given
	pos.pass(to, time.Time{})
	s.ledger.expired(offsets)
	return offsets
}

// Seek sets the endpoint's position, whatever it was. resume is where to go on if that
// is cancelled, unless it is behind there already, and goes on at its position; negative:
// it goes on where it was, at to or at what has become of that since. An endpoint that had none must be tracked, and every
// chunk that was looked up before that dispatched.
func (s *Sender) Seek(o *event.Ownership, to, resume int64) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	if p.behind == nil || p.closed {
		return
	}
	if p.since.IsZero() {
		p.reason = LeftSought
	}
	if pos := p.of[o]; pos != nil {
		to, resume = pos.comingFrom(to, resume)
	}
	if pos := p.at(o, to, time.Now()); pos != nil {
		pos.seek(to, resume)
		p.behind.wake()
	}
}

// forget forgets the position in a partition whose ownership has ended.
func (s *Sender) forget(o *event.Ownership) {
	p := &s.positions
	p.mu.Lock()
	defer p.unlock()
	p.forgot = true
	p.drop(o)
}
