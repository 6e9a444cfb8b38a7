package sinks

import "time"

// Window is what happened to an endpoint's events within the last minute, quarter of
// an hour or day. The three are counted when they happen, so that they need not add up.
type Window struct{ Routed, Delivered, Dropped uint64 }

// Windows are an endpoint's. Each covers its length, or up to a part of it less.
type Windows struct{ Minute, Quarter, Day Window }

// windowParts is how many parts each window is cut into, and the length of one.
const (
	minuteParts, minutePart   = 12, 5 * time.Second
	quarterParts, quarterPart = 15, time.Minute
	dayParts, dayPart         = 24, time.Hour
)

// windows keeps what Counts were at the begin of each part in which anything
// happened. That, rather than a count for each part, is why an event costs it one
// comparison. It is allocated with the first event: most of thousands of endpoints
// see nothing for long.
type windows struct {
	part int64 // of minutePart, that the latest change was in
	past *pastCounts
}

type pastCounts struct {
	minute  [minuteParts]mark
	quarter [quarterParts]mark
	day     [dayParts]mark
}

// mark is what the counts were before the first change in a part.
type mark struct {
	part   int64 // since the ledger was made, from 1; 0: none
	before Window
}

// roll must be called before each change of the counts, with the time since the
// ledger was made: the wall clock may be set back.
func (w *windows) roll(age time.Duration, c *Counts) {
	part := int64(age/minutePart) + 1
	if part <= w.part {
		return
	}
	w.part = part
	if w.past == nil {
		w.past = new(pastCounts)
	}
	now := Window{c.Routed, c.Delivered, c.DroppedTotal()}
	put(w.past.minute[:], part, now)
	put(w.past.quarter[:], int64(age/quarterPart)+1, now)
	put(w.past.day[:], int64(age/dayPart)+1, now)
}

func put(ring []mark, part int64, before Window) {
	if m := &ring[part%int64(len(ring))]; m.part != part {
		*m = mark{part, before}
	}
}

// of returns the windows at that time.
func (w *windows) of(age time.Duration, c *Counts) (all Windows) {
	if w.past == nil {
		return all
	}
	now := Window{c.Routed, c.Delivered, c.DroppedTotal()}
	all.Minute = since(w.past.minute[:], int64(age/minutePart)+1, now)
	all.Quarter = since(w.past.quarter[:], int64(age/quarterPart)+1, now)
	all.Day = since(w.past.day[:], int64(age/dayPart)+1, now)
	return all
}

// since returns what happened in the part and those before it that the ring has
// room for. The earliest of their marks has what the counts were when they began,
// since nothing happened from there to it.
func since(ring []mark, part int64, now Window) Window {
	first := part - int64(len(ring)) + 1
	var from *mark
	for i := range ring {
		if m := &ring[i]; m.part > 0 && m.part >= first && (from == nil || m.part < from.part) {
			from = m
		}
	}
	if from == nil {
		return Window{}
	}
	return Window{now.Routed - from.before.Routed, now.Delivered - from.before.Delivered, now.Dropped - from.before.Dropped}
}
