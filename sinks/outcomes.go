package sinks

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
)

// refusedInARow is how many events a service refuses, one by one and none
// taken between, before that looks like the endpoint's fault. Where few events come,
// it is refusedAtLeast of them, the first of which was refusedFor ago: also if all came
// in a burst.
const (
	refusedInARow  = 100
	refusedAtLeast = 3
	refusedFor     = 10 * time.Second
)

// outcomes gives each event that its sender took exactly one outcome, in three
// steps: it counts, so that a chunk that is committed is counted; it releases
// the event from its lane; it settles the event, or leaves that to the dead
// letters.
type outcomes struct {
	recipient   atomic.Pointer[Recipient] // the endpoint, which may be renamed
	keepDropped bool                      // see Options
	ledger      *ledger
	queue       *queue
	positions   *positions
	deadLetters DeadLetters
	say         func(report)
	taps        taps // they see events before they are settled

	refused atomic.Int32 // events rejected since the last delivery; the ledger has the row
}

// refusedRow is a row of refused events, with none taken between.
type refusedRow struct {
	n      int
	since  time.Time    // the first one was refused
	reason event.Reason // of the last one
	detail string
}

func (r *refusedRow) tooLong(now time.Time) bool {
	return r.n >= refusedInARow || r.n >= refusedAtLeast && now.Sub(r.since) >= refusedFor
}

func (r *refusedRow) text() string {
	return RefusesAll + ": " + r.detail
}

func (o *outcomes) deliver(events []*event.Event) {
	if o.refused.Swap(0) > 0 {
		if row := o.ledger.accepts(); row != nil {
			o.say(report{
				turn: turnReady, what: "the endpoint takes events again", off: time.Since(row.since),
				fields: []zap.Field{zap.Int("refusedEvents", row.n)},
			})
		}
	}
	o.ledger.delivered(events)
	o.taps.observe(events, "", "")
	o.settle(events)
}

// fail is for events that their sender gives up for now, for no fault of their own:
// they are dropped, or the endpoint leaves their partition and catches up on them.
func (o *outcomes) fail(events []*event.Event, reason event.Reason, detail string) {
	if !o.positions.tracked.Load() {
		o.drop(events, reason, detail)
		return
	}
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Chunk == events[0].Chunk {
			n++
		}
		if o.positions.defers(events[:n]) {
			o.later(events[:n])
		} else {
			o.drop(events[:n], reason, detail)
		}
		events = events[n:]
	}
}

// later is for events that the endpoint catches up on.
func (o *outcomes) later(events []*event.Event) {
	o.ledger.deferred(len(events))
	o.settle(events)
}

// drop is for events that are dropped for no fault of their own.
func (o *outcomes) drop(events []*event.Event, reason event.Reason, detail string) {
	detail = o.ledger.dropped(events, reason, detail)
	o.taps.observe(events, reason.String(), detail)
	if o.keepDropped {
		o.keep(events, reason, detail)
	} else {
		o.settle(events)
	}
}

// reject is for one event that its service does not take: always a dead letter.
func (o *outcomes) reject(one []*event.Event, reason event.Reason, detail string) {
	o.taps.observe(one, reason.String(), detail)
	o.ledger.refused(one, reason, detail)
	o.refused.Add(1)
	o.checkRefused(time.Now())
	o.keep(one, reason, detail)
}

// checkRefused finds out whether the service has refused one event after the other for
// too long. It is called after each refusal, and now and then, since no more may come.
func (o *outcomes) checkRefused(now time.Time) {
	if o.refused.Load() < refusedAtLeast {
		return
	}
	if row, news := o.ledger.refuses(now); news {
		o.say(report{
			turn: turnRefuses, what: "the service refuses one event after the other and takes none: is it the endpoint's fault?",
			reason: row.reason.String(), cause: row.reason.String(), err: text(row.detail),
		})
	}
}

func (o *outcomes) settle(events []*event.Event) {
	byChunk(events, func(c *event.Chunk, n int) {
		o.queue.release(c, n)
		c.Settle(n)
	})
}

// keep leaves the settling to the dead letters.
func (o *outcomes) keep(events []*event.Event, reason event.Reason, detail string) {
	byChunk(events, func(c *event.Chunk, n int) {
		if c.Reading > 0 { // else it is other endpoints' chunk, too
			c.Lettered = true
			o.positions.answered(c)
		}
		o.queue.release(c, n)
	})
	to := o.recipient.Load()
	for _, ev := range events {
		o.deadLetters.Put(ev, reason, detail, to)
	}
}

// byChunk calls of for each row of events of one chunk: neighbours mostly share one.
func byChunk(events []*event.Event, of func(c *event.Chunk, n int)) {
	for i := 0; i < len(events); {
		c, j := events[i].Chunk, i+1
		for j < len(events) && events[j].Chunk == c {
			j++
		}
		of(c, j-i)
		i = j
	}
}
