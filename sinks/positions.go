package sinks

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// Why an endpoint leaves the shared reading.
const (
	LeftBackOff = "backoff" // it backs off
	LeftFull    = "full"    // it takes less than comes
	LeftPaused  = "paused"
	LeftSought  = "seek"
	LeftBefore  = "before" // it was behind when this copy took the partition over
)

// Position is an endpoint's in a partition, as a commit lists it.
type Position struct {
	Cursor int64 // the first offset without an outcome
	Resume int64 // where it goes on if the seek that set it is cancelled; -1: it was none
	Since  time.Time
}

// PositionStatus is a position as it is shown.
type PositionStatus struct {
	Topic      string
	Partition  int32
	Cursor     int64     // all before it have their outcome
	Given      int64     // all before it were given to the endpoint
	Dispatched int64     // where the shared reading is
	OldestAt   time.Time // when the oldest event without an outcome was appended, nearly; zero: not known
	Since      time.Time // when it left here
}

// positions are an endpoint's, by partition. Its lock is held while a run of events
// is moved into a lane and while one leaves it, never while anything waits: so it is
// one moment at which an event changes from the shared reading to its own.
//
// Lock order: positions.mu, then the ledger's or a lane's or Behind's.
type positions struct {
	sender *Sender
	behind *Behind // nil: no endpoint ever leaves
	// tracked is set once the endpoint may have a position: until then the dispatcher
	// takes no lock for them.
	tracked  atomic.Bool
	catchUp  atomic.Bool // with recovery: catchUp
	paused   atomic.Bool
	count    atomic.Int32 // positions: without one, lanes take no lock
	readings atomic.Uint64

	mu     sync.Mutex
	of     map[*event.Ownership]*position
	closed bool
	since  time.Time // the endpoint is behind anywhere; zero: it isn't
	reason string    // why it left
	left   uint64    // times that it did
	served uint64    // events that it was given and that have their outcome, over all readings
	before uint64    // of them when it left
	news   []report  // to be said once the lock is free
	forgot bool      // since the lock was taken, positions were given up
}

func (p *positions) init(s *Sender, behind *Behind) {
	p.sender, p.behind = s, behind
	p.of = make(map[*event.Ownership]*position)
}

// unlock frees the lock, and says what befell the endpoint under it.
func (p *positions) unlock() {
	if len(p.of) > 0 || !p.since.IsZero() {
		p.note(time.Now())
	}
	news := p.news
	p.news, p.forgot = nil, false
	p.mu.Unlock()
	for _, r := range news {
		p.sender.say(r)
	}
}

// note must be called after each change of positions. The caller holds mu.
func (p *positions) note(now time.Time) {
	is := false
	for _, pos := range p.of {
		is = pos.note() || is
	}
	switch {
	case is && p.since.IsZero():
		p.since, p.before = now, p.served
		p.left++
		p.sender.ledger.fallsBehind(p.reason, now)
		switch p.reason {
		case LeftBackOff: // has its own line
		case LeftBefore:
			p.news = append(p.news, report{turn: turnLeft, cause: p.reason, what: "the endpoint was behind before this copy had the partition: it goes on to catch up from Kafka", reason: p.reason})
		default:
			p.news = append(p.news, report{turn: turnLeft, cause: p.reason, what: "the endpoint falls behind: it catches up from Kafka", reason: p.reason})
		}
	case !is && !p.since.IsZero():
		p.sender.ledger.caughtUp(p.served-p.before, now)
		if !p.forgot { // else another copy may have to go on
			p.news = append(p.news, report{
				turn: turnCaughtUp, what: "the endpoint has caught up", off: now.Sub(p.since),
				fields: []zap.Field{zap.Uint64("events", p.served-p.before)},
			})
		}
		p.since = time.Time{}
	}
}

func (p *positions) wake() {
	if p.behind != nil {
		p.behind.wake()
	}
}

// report sets what is shown of the positions.
func (p *positions) report(h *Health) {
	if !p.tracked.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.CaughtUp, h.Left, h.BehindSince = p.served, p.left, p.since
	if p.since.IsZero() {
		return
	}
	h.BehindReason = p.reason
	for o, pos := range p.of {
		if pos.listed() {
			if pos.resume >= 0 {
				h.BehindReason = LeftSought // it can be cancelled
			}
			h.Positions = append(h.Positions, PositionStatus{
				o.Topic, o.Partition, pos.cursor, pos.given, o.Dispatched.Load(), pos.oldestAt(), pos.since,
			})
		}
	}
}

// follow takes what an endpoint says. Without Behind, as in a replay, what is to be
// sent is sent now.
func (p *positions) follow(e *endpoints.Endpoint) {
	if p.behind == nil {
		return
	}
	catchUp, paused, sought := e.Recovery == endpoints.RecoveryCatchUp, e.Disabled(), e.SeekAt != ""
	p.catchUp.Store(catchUp)
	p.paused.Store(paused)
	p.sender.ledger.pause(paused)
	if catchUp || paused || sought {
		p.tracked.Store(true)
	}
	p.behind.wake()
}

// at returns the position in a partition, which it makes if need be; nil if the
// ownership has ended. The caller holds mu.
func (p *positions) at(o *event.Ownership, offset int64, now time.Time) *position {
	pos := p.of[o]
	if pos == nil && p.behind.add(o, p.sender) {
		pos = &position{owned: o, state: leaving, cursor: offset, given: offset, resume: -1, since: now}
		p.of[o] = pos
		p.count.Add(1)
	}
	return pos
}

// leave makes the endpoint leave. If the ownership has ended there is nothing to leave:
// the event is the next owner's, with all that have no outcome. The caller holds mu.
func (p *positions) leave(o *event.Ownership, lane int, at *event.Record, why string, now time.Time) {
	pos := p.of[o]
	switch {
	case pos != nil:
		pos.leave(at)
	default:
		if pos = p.at(o, at.Offset, now); pos == nil {
			return
		}
		pos.oldest = time.UnixMilli(at.Timestamp)
	}
	if p.since.IsZero() {
		p.reason = why
	}
	pos.lane = lane
	p.behind.wake()
}

// drop forgets a position. The caller holds mu.
func (p *positions) drop(o *event.Ownership) {
	if p.of[o] == nil {
		return
	}
	delete(p.of, o)
	p.count.Add(-1)
	p.behind.remove(o, p.sender)
}

// enqueueTracked is Sender.Enqueue of an endpoint that may have positions.
func (s *Sender) enqueueTracked(ctx context.Context, c *event.Chunk, run []*event.Event) error {
	for counted := false; ; counted = true {
		var taken bool
		if run, taken = s.tryEnqueue(c, run, counted); taken {
			return nil
		}
		if !s.queue.lane(c.Lane).awaitSpace(ctx) {
			return context.Cause(ctx)
		}
	}
}

// tryEnqueue decides what becomes of a run, unless it has to wait for room in its
// lane: then it returns what of the run that is. counted says that it did before.
func (s *Sender) tryEnqueue(c *event.Chunk, run []*event.Event, counted bool) (rest []*event.Event, taken bool) {
	now := time.Now()
	p := &s.positions
	p.mu.Lock()
	pos := p.of[c.Owned]
	var had []*event.Event
	if pos != nil && pos.state != leaving {
		n := 0
		for n < len(run) && run[n].Record.Offset < pos.given { // the reader had them
			n++
		}
		had, run = run[:n], run[n:]
		if pos.state == joining && pos.done(c.Owned.Dispatched.Load()) {
			p.drop(c.Owned)
			pos = nil
		}
	}
	if counted && len(had) > 0 { // while this one waited
		defer s.outcomes.later(had)
	}
	if len(run) == 0 {
		p.unlock()
		return nil, true
	}
	if !counted {
		c.Hold(len(run))
		s.ledger.routed(len(run), now)
	}
	live := pos == nil || pos.state == joining
	catchUp, paused := p.catchUp.Load(), p.paused.Load()
	why := ""
	switch {
	case !live: // stays behind
	case paused:
		why = LeftPaused
	case s.ledger.backoff.blocked(c.Partition, now):
		why = LeftBackOff
	case s.queue.lane(c.Lane).tryPush(c, run, now, catchUp || s.dropsOverflow.Load()):
		p.unlock()
		return nil, true
	default:
		why = LeftFull
	}
	if live && catchUp {
		p.leave(c.Owned, c.Lane, run[0].Record, why, now)
		live = false
	}
	p.unlock()
	switch {
	case !live:
		s.outcomes.later(run)
	case why == LeftPaused:
		s.outcomes.drop(run, event.Stopped, "the endpoint is not enabled")
	case why == LeftBackOff:
		s.outcomes.drop(run, event.Backoff, "")
	case s.dropsOverflow.Load():
		s.outcomes.drop(run, event.Overflow, "the endpoint's queue was full")
	default:
		return run, false
	}
	return nil, true
}

// screen is between the lanes and their sends: of an endpoint that has left a
// partition, what its lane still has of it is not sent. Order would not be kept.
func (p *positions) screen(next func(context.Context, []*event.Event) int) func(context.Context, []*event.Event) int {
	return func(ctx context.Context, batch []*event.Event) (done int) {
		if !p.tracked.Load() {
			return next(ctx, batch)
		}
		if p.count.Load() == 0 && !p.paused.Load() {
			if done = next(ctx, batch); p.count.Load() > 0 {
				p.behind.wake() // it has left meanwhile, and its lane may be empty now
			}
			return done
		}
		n, sent := p.leading(batch)
		switch {
		case sent:
			done = next(ctx, batch[:n])
		case p.paused.Load() && !p.catchUp.Load():
			p.sender.outcomes.fail(batch[:n], event.Stopped, "the endpoint is not enabled")
			done = n
		default:
			p.sender.outcomes.fail(batch[:n], event.Backoff, "")
			done = n
		}
		if done > 0 {
			p.behind.wake()
		}
		return done
	}
}

// leading returns how many events, from the front, are all to be sent, or all not.
func (p *positions) leading(batch []*event.Event) (n int, sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sendable := func(c *event.Chunk) bool {
		pos := p.of[c.Owned]
		return !p.paused.Load() && (pos == nil || pos.state != leaving)
	}
	sent = sendable(batch[0].Chunk)
	for n < len(batch) {
		c := batch[n].Chunk
		if sendable(c) != sent {
			break
		}
		for n < len(batch) && batch[n].Chunk == c {
			n++
		}
	}
	return n, sent
}

// defers makes the endpoint leave the partition of events that its lane had, all of
// one chunk and the first without an outcome of it; or reports that it can't, and they
// are to be dropped.
func (p *positions) defers(events []*event.Event) bool {
	if !p.tracked.Load() {
		return false
	}
	c, at := events[0].Chunk, events[0].Record.Offset
	p.mu.Lock()
	defer p.unlock()
	pos := p.of[c.Owned]
	switch {
	case p.closed:
		return false
	case c.Reading > 0 && pos == nil:
		return c.Owned.Ended.Load() // its next owner reads it again
	case c.Reading > 0:
		if !c.Incomplete {
			p.served += uint64(max(0, slices.IndexFunc(c.Events, func(e event.Event) bool { return e.Record.Offset >= at })))
		}
		pos.rewind(c, at)
		p.behind.wake()
	case p.catchUp.Load() || pos != nil && pos.state != joining:
		why := LeftBackOff
		if p.paused.Load() {
			why = LeftPaused
		}
		p.leave(c.Owned, c.Lane, events[0].Record, why, time.Now())
	default:
		return false
	}
	return true
}

// close forgets all: the endpoint was removed.
func (p *positions) close() {
	p.mu.Lock()
	defer p.unlock()
	p.closed, p.forgot = true, true
	for o := range p.of {
		p.drop(o)
	}
}
