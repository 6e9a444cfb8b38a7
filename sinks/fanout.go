package sinks

import (
	"context"
	"slices"

	"twinegress/internal/event"
)

// Slot is a sender's number in a route table: from 0, without gaps.
type Slot int32

// Fanout groups the events of one chunk by sender, so that each sender's locks
// are taken once a chunk and not once an event. The worker that prepares the
// chunk fills it with Add and Group, since that is work per event; the
// dispatcher, which is one for all chunks, only enqueues it. A Fanout is reused
// from chunk to chunk and allocates nothing once its buffers have grown: to eight
// bytes for each event at each sender whose events are more than one span. The
// zero Fanout is ready.
type Fanout struct {
	events []*event.Event // as added
	spans  []span
	runs   []run // in the order of their first events
	// bySlot is, by slot, the number of the sender's run, from 1; 0 without one.
	// A map would cost a hash an event.
	bySlot  []int32
	grouped []*event.Event // what runs of several spans consist of: one buffer, not one a sender
}

// span is events in a row for the same slice of slots: without filters, neighbours
// of event types that the same senders get.
type span struct {
	slots      []Slot
	start, end int // in Fanout.events
}

// run is the events of one chunk for one sender, in order.
type run struct {
	slot   Slot
	size   int
	pieced bool           // of several spans
	events []*event.Event // of one span: Fanout.events' own; else in Fanout.grouped
}

// Add notes an event and its senders' slots, which must not change until Group.
// All slots of a chunk are of one table.
func (f *Fanout) Add(ev *event.Event, slots []Slot) {
	if len(slots) == 0 {
		return
	}
	f.events = append(f.events, ev)
	end := len(f.events)
	if n := len(f.spans); n > 0 {
		if s := &f.spans[n-1]; len(s.slots) == len(slots) && &s.slots[0] == &slots[0] {
			s.end = end
			return
		}
	}
	f.spans = append(f.spans, span{slots, end - 1, end})
}

// Group makes the runs of what was added.
func (f *Fanout) Group() {
	total := 0
	for i := range f.spans {
		s := &f.spans[i]
		for _, slot := range s.slots {
			r := f.runOf(slot)
			switch {
			case r.size == 0:
				r.events = f.events[s.start:s.end:s.end]
			case !r.pieced:
				r.pieced = true
				total += r.size
			}
			r.size += s.end - s.start
			if r.pieced {
				total += s.end - s.start
			}
		}
	}
	if total == 0 {
		return
	}
	f.grouped = slices.Grow(f.grouped, total)[:total]
	start := 0
	for i := range f.runs {
		if r := &f.runs[i]; r.pieced {
			r.events = f.grouped[start : start : start+r.size]
			start += r.size
		}
	}
	for i := range f.spans {
		s := &f.spans[i]
		for _, slot := range s.slots {
			if r := &f.runs[f.bySlot[slot]-1]; r.pieced {
				r.events = append(r.events, f.events[s.start:s.end]...)
			}
		}
	}
}

func (f *Fanout) runOf(slot Slot) *run {
	if int(slot) >= len(f.bySlot) {
		f.bySlot = append(f.bySlot, make([]int32, int(slot)+1-len(f.bySlot))...)
	}
	if f.bySlot[slot] == 0 {
		f.runs = append(f.runs, run{slot: slot})
		f.bySlot[slot] = int32(len(f.runs))
	}
	return &f.runs[f.bySlot[slot]-1]
}

// Of returns the run of a sender: its events, in order. It is the Fanout's.
func (f *Fanout) Of(slot Slot) []*event.Event {
	if int(slot) >= len(f.bySlot) || f.bySlot[slot] == 0 {
		return nil
	}
	return f.runs[f.bySlot[slot]-1].events
}

// Enqueue moves each run to its sender, by slot, and blocks while a lane is full.
// An error is ctx's cause: not every sender has taken its run.
func (f *Fanout) Enqueue(ctx context.Context, c *event.Chunk, senders []*Sender) (err error) {
	for i := range f.runs {
		if stopped := senders[f.runs[i].slot].Enqueue(ctx, c, f.runs[i].events); stopped != nil {
			err = stopped
		}
	}
	return err
}

// Reset empties the Fanout and keeps its buffers, cleared: a pool of them must
// keep no chunk alive. It costs what was added, not the size of the table.
func (f *Fanout) Reset() {
	for i := range f.runs {
		f.bySlot[f.runs[i].slot] = 0
	}
	clear(f.events)
	clear(f.spans)
	clear(f.runs)
	clear(f.grouped)
	f.events, f.spans, f.runs, f.grouped = f.events[:0], f.spans[:0], f.runs[:0], f.grouped[:0]
}
