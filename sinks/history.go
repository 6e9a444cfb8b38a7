package sinks

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"twinegress/internal/event"
)

// What an entry of an endpoint's log is about.
const (
	WhatReady      = "ready"       // the first connection worked
	WhatBackingOff = "backing_off" // until it worked again
	WhatPart       = "partition_backing_off"
	WhatThrottled  = "throttled" // until the wait was over
	WhatRefused    = "refused"   // events, one by one
	WhatKeyRefused = "key_refused"
	WhatOverflow   = "overflow"
	WhatHoldsBack  = "holds_back"
	WhatChanged    = "changed"
	WhatRetried    = "retried"
	WhatBehind     = "behind" // until it had caught up; the events are those that it caught up on
	WhatPaused     = "paused"
	WhatResumed    = "resumed"
	WhatDeleting   = "deleting"
	WhatStopped    = "stopped"
)

const (
	historyEntries = 100
	// historyText is how much of the service's words an entry keeps, in bytes.
	historyText = 300
	// foldAmong and foldWithin say which entries a repeat is looked for among:
	// what alternates, such as two partitions that flap, is folded too, and what
	// comes once a day has a line each day.
	foldAmong  = 16
	foldWithin = time.Hour
	// Once the logs of all endpoints take sharedHistory, each one that grows keeps
	// to ownHistory by giving up its oldest entries: 20,000 endpoints that all fail in
	// ever other words keep to 72 MiB.
	sharedHistory = 32 << 20
	ownHistory    = 2 << 10
	entryCost     = 112 // of an entry without its text
)

// Entry is one change of an endpoint's state, or a failure that took place again and
// again.
type Entry struct {
	At      time.Time // when it began, at first
	LastAt  time.Time // when it last began or ended
	What    string
	State   State  // as it was then
	Reason  string // in one word, if something was wrong
	Text    string // the service's words
	Times   int
	Events  uint64 // that it cost
	Lasted  time.Duration
	Ongoing bool
}

type entry struct {
	at, last time.Time
	since    time.Time // when it began, while it lasts; else zero
	lasted   time.Duration
	what     string
	state    State
	reason   string
	text     string
	events   uint64
	times    int
}

// HistoryBytes is what the logs of all endpoints take.
type HistoryBytes struct{ used atomic.Int64 }

// history is an endpoint's log. The ledger's lock covers it.
type history struct {
	entries []*entry // the one that something was last heard of is the last
	own     int64
	all     *HistoryBytes // nil: no bound but that of entries
}

// add records that something began, or happened. text is compared without what
// differs from one time to the next, such as a tracking id.
func (h *history) add(what string, reason event.Reason, text string, now time.Time) *entry {
	word := ""
	if reason != 0 {
		word = reason.String()
	}
	for i := len(h.entries) - 1; i >= max(0, len(h.entries)-foldAmong); i-- {
		e := h.entries[i]
		if e.what != what || e.reason != word || now.Sub(e.last) > foldWithin || !alike(e.text, text) {
			continue
		}
		copy(h.entries[i:], h.entries[i+1:])
		h.entries[len(h.entries)-1] = e
		e.last, e.times = now, e.times+1
		return e
	}
	e := &entry{at: now, last: now, what: what, reason: word, text: cut(text), times: 1}
	h.account(entryCost + int64(len(e.text)))
	h.entries = append(h.entries, e)
	for len(h.entries) > 1 && (len(h.entries) > historyEntries || h.crowded()) {
		h.account(-entryCost - int64(len(h.entries[0].text)))
		h.entries = slices.Delete(h.entries, 0, 1)
	}
	return e
}

func (h *history) crowded() bool {
	return h.own > ownHistory && h.all != nil && h.all.used.Load() > sharedHistory
}

func (h *history) account(bytes int64) {
	h.own += bytes
	if h.all != nil {
		h.all.used.Add(bytes)
	}
}

// release gives back what the log takes, of an endpoint that is no more.
func (h *history) release() {
	h.account(-h.own)
	h.entries, h.all = nil, nil // a send that ends late may still add one
}

// begin is add for what lasts until end.
func (h *history) begin(what string, reason event.Reason, text string, now time.Time) *entry {
	e := h.add(what, reason, text, now)
	if e.since.IsZero() {
		e.since = now
	}
	return e
}

func (e *entry) end(now time.Time) {
	if e != nil && !e.since.IsZero() {
		e.lasted += now.Sub(e.since)
		e.last, e.since = now, time.Time{}
	}
}

func (h *history) list(now time.Time) []Entry {
	list := make([]Entry, len(h.entries))
	for i, e := range h.entries {
		list[i] = Entry{
			At: e.at, LastAt: e.last, What: e.what, State: e.state, Reason: e.reason, Text: e.text,
			Times: e.times, Events: e.events, Lasted: e.lasted, Ongoing: !e.since.IsZero(),
		}
		if list[i].Ongoing {
			list[i].Lasted += now.Sub(e.since)
		}
	}
	return list
}

// cut returns a text that an entry keeps: the rest of a longer one isn't kept with it.
func cut(text string) string {
	if end := cutAt(text); end < len(text) {
		return strings.Clone(text[:end]) + "…"
	}
	return text
}

func cutAt(text string) int {
	if len(text) <= historyText {
		return len(text)
	}
	end := historyText - len("…")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return end
}

// alike reports whether two texts are the same but for numbers and ids in them, as
// far as an entry keeps them.
func alike(kept, text string) bool {
	kept, text = strings.TrimSuffix(kept, "…"), text[:cutAt(text)]
	i, j := 0, 0
	for {
		for i < len(kept) && varies(kept[i]) {
			i++
		}
		for j < len(text) && varies(text[j]) {
			j++
		}
		switch {
		case i == len(kept) || j == len(text):
			return i == len(kept) && j == len(text)
		case kept[i] != text[j]:
			return false
		}
		i, j = i+1, j+1
	}
}

// varies reports whether a byte may be of a number, a UUID or a hash.
func varies(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '-'
}
