package pipeline

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"twinegress/pipeline/catchup"
	"twinegress/sinks"
)

// CatchUp is how far an endpoint is behind what all read together, and how fast it
// catches up. All of it is zero while it is live.
type CatchUp struct {
	Backlog          int64      `json:"backlog" doc:"offsets from its positions to where the shared reading is; 0: it is not behind"`
	BehindSince      *time.Time `json:"behindSince" doc:"null: it is not behind in any partition"`
	BehindReason     string     `json:"behindReason" doc:"why it left the shared reading, in one word"`
	BacklogOldestAt  *time.Time `json:"backlogOldestAt" doc:"when the next event that it gets was put into Kafka; null: not known, or it is not behind"`
	CatchUpPerSecond *float64   `json:"catchUpPerSecond" doc:"events that it gets from its positions in a second; null: not known, or it is not behind"`
	CaughtUpAt       *time.Time `json:"caughtUpAt" doc:"when it will have caught up, at the pace of the last minute or two; null: not known, not behind, or its backlog doesn't become less"`
	FallsBehind      bool       `json:"fallsBehind" doc:"its backlog has not become less for a minute or two, and it is not paused"`
}

const (
	// paceWindow is over how long the pace of catching up is measured, at least.
	paceWindow = time.Minute
	// paceAfter is when something is known of it.
	paceAfter = 5 * time.Second
	// standsAfter is when an endpoint whose positions don't move is not read for any
	// more: the pace of the time before says nothing of the next reading.
	standsAfter = 10 * time.Second
	// farthest is the latest end that is told.
	farthest = 10 * 365 * 24 * time.Hour
	// forgetPaceAfter is when the pace of an endpoint that nobody has asked about is
	// forgotten: it was deleted.
	forgetPaceAfter = 10 * time.Minute
)

// paces remembers how far endpoints were behind. Whoever asks measures: the copies'
// status does every few seconds, so it takes no goroutine and nothing is stored of an
// endpoint that is live.
type paces struct {
	mu    sync.Mutex
	all   map[string]*pace // by endpoint
	swept time.Time
}

// pace is one endpoint's. then is the beginning of the window, next that of the next one.
type pace struct {
	then, next observation
	asked      time.Time
	cursors    int64 // the sum of the positions' cursors; what is given to probe comes back
	movedAt    time.Time
	moves      bool
	works      bool // it neither backs off nor is paused
}

// observation is how far an endpoint was behind at one time.
type observation struct {
	at       time.Time
	caughtUp uint64
	total    int64           // of left
	left     []partitionLeft // in order: a map would take twice the memory
}

type partitionLeft struct {
	topic     string
	partition int32
	offsets   int64
}

func observe(h *sinks.Health, now time.Time) observation {
	o := observation{at: now, caughtUp: h.CaughtUp, left: make([]partitionLeft, len(h.Positions))}
	for i := range h.Positions {
		p := &h.Positions[i]
		o.left[i] = partitionLeft{p.Topic, p.Partition, left(p)}
		o.total += o.left[i].offsets
	}
	slices.SortFunc(o.left, func(a, b partitionLeft) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), strings.Compare(a.topic, b.topic))
	})
	return o
}

// same reports whether the endpoint is behind in the same partitions. It is so nearly
// always, and each needs no look then.
func (o *observation) same(h *sinks.Health) bool {
	if len(o.left) != len(h.Positions) {
		return false
	}
	var sum uint64
	for i := range o.left {
		sum += mark(o.left[i].topic, o.left[i].partition) - mark(h.Positions[i].Topic, h.Positions[i].Partition)
	}
	return sum == 0
}

// mark tells partitions apart, in any order. Topics have different lengths, or else a
// pace is wrong for a minute.
func mark(topic string, partition int32) uint64 {
	x := (uint64(partition)<<16 + uint64(len(topic)) + 1) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

// of returns how many offsets were left in a partition; false if it is not among them.
func (o *observation) of(p *sinks.PositionStatus) (offsets int64, found bool) {
	i, found := slices.BinarySearchFunc(o.left, p, func(a partitionLeft, p *sinks.PositionStatus) int {
		return cmp.Or(cmp.Compare(a.partition, p.Partition), strings.Compare(a.topic, p.Topic))
	})
	if !found {
		return 0, false
	}
	return o.left[i].offsets, true
}

// left is how many offsets there are from a position to the shared reading, which has
// not begun yet where that is 0.
func left(p *sinks.PositionStatus) int64 { return max(0, p.Dispatched-p.Cursor) }

// backlogOf returns how many offsets the endpoint is behind in all, and when the oldest
// event of those was appended; the zero time if that is not known.
func backlogOf(h *sinks.Health) (offsets int64, oldest time.Time) {
	for i := range h.Positions {
		p := &h.Positions[i]
		offsets += left(p)
		if !p.OldestAt.IsZero() && (oldest.IsZero() || p.OldestAt.Before(oldest)) {
			oldest = p.OldestAt
		}
	}
	return offsets, oldest
}

// of returns how far an endpoint is behind.
func (ps *paces) of(id string, h *sinks.Health, now time.Time) (c CatchUp) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if h.BehindSince.IsZero() {
		delete(ps.all, id)
		return c
	}
	cursors := int64(0)
	for i := range h.Positions {
		cursors += h.Positions[i].Cursor
	}
	backlog, oldest := backlogOf(h)
	c.Backlog = backlog
	c.BehindSince, c.BehindReason, c.BacklogOldestAt = known(h.BehindSince), h.BehindReason, known(oldest)
	p := ps.pace(id, h, cursors, now)
	passed := now.Sub(p.then.at)
	if passed < paceAfter {
		return c
	}
	perSecond := float64(h.CaughtUp-p.then.caughtUp) / passed.Seconds()
	c.CatchUpPerSecond = &perSecond
	less, compared := p.less(h, c.Backlog)
	if less > 0 {
		if in := float64(c.Backlog) / float64(less) * passed.Seconds(); in < farthest.Seconds() {
			c.CaughtUpAt = known(now.Add(time.Duration(in * float64(time.Second))))
		}
	}
	c.FallsBehind = compared && less <= 0 && c.Backlog > 0 && passed >= paceWindow && h.State != sinks.StateStopped
	return c
}

// less returns by how much the backlog has become less in the partitions in which the
// endpoint was behind then, and is now; false if there is none. What has come to this
// copy or left it meanwhile is no progress.
func (p *pace) less(h *sinks.Health, backlog int64) (n int64, compared bool) {
	if len(h.Positions) > 0 && p.then.same(h) {
		return p.then.total - backlog, true
	}
	for i := range h.Positions {
		at := &h.Positions[i]
		if before, ok := p.then.of(at); ok {
			n += before - left(at)
			compared = true
		}
	}
	return n, compared
}

// pace returns an endpoint's, with this observation where one is due.
func (ps *paces) pace(id string, h *sinks.Health, cursors int64, now time.Time) *pace {
	p := ps.all[id]
	if p == nil {
		if ps.all == nil {
			ps.all = make(map[string]*pace)
		}
		p = &pace{cursors: cursors}
		ps.all[id] = p
	}
	p.asked = now
	ps.sweep(now)
	moved := cursors != p.cursors
	works := h.State != sinks.StateBackingOff && h.State != sinks.StateProbing && h.State != sinks.StateStopped
	switch {
	case p.then.at.IsZero(), h.CaughtUp < p.then.caughtUp, moved && !p.moves, works && !p.works:
		// The first one, or the first since it is read for: a window that began in a
		// back-off would show one that catches up as one that falls behind.
		p.next = observe(h, now)
		p.then = p.next
	case now.Sub(p.next.at) >= paceWindow:
		p.then, p.next = p.next, observe(h, now)
	}
	if moved {
		p.cursors, p.moves, p.movedAt = cursors, true, now
	} else if now.Sub(p.movedAt) >= standsAfter {
		p.moves = false
	}
	p.works = works
	return p
}

func (ps *paces) sweep(now time.Time) {
	if now.Sub(ps.swept) < forgetPaceAfter {
		return
	}
	ps.swept = now
	for id, p := range ps.all {
		if now.Sub(p.asked) >= forgetPaceAfter {
			delete(ps.all, id)
		}
	}
}

// retention returns how long Kafka keeps the events of each ingest topic; without one
// it is not known, or without end.
func (p *Pipeline) retention() map[string]time.Duration {
	if r := p.recovering(); r != nil {
		return r.Keeper.Retention()
	}
	return nil
}

// leastRetention returns the shortest, in seconds; nil if none is known.
func leastRetention(of map[string]time.Duration) (least *float64) {
	for _, d := range of {
		if s := d.Seconds(); least == nil || s < *least {
			least = &s
		}
	}
	return least
}

// keeping returns how positions are kept.
func (p *Pipeline) keeping() (s catchup.KeeperStatus) {
	if r := p.recovering(); r != nil {
		s = r.Keeper.Status()
	}
	return s
}

// reading returns what reads for endpoints that are behind.
func (p *Pipeline) reading() (s catchup.ReaderStatus) {
	if r := p.recovering(); r != nil {
		if reader := r.read(); reader != nil {
			s = reader.Status()
		}
	}
	return s
}

// recovering returns the recovery once there is an intake; else, or without one, nil.
func (p *Pipeline) recovering() *recovery {
	if p.intake.Load() == nil {
		return nil
	}
	return p.recovery
}
