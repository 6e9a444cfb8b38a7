package deadletter

import (
	"time"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// Put implements sinks.DeadLetters: it takes over one count of the event's chunk
// and settles it when the letter is stored on all in-sync replicas. Until then
// the letter is tried again, and an error logged each time; its bytes are the
// chunk's. A letter that can't be stored in any form is settled all the same,
// and counted: no partition waits for it for ever.
//
// Put never blocks: lanes and the dispatcher call it. The queue is bounded by what
// may be in flight, in which every letter counts: an event that twenty endpoints drop
// has twenty. Where the topic is slower than events are dropped, dispatching waits in
// the end, and polling.
func (t *Topic) Put(ev *event.Event, reason event.Reason, detail string, to *sinks.Recipient) {
	t.put(letter{event: ev, reason: reason, detail: t.text(detail, ev.Index), to: to})
}

// PutRejected puts what decoding a chunk rejected, in its order, and holds the
// chunk for it. Of a record that is rejected in more than a few of its elements
// there is one letter for each reason, with the whole record and the elements'
// numbers: a letter has a few hundred bytes of its own, an element may have two.
func (t *Topic) PutRejected(rejected []event.Rejection) {
	for len(rejected) > 0 {
		n := 1
		for n < len(rejected) && rejected[n].Event.Record == rejected[0].Event.Record {
			n++
		}
		of := rejected[:n]
		rejected = rejected[n:]
		if n <= fewElements {
			for i := range of {
				of[i].Event.Chunk.Hold(1)
				t.Put(&of[i].Event, of[i].Reason, of[i].Detail, nil)
			}
			continue
		}
		t.putTogether(of)
	}
}

func (t *Topic) putTogether(of []event.Rejection) {
	var reasons [event.NumReasons]elements
	for i := range of {
		r := &of[i]
		reasons[r.Reason].add(r.Event.Index, r.Detail)
	}
	c, r := of[0].Event.Chunk, of[0].Event.Record
	for reason := range reasons {
		if e := &reasons[reason]; e.n > 0 {
			c.Hold(1)
			t.put(letter{
				event:  &event.Event{Chunk: c, Record: r, Index: event.NoIndex, Body: r.Value},
				reason: event.Reason(reason), detail: t.text(e.detail, event.NoIndex), elements: e.String(),
			})
		}
	}
}

func (t *Topic) put(l letter) {
	l.time = time.Now()
	l.event.Chunk.Grow(letterBytes)
	t.counts.waiting.Add(1)
	t.queued.push(l)
}

// text makes a codec's or a service's words fit for a header. Most letters have
// the words of the letter before: they are looked at once.
func (t *Topic) text(s string, index int32) string {
	last := t.lastText.Load()
	if last == nil || last.given != s {
		last = newText(s)
		t.lastText.Store(last)
	}
	if index >= fewElements {
		return last.short
	}
	return last.long
}
