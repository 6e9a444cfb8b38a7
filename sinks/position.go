package sinks

import (
	"time"

	"twinegress/internal/event"
)

// positionState is the state of an endpoint in a partition, while it has a position
// there. Without one it is live: it gets what is read for all.
//
//	live ──── leave ───▶ leaving ◀──── leave ────┬─────────────┐
//	 ▲                      │ nothing of it is   │             │
//	 │                      │ in the lane        │             │
//	 │                      ▼                    │             │
//	 │                    behind ────────────────┘             │
//	 │                      │ given ≥ dispatched,              │
//	 │                      │ and some of it taken             │
//	 │                      ▼                                  │
//	 └── cursor = given ─ joining ─────────────────────────────┘
//	     ≤ handed
//
// leave: the endpoint backs off, is paused, or its lane is full.
//
// Joining is by overtaking: the reader has put all below given into the lane, the
// dispatcher has handed out nothing beyond it, and passes over what lies between. So
// nobody waits for anybody, and the lane keeps the order.
type positionState uint8

const (
	// leaving: what the lane still has of the partition is not sent any more, but for
	// the send that is in flight. Nothing is read, since it would overtake.
	leaving positionState = iota
	// behind: the reader gives what lies at given, and beyond.
	behind
	// joining: the reader gives nothing more. The dispatcher's events from given on go
	// into the lane, behind the reader's.
	joining
)

// position is from where an endpoint that is behind is to be served in a partition.
//
// What makes it right, at any moment, for each of the endpoint's events in the
// partition: it has its outcome; or it is in a chunk that all endpoints read, is not
// settled there, and so lies beyond the partition's mark; or it lies at cursor or
// beyond, and the position is listed beside the mark. To leave is to lower the cursor
// first, and to settle after that. To join is one decision under the lock: a chunk
// that is dispatched before it is beyond given for the reader, which reads on; one
// that is dispatched after it finds joining.
type position struct {
	owned *event.Ownership
	state positionState
	// cursor is the offset before which every event has its outcome, or is in the lane
	// for all.
	cursor int64
	given  int64 // the next offset to give; at cursor or beyond
	resume int64 // where to go on if the seek that set the position is cancelled; -1: it was none
	sought bool  // by a seek that asked for what lies at cursor, whatever the lane had
	since  time.Time
	oldest time.Time // when what lies at the cursor was appended, nearly; zero: not known
	lane   int

	// reading numbers what is given between two leavings. The outcome of another
	// one's, such as of a dead letter that is stored late, doesn't move the cursor.
	reading uint64
	proven  bool         // something of the reading has its outcome: the endpoint takes events
	window  []givenChunk // given and without an outcome, or behind such a one; in order
	base    uint64       // sequence number of window[0]
	noted   listing      // as it was when the lock was freed last
}

type givenChunk struct {
	next     int64     // the offset behind the chunk
	last     time.Time // when its last record was appended
	resolved bool
}

// listed reports whether what is committed has to name the position.
func (p *position) listed() bool { return p.state != joining || p.cursor < p.given }

// note moves Listed of the partition if what a commit has to list has changed.
func (p *position) note() (listed bool) {
	now := listing{p.listed(), p.cursor, p.resume}
	if now != p.noted {
		p.noted = now
		p.owned.Listed.Add(1)
	}
	return now.listed
}

// listing is what a commit lists of a position.
type listing struct {
	listed         bool
	cursor, resume int64
}

// oldestAt returns when what lies at the cursor was appended, nearly; zero if that is not
// known. Of what was restored it is when the endpoint left at the latest: a paused one is
// read nothing for that would tell, and its events are about to expire all the same.
func (p *position) oldestAt() time.Time {
	if p.oldest.IsZero() && p.resume < 0 && !p.sought {
		return p.since
	}
	return p.oldest
}

// done reports whether the endpoint is live again, if it has seen all that was
// dispatched before an offset.
func (p *position) done(before int64) bool { return !p.listed() && before >= p.given }

// leave makes the endpoint leave at an offset that the lane has for all, or that the
// dispatcher is about to hand out: the first one without an outcome.
func (p *position) leave(first *event.Record) {
	at, before := first.Offset, p.cursor
	switch {
	case p.state == joining && !p.listed():
		p.cursor, p.resume = at, -1 // all below has its outcome, or is in the lane for all: a seek is over
	case p.state == leaving && !p.sought:
		p.cursor = min(p.cursor, at)
	case p.state == leaving && p.resume >= 0:
		p.resume = min(p.resume, at)
	}
	// Otherwise events below at, given by the reader, have no outcome: the cursor stays.
	p.state = leaving
	if p.cursor != before {
		p.oldest = time.UnixMilli(first.Timestamp)
	}
}

// rewind makes the endpoint leave in the middle of a chunk that it was given: at is
// the first offset of it without an outcome.
func (p *position) rewind(c *event.Chunk, at int64) {
	if c.Reading == p.reading && c.Seq == p.base && len(p.window) > 0 && !c.Lettered && !c.Incomplete {
		p.cursor = max(p.cursor, at) // the events of it that were sent are not sent again
	}
	c.Incomplete = true
	p.state = leaving
}

// trying reports whether the endpoint has been given a chunk and nothing is known of it.
// It gets no more until then, and doesn't join: it may be the probe of a back-off, which
// often fails. More of it would be read for nothing, and what an endpoint has joined for
// is not committed before its outcome.
func (p *position) trying() bool { return !p.proven && len(p.window) > 0 }

// begin begins to read at the cursor.
func (p *position) begin(reading uint64) {
	p.state, p.reading, p.given, p.proven = behind, reading, p.cursor, false
	p.window, p.base, p.sought = nil, 0, false
}

// pass moves given over offsets of which the endpoint gets nothing.
func (p *position) pass(next int64, last time.Time) {
	if next <= p.given {
		return
	}
	p.given = next
	if n := len(p.window); n > 0 {
		p.window[n-1].next, p.window[n-1].last = next, last
		return
	}
	p.cursor, p.oldest = next, last
}

// track records a chunk that is given, and sets its numbers.
func (p *position) track(c *event.Chunk, next int64, last time.Time) {
	if len(p.window) == 0 && p.oldest.IsZero() { // restored or sought, and not known since
		p.oldest = time.UnixMilli(c.Events[0].Record.Timestamp)
	}
	c.Reading, c.Seq = p.reading, p.base+uint64(len(p.window))
	p.window = append(p.window, givenChunk{next: next, last: last})
	p.given = next
}

// resolve moves the cursor over a chunk whose events all have their outcome, and all
// such behind it.
func (p *position) resolve(c *event.Chunk) {
	if c.Reading != p.reading || c.Seq < p.base {
		return
	}
	p.proven = true
	p.window[c.Seq-p.base].resolved = true
	n := 0
	for n < len(p.window) && p.window[n].resolved {
		p.cursor, p.oldest = max(p.cursor, p.window[n].next), p.window[n].last
		n++
	}
	p.window, p.base = p.window[n:], p.base+uint64(n)
}

// comingFrom returns what a seek is in the light of where the endpoint is now: whoever
// asks for it doesn't hold the lock, and it may have left meanwhile.
func (p *position) comingFrom(to, resume int64) (int64, int64) {
	switch {
	case resume < 0 && p.resume >= 0:
		return min(to, p.resume), resume
	case resume >= 0 && p.resume >= 0:
		return to, p.resume
	case resume >= 0 && p.listed():
		return to, min(resume, p.cursor)
	}
	return to, resume
}

// seek sets the position. Where it goes back to where it was, the lane may still have
// events from before that.
func (p *position) seek(to, resume int64) {
	*p = position{owned: p.owned, state: leaving, cursor: to, given: to, resume: resume, sought: resume >= 0, since: p.since, lane: p.lane, noted: p.noted}
}
