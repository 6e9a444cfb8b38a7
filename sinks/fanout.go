package sinks

import (
	"context"
	"errors"
	"slices"
	"sync"

	"twinegress/internal/event"
)

// Target is a sender in a route table.
type Target struct {
	Sender *Sender
	// Slot is the target's number in its table: from 0, without gaps.
	Slot int32
}

// Fanout groups the events of one chunk by sender, so that each sender's locks
// are taken once a chunk and not once an event. The worker that prepares the
// chunk fills it with Add and Group, since that is work per event; the
// dispatcher, which is one for all chunks, only enqueues it. A Fanout is reused
// from chunk to chunk and allocates nothing once its buffers have grown. The
// zero Fanout is ready.
type Fanout struct {
	events  []*event.Event // as added
	targets [][]Target     // of each of them
	runs    []run          // in the order of their first events
	// bySlot is, by Target.Slot, the number of the target's run, from 1; 0
	// without one. A map would cost a hash an event.
	bySlot  []int32
	grouped []*event.Event // what the runs consist of: one buffer, not one a sender
}

// run is the events of one chunk for one sender, in order.
type run struct {
	Target
	size   int
	events []*event.Event
}

// Add notes an event and its targets, which have to stay as they are until
// Group. All targets of a chunk come from one table.
func (f *Fanout) Add(ev *event.Event, targets []Target) {
	f.events, f.targets = append(f.events, ev), append(f.targets, targets)
	for i := range targets {
		t := &targets[i]
		if int(t.Slot) >= len(f.bySlot) {
			f.bySlot = append(f.bySlot, make([]int32, int(t.Slot)+1-len(f.bySlot))...)
		}
		if f.bySlot[t.Slot] == 0 {
			f.runs = append(f.runs, run{Target: *t})
			f.bySlot[t.Slot] = int32(len(f.runs))
		}
		f.runs[f.bySlot[t.Slot]-1].size++
	}
}

// Group makes the runs of what was added.
func (f *Fanout) Group() {
	size := 0
	for i := range f.runs {
		size += f.runs[i].size
	}
	f.grouped = slices.Grow(f.grouped, size)
	for i := range f.runs {
		r := &f.runs[i]
		r.events = f.grouped[len(f.grouped) : len(f.grouped) : len(f.grouped)+r.size]
		f.grouped = f.grouped[:len(f.grouped)+r.size]
	}
	for i, ev := range f.events {
		for _, t := range f.targets[i] {
			r := &f.runs[f.bySlot[t.Slot]-1]
			r.events = append(r.events, ev)
		}
	}
}

// Enqueue moves each run to its sender and blocks while a lane is full. An
// error is ctx's cause: not every sender has taken its run.
func (f *Fanout) Enqueue(ctx context.Context, c *event.Chunk) (err error) {
	for i := range f.runs {
		if stopped := f.runs[i].Sender.Enqueue(ctx, c, f.runs[i].events); stopped != nil {
			err = stopped
		}
	}
	return err
}

// Reset empties the Fanout and keeps its buffers, cleared: a pool of them must
// keep no chunk alive. It costs what was added, not the size of the table.
func (f *Fanout) Reset() {
	for i := range f.runs {
		f.bySlot[f.runs[i].Slot] = 0
	}
	clear(f.events)
	clear(f.targets)
	clear(f.runs)
	clear(f.grouped)
	f.events, f.targets, f.runs, f.grouped = f.events[:0], f.targets[:0], f.runs[:0], f.grouped[:0]
}

// CloseAll drains the senders of a process that stops, side by side and within
// ctx, and returns how many events without an outcome each endpoint is left
// with, by its id.
func CloseAll(ctx context.Context, senders []*Sender) (pending map[string]int, err error) {
	errs := make([]error, len(senders))
	var closing sync.WaitGroup
	for i, s := range senders {
		closing.Go(func() { errs[i] = s.Close(ctx) })
	}
	closing.Wait()
	pending = make(map[string]int)
	for _, s := range senders {
		if snap := s.Snapshot(); snap.Counts.Pending > 0 {
			pending[snap.Endpoint.ID] = snap.Counts.Pending
		}
	}
	return pending, errors.Join(errs...)
}
