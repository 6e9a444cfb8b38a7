package sinks

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"twinegress/internal/event"
)

const (
	// hangsAfter is how long a send has no answer before a Tap shows an event of it, and
	// hangsAgain after how long it shows it again.
	hangsAfter = time.Second
	hangsAgain = 10 * time.Second
)

// openSends are a sender's sends that have no answer yet: one a lane at most. An event
// of a send that hangs has no outcome, so a Tap would show nothing of it. They are
// kept without a Tap as well: who opens one mostly looks for what hangs already.
type openSends struct {
	mu  sync.Mutex
	all []openSend // as many as there were at a time
}

type openSend struct {
	events []*event.Event // none: this one is free
	began  time.Time
}

func (o *openSends) begin(events []*event.Event, now time.Time) (at int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at = slices.IndexFunc(o.all, func(s openSend) bool { return s.events == nil })
	if at < 0 {
		at = len(o.all)
		o.all = append(o.all, openSend{})
	}
	o.all[at] = openSend{events, now}
	return at
}

// end must be called before any of the events is settled.
func (o *openSends) end(at int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[at] = openSend{}
}

// look shows the first event of each send that hangs.
func (t *Tap) look() {
	now := time.Now()
	for _, e := range t.hanging(now) {
		t.pushInFlight(e)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.looked = now
	if t.looks != nil {
		t.looks.Reset(hangsAfter)
	}
}

// hanging returns an entry for each send that hangs for a second, or for ten more, since
// the last look.
func (t *Tap) hanging(now time.Time) (found []TapEntry) {
	t.mu.Lock()
	looked := t.looked
	t.mu.Unlock()
	times := func(at, began time.Time) time.Duration {
		if age := at.Sub(began); age >= hangsAfter {
			return 1 + age/hangsAgain
		}
		return 0
	}
	t.sends.mu.Lock()
	defer t.sends.mu.Unlock()
	for _, s := range t.sends.all {
		if s.events == nil || times(now, s.began) <= times(looked, s.began) {
			continue
		}
		age := now.Sub(s.began).Seconds()
		e := tapEntry(now, s.events[0], t.render(t.endpoint(), s.events[0]), "", "")
		e.Outcome, e.Latency, e.Sending = "in_flight", nil, &age
		if e.Detail = "there is no answer yet"; len(s.events) > 1 {
			e.Detail = fmt.Sprintf("the first of at most %d events that are sent together: %s", len(s.events), e.Detail)
		}
		found = append(found, e)
	}
	return found
}

// pushInFlight adds an entry that is in no sum: the event's outcome is still to come.
func (t *Tap) pushInFlight(e TapEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hasRoom(e.size) {
		t.queue = append(t.queue, e)
		t.bytes += e.size
		signal(t.ready)
	}
}

// stopLooking is called with the lock held.
func (t *Tap) stopLooking() {
	if t.looks != nil {
		t.looks.Stop()
		t.looks = nil
	}
}
