package sinks

import (
	"fmt"
	"sync"
	"time"

	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

// ledger has one endpoint's counts, its condition and its log. Both sides of the
// equation of Counts change together, under its one mutex, and a snapshot is of one
// moment.
type ledger struct {
	backoff backoff // its locks are taken under mu, never the other way round

	mu            sync.Mutex
	made          time.Time
	counts        Counts
	windows       windows
	lastDelivered time.Time
	condition     condition
	history       history
}

func (l *ledger) init(now time.Time, shared *HistoryBytes, newBreaker func() *breaker.Breaker) {
	l.made, l.condition.since, l.condition.shown = now, now, StateProvisioning
	l.history.all = shared
	l.backoff.init(newBreaker)
}

// routed counts events as pending.
func (l *ledger) routed(n int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows.roll(now.Sub(l.made), &l.counts)
	l.counts.Routed += uint64(n)
	l.counts.Pending += n
}

// sent measures one send, and its size unless it ended before it had one.
func (l *ledger) sent(n int, began time.Time, err *Error) {
	now := time.Now()
	if err == nil || err.isRejection() && n > 0 {
		l.backoff.answered(began)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Sends.Observe(now.Sub(began))
	if n > 0 {
		l.counts.BatchEvents[batchBucket(n)]++
		l.counts.SentEvents += uint64(n)
	}
	if len(l.condition.parts) > 0 { // that others were answered may be what tells it is only a part
		l.note(now)
	}
}

func (l *ledger) delivered(events []*event.Event) {
	now := time.Now()
	ms := now.UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows.roll(now.Sub(l.made), &l.counts)
	l.counts.Delivered += uint64(len(events))
	l.counts.Pending -= len(events)
	l.lastDelivered = now
	for _, ev := range events {
		if ev.Chunk.Reading > 0 {
			continue // how old it is says how long the endpoint was away, and not how fast this is
		}
		l.counts.Latency.Observe(time.Duration(ms-ev.Record.Timestamp) * time.Millisecond)
	}
}

// dropped returns the detail to be kept of the drop: that of a back-off is what
// the endpoint backs off for.
func (l *ledger) dropped(events []*event.Event, reason event.Reason, detail string) string {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(events, reason, now)
	n := uint64(len(events))
	part := l.backoff.parts.of(events[0].Chunk.Partition)
	switch {
	case reason == event.Overflow:
		l.record(WhatOverflow, reason, detail, now).events += n
	case reason == event.Removed:
	case part != nil:
		part.lost[reason] += n
		if part.entry != nil {
			part.entry.events += n
		}
	case l.condition.off != nil:
		l.condition.off.entry.events += n
	}
	switch {
	case reason != event.Backoff:
		return detail
	case part != nil:
		cause, _ := l.backoff.cause(events[0].Chunk.Partition)
		return cause
	}
	return l.condition.backOffErr
}

// deferred counts events that the endpoint catches up on later, when they are routed
// anew.
func (l *ledger) deferred(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Deferred += uint64(n)
	l.counts.Pending -= n
}

// expired counts offsets that Kafka had no more when the endpoint was to catch up on
// them: nobody knows what they were.
func (l *ledger) expired(offsets int64) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows.roll(now.Sub(l.made), &l.counts)
	l.counts.Routed += uint64(offsets)
	l.counts.Dropped[event.Expired] += uint64(offsets)
	l.counts.DroppedTypes[event.Unknown][event.Expired] += uint64(offsets)
}

func (l *ledger) dropLocked(events []*event.Event, reason event.Reason, now time.Time) {
	l.windows.roll(now.Sub(l.made), &l.counts)
	l.counts.Dropped[reason] += uint64(len(events))
	for _, ev := range events {
		l.counts.DroppedTypes[ev.Type][reason]++
	}
	l.counts.Pending -= len(events)
}

// refused counts one event that the service does not take.
func (l *ledger) refused(one []*event.Event, reason event.Reason, detail string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(one, reason, now)
	l.condition.failed(fmt.Sprintf("%s: %s", reason, detail), now)
	row := &l.condition.refused
	if row.n++; row.n == 1 {
		row.since = now
	}
	if !l.condition.refuses { // then it stays what it is said to be
		row.reason, row.detail = reason, detail
	}
	l.record(WhatRefused, reason, detail, now).events++
}

// refuses returns the row of refused events, and whether it is news that it is too long.
func (l *ledger) refuses(now time.Time) (row refusedRow, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.condition
	if news = !c.refuses && c.refused.tooLong(now); news {
		c.refuses = true
		l.note(now)
	}
	return c.refused, news
}

// accepts records that the service took an event again. It returns the row of refused
// ones that this ends, if that looked like the endpoint's fault.
func (l *ledger) accepts() (ended *refusedRow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if row := l.condition.refused; l.condition.refuses {
		ended = &row
	}
	l.condition.acceptsAgain()
	l.note(time.Now())
	return ended
}

// record makes an entry in the log for what has changed.
func (l *ledger) record(what string, reason event.Reason, text string, now time.Time) *entry {
	e := l.history.add(what, reason, text, now)
	l.note(now)
	e.state = l.condition.shown
	return e
}

// begin is record for what lasts.
func (l *ledger) begin(what string, reason event.Reason, text string, now time.Time) *entry {
	e := l.history.begin(what, reason, text, now)
	l.note(now)
	e.state = l.condition.shown
	return e
}

// fallsBehind records that the endpoint has left the shared reading, and caughtUp that
// it has joined it again, after so many events.
func (l *ledger) fallsBehind(why string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.condition.behind = l.begin(WhatBehind, 0, why, now)
	l.note(now)
}

func (l *ledger) caughtUp(events uint64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.condition.behind.end(now)
	l.condition.behind.events += events
	l.condition.behind = nil
	l.note(now)
}

// pause records whether the endpoint is enabled.
func (l *ledger) pause(paused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if paused == l.condition.paused {
		return
	}
	l.condition.paused = paused
	what := WhatPaused
	if !paused {
		what = WhatResumed
	}
	l.record(what, 0, "", time.Now())
}

func (l *ledger) snapshot(now time.Time) (Counts, Windows, Health) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts, l.windows.of(now.Sub(l.made), &l.counts), l.healthLocked(now)
}

func (l *ledger) health() Health {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.healthLocked(time.Now())
}

func (l *ledger) log() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.history.list(time.Now())
}

// forget gives back what the log of a removed endpoint takes.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.release()
}
